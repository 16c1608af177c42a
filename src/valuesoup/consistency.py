"""Value consistency: how far the values agree on a preference pair, and the filter that keeps the pairs they agree on.

Source: VC-Soup, arXiv:2603.18113, Eq. 8-14. Throughout, N is the number of pairs and n the number of values.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from valuesoup.rewards.table import RewardTable

Statistics: TypeAlias = Literal["dataset", "value", "pooled"]
"""Which responses give the sigma_j that normalises the gaps of a data set; see `sigma`."""

Threshold: TypeAlias = float | Literal["strict", "positive", "lenient"]
"""A number in [-1, 1], or a name whose number depends on n; see `threshold`."""

LADDER = (-1.0, -0.7, -0.5, -0.25, 0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Thresholds at which retention is reported."""

_STATISTICS = ("dataset", "value", "pooled")
# Rows handled at a time: the temporaries of one chunk stay in the processor's cache.
_CHUNK = 8_192
# Between these a sum of squares has all its digits.
_LEAST, _MOST = 1e-280, 1e280


def value_consistency(gaps: "ArrayLike | RewardTable") -> NDArray[np.float64]:
    """Return the value consistency of each pair: the cosine of its gap vector with (1, ..., 1) (Eq. 11).

    VC = sum_j g_j / (|g| sqrt(n)): 1 where all values prefer the chosen response equally, -1 where all prefer
    the rejected one equally, NaN where the gap vector is zero and so has no direction. Scaling a row by a
    positive number changes nothing, at any magnitude a float can hold.

    Args:
        gaps: (N, n) reward gaps chosen - rejected, normalised so that the values are comparable; float32 or
            float64. Or a reward table of pairs: its gaps, normalised by its own spreads, are then never all in memory.

    Returns:
        (N,) float64 in [-1, 1] or NaN.

    Raises:
        UserError: ``gaps`` is not two-dimensional with at least one value, or holds NaN or infinity (names the row);
            or a table has no gaps, see ``RewardTable.gaps``.
    """
    from valuesoup.rewards.table import RewardTable

    if isinstance(gaps, RewardTable):
        consistency, blocks = np.empty(len(gaps)), gaps.gap_blocks()
    else:
        rows = _gap_matrix(gaps)
        consistency, blocks = np.empty(len(rows)), _blocks(rows)
    start = 0
    for block in blocks:
        out = consistency[start : start + block.shape[1]]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            norm = np.square(block).sum(axis=0)
            # Squares that left the range of a float (so do those of NaN and infinity) are taken of scaled gaps.
            if norm.min() > _LEAST and norm.max() < _MOST:
                norm *= len(block)
                np.divide(block.sum(axis=0, out=out), np.sqrt(norm, out=norm), out=out)
            else:
                out[:] = _scaled_consistency(block, start)
        np.clip(out, -1.0, 1.0, out=out)
        start += block.shape[1]
    return consistency


def _blocks(rows: NDArray[np.floating]) -> Iterator[NDArray[np.float64]]:
    """Yield (n, rows) blocks: values on the first axis, so that every operation runs over contiguous memory."""
    for start in range(0, len(rows), _CHUNK):
        yield np.ascontiguousarray(rows[start : start + _CHUNK].T, dtype=np.float64)


def _scaled_consistency(gaps: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Return the consistency of (n, rows) gaps of any magnitude; ``first`` is the number of the first row."""
    scale = np.abs(gaps).max(axis=0)
    if not np.isfinite(scale).all():
        row = int(np.flatnonzero(~np.isfinite(scale))[0])
        raise UserError(f"The reward gaps of pair {first + row} are {gaps[:, row].tolist()}; every gap must be finite.")
    zero = scale == 0
    scale[zero] = 1.0
    scaled = gaps / scale
    norm = np.sqrt(np.square(scaled).sum(axis=0))
    norm[zero] = 1.0
    found: NDArray[np.float64] = scaled.sum(axis=0) / norm / math.sqrt(len(gaps))
    found[zero] = np.nan
    return found


def threshold(tau: Threshold, values: int) -> float:
    """Return the threshold that a name or a number stands for.

    ``strict`` = sqrt((n-1)/n): no gap of a kept pair is negative. ``positive`` = 0: a kept pair gains on
    aggregate. ``lenient`` = -1/sqrt(n): not every gap of a kept pair is negative (n > 1). For n = 2 these are
    0.7071, 0 and -0.7071.

    Args:
        tau: A name above, or a number in [-1, 1].
        values: Number of values n, at least 1.

    Raises:
        UserError: The name is unknown (names the nearest), the number is outside [-1, 1], or n < 1.
    """
    if values < 1:
        raise UserError(f"A threshold needs at least one value, not {values}.")
    if isinstance(tau, str):
        # Each named threshold is the consistency of the pair that lies exactly on the boundary (say, gaps 1 and 0),
        # less a few rounding errors, which could put such a pair on the wrong side of it.
        boundaries = {"strict": [1.0] * (values - 1) + [0.0], "lenient": [-1.0] + [0.0] * (values - 1)}
        if tau == "positive" or (tau == "strict" and values == 1):
            return 0.0
        if tau not in boundaries:
            raise UserError(
                f"There is no consistency threshold named '{tau}'"
                f"{did_you_mean(tau, [*boundaries, 'positive'])} (or give a number in [-1, 1])"
            )
        return max(-1.0, float(value_consistency([boundaries[tau]])[0]) - 4 * sys.float_info.epsilon)
    if isinstance(tau, bool) or not -1.0 <= tau <= 1.0:
        raise UserError(f"The consistency threshold is {tau}; it must be a number in [-1, 1] or a name.")
    return float(tau)


def keep_threshold(vc: ArrayLike, fraction: float) -> float:
    """Return the highest threshold that keeps at least ``fraction`` of the pairs: the setting ``keep: 0.3``.

    Pairs tied with the last one kept stay too, so that the result does not depend on the order of the data.
    Undefined pairs count among the pairs but are never kept.

    Args:
        vc: (N,) value consistency.
        fraction: Share of all N pairs to keep, in (0, 1].

    Raises:
        UserError: ``fraction`` is outside (0, 1], or no pair has a defined consistency.
    """
    if isinstance(fraction, bool) or not 0.0 < fraction <= 1.0:
        raise UserError(f"keep is {fraction}; it must be a share of the pairs above 0 and at most 1, such as 0.3.")
    consistency = np.asarray(vc, dtype=np.float64)
    defined = consistency[~np.isnan(consistency)]
    if not defined.size:
        raise UserError(
            f"None of the {consistency.size} pairs has a defined value consistency: all reward gaps are zero."
        )
    # The small subtraction keeps 0.3 * 10 = 3.0000000000000004 from counting as four pairs.
    wanted = max(1, math.ceil(fraction * consistency.size - 1e-9))
    position = max(defined.size - wanted, 0)
    return float(np.partition(defined, position)[position])


def auto_threshold(vc: ArrayLike) -> float:
    """Return the threshold τ ≥ 0 that maximises √N_τ · mean(VC of the kept pairs), N_τ pairs kept (``tau: auto``).

    A higher threshold makes the pairs agree more and leaves fewer of them; the product is, up to a constant, how far
    the sum of the kept pairs' directions stands out of its noise. It is not from a paper.

    Args:
        vc: (N,) value consistency.

    Raises:
        UserError: No pair has a positive consistency.
    """
    consistency = np.asarray(vc, dtype=np.float64)
    ordered = np.sort(consistency[consistency > 0])[::-1]  # NaN is not > 0
    if not ordered.size:
        raise UserError(f"None of the {consistency.size} pairs has a positive value consistency: no threshold helps.")
    counts = np.arange(1, ordered.size + 1)
    gain = np.cumsum(ordered) / np.sqrt(counts)
    # Along equal values the gain is convex, so its maximum is never in the middle of pairs that are tied.
    return float(ordered[int(np.argmax(gain))])


def row_weights(vc: ArrayLike, tau: float, *, soft: bool = False, flip: bool = False) -> NDArray[np.float64]:
    """Return the weight of each pair in the loss, (N,): 0 leaves it out, a negative one swaps its sides.

    The plain rule gives 1 to VC ≥ τ (Eq. 14) and 0 to the rest. Neither of the two changes is from a paper.

    Args:
        vc: (N,) value consistency; undefined pairs weigh 0.
        tau: Threshold in [-1, 1].
        soft: Let the weight grow with the consistency, (VC − τ)/(1 − τ), scaled to a mean of 1 over the pairs of any
            weight; those at τ itself get none.
        flip: Take a pair with VC ≤ −τ, with its sides swapped: all values together disagree with its label.

    Raises:
        UserError: ``flip`` with τ ≤ 0, where a pair could count on both sides.
    """
    consistency = np.asarray(vc, dtype=np.float64)
    if flip and not tau > 0:
        raise UserError(f"Flipping pairs needs a threshold above 0, not {tau:.4g}: else a pair counts on both sides.")
    sign = consistent(consistency, tau).astype(np.float64)
    if flip:
        sign -= consistent(-consistency, tau)
    if not soft:
        return sign
    strength = np.where(sign != 0, (np.abs(consistency) if flip else consistency) - tau, 0.0)
    strongest = strength.max(initial=0.0)
    # Where every kept pair lies exactly on the threshold there is nothing to grade.
    if not strongest > 0:
        return sign
    strength /= strongest  # the smallest numbers of all would not survive the division by their mean
    graded: NDArray[np.float64] = sign * strength / strength[strength > 0].mean()
    return graded


def consistent(vc: ArrayLike, tau: float) -> NDArray[np.bool_]:
    """Return which pairs have a consistency of at least ``tau``, (N,) bool; undefined ones never do (Eq. 13)."""
    return np.asarray(np.asarray(vc, dtype=np.float64) >= tau, dtype=np.bool_)


def retention(vc: ArrayLike, ladder: Sequence[float] = LADDER) -> NDArray[np.int64]:
    """Return how many pairs are kept at each threshold of ``ladder``, (len(ladder),).

    Args:
        vc: (N,) value consistency; undefined pairs are never kept.
        ladder: Thresholds in any order.
    """
    consistency = np.asarray(vc, dtype=np.float64)
    defined = np.sort(consistency[~np.isnan(consistency)])
    return np.asarray(defined.size - np.searchsorted(defined, np.asarray(ladder), side="left"), dtype=np.int64)


def check_enough(vc: ArrayLike, tau: float, minimum: int, dataset: str) -> NDArray[np.bool_]:
    """Return `consistent` (vc, tau), or refuse to go on with fewer than ``minimum`` pairs.

    Args:
        vc: (N,) value consistency.
        tau: Threshold in [-1, 1].
        minimum: Least number of pairs that training needs, such as one batch.
        dataset: Name of the data set, for the message.

    Raises:
        UserError: Too few pairs are left; the message prints the retention at `LADDER`.
    """
    kept = consistent(vc, tau)
    count = int(kept.sum())
    if count < minimum:
        undefined = int(np.isnan(np.asarray(vc, dtype=np.float64)).sum())
        steps = ", ".join(f"{step:g}: {left}" for step, left in zip(LADDER, retention(vc), strict=True))
        raise UserError(
            f"Only {count} of the {kept.size} pairs of data set '{dataset}' have a value consistency of at least "
            f"{tau:.4g} ({undefined} undefined), and training needs {minimum}; a lower threshold keeps more "
            f"(threshold: pairs kept): {steps}."
        )
    return kept


def sigma(tables: Mapping[str, "RewardTable"], statistics: Statistics = "dataset") -> dict[str, NDArray[np.float64]]:
    """Return the spreads that normalise the gaps of each data set: {value i: (n,) sigma_j for the pairs of D_i}.

    Eq. 10 takes the spread of reward i over D_i and leaves open which data set normalises reward j on the pairs
    of D_i. ``dataset`` (default, as the authors' script): the responses of D_i itself. ``value``: reward j always
    by the responses of D_j. ``pooled``: the responses of all data sets together. Population standard deviation.

    Args:
        tables: The reward table of each value's data set D_i, keyed by value, all with the same values.
        statistics: ``dataset``, ``value`` or ``pooled``.

    Raises:
        UserError: The mode is unknown, the tables disagree on the values, a value has no data set in mode
            ``value``, or a reward has no spread (names the value and the data set).
    """
    from valuesoup.rewards.table import RewardTable

    if statistics not in _STATISTICS:
        raise UserError(
            f"There is no statistics mode '{statistics}'{did_you_mean(str(statistics), _STATISTICS)} "
            f"(dataset, value or pooled)"
        )
    if not tables:
        raise UserError("The spreads of the rewards need at least one data set.")
    values = next(iter(tables.values())).values
    for name, table in tables.items():
        if table.values != values:
            raise UserError(
                f"The reward table of '{name}' has the values {', '.join(table.values)}, the first one "
                f"{', '.join(values)}; all must have the same values in the same order."
            )
    if statistics == "dataset":
        return {name: table.sigma() for name, table in tables.items()}
    if statistics == "value":
        missing = [value for value in values if value not in tables]
        if missing:
            raise UserError(
                f"statistics 'value' takes the spread of each reward from its own data set, and there is none for "
                f"'{missing[0]}'; use 'dataset' or 'pooled'."
            )
        shared = np.array([tables[value].sigma()[index] for index, value in enumerate(values)])
    else:
        responses = np.concatenate([table.scores.reshape(-1, 1, len(values)) for table in tables.values()])
        pooled = RewardTable([""] * len(responses), ("response",), values, responses, "all data sets pooled")
        shared = pooled.sigma()
    return {name: shared.copy() for name in tables}


def opposite_signs(gaps: ArrayLike) -> NDArray[np.float64]:
    """Return the conflict matrix, (n, n): the share of pairs on which two values prefer different responses.

    Args:
        gaps: (N, n) reward gaps; a zero gap prefers neither and conflicts with nothing.

    Raises:
        UserError: ``gaps`` is not two-dimensional, or there is no pair.
    """
    rows = _gap_matrix(gaps, at_least_one=True)
    signs = np.sign(rows).astype(np.int8)
    shares = np.zeros((rows.shape[1],) * 2)
    for i in range(rows.shape[1]):
        for j in range(i):
            shares[i, j] = shares[j, i] = np.count_nonzero(signs[:, i] * signs[:, j] < 0) / len(rows)
    return shares


def gap_correlation(gaps: ArrayLike) -> NDArray[np.float64]:
    """Return the Pearson correlation of the gaps of each two values, (n, n); NaN for a value whose gaps are all equal.

    Args:
        gaps: (N, n) reward gaps.

    Raises:
        UserError: ``gaps`` is not two-dimensional, or there is no pair.
    """
    rows = _gap_matrix(gaps, at_least_one=True)
    varies = rows.max(axis=0) > rows.min(axis=0)
    matrix = np.full((rows.shape[1],) * 2, np.nan)
    if varies.any():
        matrix[np.ix_(varies, varies)] = np.corrcoef(rows[:, varies], rowvar=False, dtype=np.float64)
    return matrix


def _gap_matrix(gaps: ArrayLike, at_least_one: bool = False) -> NDArray[np.floating]:
    rows = np.asarray(gaps)
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0 or (at_least_one and not len(rows)):
        raise UserError(
            f"Reward gaps have shape {rows.shape}; they must be a table of (pairs, values) with at least one "
            f"{'pair and one ' if at_least_one else ''}value."
        )
    return rows
