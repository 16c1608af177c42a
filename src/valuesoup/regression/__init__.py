"""The base-model check: what alignment cost, by perplexity on held-out text and by a command of the user's."""

from valuesoup.regression.checking import check
from valuesoup.regression.kept import checked_run

__all__ = ["check", "checked_run"]
