"""How the rewards of two values go together over answers, with an interval over what was asked."""

import numpy as np
from numpy.typing import NDArray

from valuesoup.evaluation.statistics import Interval


def correlation_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], draws: NDArray[np.int64], level: float
) -> Interval | None:
    """Return Pearson's correlation of two rewards over all answers, with its percentile interval over prompts.

    Prompts are resampled with all their answers, since answers to one prompt are alike.

    Args:
        first: (prompts, answers) of one value.
        second: The same answers under the other value.
        draws: (resamples, prompts) places of prompts.
        level: Of the interval.

    Returns:
        None where one of the rewards is the same for all answers, or on every resample.
    """
    # Centred first: sums of squares of numbers far from zero would lose digits.
    x, y = (table - table.mean() for table in (first, second))
    sums = np.stack([np.full(len(x), float(x.shape[1])), *(t.sum(1) for t in (x, y, x * x, y * y, x * y))], axis=1)
    whole = _correlation(sums.sum(0)[None])[0]
    if not np.isfinite(whole):
        return None
    times = np.stack([np.bincount(draw, minlength=len(x)) for draw in draws])
    each = _correlation(times @ sums)
    known = each[np.isfinite(each)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(whole), float(min(low, whole)), float(max(high, whole)))


def _correlation(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation from count, Σx, Σy, Σx², Σy², Σxy, (rows, 6); NaN where one does not vary."""
    count, x, y, xx, yy, xy = sums.T
    spreads = np.maximum(xx - x * x / count, 0.0), np.maximum(yy - y * y / count, 0.0)
    flat = (spreads[0] <= 1e-12 * xx) | (spreads[1] <= 1e-12 * yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (xy - x * y / count) / np.sqrt(spreads[0] * spreads[1])
    return np.where(flat, np.nan, np.clip(found, -1.0, 1.0))
