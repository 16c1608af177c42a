"""Choosing one candidate of a frontier: constraints, a weighted preference, or the knee.

Higher scores are better everywhere; K is the number of candidates and n the number of values. "Box units" are those of
the run's box: 0 is its reference point and 1 the best score of any candidate, per value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError
from valuesoup.evaluation.frontier import pareto

FLAT = 1e-9
"""Smaller than this, a spread in box units is none."""


class Constraint(NamedTuple):
    """A bound on one value: its score must be at least, or at most, ``bound``."""

    value: int
    bound: float
    at_least: bool


def to_box(scores: ArrayLike, reference: ArrayLike, best: ArrayLike) -> NDArray[np.float64]:
    """Return scores in box units, the shape of ``scores``: 0 at the reference point, 1 at the best.

    Args:
        scores: (…, n).
        reference: (n,) lower corner of the box.
        best: (n,) upper corner; where it equals the lower one, the value's unit stays the score's own.
    """
    low, high = (np.asarray(corner, dtype=np.float64) for corner in (reference, best))
    return np.asarray((np.asarray(scores, dtype=np.float64) - low) / _widths(low, high), dtype=np.float64)


def from_box(scores: ArrayLike, reference: ArrayLike, best: ArrayLike) -> NDArray[np.float64]:
    """Return scores given in box units in their own; the inverse of :func:`to_box`."""
    low, high = (np.asarray(corner, dtype=np.float64) for corner in (reference, best))
    return np.asarray(np.asarray(scores, dtype=np.float64) * _widths(low, high) + low, dtype=np.float64)


def shortfalls(low: ArrayLike, high: ArrayLike, constraints: Sequence[Constraint]) -> NDArray[np.float64]:
    """Return how far each candidate is from meeting all constraints, (K,), 0 where it meets them.

    The distance is Euclidean over the constraints, in the unit of the scores.

    Args:
        low: (K, n) what must be at least a lower bound: the means, or the lower ends of intervals to be sure.
        high: (K, n) what must be at most an upper bound: the means, or the upper ends.
        constraints: What must hold.
    """
    lower, upper = (np.atleast_2d(np.asarray(of, dtype=np.float64)) for of in (low, high))
    missing = [
        np.maximum(rule.bound - lower[:, rule.value], 0.0)
        if rule.at_least
        else np.maximum(upper[:, rule.value] - rule.bound, 0.0)
        for rule in constraints
    ]
    return np.sqrt(np.square(missing).sum(axis=0)) if missing else np.zeros(len(lower))


def weighted(scores: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return Σ_i w_i·score_i of each candidate, (K,), with the weights divided by their sum.

    Args:
        scores: (K, n) in box units, so that a weight says how much a value counts, not how its reward is scaled.
        weights: (n,) 0 or more.

    Raises:
        UserError: A weight is negative or not finite, or all are zero.
    """
    row = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(row).all() or (row < 0).any() or not row.any():
        raise UserError(f"preference weights must be 0 or more, and one at least above 0, not {row.tolist()}.")
    return np.asarray(np.asarray(scores, dtype=np.float64) @ (row / row.sum()), dtype=np.float64)


class Knee(NamedTuple):
    """How the candidates stand to the plane through the frontier's extremes.

    Attributes:
        distance: (K,) in front of the plane, in units of the frontier's range; negative behind it.
        between: (K,) bool, True for the candidates of the frontier that are no extreme.
    """

    distance: NDArray[np.float64]
    between: NDArray[np.bool_]


def knee(scores: ArrayLike) -> Knee:
    """Return how far each candidate bulges out of the frontier; the knee, between the extremes, does so most.

    The extremes are the candidates that are best on one value each (the better one on the others, on ties), and the
    distance is taken along the normal of the plane through them (Das, "On characterizing the knee of the Pareto curve
    based on normal-boundary intersection", Structural Optimization 18, 1999). For two values the plane is the chord
    between the two ends. Where the extremes span no plane, or its normal does not point up on every value, the
    direction is the normal-boundary intersection's own, (1, …, 1). A largest distance of 0 or less says that the
    frontier has no knee.

    Args:
        scores: (K, n) finite, K at least 1, in any units: the frontier's distances do not depend on them.
    """
    points = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    front = pareto(points)
    low, spread = points[front].min(axis=0), np.ptp(points[front], axis=0)
    spread[spread < FLAT] = 1.0
    units = (points - low) / spread
    kept = units[front]
    extremes = np.array([kept[np.lexsort((kept.sum(axis=1), kept[:, value]))[-1]] for value in range(kept.shape[1])])
    distance = (units - extremes.mean(axis=0)) @ _normal(extremes)
    is_extreme = (units[:, None] == extremes[None]).all(axis=2).any(axis=1)
    return Knee(np.asarray(distance, dtype=np.float64), np.asarray(front & ~is_extreme, dtype=np.bool_))


def _normal(extremes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit normal, pointing up, of the plane through n points of n coordinates."""
    count = len(extremes)
    _, sizes, directions = np.linalg.svd(extremes[1:] - extremes[0], full_matrices=True)
    normal = directions[-1] * np.sign(directions[-1].sum() or 1.0)
    if int((sizes > FLAT).sum()) < count - 1 or (normal < -FLAT).any():
        return np.full(count, 1.0 / math.sqrt(count))
    return np.asarray(normal, dtype=np.float64)


def bounds(named: Mapping[str, float], values: Sequence[str], *, at_least: bool) -> list[Constraint]:
    """Return bounds by name as constraints by place."""
    return [Constraint(list(values).index(name), float(bound), at_least) for name, bound in named.items()]


def _widths(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(high - low > 0, high - low, 1.0)
