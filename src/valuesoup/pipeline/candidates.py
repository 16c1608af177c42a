"""Stages of the evaluation: candidates answer held-out prompts, every reward scores them, the frontier is taken."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from valuesoup.config import GenerationConfig
from valuesoup.errors import UserError
from valuesoup.evaluation.frontier import pareto
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.inputs import BaseRef, RewardRef, open_base, open_reward
from valuesoup.pipeline.values import say_truncated
from valuesoup.rewards import CallableReward, RewardTable
from valuesoup.store import Artifact, Work, fingerprint, stage

if TYPE_CHECKING:
    from valuesoup.soup import Soup

SHARD_ROWS = 1024
"""Answers written between two saves: the most that an interruption costs."""


@stage("answers", ignore=("batch_rows", "device"))
def answer_prompts(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    chosen: Artifact | None,
    prompts: Artifact,
    generation: GenerationConfig,
    seed: int,
    batch_rows: int,
    device: str,
) -> None:
    """Let candidates (rows of weights over the vectors) answer the prompts, many candidates in one batch.

    Only the candidates listed in ``chosen`` answer, where it is given. The draws of an answer depend on the seed and
    the prompt, so that all candidates meet the same chance.
    """
    from valuesoup.soup import position_limit
    from valuesoup.soup.generation import Row, generate

    soup = open_soup(base, vectors, device)
    places = list(range(len(candidates))) if chosen is None else chosen.json("chosen.json")["test"]
    asked = load_prompts(prompts)
    tokens = [prompt_tokens(soup, prompt) for prompt in asked]
    longest, limit = max(map(len, tokens)) + generation.max_new_tokens, position_limit(soup.model.config)
    if longest > limit:
        raise UserError(
            f"the longest prompt and generation.max_new_tokens together are {longest} tokens, and the base takes "
            f"{limit}; lower generation.max_prompt_tokens or max_new_tokens."
        )
    queue = [(place, number) for number in range(len(asked)) for place in places]
    with work.task(len(queue), "answers") as task:
        for start in range(0, len(queue), SHARD_ROWS):
            shard = work.out / f"shard-{start // SHARD_ROWS:05d}.parquet"
            todo = queue[start : start + SHARD_ROWS]
            if shard.is_file():
                task.advance(len(todo))
                continue
            rows = [
                Row(tokens[number], tuple(candidates[place]), int(fingerprint([seed, asked[number]["id"]]), 16))
                for place, number in todo
            ]
            found = generate(
                soup,
                rows,
                max_new_tokens=generation.max_new_tokens,
                temperature=generation.temperature,
                batch_rows=batch_rows,
                on_done=task.advance,
            )
            assert soup.tokenizer is not None
            table = pa.table(
                {
                    "candidate": pa.array([place for place, _ in todo], pa.int32()),
                    "prompt": pa.array([number for _, number in todo], pa.int32()),
                    "text": [soup.tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in found],
                    "tokens": pa.array([list(answer.tokens) for answer in found], pa.list_(pa.int32())),
                    "finished": [answer.finished for answer in found],
                }
            )
            temporary = work.out / ".shard.tmp"
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(shard)


@stage("rated", ignore=("device",))
def rate_answers(
    work: Work,
    *,
    answers: Artifact,
    prompts: Artifact,
    value: str,
    reward: Artifact | RewardRef | str,
    source: str | None,
    device: str,
) -> None:
    """Score every answer under one value; each distinct answer to a prompt once.

    ``reward`` is a reward, or the name ``module:function`` of one, whose source has the hash ``source``.
    """
    scorer = CallableReward(reward) if isinstance(reward, str) else open_reward(reward, device)
    asked, table = load_prompts(prompts), load_answers(answers)
    distinct: dict[tuple[int, str], int] = {}
    position = [
        distinct.setdefault((number, text), len(distinct))
        for number, text in zip(table["prompt"].to_pylist(), table["text"].to_pylist(), strict=True)
    ]
    with work.task(len(distinct), "answers") as task:
        found = scorer.score(
            [asked[number]["messages"] for number, _ in distinct], [text for _, text in distinct], task.advance
        )
    candidates = sorted(set(table["candidate"].to_pylist()))
    say_truncated(work, scorer)
    scores = np.full((len(asked), len(candidates), 1), np.nan)
    column = {candidate: place for place, candidate in enumerate(candidates)}
    where = [column[candidate] for candidate in table["candidate"].to_pylist()]
    scores[table["prompt"].to_numpy(), where, 0] = found[position]
    names = tuple(map(str, candidates))
    RewardTable([prompt["id"] for prompt in asked], names, (value,), scores).save(work.out / "scores.parquet")


@stage("frontier", version=2)
def choose_candidates(
    work: Work,
    *,
    scores: Mapping[str, Artifact],
    fluency: Artifact | None,
    bound: float,
    prompts: Artifact,
    own: bool,
    groups: Mapping[str, Sequence[int]],
    always: Sequence[int],
) -> None:
    """Take the Pareto set of each method on validation (Eq. 5, 19); those candidates are scored again on test.

    A candidate whose fluency is below the bound is on no frontier: broken text must not win by a reward model that
    never saw any. It is scored on test all the same where its rewards alone would have put it there.

    Args:
        work: Of the stage.
        scores: Of the answers, per value.
        fluency: Of the answers, or None where it is not measured.
        bound: Least fluency.
        prompts: What was answered.
        own: Measure value i on its own prompts.
        groups: Places of each method's candidates.
        always: Places that are scored on test whatever comes out.
    """
    means = {place: score.mean(axis=0) for place, score in answer_scores(scores, prompts, own=own).items()}
    broken: set[int] = set()
    if fluency is not None:
        table = RewardTable.load(fluency.path / "scores.parquet")
        shares = table.scores[:, :, 0].mean(axis=0)
        broken = {int(side) for side, share in zip(table.sides, shares, strict=True) if share < bound}
    test = set(always)
    frontier = {}
    for name, places in groups.items():
        frontier[name] = _pareto_places(means, [place for place in places if place not in broken])
        test.update(frontier[name], _pareto_places(means, places))
    (work.out / "chosen.json").write_text(
        json.dumps({"frontier": frontier, "test": sorted(test), "broken": sorted(broken)})
    )


def _pareto_places(means: Mapping[int, Any], places: Sequence[int]) -> list[int]:
    if not places:
        return []
    best = pareto(np.array([means[place] for place in places]))
    return [place for place, good in zip(places, best, strict=True) if good]


@stage("quality", ignore=("batch_rows", "device"))
def answer_quality(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    answers: Artifact,
    prompts: Artifact,
    fluency: Artifact | None,
    batch_rows: int,
    device: str,
) -> None:
    """Measure what a reward does not see: fluency, KL from the base, length, truncation, per candidate.

    KL(π_λ ‖ π_0) of an answer is the sum over its tokens of the exact divergence of the next-token distributions, in
    nats, averaged over answers.
    """
    from valuesoup.evaluation.divergence import answer_divergence

    soup = open_soup(base, vectors, device)
    table = load_answers(answers)
    tokens = [prompt_tokens(soup, prompt) for prompt in load_prompts(prompts)]
    places = table["candidate"].to_numpy()
    written: list[list[int]] = table["tokens"].to_pylist()
    finished = table["finished"].to_numpy(zero_copy_only=False)
    with work.task(len(written), "answers") as task:
        divergence = answer_divergence(
            soup,
            [tokens[number] for number in table["prompt"].to_pylist()],
            written,
            np.array([candidates[place] for place in places], dtype=np.float32).reshape(len(places), -1),
            batch_rows=batch_rows,
            on_done=task.advance,
        )
    lengths = np.array([len(ids) for ids in written])
    fluent = None if fluency is None else RewardTable.load(fluency.path / "scores.parquet")
    found = {}
    for place in np.unique(places):
        mine = places == place
        found[str(place)] = {
            "fluency": None if fluent is None else float(fluent.scores[:, fluent.sides.index(str(place)), 0].mean()),
            "kl": float(divergence[mine].mean()),
            "tokens": float(lengths[mine].mean()),
            "truncated": float(1.0 - finished[mine].mean()),
        }
    (work.out / "quality.json").write_text(json.dumps(found, indent=1))


def open_soup(base: Artifact | BaseRef, vectors: Mapping[str, Artifact], device: str) -> "Soup":
    """Load the base with the vectors of a stack of adapters."""
    from valuesoup.soup import Soup, target_layers

    model, tokenizer = open_base(base, device)
    if not vectors:
        return Soup(model, tokenizer, layers=target_layers(model)).eval()
    adapters = {name: artifact.path / "adapter" for name, artifact in vectors.items()}
    return Soup.from_adapters(model, adapters, tokenizer)


def prompt_tokens(soup: "Soup", prompt: HeldOutPrompt) -> tuple[int, ...]:
    """Return the token ids after which the policy answers."""
    from valuesoup.data import render_prompt

    assert soup.tokenizer is not None
    text = render_prompt(prompt["messages"], soup.tokenizer)
    return tuple(soup.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_answers(answers: Artifact) -> Any:
    """Return all answers of an artifact as an Arrow table."""
    return pa.concat_tables(pq.read_table(shard) for shard in sorted(Path(answers.path).glob("shard-*.parquet")))


def answer_scores(scores: Mapping[str, Artifact], prompts: Artifact, *, own: bool) -> dict[int, Any]:
    """Return (prompts, n) scores of each candidate.

    Args:
        scores: A score table per value.
        prompts: The prompts that were answered.
        own: Take value i on the prompts of D_i only: row p then holds, per value, the score on the p-th prompt of
            its own data set; where data sets differ in size the longer ones are cut to the shortest.
    """
    tables = {value: RewardTable.load(artifact.path / "scores.parquet") for value, artifact in scores.items()}
    asked = load_prompts(prompts)
    rows = {
        value: np.array([row for row, prompt in enumerate(asked) if not own or value in prompt["datasets"]], np.int64)
        for value in tables
    }
    size = min(len(places) for places in rows.values())
    if not size:
        empty = next(value for value, places in rows.items() if not len(places))
        raise UserError(
            f"no held-out prompt of '{empty}' is short enough to answer, and evaluation.prompts = own measures it on "
            "those alone; raise generation.max_prompt_tokens."
        )
    first = next(iter(tables.values()))
    return {
        int(side): np.stack([table.scores[rows[value][:size], place, 0] for value, table in tables.items()], axis=1)
        for place, side in enumerate(first.sides)
    }
