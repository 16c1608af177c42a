"""Racing: which candidates need no more prompts because they have clearly lost.

Scores are (P, K, n) arrays of prompts, candidates and values, NaN where a candidate has not answered a prompt, or a
value is not measured on it. Higher is better.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST = 8
"""Prompts that two candidates must both have answered before one is said to beat the other."""


def parts(prompts: int, first: int, growth: float) -> list[int]:
    """Return how many prompts have been answered after each part of a race: ``first``, and ``growth`` times more.

    The last part takes what is left, so that none is shorter than the one before it by rounding alone.

    Args:
        prompts: In all, at least 1.
        first: Prompts of the first part.
        growth: Prompts after a part, divided by those before it; above 1.
    """
    ends = [min(first, prompts)]
    while ends[-1] < prompts:
        ends.append(min(prompts, max(ends[-1] + 1, round(growth * ends[-1]))))
    return ends


def clearly_beaten(scores: Array, rivals: NDArray[np.bool_], miss: float) -> NDArray[np.int64]:
    """Return for each candidate the place of a rival that clearly dominates it, (K,); -1 where there is none.

    Clearly: on the prompts that both have answered, the mean of the paired difference to the rival is below zero in
    *every* value by a one-sided Student test at level ``miss`` / (number of other rivals). A candidate of the true
    frontier is, against each rival, at least as good in one value; to be beaten by that rival its test in that value
    must err, which happens with probability ``miss`` / rivals at most, whatever the other values do (an
    intersection-union test; Berger, Technometrics 24, 1982). Over all rivals it is ``miss`` at most, by Bonferroni.

    Rewards of few different scores give differences that are equal by chance, of variance 0 and a certain look. So
    nobody is beaten on fewer than ``LEAST`` common prompts, and the variance of a difference is at least what one
    changed answer would make: after m prompts that agree, Laplace's rule of succession expects the next to disagree
    with probability q = 1 / (m + 2). Where it disagrees by D, the variance is q (1 - q) D² = D² (m + 1) / (m + 2)²;
    D² is the mean square of the difference between two answers to one prompt, of all that differ at all.

    Args:
        scores: (P, K, n).
        rivals: (K,), who may beat others.
        miss: The greatest probability with which a candidate of the true frontier is beaten.
    """
    from scipy.stats import t

    answered = np.isfinite(scores)
    # Differences between candidates are what counts; without the prompts' own level their squares lose no digits.
    with np.errstate(invalid="ignore"):
        level = np.where(answered, scores, 0.0).sum(axis=1) / np.maximum(answered.sum(axis=1), 1)
    heights = np.where(answered, scores - level[:, None], 0.0)
    candidates = scores.shape[1]
    beaten = np.ones((candidates, candidates), dtype=np.bool_)
    for value in range(scores.shape[2]):
        known, high = answered[:, :, value].astype(np.float64), heights[:, :, value]
        common = known.T @ known
        sums = high.T @ known - known.T @ high
        squares = np.square(high).T @ known + known.T @ np.square(high) - 2 * high.T @ high
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums / common
            variance = np.maximum(squares / common - np.square(mean), 0.0) * common / (common - 1)
            variance = np.maximum(variance, _step(high, known) * (common + 1) / np.square(common + 2))
            limit = t.ppf(1 - miss / max(int(rivals.sum()) - 1, 1), np.maximum(common - 1, 1))
            beaten &= (common >= LEAST) & (mean + limit * np.sqrt(variance / common) < -1e-12)
    beaten &= rivals & ~np.eye(candidates, dtype=np.bool_)
    return np.where(beaten.any(axis=1), beaten.argmax(axis=1), -1)


def _step(heights: Array, known: Array) -> float:
    """Return the mean square of the difference between two answers to a prompt, of all such that are not equal.

    Args:
        heights: (P, K) scores, 0 where there is none.
        known: (P, K), 1 where there is a score, else 0.
    """
    squares = unequal = 0.0
    for scores, answered in zip(heights, known > 0, strict=True):
        count, (_, alike) = answered.sum(), np.unique(scores[answered], return_counts=True)
        squares += count * np.square(scores).sum() - scores.sum() ** 2
        unequal += (count**2 - np.square(alike).sum()) / 2
    return float(squares / unequal) if unequal else 0.0


def clearly_below(shares: Array, bound: float, miss: float) -> NDArray[np.bool_]:
    """Return which candidates' share of sound answers is clearly below a bound, (K,).

    Clearly: so few sound answers have probability ``miss`` at most where the share is the bound (exact binomial test).

    Args:
        shares: (P, K) soundness of each answer in [0, 1], NaN where there is none.
        bound: In [0, 1].
        miss: The greatest probability with which a candidate at the bound is called below it.
    """
    from scipy.stats import binom

    answers = np.isfinite(shares).sum(axis=0)
    sound = np.ceil(np.nansum(shares, axis=0) - 1e-9)
    return np.asarray((answers > 0) & (binom.cdf(sound, answers, bound) <= miss))
