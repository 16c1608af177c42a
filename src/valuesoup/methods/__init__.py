"""Methods: each a short function that names its three choices, and the registry that finds them."""

from valuesoup.methods.choices import (
    All,
    Consistent,
    Cube,
    Decorrelated,
    Expanded,
    Independent,
    Margin,
    Mixed,
    Points,
    Sequential,
    Simplex,
    Single,
    Sobol,
    Thresholds,
    Weighted,
)
from valuesoup.methods.method import Method
from valuesoup.methods.registry import COMPARED, Preset, known_methods, method, preset

__all__ = [
    "COMPARED",
    "All",
    "Consistent",
    "Cube",
    "Decorrelated",
    "Expanded",
    "Independent",
    "Margin",
    "Method",
    "Mixed",
    "Points",
    "Preset",
    "Sequential",
    "Simplex",
    "Single",
    "Sobol",
    "Thresholds",
    "Weighted",
    "known_methods",
    "method",
    "preset",
]
