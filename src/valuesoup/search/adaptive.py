"""Adaptive search: which candidates of a grid to measure next, given how those measured so far have scored."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def start_size(n: int) -> int:
    """Return with how many candidates a search over n weights starts: its n corners, and n + 1 spread between them."""
    return 2 * n + 1


def start(points: ArrayLike, count: int) -> list[int]:
    """Return the places of a start that fills the space: the corners, then always the point farthest from all so far.

    The corner of a weight is the point where it is largest and the others are smallest: on a simplex the one-hot row.

    Args:
        points: (K, d) weights of the candidates.
        count: How many; all where there are no more.
    """
    grid = np.asarray(points, dtype=np.float64)
    places: list[int] = []
    for axis in range(grid.shape[1]):
        others = np.abs(np.delete(grid, axis, axis=1)).sum(axis=1)
        corner = int(np.lexsort((others, -grid[:, axis]))[0])
        if corner not in places and len(places) < count:
            places.append(corner)
    nearest = np.full(len(grid), np.inf)
    for place in places:
        nearest = np.minimum(nearest, np.square(grid - grid[place]).sum(axis=1))
    while len(places) < min(count, len(grid)):
        places.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(grid - grid[places[-1]]).sum(axis=1))
    return places


def propose(expected: ArrayLike, measured: Sequence[int], count: int, volume: Callable[[Array], float]) -> list[int]:
    """Return the places of the next candidates: each the one that adds most hypervolume by the scores expected of it.

    Each proposal counts as measured for the next one, so that several at a time do not crowd. Where nothing is
    expected to add any volume, the candidate comes next that is expected to fall short of the others by least.

    Args:
        expected: (K, n) expected scores of all candidates, measured or not; higher is better.
        measured: Places of those that have been measured, at least one.
        count: How many to propose; fewer where fewer are left.
        volume: The hypervolume of (any number of candidates, n) scores.
    """
    scores = np.asarray(expected, dtype=np.float64)
    spread = np.ptp(scores, axis=0)
    heights = scores / np.where(spread > 0, spread, 1.0)
    taken, left = list(measured), sorted(set(range(len(scores))) - set(measured))
    # How far a candidate is ahead of another where it is furthest ahead; of all others, where that is least.
    ahead = (heights[left][:, None] - heights[taken][None]).max(axis=2).min(axis=1) if left else np.zeros(0)
    for _ in range(min(count, len(left))):
        before = volume(scores[taken])
        # One that is ahead of every other in some value may add volume; one that is not cannot.
        gains = np.zeros(len(left))
        for at in np.flatnonzero(ahead > 0):
            gains[at] = volume(scores[[*taken, left[at]]]) - before
        best = int(np.lexsort((ahead, gains))[-1])
        taken.append(left.pop(best))
        ahead = np.delete(ahead, best)
        if left:
            ahead = np.minimum(ahead, (heights[left] - heights[taken[-1]]).max(axis=1))
    return taken[len(measured) :]
