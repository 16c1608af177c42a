"""Uncertainty of the results: a paired bootstrap over prompts, and Wilson intervals for win rates.

K is the number of candidates, P of prompts and n of values. Prompts are resampled, and every candidate is averaged
over the same resample, so that differences between candidates are paired. Intervals are percentile intervals
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError
from valuesoup.evaluation.frontier import hypervolume, normalised_hypervolume, pareto

# Floats that one block of resampled means may hold (64 MiB).
_BLOCK = 8_388_608


class Intervals(NamedTuple):
    """Means with their bootstrap intervals, each (K, n), in the scores' units."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Interval(NamedTuple):
    """One figure with the two ends of its interval."""

    value: float
    low: float
    high: float


def resamples(prompts: int, times: int = 1000, seed: int = 0) -> NDArray[np.int64]:
    """Draw the bootstrap resamples that all candidates of a report share, (times, prompts) prompt positions.

    Raises:
        UserError: ``prompts`` or ``times`` is below 1.
    """
    if prompts < 1 or times < 1:
        raise UserError(f"A bootstrap needs at least one prompt and one resample, not {prompts} and {times}.")
    return np.random.default_rng(seed).integers(0, prompts, size=(times, prompts), dtype=np.int64)


def resampled_means(scores: ArrayLike, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean scores of every candidate on every resample, (times, K, n).

    Candidates with the same scores of a value on all prompts get exactly the same means of it, so that a
    duplicate is never dominated by its twin through rounding.

    Args:
        scores: (K, P, n) scores per prompt.
        draws: (times, P) from `resamples`.

    Raises:
        UserError: The shapes disagree, or a score is missing (NaN) or infinite (names candidate and prompt).
    """
    table = _scores(scores)
    return _means(table, _counts(draws, table.shape[1]))


def mean_intervals(scores: ArrayLike, draws: NDArray[np.int64], level: float = 0.95) -> Intervals:
    """Return the mean over prompts of every candidate and value with its bootstrap interval, each (K, n).

    Args:
        scores: (K, P, n) scores per prompt.
        draws: (times, P) from `resamples`.
        level: Coverage of the interval, in (0, 1).

    Raises:
        UserError: As `resampled_means`, or ``level`` is outside (0, 1).
    """
    table = _scores(scores)
    counts = _counts(draws, table.shape[1])
    ends = _ends(level)
    low, high = np.empty((2, table.shape[0], table.shape[2]))
    step = max(1, _BLOCK // (len(counts) * table.shape[2]))
    for start in range(0, len(table), step):
        part = slice(start, start + step)
        low[part], high[part] = np.quantile(_means(table[part], counts), ends, axis=0)
    return Intervals(table.mean(axis=1), low, high)


def frontier_probability(scores: ArrayLike, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return, for each candidate, the share of resamples in which no other candidate dominates it, (K,).

    Args:
        scores: (K, P, n) scores per prompt.
        draws: (times, P) from `resamples`.

    Raises:
        UserError: As `resampled_means`.
    """
    table = _scores(scores)
    hits = np.zeros(len(table))
    for block in _blocks(table, draws):
        for means in block:
            hits += pareto(means)
    return hits / len(draws)


def hypervolume_interval(
    scores: ArrayLike,
    draws: NDArray[np.int64],
    reference: ArrayLike,
    best: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the hypervolume of a method's candidates with its bootstrap interval.

    Args:
        scores: (K, P, n) scores per prompt of the method's candidates.
        draws: (times, P) from `resamples`, shared by all methods.
        reference: (n,) reference point, the same for all methods and resamples.
        best: (n,) best pooled score of each value: the volume is then normalised to [0, 1] by the box.
        level: Coverage of the interval, in (0, 1).

    Raises:
        UserError: As `resampled_means`, `frontier.hypervolume` and `frontier.normalised_hypervolume`.
    """
    ends = _ends(level)
    table = _scores(scores)
    volume = _measure(reference, best)
    low, high = np.quantile(_volumes(table, draws, volume), ends)
    return Interval(volume(table.mean(axis=1)), float(low), float(high))


def hypervolume_difference(
    first: ArrayLike,
    second: ArrayLike,
    draws: NDArray[np.int64],
    reference: ArrayLike,
    best: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the hypervolume of ``first`` minus that of ``second`` with its paired bootstrap interval.

    Args:
        first: (K1, P, n) scores per prompt of one method's candidates.
        second: (K2, P, n) scores of another's, on the same prompts.
        draws: (times, P) from `resamples`; both methods are averaged over the same resample.
        reference: (n,) reference point.
        best: (n,) best pooled score of each value, for normalised volumes.
        level: Coverage of the interval, in (0, 1).

    Raises:
        UserError: As `hypervolume_interval`.
    """
    ends = _ends(level)
    one, other = _scores(first), _scores(second)
    volume = _measure(reference, best)
    differences = _volumes(one, draws, volume) - _volumes(other, draws, volume)
    low, high = np.quantile(differences, ends)
    return Interval(volume(one.mean(axis=1)) - volume(other.mean(axis=1)), float(low), float(high))


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Return a share with its Wilson score interval (Wilson, JASA 22, 1927); no trial gives (NaN, 0, 1).

    Args:
        successes: Number of wins; a tie may count one half.
        trials: Number of comparisons.
        level: Coverage of the interval, in (0, 1).

    Raises:
        UserError: ``successes`` is not between 0 and ``trials``, or ``level`` is outside (0, 1).
    """
    if not 0 <= successes <= trials:
        raise UserError(f"{successes} successes in {trials} trials: successes must lie between 0 and the trials.")
    z = NormalDist().inv_cdf(_ends(level)[1])
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    # At a share of 0 or 1 the interval ends exactly there; rounding must not exclude it.
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 3 or 0 in table.shape:
        raise UserError(
            f"The scores have shape {table.shape}; they must be (candidates, prompts, values), at least one of each."
        )
    if not np.isfinite(table).all():
        candidate, prompt, value = (int(index) for index in np.argwhere(~np.isfinite(table))[0])
        raise UserError(
            f"The score of candidate {candidate} on prompt {prompt} for value {value} is "
            f"{table[candidate, prompt, value]}; every candidate needs a finite score on every prompt."
        )
    return table


def _counts(draws: NDArray[np.int64], prompts: int) -> NDArray[np.float64]:
    """Return how often each resample holds each prompt, (times, P)."""
    if draws.ndim != 2 or draws.shape[1] != prompts:
        raise UserError(f"The resamples have shape {draws.shape}; {prompts} prompts need (times, {prompts}).")
    offsets = np.arange(len(draws))[:, None] * prompts
    return np.bincount((draws + offsets).ravel(), minlength=draws.size).reshape(draws.shape).astype(np.float64)


def _means(table: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    means = np.empty((len(counts), len(table), table.shape[2]))
    for value in range(table.shape[2]):
        # A matrix product may round equal columns differently, so each distinct one is multiplied once.
        distinct, position = np.unique(table[:, :, value], axis=0, return_inverse=True)
        means[:, :, value] = (counts @ distinct.T)[:, position.ravel()] / table.shape[1]
    return means


def _blocks(table: NDArray[np.float64], draws: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield the resampled means of all candidates, (some times, K, n), in the order of the resamples."""
    counts = _counts(draws, table.shape[1])
    step = max(1, _BLOCK // (len(table) * table.shape[2]))
    for start in range(0, len(counts), step):
        yield _means(table, counts[start : start + step])


def _measure(reference: ArrayLike, best: ArrayLike | None) -> Callable[[NDArray[np.float64]], float]:
    if best is None:
        return lambda means: hypervolume(means, reference)
    return lambda means: normalised_hypervolume(means, reference, best)


def _volumes(
    table: NDArray[np.float64], draws: NDArray[np.int64], volume: Callable[[NDArray[np.float64]], float]
) -> NDArray[np.float64]:
    return np.array([volume(means) for block in _blocks(table, draws) for means in block])


def _ends(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise UserError(f"The level of an interval is {level}; it must lie between 0 and 1, such as 0.95.")
    return (1 - level) / 2, (1 + level) / 2
