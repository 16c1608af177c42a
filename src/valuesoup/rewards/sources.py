"""Where rewards come from: classifiers, Python callables, columns of the data; all scores end in one reward table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from valuesoup.data.pairs import Message, Messages, Pairs
from valuesoup.data.sources import FUNCTION_NAME, load_function, source_hash
from valuesoup.errors import UserError
from valuesoup.rewards.classifier import ClassifierReward, score_together
from valuesoup.rewards.table import PAIR_SIDES, Names, RewardTable
from valuesoup.store.progress import Progress

TOGETHER = 1 << 17
"""Pairs scored at a time: as Python objects pairs take ten times the memory."""

RewardFunction: TypeAlias = Callable[[Sequence[Messages], Sequence[str]], Sequence[float]]
"""``fn(prompts, answers)``: (N,) conversations and (N,) answers to (N,) scores, higher is better."""


class NotFiniteError(UserError):
    """A reward function gave no finite number for the answer at ``place``."""

    def __init__(self, text: str, place: int) -> None:
        super().__init__(text)
        self.place = place


@runtime_checkable
class RewardSource(Protocol):
    """Anything that scores answers to prompts."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def fingerprint(self) -> dict[str, object]:
        """All that its scores depend on, as plain data: the identity under which scores are cached."""
        ...

    def score(
        self, prompts: Sequence[Messages], answers: Sequence[str], advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Return the (N,) scores of N answers to their prompts; ``advance`` is told how many more are done."""
        ...


@dataclass(frozen=True)
class CallableReward:
    """A Python function as a reward.

    Attributes:
        function: ``module:function``, or the function itself. Modules are also looked for in the working directory.

    Raises:
        UserError: The module or the function does not exist, or it is not callable.
    """

    function: str | RewardFunction
    _call: RewardFunction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        call: object = load_function(self.function) if isinstance(self.function, str) else self.function
        if not callable(call):
            raise UserError(f"The reward {self.function!r} is not callable; give a function of prompts and answers.")
        object.__setattr__(self, "_call", call)

    @property
    def name(self) -> str:
        """``module:function``."""
        if isinstance(self.function, str):
            return self.function
        kind = type(self._call)
        module = getattr(self._call, "__module__", kind.__module__)
        return f"{module}:{getattr(self._call, '__qualname__', kind.__qualname__)}"

    @property
    def fingerprint(self) -> dict[str, object]:
        """The function's name and a hash of its source, see `valuesoup.data.source_hash`."""
        return {"source": "callable", "function": self.name, "code": source_hash(self._call)}

    def score(
        self, prompts: Sequence[Messages], answers: Sequence[str], advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Return the function's score of each answer, (N,).

        Raises:
            UserError: It returns something other than one finite number per answer (names the answer).
        """
        result = self._call(prompts, answers)
        try:
            scores = np.asarray(result, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(
                f"The reward function '{self.name}' must return one number per answer; it returned a "
                f"{type(result).__name__} that does not convert to numbers."
            ) from None
        if scores.shape != (len(answers),):
            raise UserError(
                f"The reward function '{self.name}' must return one number per answer: {len(answers)} answers went in, "
                f"an array of shape {scores.shape} came out."
            )
        bad = np.flatnonzero(~np.isfinite(scores))
        if bad.size:
            raise NotFiniteError(
                f"The reward function '{self.name}' returned {scores[bad[0]]} for answer {bad[0]} "
                f"({answers[bad[0]][:60]!r}); every score must be finite.",
                int(bad[0]),
            )
        if advance is not None:
            advance(len(answers))
        return scores


@dataclass(frozen=True)
class ColumnReward:
    """Scores that the data bring along, for pairs only.

    Attributes:
        column: Name of the score columns, one of ``Pairs.score_values``.
    """

    column: str

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column

    @property
    def fingerprint(self) -> dict[str, object]:
        """The column's name; the data have their own identity."""
        return {"source": "column", "column": self.column}


AnyReward: TypeAlias = RewardSource | ColumnReward | RewardFunction | str | Path


def as_source(reward: AnyReward) -> RewardSource | ColumnReward:
    """Return the reward source that a setting means.

    A text ``module:function`` and a function become a `CallableReward`, any other text or path (a hub id or a folder)
    a `ClassifierReward` with its default settings; sources stay as they are.

    Raises:
        UserError: It is none of these, or a function does not exist.
    """
    if isinstance(reward, RewardSource | ColumnReward):
        return reward
    if isinstance(reward, str | Path):
        named = isinstance(reward, str) and FUNCTION_NAME.fullmatch(reward) and not Path(reward).exists()
        return CallableReward(str(reward)) if named else ClassifierReward(reward)
    if callable(reward):
        return CallableReward(reward)
    raise UserError(
        f"{reward!r} is no reward; give a reward source, a function, 'module:function', a hub id or a folder."
    )


def score(
    pairs: Pairs, rewards: Mapping[str, AnyReward], dataset: str = "", progress: Progress | None = None
) -> RewardTable:
    """Score both responses of every pair under every value.

    `TOGETHER` pairs are held in memory at a time; among these each distinct prompt and response is scored once.

    Args:
        pairs: N preference pairs.
        rewards: For each value its reward: a source, a function, ``module:function``, a hub id or a folder.
        dataset: Name of the data set, for messages.
        progress: Where to show how far scoring is.

    Returns:
        The raw scores, (N, 2, n).

    Raises:
        UserError: There is no pair or no value, a reward is missing or wrong, or a score is not finite (names the
            pair and the value).
    """
    where = f" of data set '{dataset}'" if dataset else ""
    if not len(pairs) or not rewards:
        raise UserError(f"Scoring{where} needs at least one pair and one value, not {len(pairs)} and {len(rewards)}.")
    sources = {value: as_source(reward) for value, reward in rewards.items()}
    scores = np.empty((len(pairs), len(PAIR_SIDES), len(sources)))
    progress = progress or Progress()
    whole = progress if len(pairs) > TOGETHER else Progress()  # a single part shows its own
    with whole.task(f"scoring {dataset}".rstrip(), len(pairs), "pairs") as task:
        for start in range(0, len(pairs), TOGETHER):
            part = pairs.slice(start, TOGETHER)
            _score_part(part, sources, dataset, progress, scores[start : start + len(part)])
            task.advance(len(part))
    return RewardTable(Names(pairs.table["id"].combine_chunks()), PAIR_SIDES, tuple(sources), scores, dataset)


def _score_part(
    pairs: Pairs,
    sources: Mapping[str, RewardSource | ColumnReward],
    dataset: str,
    progress: Progress,
    scores: NDArray[np.float64],
) -> None:
    """Write the scores of some pairs into ``scores`` (N, 2, n)."""
    places = {value: place for place, value in enumerate(sources)}
    scorers: dict[str, RewardSource] = {}
    for value, source in sources.items():
        if isinstance(source, ColumnReward):
            scores[:, :, places[value]] = pairs.scores(source.column)
        else:
            scorers[value] = source
    if not scorers:
        return
    responses = _Responses.of(pairs)
    for group in by_model(scorers):
        by = " and ".join(group)
        label = f"scoring {dataset} by {by}" if dataset else f"scoring by {by}"
        with progress.task(label, len(responses.answers), "responses") as task:
            try:
                found = score_all([scorers[v] for v in group], responses.prompts, responses.answers, task.advance)
            except NotFiniteError as fault:
                row = int(np.flatnonzero((responses.position == fault.place).any(axis=1))[0])
                where = f" of data set '{dataset}'" if dataset else ""
                raise UserError(f"Pair {pairs.ids[row]}{where}, value '{group[0]}': {fault}") from None
        for value, distinct in zip(group, found, strict=True):
            scores[:, :, places[value]] = distinct[responses.position]


def score_all(
    sources: Sequence[RewardSource],
    prompts: Sequence[Messages],
    answers: Sequence[str],
    advance: Callable[[int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Return the (N,) scores of N answers by each of the sources, which are one, or outputs of one classifier.

    Raises:
        UserError: As the sources' own ``score``.
    """
    classifiers = [source for source in sources if isinstance(source, ClassifierReward)]
    if classifiers:
        return score_together(classifiers, prompts, answers, advance)
    return [source.score(prompts, answers, advance) for source in sources]


def by_model(sources: Mapping[str, RewardSource]) -> list[list[str]]:
    """Return the values in groups whose rewards are outputs of one model, which then is loaded and run once."""
    groups: list[list[str]] = []
    for value, source in sources.items():
        for group in groups:
            first = sources[group[0]]
            if isinstance(source, ClassifierReward) and isinstance(first, ClassifierReward) and source.reads_as(first):
                group.append(value)
                break
        else:
            groups.append([value])
    return groups


@dataclass(frozen=True)
class _Responses:
    """The distinct prompts and responses of some pairs; ``position`` (N, 2) leads from a pair's side to its own."""

    prompts: list[tuple[Message, ...]]
    answers: list[str]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Pairs) -> "_Responses":
        prompts: list[tuple[Message, ...]] = []
        answers: list[str] = []
        known: dict[tuple[tuple[str, str], ...], int] = {}
        position = np.empty((len(pairs), len(PAIR_SIDES)), dtype=np.int64)
        for row, pair in enumerate(pairs):
            for side, response in enumerate((pair.chosen, pair.rejected)):
                whole = (*pair.prompt, *response)
                key = tuple((turn["role"], turn["content"]) for turn in whole)
                at = known.setdefault(key, len(answers))
                if at == len(answers):
                    # A response of several turns is scored as its last one, after the turns before it.
                    prompts.append(whole[:-1])
                    answers.append(whole[-1]["content"])
                position[row, side] = at
        return cls(prompts, answers, position)
