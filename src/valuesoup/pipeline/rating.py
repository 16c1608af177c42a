"""Stage in which a reward scores the answers, and the scores as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuesoup.errors import UserError
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.inputs import RewardRef, open_reward
from valuesoup.pipeline.values import say_notes
from valuesoup.rewards import CallableReward, RewardTable
from valuesoup.rewards.sources import score_all
from valuesoup.store import Artifact, Work, stage


@stage("rated", version=2, ignore=("device",))
def rate_answers(
    work: Work,
    *,
    answers: Artifact,
    prompts: Artifact,
    rewards: Mapping[str, Artifact | RewardRef | str],
    source: str | None,
    device: str,
) -> None:
    """Score every answer under the values that one model rates; each distinct answer to a prompt once.

    ``rewards`` holds by value a reward, or the name ``module:function`` of one, whose source has the hash ``source``.
    """
    scorers = [
        CallableReward(reward) if isinstance(reward, str) else open_reward(reward, device)
        for reward in rewards.values()
    ]
    asked, table = load_prompts(prompts), load_answers(answers)
    distinct, position = distinct_answers(table)
    with work.task(len(distinct), "answers") as task:
        found = score_all(
            scorers,
            [asked[number]["messages"] for number, _ in distinct],
            [text for _, text in distinct],
            task.advance,
        )
    candidates = sorted(set(table["candidate"].to_pylist()))
    say_notes(work, scorers)
    scores = np.full((len(asked), len(candidates), len(rewards)), np.nan)
    column = {candidate: place for place, candidate in enumerate(candidates)}
    where = [column[candidate] for candidate in table["candidate"].to_pylist()]
    scores[table["prompt"].to_numpy(), where] = np.stack(found, axis=1)[position]
    names = tuple(map(str, candidates))
    RewardTable([prompt["id"] for prompt in asked], names, tuple(rewards), scores).save(work.out / "scores.parquet")


def distinct_answers(table: Any) -> tuple[list[tuple[int, str]], NDArray[np.int64]]:
    """Return the distinct answers of a table, each with the place of its prompt, and which of them each row holds."""
    distinct: dict[tuple[int, str], int] = {}
    position = [
        distinct.setdefault((number, text), len(distinct))
        for number, text in zip(table["prompt"].to_pylist(), table["text"].to_pylist(), strict=True)
    ]
    return list(distinct), np.array(position, dtype=np.int64)


def answer_scores(
    scores: Mapping[str, Artifact], prompts: Artifact, *, own: bool, whole: bool = False
) -> dict[int, Any]:
    """Return (prompts, n) scores of each candidate.

    Args:
        scores: A score table per value, which may be of other values too.
        prompts: The prompts that were answered.
        own: Take value i on the prompts of D_i only: row p then holds, per value, the score on the p-th prompt of
            its own data set; where data sets differ in size the longer ones are cut to the shortest.
        whole: Fill the shorter ones up with NaN instead.
    """
    tables = {value: RewardTable.load(artifact.path / "scores.parquet") for value, artifact in scores.items()}
    asked = load_prompts(prompts)
    rows = measuring(asked, list(tables), own=own)
    size = min(map(len, rows.values()))
    if not size:
        empty = next(value for value, places in rows.items() if not len(places))
        raise UserError(
            f"no held-out prompt of '{empty}' is short enough to answer, and evaluation.prompts = own measures it on "
            "those alone; raise generation.max_prompt_tokens."
        )
    first = next(iter(tables.values()))
    found = {
        int(side): by_own(
            [table.scores[:, place, table.value_index(value)] for value, table in tables.items()], list(rows.values())
        )
        for place, side in enumerate(first.sides)
    }
    return found if whole else {place: score[:size] for place, score in found.items()}


def measuring(asked: Sequence[HeldOutPrompt], values: Sequence[str], *, own: bool) -> dict[str, NDArray[np.int64]]:
    """Return by value the places of the prompts that measure it: all, or with ``own`` those of its data set."""
    return {
        value: np.array([row for row, prompt in enumerate(asked) if not own or value in prompt["datasets"]], np.int64)
        for value in values
    }


def by_own(columns: Sequence[NDArray[np.float64]], rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return a (most prompts of a value, n) table: column i holds the scores of value i on its own prompts, then NaN.

    Args:
        columns: (P,) scores on all prompts, per value.
        rows: Places of the prompts that measure each value.
    """
    table = np.full((max(map(len, rows)), len(columns)), np.nan)
    for at, (column, places) in enumerate(zip(columns, rows, strict=True)):
        table[: len(places), at] = column[places]
    return table
