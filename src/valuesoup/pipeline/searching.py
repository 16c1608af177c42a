"""Stage of a search: candidates answer some validation prompts, are scored at once, and the frontier is taken."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from valuesoup.config import GenerationConfig
from valuesoup.errors import UserError
from valuesoup.pipeline.answering import load_answers, open_soup, prompt_tokens
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.inputs import BaseRef, RewardRef, open_reward
from valuesoup.pipeline.rounds import Course, Found, Row, search
from valuesoup.pipeline.values import say_notes
from valuesoup.rewards import CallableReward
from valuesoup.search import parts
from valuesoup.search.settings import RacingSettings
from valuesoup.store import Artifact, Work, fingerprint, stage

if TYPE_CHECKING:
    from valuesoup.soup import Soup

Array = NDArray[np.float64]

SHARD_ROWS = 1024
"""Answers written and scored between two saves: the most that an interruption costs."""


@stage("search", ignore=("batch_rows", "device"))
def search_candidates(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    prompts: Artifact,
    rewards: Mapping[str, Artifact | RewardRef],
    fluency: str | None,
    source: str | None,
    bound: float,
    own: bool,
    groups: Mapping[str, Sequence[int]],
    limits: Mapping[str, int],
    always: Sequence[int],
    racing: RacingSettings | None,
    generation: GenerationConfig,
    seed: int,
    batch_rows: int,
    device: str,
) -> None:
    """Let candidates answer as many validation prompts as it takes to know each method's frontier.

    Writes every answer with its scores, ``chosen.json`` as the frontier stage does, and ``search.json``. An answer is
    the one that the candidate gives to the prompt without a search.

    Args:
        work: Of the stage.
        base: The base.
        vectors: Of the stack.
        candidates: Rows of weights over the vectors.
        prompts: Validation prompts.
        rewards: By value.
        fluency: Function that gives the soundness of an answer, or None where it is not measured.
        source: Hash of its source.
        bound: Least mean soundness.
        own: Measure value i on its own prompts.
        groups: Places of each method's candidates.
        limits: The most candidates to measure, of the methods that have such a limit.
        always: Places that are scored on test whatever comes out.
        racing: Settings of the race; None lets every measured candidate answer every prompt.
        generation: How to answer.
        seed: Of the order of prompts, the answers' draws, and the search's own.
        batch_rows: Rows in a forward pass.
        device: Where to compute.
    """
    asked = load_prompts(prompts)
    measures = np.array([[not own or value in prompt["datasets"] for value in rewards] for prompt in asked])
    for value, count in zip(rewards, measures.sum(axis=0), strict=True):
        if count < 2:
            raise UserError(f"a search needs at least 2 validation prompts that measure '{value}', not {count}.")
    course = Course(
        points=np.array(candidates, dtype=np.float64),
        groups=groups,
        limits=limits,
        always=frozenset(always),
        order=_order(asked, seed),
        totals=measures.sum(axis=0).tolist(),
        ends=[len(asked)] if racing is None else _ends(len(asked), racing, len(rewards) if own else 1),
        keep=0.0 if racing is None else racing.keep,
        confidence=0.0 if racing is None else racing.confidence,
        bound=bound,
        seed=seed,
    )
    answering = _Answering(
        work, open_soup(base, vectors, device), candidates, asked, generation, seed=seed, batch_rows=batch_rows
    )
    scoring = _Scoring(
        asked,
        measures,
        {value: open_reward(reward, device) for value, reward in rewards.items()},
        None if fluency is None else CallableReward(fluency),
    )
    whole = len(asked) * _most_measured(groups, limits)
    with work.task(whole, "answers") as task:
        rounds = _Rounds(work, answering, scoring, task.advance)
        found = search(course, rounds)
    rounds.forget_later()
    say_notes(work, list(scoring.sources.values()))
    chosen = {"frontier": found.frontier, "test": found.test, "broken": found.broken}
    (work.out / "chosen.json").write_text(json.dumps(chosen))
    summary = _summary(found, groups, len(asked))
    (work.out / "search.json").write_text(json.dumps(summary, indent=1))
    for method, of in summary["methods"].items():
        work.progress.say(f"    {saved(method, of)}")
        work.log("searched", method=method, **of)


def saved(method: str, of: Mapping[str, Any]) -> str:
    """Return in words what a search took of a method's evaluation, and what its frontier keeps."""
    text = f"{method}: {of['answers']:,} of {of['all_answers']:,} answers ({of['answers'] / of['all_answers']:.0%})"
    text += f", {of['measured']:,} of {of['candidates']:,} candidates measured, {of['left']:,} left early"
    if of["kept"] is None:
        return text
    return (
        f"{text}; the frontier keeps {of['kept']:.1%} of the hypervolume that all their answers would find, as expected"
    )


def search_scores(searched: Artifact, prompts: Artifact, values: Sequence[str], *, own: bool) -> dict[int, Array]:
    """Return (prompts, n) scores of each measured candidate, NaN where it was not asked.

    Args:
        searched: Of the search.
        prompts: Validation prompts.
        values: Their names, in order.
        own: As in `valuesoup.pipeline.rating.answer_scores`.
    """
    asked, table = load_prompts(prompts), load_answers(searched)
    places, numbers = table["candidate"].to_numpy(), table["prompt"].to_numpy()
    columns = np.stack([table[f"score/{value}"].to_numpy() for value in values], axis=1)
    rows = [[row for row, prompt in enumerate(asked) if not own or value in prompt["datasets"]] for value in values]
    size = min(map(len, rows))
    found = {}
    for place in np.unique(places):
        mine = places == place
        scores = np.full((len(asked), len(values)), np.nan)
        scores[numbers[mine]] = columns[mine]
        found[int(place)] = np.stack([scores[of[:size], column] for column, of in enumerate(rows)], axis=1)
    return found


class _Rounds:
    """Answers and scores the rows that a search asks for, save by save; what a save holds already is read."""

    def __init__(
        self, work: Work, answering: "_Answering", scoring: "_Scoring", advance: Callable[[int], None]
    ) -> None:
        self.work, self.answering, self.scoring, self.advance = work, answering, scoring, advance
        self.shards = 0

    def __call__(self, rows: Sequence[Row]) -> tuple[Array, Array]:
        tables = [self._shard(rows[start : start + SHARD_ROWS]) for start in range(0, len(rows), SHARD_ROWS)]
        table = pa.concat_tables(tables)
        scores = [table[f"score/{value}"].to_numpy() for value in self.scoring.sources]
        return np.stack(scores, axis=1), table["sound"].to_numpy()

    def forget_later(self) -> None:
        """Remove the saves of an earlier attempt that took another way, as after a change of the machine."""
        for path in self.work.out.glob("shard-*.parquet"):
            if path.name >= self._name():
                path.unlink()

    def _name(self) -> str:
        return f"shard-{self.shards:05d}.parquet"

    def _shard(self, rows: Sequence[Row]) -> Any:
        path = self.work.out / self._name()
        self.shards += 1
        table = pq.read_table(path) if path.is_file() else None
        if table is not None:
            known = list(zip(table["candidate"].to_pylist(), table["prompt"].to_pylist(), strict=True))
            if known == list(rows):
                self.advance(len(rows))
                return table
        table = self.scoring(self.answering(rows, self.advance))
        temporary = self.work.out / ".shard.tmp"
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
        return table


class _Answering:
    """Lets candidates answer prompts with the draws that they have without a search."""

    def __init__(
        self,
        work: Work,
        soup: "Soup",
        candidates: Sequence[Sequence[float]],
        asked: Sequence[HeldOutPrompt],
        generation: GenerationConfig,
        *,
        seed: int,
        batch_rows: int,
    ) -> None:
        from valuesoup.soup import position_limit

        self.work, self.soup, self.candidates, self.generation = work, soup, candidates, generation
        self.batch_rows = batch_rows
        self.tokens = [prompt_tokens(soup, prompt) for prompt in asked]
        self.seeds = [int(fingerprint([seed, prompt["id"]]), 16) for prompt in asked]
        longest = max(map(len, self.tokens)) + generation.max_new_tokens
        if longest > (limit := position_limit(soup.model.config)):
            raise UserError(
                f"the longest prompt and generation.max_new_tokens together are {longest} tokens, and the base takes "
                f"{limit}; lower generation.max_prompt_tokens or max_new_tokens."
            )

    def __call__(self, rows: Sequence[Row], on_done: Callable[[int], None]) -> Any:
        from valuesoup.soup.generation import Row as Asked
        from valuesoup.soup.generation import generate

        found = generate(
            self.soup,
            [Asked(self.tokens[number], tuple(self.candidates[place]), self.seeds[number]) for place, number in rows],
            max_new_tokens=self.generation.max_new_tokens,
            temperature=self.generation.temperature,
            batch_rows=self.batch_rows,
            on_done=on_done,
        )
        assert self.soup.tokenizer is not None
        return pa.table(
            {
                "candidate": pa.array([place for place, _ in rows], pa.int32()),
                "prompt": pa.array([number for _, number in rows], pa.int32()),
                "text": [self.soup.tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in found],
                "tokens": pa.array([list(answer.tokens) for answer in found], pa.list_(pa.int32())),
                "finished": [answer.finished for answer in found],
            }
        )


class _Scoring:
    """Adds to answers the score of each value that their prompt measures, and whether their text is sound."""

    def __init__(
        self,
        asked: Sequence[HeldOutPrompt],
        measures: NDArray[np.bool_],
        sources: Mapping[str, Any],
        fluency: CallableReward | None,
    ) -> None:
        self.asked, self.measures, self.sources, self.fluency = asked, measures, sources, fluency

    def __call__(self, table: Any) -> Any:
        keys = list(zip(table["prompt"].to_pylist(), table["text"].to_pylist(), strict=True))
        for column, (value, source) in enumerate(self.sources.items()):
            scores = self._scores(source, keys, self.measures[:, column])
            table = table.append_column(f"score/{value}", pa.array(scores, from_pandas=False))
        everywhere = np.ones(len(self.asked), dtype=np.bool_)
        sound = np.full(len(keys), np.nan) if self.fluency is None else self._scores(self.fluency, keys, everywhere)
        return table.append_column("sound", pa.array(sound, from_pandas=False))

    def _scores(self, source: Any, keys: Sequence[tuple[int, str]], measured: NDArray[np.bool_]) -> Array:
        """Score each distinct answer to a prompt once; NaN on the prompts that do not measure the value."""
        distinct = list(dict.fromkeys(key for key in keys if measured[key[0]]))
        if not distinct:
            return np.full(len(keys), np.nan)
        found = source.score([self.asked[number]["messages"] for number, _ in distinct], [text for _, text in distinct])
        known = dict(zip(distinct, found.tolist(), strict=True))
        return np.array([known.get(key, np.nan) for key in keys])


def _order(asked: Sequence[HeldOutPrompt], seed: int) -> list[int]:
    """Return the places of the prompts in the order of asking: shuffled, every data set in turn."""
    shuffled = np.random.default_rng(seed).permutation(len(asked)).tolist()
    turns: dict[str, int] = {}
    keys = {}
    for number in shuffled:
        dataset = asked[number]["datasets"][0]
        keys[number] = (turns.setdefault(dataset, 0), list(turns).index(dataset))
        turns[dataset] += 1
    return sorted(shuffled, key=keys.__getitem__)


def _ends(prompts: int, racing: RacingSettings, values: int) -> list[int]:
    return parts(prompts, values * racing.first, racing.growth)


def _most_measured(groups: Mapping[str, Sequence[int]], limits: Mapping[str, int]) -> int:
    """Return the most candidates that can be measured."""
    free = {place for name, places in groups.items() if name not in limits for place in places}
    return len(free) + sum(limits.values())


def _summary(found: Found, groups: Mapping[str, Sequence[int]], prompts: int) -> dict[str, Any]:
    """Return what the search did, per candidate and per method, as a JSON value."""
    methods = {}
    for name, places in groups.items():
        measured = [place for place in places if place in found.prompts]
        methods[name] = {
            "candidates": len(places),
            "measured": len(measured),
            "left": sum(place in found.left for place in measured),
            "answers": sum(found.prompts[place] for place in measured),
            "all_answers": len(places) * prompts,
            "kept": found.kept.get(name),
        }
    return {
        "prompts": {str(place): count for place, count in found.prompts.items()},
        "left": {str(place): by for place, by in found.left.items()},
        "smoothed": {
            str(place): {"mean": mean, "deviation": deviation} for place, (mean, deviation) in found.smoothed.items()
        },
        "methods": methods,
    }
