"""Evaluation: what candidates score, which of them are worth keeping, and how sure that is."""

from valuesoup.evaluation.frontier import hypervolume, normalised_hypervolume, pareto, reference_point
from valuesoup.evaluation.statistics import (
    Interval,
    Intervals,
    frontier_probability,
    hypervolume_difference,
    hypervolume_interval,
    mean_intervals,
    resampled_means,
    resamples,
    wilson_interval,
)

__all__ = [
    "Interval",
    "Intervals",
    "frontier_probability",
    "hypervolume",
    "hypervolume_difference",
    "hypervolume_interval",
    "mean_intervals",
    "normalised_hypervolume",
    "pareto",
    "reference_point",
    "resampled_means",
    "resamples",
    "wilson_interval",
]
