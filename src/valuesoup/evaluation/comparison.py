"""Results of several runs side by side: one box for all of them, and differences that are paired where they can be."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError
from valuesoup.evaluation.frontier import normalised_hypervolume, reference_point
from valuesoup.evaluation.seeds import spread
from valuesoup.evaluation.statistics import resampled_means, resamples

LONGEST = 60
"""Characters of a setting that are shown."""


class Box(NamedTuple):
    """The box in which hypervolumes are measured: its two corners, each (n,), in the scores' units."""

    reference: NDArray[np.float64]
    best: NDArray[np.float64]


class Difference(NamedTuple):
    """A difference with the two ends of its interval, None where nothing is known of its spread."""

    value: float
    low: float | None
    high: float | None


def common_box(means: Sequence[ArrayLike]) -> Box:
    """Return the box of several runs: the reference point and the best point of their pooled candidates.

    Args:
        means: Per run, (K, n) mean test scores of its candidates.

    Raises:
        UserError: There is no candidate, or a mean is not a finite number.
    """
    pooled = np.concatenate([np.asarray(of, dtype=np.float64) for of in means])
    return Box(reference_point(pooled), pooled.max(axis=0))


def same_rows(first: Sequence[Hashable], second: Sequence[Hashable]) -> NDArray[np.int64] | None:
    """Return the rows of ``second`` in the order of ``first``, (P,), where both hold the same distinct rows.

    Args:
        first: What tells a row of one table from the others, such as the id of its prompt.
        second: Of another table.

    Returns:
        None where the two do not hold the same rows.
    """
    places = {row: place for place, row in enumerate(second)}
    if len(first) != len(second) or len(places) != len(second) or set(first) != set(places):
        return None
    return np.array([places[row] for row in first], dtype=np.int64)


def unpaired_difference(
    first: ArrayLike, second: ArrayLike, box: Box, times: int = 1000, level: float = 0.95, seed: int = 0
) -> Difference:
    """Return the hypervolume of ``first`` minus that of ``second``, each resampled on its own prompts.

    The percentile interval of the two-sample problem (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 8): the two sides are drawn independently. For the same prompts see
    :func:`valuesoup.evaluation.statistics.hypervolume_difference`.

    Args:
        first: (K1, P1, n) scores per prompt of one method's candidates.
        second: (K2, P2, n) scores of another's, on other prompts.
        box: In which both are measured.
        times: Resamples.
        level: Coverage of the interval, in (0, 1).
        seed: Of the resamples.

    Raises:
        UserError: As `valuesoup.evaluation.statistics.hypervolume_interval`.
    """
    if not 0 < level < 1:
        raise UserError(f"The level of an interval is {level}; it must lie between 0 and 1, such as 0.95.")
    seeds = np.random.SeedSequence(seed).generate_state(2)
    sides, values = [], []
    for scores, own in zip((first, second), seeds, strict=True):
        table = np.asarray(scores, dtype=np.float64)
        draws = resamples(table.shape[1], times, int(own))
        sides.append(np.array([normalised_hypervolume(means, *box) for means in resampled_means(table, draws)]))
        values.append(normalised_hypervolume(table.mean(axis=1), *box))
    low, high = np.quantile(sides[0] - sides[1], [(1 - level) / 2, (1 + level) / 2])
    return Difference(values[0] - values[1], float(low), float(high))


def welch(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Difference:
    """Return the mean of ``first`` minus that of ``second`` with Welch's interval (Biometrika 34, 1947).

    Args:
        first: Figures of one sample, at least one.
        second: Figures of another, independent of the first.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The difference; without ends where a side has fewer than two figures.
    """
    sides = [np.asarray(of, dtype=np.float64).ravel() for of in (first, second)]
    value = float(sides[0].mean() - sides[1].mean())
    if min(len(of) for of in sides) < 2:
        return Difference(value, None, None)
    # Rounding leaves a variance of some 1e-34 to equal figures, and a ratio of two such tells nothing.
    shares = [0.0 if np.ptp(of) == 0 else float(of.var(ddof=1)) / len(of) for of in sides]
    error = sum(shares)
    if error == 0:
        return Difference(value, value, value)
    from scipy.stats import t

    freedom = error**2 / sum(share**2 / (len(of) - 1) for share, of in zip(shares, sides, strict=True))
    half = float(t.ppf(0.5 + level / 2, freedom)) * math.sqrt(error)
    return Difference(value, value - half, value + half)


def difference_over_seeds(first: Mapping[int, float], second: Mapping[int, float], level: float = 0.95) -> Difference:
    """Return the mean of ``first`` minus that of ``second`` over seeds, paired by seed where both have the same ones.

    Args:
        first: A figure of each seed.
        second: That of another configuration.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The difference with Student's interval of the differences within each seed, or with Welch's; without ends where
        there are fewer than two seeds.
    """
    if set(first) != set(second):
        return welch(list(first.values()), list(second.values()), level)
    found = spread([first[seed] - second[seed] for seed in first], level)
    return Difference(found.mean, found.low, found.high)


def changed_settings(configurations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings that are not the same in all configurations.

    Args:
        configurations: JSON values; mappings are compared key by key, anything else as a whole.

    Returns:
        Per setting ``{"key": "a.b", "texts": […]}``: its text in each configuration, cut where it is long, None where
        there is none, and ``set`` for a mapping that another one lacks.
    """
    changed: list[dict[str, Any]] = []

    def differ(contents: Sequence[Any], key: str) -> None:
        if all(isinstance(content, Mapping) for content in contents):
            for name in dict.fromkeys(name for content in contents for name in content):
                differ([content.get(name) for content in contents], f"{key}.{name}" if key else name)
        elif any(content != contents[0] for content in contents):
            changed.append({"key": key, "texts": [_short(content) for content in contents]})

    differ(configurations, "")
    return changed


def _short(content: Any) -> str | None:
    if content is None or isinstance(content, Mapping):
        return None if content is None else "set"
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
