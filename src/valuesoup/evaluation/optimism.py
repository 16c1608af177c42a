"""Selection optimism: how much of what a frontier scored where it was chosen is lost on prompts that chose nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from valuesoup.evaluation.comparison import Box, welch
from valuesoup.evaluation.frontier import normalised_hypervolume


def selection_optimism(
    selected: ArrayLike,
    validation: ArrayLike | None,
    test: ArrayLike,
    box: Box,
    values: Sequence[str],
    level: float = 0.95,
) -> dict[str, Any]:
    """Return how the chosen candidates of a method score where they were chosen, and on test.

    A drop is the mean over the candidates of the figure by which they were chosen minus their mean test score, in units
    of the box. It holds two things: that of many candidates those with luck were chosen, and that the two parts have
    other prompts; the drop of a policy that nothing chose, such as the base, shows the second alone. Its interval is
    Welch's over prompts, each prompt averaged over the candidates.

    Args:
        selected: (K, n) figures by which the candidates were chosen.
        validation: (K, P, n) scores per validation prompt where ``selected`` are their means; None where the figures
            are others, such as smoothed means, and drops have no interval.
        test: (K, Q, n) scores per test prompt.
        box: Of the run.
        values: Names of the n values.
        level: Of the intervals.

    Returns:
        ``{"drop": {value: {"mean", "low", "high"}}, "validation": …, "test": …}``: drops, and the hypervolume of the
        chosen candidates on validation and on test, both in the box; on validation it may pass 1.
    """
    chosen, tested = np.asarray(selected, dtype=np.float64), np.asarray(test, dtype=np.float64)
    span = box.best - box.reference
    drops = {}
    for column, value in enumerate(values):
        after = tested[:, :, column].mean(axis=0)
        if validation is None:
            mean = float(chosen[:, column].mean() - after.mean()) / span[column]
            drops[value] = {"mean": float(mean), "low": None, "high": None}
        else:
            before = np.asarray(validation, dtype=np.float64)[:, :, column].mean(axis=0)
            found = welch(before / span[column], after / span[column], level)
            drops[value] = {"mean": found.value, "low": found.low, "high": found.high}
    return {
        "drop": drops,
        "validation": normalised_hypervolume(chosen, *box),
        "test": normalised_hypervolume(tested.mean(axis=1), *box),
    }
