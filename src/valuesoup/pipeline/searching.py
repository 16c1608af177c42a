"""Stage of a search: candidates answer some validation prompts, are scored at once, and the frontier is taken."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuesoup.config import GenerationConfig
from valuesoup.errors import UserError
from valuesoup.pipeline.answering import Asking, load_answers, open_soup, save_shard, saved_shard
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.inputs import BaseRef, RewardRef, open_reward
from valuesoup.pipeline.rating import by_own, distinct_answers, measuring
from valuesoup.pipeline.rounds import Course, Found, Row, search
from valuesoup.pipeline.values import say_notes
from valuesoup.rewards import CallableReward, ClassifierReward, RewardSource
from valuesoup.rewards.sources import by_model, score_all
from valuesoup.search import parts
from valuesoup.search.settings import RacingSettings
from valuesoup.store import Artifact, Work, stage

Array = NDArray[np.float64]

SHARD_ROWS = 1024
"""Answers written and scored between two saves: the most that an interruption costs."""
CUTS = b"cuts"
"""With a save: how many prompts each reward model had to cut for it."""


@stage("search", version=2, ignore=("batch_rows", "device"))
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
    order = _order(asked, seed)
    measures = np.array([[not own or value in prompt["datasets"] for value in rewards] for prompt in asked])
    for value, count in zip(rewards, measures.sum(axis=0), strict=True):
        if count < 2:
            raise UserError(f"a search needs at least 2 validation prompts that measure '{value}', not {count}.")
    course = Course(
        points=np.array(candidates, dtype=np.float64),
        groups=groups,
        limits=limits,
        always=frozenset(always),
        order=order,
        totals=measures.sum(axis=0).tolist(),
        ends=[len(asked)] if racing is None else _ends(measures[order], racing),
        keep=0.0 if racing is None else racing.keep,
        confidence=0.0 if racing is None else racing.confidence,
        bound=bound,
        seed=seed,
    )
    asking = Asking(open_soup(base, vectors, device), candidates, asked, generation, seed)
    scoring = _Scoring(
        asked,
        measures,
        {value: open_reward(reward, device) for value, reward in rewards.items()},
        None if fluency is None else CallableReward(fluency),
    )
    whole = len(asked) * _most_measured(groups, limits)
    with work.task(whole, "answers") as task:
        rounds = _Rounds(work, _Answering(work, asking, generation, batch_rows), scoring, task.advance)
        found = search(course, rounds)
    rounds.forget_later()
    scoring.finish(work, rounds.tables)
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
        f"{text}; its frontier is expected to keep {of['kept']:.1%} of the hypervolume that all answers of all "
        f"{of['candidates']:,} would find"
    )


def search_scores(searched: Artifact, prompts: Artifact, values: Sequence[str], *, own: bool) -> dict[int, Array]:
    """Return (prompts, n) scores of each measured candidate, NaN where it was not asked.

    Args:
        searched: Of the search.
        prompts: Validation prompts.
        values: Their names, in order.
        own: As in `valuesoup.pipeline.rating.answer_scores`; no data set is cut, shorter ones are filled up with NaN.
    """
    asked, table = load_prompts(prompts), load_answers(searched)
    places, numbers = table["candidate"].to_numpy(), table["prompt"].to_numpy()
    columns = np.stack([table[f"score/{value}"].to_numpy() for value in values], axis=1)
    rows = list(measuring(asked, values, own=own).values())
    found = {}
    for place in np.unique(places):
        mine = places == place
        scores = np.full((len(asked), len(values)), np.nan)
        scores[numbers[mine]] = columns[mine]
        found[int(place)] = by_own(list(scores.T), rows)
    return found


class _Rounds:
    """Answers and scores the rows that a search asks for, save by save; what a save holds already is read."""

    def __init__(
        self, work: Work, answering: "_Answering", scoring: "_Scoring", advance: Callable[[int], None]
    ) -> None:
        self.work, self.answering, self.scoring, self.advance = work, answering, scoring, advance
        self.tables: list[Any] = []

    def __call__(self, rows: Sequence[Row]) -> tuple[Array, Array]:
        before = len(self.tables)
        for start in range(0, len(rows), SHARD_ROWS):
            self.tables.append(self._shard(rows[start : start + SHARD_ROWS]))
        table = pa.concat_tables(self.tables[before:])
        scores = [table[f"score/{value}"].to_numpy() for value in self.scoring.sources]
        return np.stack(scores, axis=1), table["sound"].to_numpy()

    def forget_later(self) -> None:
        """Remove the saves of an earlier attempt that took another way, as after a change of the machine."""
        for path in self.work.out.glob("shard-*.parquet"):
            if path.name >= self._name():
                path.unlink()

    def _name(self) -> str:
        return f"shard-{len(self.tables):05d}.parquet"

    def _shard(self, rows: Sequence[Row]) -> Any:
        path = self.work.out / self._name()
        table = saved_shard(path)
        if table is not None:
            known = list(zip(table["candidate"].to_pylist(), table["prompt"].to_pylist(), strict=True))
            if known == list(rows):
                self.advance(len(rows))
                return table
        table = self.scoring(self.answering(rows, self.advance))
        save_shard(table, path)
        return table


class _Answering:
    """Lets candidates answer prompts with the draws that they have without a search."""

    def __init__(self, work: Work, asking: Asking, generation: GenerationConfig, batch_rows: int) -> None:
        self.work, self.asking, self.generation, self.batch_rows = work, asking, generation, batch_rows

    def __call__(self, rows: Sequence[Row], on_done: Callable[[int], None]) -> Any:
        from valuesoup.soup.generation import generate

        found = generate(
            self.asking.soup,
            [self.asking.row(*row) for row in rows],
            max_new_tokens=self.generation.max_new_tokens,
            temperature=self.generation.temperature,
            batch_rows=self.batch_rows,
            on_done=on_done,
            on_shrink=self._shrink,
        )
        return self.asking.table(rows, found)

    def _shrink(self, text: str) -> None:
        """Say that memory does not suffice, and begin the next rows with half as many at a time."""
        self.work.progress.say(f"    {text}")
        self.batch_rows = max(1, self.batch_rows // 2)


class _Scoring:
    """Adds to answers the score of each value that their prompt measures, and whether their text is sound.

    Values that one model rates are scored together. How many prompts each model had to cut stands with the table.
    """

    def __init__(
        self,
        asked: Sequence[HeldOutPrompt],
        measures: NDArray[np.bool_],
        sources: Mapping[str, RewardSource],
        fluency: CallableReward | None,
    ) -> None:
        self.asked, self.measures, self.sources, self.fluency = asked, measures, sources, fluency
        self.groups = by_model(sources)

    def __call__(self, table: Any) -> Any:
        distinct, position = distinct_answers(table)
        columns, cuts = {}, []
        for group in self.groups:
            sources = [self.sources[value] for value in group]
            measured = self.measures[:, [list(self.sources).index(value) for value in group]]
            before = _cut(sources)
            scores = self._scores(sources, distinct, np.asarray(measured.any(axis=1)))
            cuts.append(_cut(sources) - before)
            for value, of, where in zip(group, scores, measured.T, strict=True):
                known = where[[number for number, _ in distinct]]
                columns[f"score/{value}"] = np.where(known, of, np.nan)[position]
        for value in self.sources:
            table = table.append_column(f"score/{value}", pa.array(columns[f"score/{value}"], from_pandas=False))
        sound = np.full(len(distinct), np.nan)
        if self.fluency is not None:
            (sound,) = self._scores([self.fluency], distinct, np.ones(len(self.asked), dtype=np.bool_))
        table = table.append_column("sound", pa.array(sound[position], from_pandas=False))
        return table.replace_schema_metadata({CUTS: json.dumps(cuts)})

    def finish(self, work: Work, tables: Sequence[Any]) -> None:
        """Say what was cut for the tables, whether in this attempt or an earlier one, and let the models go."""
        cuts = np.sum([json.loads(table.schema.metadata[CUTS]) for table in tables], axis=0).tolist()
        for group, cut in zip(self.groups, cuts, strict=True):
            for source in (self.sources[value] for value in group):
                if isinstance(source, ClassifierReward):
                    source.truncated = cut if source is self.sources[group[0]] else 0
        say_notes(work, self.sources.values())
        for source in self.sources.values():
            if isinstance(source, ClassifierReward):
                source.close()

    def _scores(
        self, sources: Sequence[RewardSource], distinct: Sequence[tuple[int, str]], measured: NDArray[np.bool_]
    ) -> list[Array]:
        """Return the scores of the distinct answers by each source, NaN on the prompts that measure nothing."""
        rows = [row for row, (number, _) in enumerate(distinct) if measured[number]]
        found = [np.full(len(distinct), np.nan) for _ in sources]
        if rows:
            prompts = [self.asked[distinct[row][0]]["messages"] for row in rows]
            for scores, of in zip(found, score_all(sources, prompts, [distinct[row][1] for row in rows]), strict=True):
                scores[rows] = of
        return found


def _cut(sources: Sequence[RewardSource]) -> int:
    """Return how many prompts a model has cut so far."""
    return sum(source.truncated for source in sources if isinstance(source, ClassifierReward))


def _order(asked: Sequence[HeldOutPrompt], seed: int) -> list[int]:
    """Return the places of the prompts in the order of asking: shuffled, always of the data set asked least so far."""
    waiting: dict[str, deque[int]] = {}
    for number in np.random.default_rng(seed).permutation(len(asked)).tolist():
        for dataset in asked[number]["datasets"]:
            waiting.setdefault(dataset, deque()).append(number)
    counts, order = dict.fromkeys(waiting, 0), dict[int, None]()
    while any(waiting.values()):
        dataset = min((name for name, of in waiting.items() if of), key=counts.__getitem__)
        number = waiting[dataset].popleft()
        if number not in order:
            order[number] = None
            for name in asked[number]["datasets"]:
                counts[name] += 1
    return list(order)


def _ends(measures: NDArray[np.bool_], racing: RacingSettings) -> list[int]:
    """Return how many prompts have been asked after each part of a race.

    After the first part every value has been measured on ``racing.first`` prompts, or on all that measure it.

    Args:
        measures: (P, n), which values the prompts measure, in the order of asking.
        racing: Settings of the race.
    """
    counts = measures.cumsum(axis=0)
    enough = (counts >= np.minimum(racing.first, counts[-1])).all(axis=1)
    return parts(len(measures), int(enough.argmax()) + 1, racing.growth)


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
