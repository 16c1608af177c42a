"""The pairs of a run as far as they are here: read as the run reads them, split, and measured in tokens."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valuesoup.config import DataConfig, RunConfig
from valuesoup.data import Pairs, split_pairs
from valuesoup.data.sources import odd_place
from valuesoup.data.splits import Split
from valuesoup.doctor.hub import Found, Hub
from valuesoup.doctor.report import Data, Problem
from valuesoup.errors import UserError
from valuesoup.pipeline.data import read_pairs, seed_of_pairs
from valuesoup.pipeline.inputs import data_ref
from valuesoup.store import Progress, Work

if TYPE_CHECKING:
    from valuesoup.training.rows import TokenPairs

SAMPLE = 512
"""Pairs of a value whose tokens are counted."""
USUAL_PAIRS, USUAL_TOKENS = 40_000, (150, 80)
"""Assumed where the data are not here: about what a part of Anthropic-HH has; tokens of a prompt and of an answer."""
_FILES = (".json", ".jsonl", ".gz", ".csv", ".parquet")


@dataclass(frozen=True)
class Counts:
    """What estimates take of a value's pairs.

    Attributes:
        pairs: All usable ones.
        train: Pairs to train on.
        validation: Held out.
        test: Held out.
        prompt: Mean tokens of a prompt.
        answer: Mean tokens of an answer.
        longest: Most tokens of a prompt with one of its answers, in the sample.
    """

    pairs: int
    train: int
    validation: int
    test: int
    prompt: float
    answer: float
    longest: int | None

    @property
    def pair(self) -> float:
        """Mean tokens of a prompt and both its answers."""
        return self.prompt + 2 * self.answer


def find_sources(config: RunConfig, hub: Hub, problems: list[Problem]) -> dict[str, list[Found]]:
    """Return where each value's sources are; what is missing is a problem each."""
    found = {}
    for value, of in config.values.items():
        key = f"values.{value}.data"
        found[value] = [find_source(source, hub, key, problems) for source in of.data]
    return found


def find_source(source: DataConfig, hub: Hub, key: str, problems: list[Problem]) -> Found:
    """Return where one source is."""
    if source.function is not None:
        try:
            data_ref(source)
        except UserError as error:
            problems.append(Problem(key, str(error)))
            return Found("not found", str(error))
        return Found("local")
    name = source.path or ""
    path = Path(name)
    if odd := odd_place(path):
        problems.append(Problem(key, f"{odd}."))
        return Found("not found")
    if path.exists():
        inner = path / source.data_dir if source.data_dir else path
        if inner.exists():
            return Found("local", folder=path)
        problems.append(Problem(key, f"{path} has no folder '{source.data_dir}'."))
        return Found("not found")
    if name.count("/") != 1 or name.endswith(_FILES) or name.startswith((".", "/", "~")):
        problems.append(Problem(key, f"there is no file or folder {name}."))
        return Found("not found")
    found = hub.dataset(name)
    if found.state == "not found":
        problems.append(Problem(key, f"data set {name}: {found.why}."))
    return found


def read_values(
    config: RunConfig, sources: Mapping[str, list[Found]], problems: list[Problem]
) -> tuple[dict[str, Pairs], dict[str, Split], dict[str, float]]:
    """Return the pairs of the values whose sources are all here, their split where every value's are, and the seconds.

    The seconds are those that reading took, by value: reading is what a run does first.
    """
    read: dict[str, Pairs] = {}
    seconds: dict[str, float] = {}
    for value, of in config.values.items():
        if any(one.state != "local" for one in sources[value]):
            continue
        refs = [data_ref(source) for source in of.data]
        with tempfile.TemporaryDirectory(prefix="valuesoup-doctor-") as folder:
            started = time.perf_counter()
            work = Work(Path(folder), Progress(), value, lambda *_, **__: None)
            try:
                read_pairs.function(work, sources=refs, value=value, seed=seed_of_pairs(refs, config.seed))
                read[value] = Pairs.load(Path(folder) / "pairs.parquet")
                seconds[value] = time.perf_counter() - started
            except UserError as error:
                problems.append(Problem(f"values.{value}.data", str(error)))
            except Exception as error:  # a person's own function may raise anything
                said = (str(error).strip() or "no message").splitlines()[0]
                problems.append(Problem(f"values.{value}.data", f"reading it raises {type(error).__name__}: {said}"))
        column = of.reward.column
        if value in read and column is not None and column not in read[value].score_values:
            known = ", ".join(read[value].score_values) or "none"
            problems.append(
                Problem(f"values.{value}.reward.column", f"the pairs have no scores '{column}'; they have {known}.")
            )
    if len(read) < len(config.values):
        return read, {}, seconds
    wanted = config.evaluation
    try:
        split = split_pairs(read, wanted.test_prompts, wanted.validation_prompts, config.seed)
    except UserError as error:
        problems.append(Problem("evaluation", str(error)))
        return read, {}, seconds
    return read, split, seconds


def count(
    value: str,
    config: RunConfig,
    pairs: Pairs | None,
    split: Split | None,
    sample: "TokenPairs | None",
    found: list[Found],
) -> Counts:
    """Return what estimates take of a value's pairs; what is not known is as usual."""
    wanted = config.evaluation
    if pairs is not None:
        total = len(pairs)
    else:
        rows = [_rows(source, where) for source, where in zip(config.values[value].data, found, strict=True)]
        total = sum(rows)
    prompt, answer = map(float, USUAL_TOKENS)
    longest = None
    if sample is not None and len(sample):
        prompt = float(sample.prompts.lengths().mean())
        answer = float((sample.chosen.lengths().mean() + sample.rejected.lengths().mean()) / 2)
        longest = sample.longest()
    elif pairs is not None and len(pairs):
        prompt, answer = _tokens_of_text(pairs)
    if split is not None:
        parts = len(split.train), len(split.validation), len(split.test)
    else:
        held_out = wanted.validation_prompts, wanted.test_prompts
        parts = max(1, total - sum(held_out)), *held_out
    return Counts(total, *parts, prompt, answer, longest)


def told(value: str, pairs: Pairs | None, split: Split | None, sample: "TokenPairs | None", longest: int) -> Data:
    """Return what the report says of a value's pairs; ``longest`` is the limit in tokens."""
    tokens = too_long = None
    if sample is not None and len(sample):
        each = sample.prompts.lengths() + sample.chosen.lengths() + sample.rejected.lengths()
        tokens = float(each.mean())
        longer = np.maximum(sample.chosen.lengths(), sample.rejected.lengths())
        too_long = float((sample.prompts.lengths() + longer > longest).mean())
    whole = None if pairs is None else len(pairs)
    if split is None:
        return Data(value, whole, None, None, None, tokens, too_long)
    return Data(value, whole, len(split.train), len(split.validation), len(split.test), tokens, too_long)


def sample_tokens(pairs: Pairs, tokenizer: Any) -> "TokenPairs":
    """Return the tokens of some pairs, evenly spread, whatever their length."""
    from valuesoup.training.rows import tokenise

    step = max(1, len(pairs) // SAMPLE)
    return tokenise(pairs.take(list(range(0, len(pairs), step))[:SAMPLE]), tokenizer, 1 << 30)


def _rows(source: DataConfig, found: Found) -> int:
    known = (found.rows or {}).get(source.split, USUAL_PAIRS)
    return known if source.limit is None else min(known, source.limit)


def _tokens_of_text(pairs: Pairs) -> tuple[float, float]:
    """Guess tokens by words, of which English text has about three for four tokens."""
    sample = [pairs[place] for place in range(0, len(pairs), max(1, len(pairs) // SAMPLE))]

    def words(messages: Any) -> int:
        return sum(len(message["content"].split()) for message in messages)

    prompt = sum(words(pair.prompt) for pair in sample) / len(sample)
    answer = sum(words(pair.chosen) + words(pair.rejected) for pair in sample) / len(sample) / 2
    return 4 / 3 * prompt, 4 / 3 * answer
