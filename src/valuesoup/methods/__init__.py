"""Methods: each a short function that names its three choices, and the registry that finds them."""

from valuesoup.methods.choices import All, Consistent, Independent, Method, Simplex, Single, Thresholds
from valuesoup.methods.registry import Preset, known_methods, method, preset

__all__ = [
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
