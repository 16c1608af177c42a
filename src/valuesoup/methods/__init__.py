"""Methods: each a short function that names its three choices, and the registry that finds them."""

from valuesoup.methods.choices import All, Consistent, Independent, Method, Simplex, Single, Thresholds
from valuesoup.methods.registry import COMPARED, Preset, known_methods, method, preset

__all__ = [
    "COMPARED",
    "All",
    "Consistent",
    "Independent",
    "Method",
    "Preset",
    "Simplex",
    "Single",
    "Thresholds",
    "known_methods",
    "method",
    "preset",
]
