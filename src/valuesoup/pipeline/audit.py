"""Value conflict in preference data, before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuesoup.consistency import Statistics, retention, sigma, value_consistency
from valuesoup.data import Messages, Pairs
from valuesoup.errors import UserError
from valuesoup.rewards import ColumnReward, score
from valuesoup.rewards.sources import AnyReward
from valuesoup.store import Progress


@dataclass(frozen=True)
class Conflict:
    """A pair on which the values disagree.

    Attributes:
        id: Of the pair.
        prompt: Its turns.
        chosen: Text of the chosen response.
        rejected: Text of the rejected response.
        gaps: Normalised reward gap per value.
        consistency: The pair's value consistency.
    """

    id: str
    prompt: Messages
    chosen: str
    rejected: str
    gaps: Mapping[str, float]
    consistency: float


@dataclass(frozen=True, eq=False)
class DatasetAudit:
    """What the rewards say of one data set.

    Attributes:
        values: Names of the n values.
        gaps: (N, n) normalised reward gaps.
        consistency: (N,) value consistency, NaN where undefined.
        retention: Pairs kept at each threshold of ``valuesoup.consistency.LADDER``.
        conflicts: The pairs on which the values disagree in sign with most force, by the weaker side's gap.
        dropped: Rows dropped on loading, by reason.
    """

    values: list[str]
    gaps: NDArray[np.float64]
    consistency: NDArray[np.float64]
    retention: NDArray[np.int64]
    conflicts: list[Conflict]
    dropped: Mapping[str, int]


def audit(
    data: Mapping[str, Pairs],
    rewards: Mapping[str, AnyReward] | None = None,
    *,
    statistics: Statistics = "dataset",
    most_conflicting: int = 20,
    progress: Progress | None = None,
) -> dict[str, DatasetAudit]:
    """Score pairs under every value and show where the values conflict.

    Args:
        data: Pairs by the data set's name.
        rewards: A reward per value: a model, a function, a column; by default every score column of the data.
        statistics: Over which responses the spreads are taken.
        most_conflicting: How many pairs to show.
        progress: Where to show scoring.

    Returns:
        The audit of each data set.

    Raises:
        UserError: No scores and no rewards, fewer than two values, a reward without spread, a NaN score.
    """
    if not data:
        raise UserError("an audit needs at least one data set.")
    if rewards is None:
        shared = [v for v in next(iter(data.values())).score_values if all(v in p.score_values for p in data.values())]
        rewards = {value: ColumnReward(value) for value in shared}
    if len(rewards) < 2:
        given = f"only that of {next(iter(rewards))}" if rewards else "none"
        raise UserError(
            f"an audit compares values with each other: it needs the rewards of two values or more and has {given}; "
            "give --rewards NAME=MODEL for each, or data with the columns chosen_score/NAME and rejected_score/NAME."
        )
    tables = {name: score(pairs, rewards, name, progress) for name, pairs in data.items()}
    spreads = sigma(tables, statistics)
    found = {}
    for name, pairs in data.items():
        gaps = tables[name].gaps(sigma=spreads[name])
        vc = value_consistency(gaps)
        conflicts = _conflicts(pairs, gaps, vc, list(rewards), most_conflicting)
        found[name] = DatasetAudit(list(rewards), gaps, vc, retention(vc), conflicts, pairs.dropped)
    return found


def _conflicts(
    pairs: Pairs, gaps: NDArray[np.float64], vc: NDArray[np.float64], values: list[str], most: int
) -> list[Conflict]:
    """Return the pairs whose gaps disagree in sign, those that disagree with most force first."""
    against = np.minimum(gaps.max(axis=1), -gaps.min(axis=1))  # how far the weaker side of the disagreement goes
    order = np.argsort(-against, kind="stable")[:most]
    return [
        Conflict(
            pair.id,
            pair.prompt,
            _text(pair.chosen),
            _text(pair.rejected),
            dict(zip(values, gaps[row].tolist(), strict=True)),
            float(vc[row]),
        )
        for row, pair in ((int(row), pairs[int(row)]) for row in order if against[row] > 0)
    ]


def _text(messages: Messages) -> str:
    return "\n".join(message["content"] for message in messages)
