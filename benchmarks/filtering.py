"""Value consistency and the filter on a table of scores, against pandas in the way of the published script."""

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.timing import Claim, compare
from valuesoup.consistency import consistent, value_consistency
from valuesoup.rewards import RewardTable

VALUES = ("helpful", "harmless", "honest")
TAU = 0.7
Result = tuple[NDArray[np.float64], NDArray[np.bool_]]


def claim(repeats: int, pairs: int = 10_000_000) -> Claim:
    """Filter pairs scored under three values: z-scores, gaps, consistency, mask."""
    scores = np.random.default_rng(0).normal(size=(pairs, 2, len(VALUES))) * [1.0, 5.0, 0.2] + [0.0, 3.0, -1.0]
    table = RewardTable(["pair"] * pairs, ("chosen", "rejected"), VALUES, scores)
    chosen, rejected = (pd.DataFrame(scores[:, side].copy(), columns=list(VALUES)) for side in (0, 1))
    compared = compare(partial(_valuesoup, table), partial(_pandas, chosen, rejected), _check, repeats)
    note = f"{pairs:,} pairs x {len(VALUES)} values, scores in memory, tau {TAU}; consistencies and masks equal"
    return compared.claim("filter", f"pandas {pd.__version__}", note)


def _valuesoup(table: RewardTable) -> Result:
    consistency = value_consistency(table)
    return consistency, consistent(consistency, TAU)


def _pandas(chosen: pd.DataFrame, rejected: pd.DataFrame) -> Result:
    responses = pd.concat([chosen, rejected])
    mean, spread = responses.mean(), responses.std(ddof=0)
    gaps = (chosen - mean) / spread - (rejected - mean) / spread
    cosine = gaps.sum(axis=1) / (np.sqrt((gaps**2).sum(axis=1)) * np.sqrt(len(VALUES)))
    return cosine.to_numpy(), (cosine >= TAU).to_numpy()


def _check(ours: Result, theirs: Result) -> None:
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-9)
    border = np.abs(theirs[0] - TAU) < 1e-9  # there the rounding decides
    np.testing.assert_array_equal(ours[1][~border], theirs[1][~border])
