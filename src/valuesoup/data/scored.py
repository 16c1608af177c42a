"""Several scored answers per prompt: which two make a pair under a chosen attribute.

Two layouts: one row per prompt with ``completions``, a list of ``{response, annotations}`` (UltraFeedback: an
annotation is a number or ``{"Rating": "4"}``; numbers beside the response are attributes, too); or one row
per answer, with the prompt in each row and one column of numbers or booleans per attribute (HelpSteer,
TruthfulQA).

Of the pairs of answers to a prompt that differ in the attribute, those with the largest difference are
taken first: one pair, best against worst, unless more are asked for; a seed decides between equals. All
attributes become scores of the pair.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuesoup.data.blocks import Block, number
from valuesoup.data.pairs import Pairs, single_turns
from valuesoup.errors import UserError, did_you_mean

PROMPTS = ("prompt", "instruction", "question")
ANSWERS = ("response", "answer", "completion", "output")
_NO_ATTRIBUTES = ("id", "idx", "index", "row", "__index_level_0__")
_UNRATED = ("N/A", "")


@dataclass
class _Answers:
    """All answers read so far, column by column."""

    prompts: list[str]
    answers: list[str]
    sources: list[str]
    rows: list[int]
    scores: list[dict[str, float]]


def find_prompt(block: Block) -> str | None:
    """Return the name of the column that holds the prompt, if there is one."""
    return next((name for name in PROMPTS if name in block.columns), None)


def _find_answer(block: Block) -> str | None:
    """Return the name of the column that holds an answer, if there is one."""
    return next((name for name in ANSWERS if name in block.columns), None)


def attributes(block: Block) -> list[str]:
    """Return the columns of numbers that score an answer; none if there is no answer column."""
    if _find_answer(block) is None:
        return []
    return [
        name
        for name in block.columns
        if name not in _NO_ATTRIBUTES and not name.endswith("_id") and block.is_number(name)
    ]


def choose(value: str | None, known: list[str], where: str, kind: str) -> str:
    """Return the label or attribute to choose by.

    Raises:
        UserError: It is not among the known ones, or there are several and none was named.
    """
    if value is None:
        if len(known) == 1:
            return known[0]
        raise UserError(
            f"{where} carries several {kind}s ({', '.join(known)}): say which one is meant, e.g. value='{known[0]}'"
        )
    if value not in known:
        raise UserError(f"{where} has no {kind} '{value}'{did_you_mean(value, known)}")
    return value


def scored_pairs(blocks: Iterable[Block], value: str | None, pairs_per_prompt: int, seed: int) -> Pairs:
    """Pair the answers to each prompt by one attribute.

    Args:
        blocks: The rows, at least one.
        value: The attribute; may be left out if there is only one.
        pairs_per_prompt: At most this many pairs per prompt, at least 1.
        seed: Decides between pairs with the same difference.

    Raises:
        UserError: The attribute is unknown, or a row is malformed (file and row are named).
    """
    if pairs_per_prompt < 1:
        raise UserError(f"pairs_per_prompt must be at least 1, got {pairs_per_prompt}")
    read = _Answers([], [], [], [], [])
    name = ""
    for block in blocks:
        name = block.name
        (_read_completions if "completions" in block.columns else _read_answers)(block, read)
    known = list(dict.fromkeys(key for scores in read.scores for key in scores))
    if not known:
        raise UserError(f"{name} has answers but no number that scores them")
    table = np.array([[scores.get(key, np.nan) for key in known] for scores in read.scores])
    deciding = table[:, known.index(choose(value, known, name, "attribute"))]
    unscored = np.isnan(deciding)
    blank = np.array([not answer.strip() for answer in read.answers])
    deciding = np.where(blank, np.nan, deciding)
    chosen, rejected, undecided = _select(read.prompts, deciding, pairs_per_prompt, seed)

    def column(texts: list[str], indices: NDArray[np.int64], role: str) -> pa.Array:
        return single_turns(pa.array([texts[index] for index in indices], pa.large_string()), role)

    dropped = {
        "answer without a score": int(unscored.sum()),
        "empty answer": int((blank & ~unscored).sum()),
        "prompt whose answers do not differ": undecided,
    }
    return Pairs.from_columns(
        column(read.prompts, chosen, "user"),
        column(read.answers, chosen, "assistant"),
        column(read.answers, rejected, "assistant"),
        pa.array([read.sources[index] for index in chosen], pa.string()),
        np.array([read.rows[index] for index in chosen], np.int64),
        {key: (table[chosen, i], table[rejected, i]) for i, key in enumerate(known)},
        {reason: count for reason, count in dropped.items() if count},
    )


def _read_answers(block: Block, read: _Answers) -> None:
    prompt, answer = find_prompt(block), _find_answer(block)
    if prompt is None or answer is None:
        raise UserError(f"{block.name} has no column for {'the answer' if prompt else 'the prompt'}")
    read.prompts += block.texts(prompt).to_pylist()
    read.answers += block.texts(answer).to_pylist()
    read.sources += [block.name] * len(block)
    read.rows += block.rows.tolist()
    names = attributes(block)
    columns = [block.numbers(name) for name in names]
    read.scores += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _read_completions(block: Block, read: _Answers) -> None:
    prompt = find_prompt(block)
    if prompt is None:
        raise UserError(f"{block.name} has no column for the prompt")
    texts = block.texts(prompt).to_pylist()
    for index, completions in enumerate(block.each(block.column("completions"), _completions)):
        for answer, scores in completions:
            read.prompts.append(texts[index])
            read.answers.append(answer)
            read.sources.append(block.name)
            read.rows.append(int(block.rows[index]))
            read.scores.append(scores)


def _completions(value: object) -> list[tuple[str, dict[str, float]]]:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"'completions' must be a list, got {value!r:.40}")
    return [_completion(item, f"completion {place}") for place, item in enumerate(value, start=1)]


def _completion(item: object, what: str) -> tuple[str, dict[str, float]]:
    if not isinstance(item, Mapping):
        raise UserError(f"{what} must be a mapping with a response, got {item!r:.40}")
    answer = item.get("response")
    if not isinstance(answer, str):
        raise UserError(f"{what} needs a text under 'response'{did_you_mean('response', map(str, item))}")
    if not answer.isascii():
        try:
            answer.encode()
        except UnicodeEncodeError:
            raise UserError(f"{what} is not valid Unicode") from None
    scores = {
        str(key): number(score, f"'{key}' of {what}")
        for key, score in item.items()
        if isinstance(score, (bool, int, float)) and key not in _NO_ATTRIBUTES
    }
    annotations = item.get("annotations") or {}
    if not isinstance(annotations, Mapping):
        raise UserError(f"the annotations of {what} must be a mapping, got {annotations!r:.40}")
    for key, note in annotations.items():
        rating = note.get("Rating") if isinstance(note, Mapping) else note
        scores[str(key)] = _rating(rating, f"the rating of '{key}' in {what}")
    return answer, scores


def _rating(rating: object, what: str) -> float:
    if isinstance(rating, str):
        if rating.strip() in _UNRATED:
            return float("nan")
        try:
            return number(float(rating), what)
        except ValueError:
            raise UserError(f"{what} must be a number, got {rating!r}") from None
    return number(rating, what)


def _select(
    prompts: list[str], deciding: NDArray[np.float64], pairs_per_prompt: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the indices of the chosen and the rejected answers, and the number of prompts without a pair."""
    of_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        of_prompt.setdefault(prompt, []).append(index)
    random = np.random.default_rng(seed)
    chosen: list[NDArray[np.int64]] = []
    rejected: list[NDArray[np.int64]] = []
    for indices in of_prompt.values():
        answers = np.array(indices)
        gaps = deciding[answers][:, None] - deciding[answers][None, :]
        better, worse = np.nonzero(gaps > 0)
        if len(better):
            order = np.lexsort((random.random(len(better)), -gaps[better, worse]))[:pairs_per_prompt]
            chosen.append(answers[better[order]])
            rejected.append(answers[worse[order]])
    none = np.empty(0, np.int64)
    return np.concatenate([none, *chosen]), np.concatenate([none, *rejected]), len(of_prompt) - len(chosen)
