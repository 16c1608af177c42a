"""Weight spaces: the points at which value vectors are mixed, one row of n weights per candidate."""

import math
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from valuesoup.errors import UserError

# More candidates than anyone evaluates: a slip of the pen, not a grid.
_MOST = 1_000_000


def simplex_grid(n: int, steps: int) -> NDArray[np.float64]:
    """Return the uniform grid on the simplex, (M, n): all ways to write 1 as n multiples of 1/steps.

    M = C(steps + n - 1, n - 1). The one-hot rows are among them; the first row is (1, 0, ..., 0), the last
    (0, ..., 0, 1), and the rows between descend in dictionary order.

    Args:
        n: Number of values, at least 1.
        steps: Number of steps from 0 to 1, at least 1.

    Raises:
        UserError: ``n`` or ``steps`` is below 1, or the grid would have more than a million points.
    """
    _at_least_one(n=n, steps=steps)
    count = math.comb(steps + n - 1, n - 1)
    _at_most(count, f"{steps} steps for {n} values")
    # Stars and bars: n - 1 bars among steps + n - 1 places; the stars between two bars are one part.
    bars = np.array(list(combinations(range(steps + n - 1), n - 1)), dtype=np.int64).reshape(count, n - 1)
    fences = np.hstack([np.full((count, 1), -1), bars, np.full((count, 1), steps + n - 1)])
    return (np.diff(fences, axis=1) - 1)[::-1] / steps


def cube_grid(n: int, levels: Sequence[float]) -> NDArray[np.float64]:
    """Return all combinations of ``levels``, (len(levels)^n, n), the last value varying fastest.

    MVA (arXiv:2511.17579) takes 0.1, 0.2, ..., 1.0: the sum may pass 1.

    Args:
        n: Number of values, at least 1.
        levels: Weights that each value may take, at least one, all different and finite.

    Raises:
        UserError: ``n`` is below 1, ``levels`` is empty, repeats or is not finite, or the grid would have more
            than a million points.
    """
    _at_least_one(n=n)
    if not levels or len(set(levels)) != len(levels) or not all(math.isfinite(level) for level in levels):
        raise UserError(
            f"The levels of a cube are {list(levels)}; they must be different finite numbers, at least one."
        )
    _at_most(len(levels) ** n, f"{len(levels)} levels for {n} values")
    return np.array(list(product(levels, repeat=n)), dtype=np.float64)


def sobol(n: int, count: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> NDArray[np.float64]:
    """Return scrambled Sobol points in the cube [low, high]^n, (count, n): even cover at any count.

    Args:
        n: Number of values, at least 1.
        count: Number of points, at least 1; powers of two are covered best.
        low: Least weight.
        high: Greatest weight, above ``low``.
        seed: Seed of the scrambling.

    Raises:
        UserError: ``n`` or ``count`` is out of range, or ``high`` is not above ``low``.
    """
    _at_least_one(n=n, count=count)
    _at_most(count, "count")
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise UserError(f"The cube of weights goes from {low} to {high}; the upper end must be above the lower one.")
    from scipy.stats.qmc import Sobol

    # Of a sequence drawn to the next power of two, scipy has nothing to warn of.
    points = Sobol(n, scramble=True, rng=seed).random_base2(math.ceil(math.log2(count)))[:count]
    return np.asarray(low + (high - low) * points, dtype=np.float64)


def dirichlet(n: int, count: int, seed: int = 0) -> NDArray[np.float64]:
    """Return points drawn uniformly from the simplex, (count, n): a Dirichlet distribution with all parameters 1.

    Raises:
        UserError: ``n`` or ``count`` is out of range.
    """
    _at_least_one(n=n, count=count)
    _at_most(count, "count")
    points = np.random.default_rng(seed).dirichlet(np.ones(n), size=count)
    # What rounding left over goes to the largest weight, where it is relatively smallest.
    rows = np.arange(count)
    largest = points.argmax(axis=1)
    points[rows, largest] += [1.0 - math.fsum(row) for row in points]
    return points


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} of a weight space is {number}; it must be at least 1.")


def _at_most(count: int, what: str) -> None:
    if count > _MOST:
        raise UserError(f"A weight space of {count} candidates ({what}) is too large; at most {_MOST} are taken.")
