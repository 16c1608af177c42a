"""The Pareto frontier and its hypervolume: which candidates are worth keeping, and how good a set of them is.

Higher scores are better everywhere; K is the number of candidates and n the number of values. The algorithms
are moocore's.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError

EXACT = {5: 20_000, 6: 1_500, 7: 400, 8: 150, 9: 100}
"""Points of a frontier up to which its hypervolume is exact, by n: seconds of work. For n up to 4 it always is."""

_EXACT_BEYOND = 60  # for n of 10 or more
_PROJECTIONS = 2_000_000_000  # of points on directions: about three seconds
_DIRECTIONS = (20_000, 1_000_000)


def pareto(scores: ArrayLike) -> NDArray[np.bool_]:
    """Return which candidates no other candidate dominates, (K,) bool (VC-Soup, arXiv:2603.18113, Eq. 5).

    A candidate dominates another when it is at least as good on every value and better on one; so duplicates of
    a non-dominated candidate all stay.

    Args:
        scores: (K, n) mean score of each candidate on each value.

    Raises:
        UserError: The scores are not a (K, n) table of finite numbers (names the candidate).
    """
    points = _points(scores)
    if not len(points):
        return np.zeros(0, dtype=np.bool_)
    if points.shape[1] == 1:
        return np.asarray(points[:, 0] == points.max(), dtype=np.bool_)
    import moocore

    return np.asarray(moocore.is_nondominated(points, maximise=True, keep_weakly=True), dtype=np.bool_)


def reference_point(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the default reference of the hypervolume, (n,): worst score minus 10 % of the range, per value.

    One reference serves all methods of a report, so pass the scores of all of them together. A value on which all
    candidates score the same has no range; 1 stands in for it.

    Args:
        scores: (K, n) pooled mean scores of all candidates, K at least 1.

    Raises:
        UserError: The scores are not a table of finite numbers, or there is no candidate.
    """
    points = _points(scores)
    if not len(points):
        raise UserError("The reference point of a hypervolume needs at least one candidate.")
    worst = points.min(axis=0)
    spread = points.max(axis=0) - worst
    spread[spread == 0] = 1.0
    return np.asarray(worst - 0.1 * spread, dtype=np.float64)


def hypervolume(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that the candidates dominate above ``reference``, in the product of the scores' units.

    Candidates that are not above the reference on every value add nothing; no candidate gives 0.

    It is exact where that takes seconds: for n up to 4, and for frontiers of up to `EXACT` candidates. Beyond, where
    exact algorithms take hours, it is the mean over a fixed set of 20,000 to 1,000,000 directions of how far the
    frontier reaches (the method Rphi-FWE+ of moocore), and the same each time. Where both were computed it was within
    0.1 % of the exact volume for up to 2,000 candidates; for 100,000, of few directions, expect 0.05 % for n = 5 and
    1.4 % for n = 10 (``docs/scale.md``).

    Args:
        scores: (K, n) mean scores.
        reference: (n,) point that is worse than all candidates that should count.

    Raises:
        UserError: The scores or the reference are not finite numbers, or their shapes disagree.
    """
    points = _points(scores)
    lowest = _point(reference, points.shape[1], "reference")
    return _volume(points - lowest)


def normalised_hypervolume(scores: ArrayLike, reference: ArrayLike, best: ArrayLike) -> float:
    """Return the hypervolume as a share of the box from ``reference`` to ``best``.

    It is at most 1 for scores within the box. Resampled means may pass its upper corner; cutting them there would
    pull every interval of a leading method down.

    Args:
        scores: (K, n) mean scores.
        reference: (n,) lower corner of the box, see `reference_point`.
        best: (n,) upper corner: the best pooled score of each value.

    Raises:
        UserError: A score or a corner is not finite, the shapes disagree, or ``best`` is not above ``reference``.
    """
    points = _points(scores)
    lowest = _point(reference, points.shape[1], "reference")
    highest = _point(best, points.shape[1], "best")
    if not (highest > lowest).all():
        raise UserError(
            f"The best point {highest.tolist()} of a normalised hypervolume must be above its reference "
            f"{lowest.tolist()} on every value."
        )
    return _volume((points - lowest) / (highest - lowest))


def _volume(heights: NDArray[np.float64]) -> float:
    """Return the hypervolume above the origin."""
    inside = heights[(heights > 0).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(inside.max())
    import moocore

    origin = np.zeros(inside.shape[1])
    exact = EXACT.get(len(origin), _EXACT_BEYOND) if len(origin) > 4 else len(inside)
    if len(inside) > exact:
        inside = inside[moocore.is_nondominated(inside, maximise=True)]
    if len(inside) <= exact:
        return float(moocore.hypervolume(inside, ref=origin, maximise=True))
    # Each value by its best, or the directions of the value with the largest scores would count for all.
    best = inside.max(axis=0)
    directions = int(np.clip(_PROJECTIONS // len(inside), *_DIRECTIONS))
    share = moocore.hv_approx(inside / best, ref=origin, maximise=True, nsamples=directions, method="Rphi-FWE+")
    return float(share * np.prod(best))


def _points(scores: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(scores, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise UserError(
            f"The scores have shape {points.shape}; they must be a table of (candidates, values) with at least one "
            "value."
        )
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise UserError(f"The scores of candidate {row} are {points[row].tolist()}; every score must be finite.")
    return points


def _point(point: ArrayLike, values: int, name: str) -> NDArray[np.float64]:
    corner = np.asarray(point, dtype=np.float64)
    if corner.shape != (values,) or not np.isfinite(corner).all():
        raise UserError(f"The {name} point {corner.tolist()} must be {values} finite number(s), one per value.")
    return corner
