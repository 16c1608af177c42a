"""What a configuration would need of this machine, and what is missing, said before anything long starts."""

from valuesoup.doctor.examine import examine
from valuesoup.doctor.report import Report

__all__ = ["Report", "examine"]
