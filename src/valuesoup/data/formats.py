"""Recognises the layout of raw rows by their columns and converts them to pairs.

Recognised layouts (further columns are ignored):

* ``chosen``, ``rejected``, each a whole HH transcript: the shared turns up to a Human turn are the prompt.
* ``prompt``, ``chosen``, ``rejected`` texts (TRL's standard form). A prompt that is a transcript ending in
  "Assistant:" is split into its turns. Without ``prompt``, the shared beginning up to a space is the prompt.
* ``chosen``, ``rejected`` lists of ``{role, content}``, with or without a ``prompt`` (TRL's conversational
  form); without one, or where both sides repeat it, the shared turns up to a user turn are the prompt.
* ``prompt``, ``response_0``, ``response_1`` and one or more ``<label>_response_id`` of 0 or 1
  (PKU-SafeRLHF: ``better``, ``safer``); ``value`` names the label that decides which side is chosen.
* Scored answers, ``value`` names the attribute that decides (``valuesoup.data.scored``).

The three layouts with ``chosen`` and ``rejected`` may carry scores: two columns of numbers named
``chosen_score/<value>`` and ``rejected_score/<value>``, or ``chosen_<value>`` and ``rejected_<value>``, or
``<value>_chosen`` and ``<value>_rejected`` (so ``score_chosen`` is a score of the value ``score``).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.blocks import Block, messages
from valuesoup.data.pairs import Message, Pairs, single_turns
from valuesoup.data.scored import ANSWERS, PROMPTS, attributes, choose, find_prompt, scored_pairs
from valuesoup.data.spool import Spool
from valuesoup.data.transcripts import ASSISTANT, START, parse_transcript, split_shared
from valuesoup.errors import UserError, did_you_mean

Conversation = list[Message]
Scores = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

TEXTS = ("chosen", "rejected", "response_0", "response_1", *PROMPTS, *ANSWERS)
"""Columns that hold text in every layout, also where all of it looks like numbers."""

_LABEL = "_response_id"
_SCORES = (
    (re.compile(r"chosen_score/(.+)"), "rejected_score/{}"),
    (re.compile(r"chosen_(?!score/)(.+)"), "rejected_{}"),
    (re.compile(r"(.+)_chosen"), "{}_rejected"),
)
_LAYOUTS = (
    "chosen and rejected (transcripts, texts or messages, with or without a prompt)",
    f"prompt, response_0, response_1 and <label>{_LABEL}",
    f"{'|'.join(PROMPTS)} with completions",
    f"{'|'.join(PROMPTS)} with {'|'.join(ANSWERS)} and one column of numbers per attribute",
)


def convert(blocks: Iterable[Block], value: str | None = None, pairs_per_prompt: int = 1, seed: int = 0) -> Pairs:
    """Convert raw rows of one layout to pairs, unchecked.

    Args:
        blocks: The rows; the first block decides the layout.
        value: The label or attribute to choose by, where rows carry several.
        pairs_per_prompt: Of scored answers, at most this many pairs per prompt.
        seed: Decides between equally good pairs of scored answers.

    Raises:
        UserError: There are no rows, the layout is unknown, ``value`` is unknown or not needed, or a row is
            malformed (file and row are named).
    """
    waiting = iter(blocks)
    first = next((block for block in waiting if len(block)), None)
    if first is None:
        raise UserError("the source holds no rows, so there is nothing to learn from")
    both = _chain(first, waiting)
    columns = set(first.columns)
    if {"chosen", "rejected"} <= columns:
        if value is not None:
            raise UserError(
                f"{first.name} already says which answer was chosen, so value='{value}' cannot choose: leave it out"
            )
        return _gathered(_sides(block) for block in both)
    if {"prompt", "response_0", "response_1"} <= columns and _labels(first):
        label = choose(value.removesuffix(_LABEL) if value else None, _labels(first), first.name, "label")
        return _gathered(_labelled(block, label) for block in both)
    if find_prompt(first) and ("completions" in columns or attributes(first)):
        return scored_pairs(both, value, pairs_per_prompt, seed)
    raise UserError(_unknown(first))


def _gathered(parts: Iterable[Pairs]) -> Pairs:
    """Join pairs end to end, more of them than memory holds in a file."""
    dropped: Counter[str] = Counter()
    gathered = Spool()
    for part in parts:
        gathered.add(part.table)
        dropped.update(part.dropped)
    return Pairs(Pairs.concat([Pairs(table) for table in gathered.tables()]).table, dropped)


def _chain(first: Block, rest: Iterable[Block]) -> Iterable[Block]:
    yield first
    yield from (block for block in rest if len(block))


def _unknown(block: Block) -> str:
    found = block.columns
    wanted = {"prompt", "chosen", "rejected", "response_0", "response_1", "completions", *ANSWERS, *PROMPTS}
    near = []
    for name in found:
        hint = did_you_mean(name, wanted)
        if name not in wanted and "did you mean" in hint:
            near.append(f" ('{name}'{hint})")
    return (
        f"{block.name} has the columns {', '.join(found) or '(none)'}{''.join(near)}; "
        f"recognised are: {'; '.join(_LAYOUTS)}"
    )


def _sides(block: Block) -> Pairs:
    """Convert rows that have a chosen and a rejected side."""
    for side in ("chosen", "rejected"):
        if side not in block.columns:
            raise UserError(f"{block.name} has no column '{side}'{did_you_mean(side, block.columns)}")
    has_prompt = "prompt" in block.columns
    if _is_list(block, "chosen"):
        prompt, chosen, rejected = _conversational(block, has_prompt)
    elif has_prompt:
        prompt = _explicit_prompts(block)
        chosen, rejected = (single_turns(block.texts(side), "assistant") for side in ("chosen", "rejected"))
    else:
        prompt, chosen, rejected = _implicit(block)
    return Pairs.from_columns(prompt, chosen, rejected, block.name, block.rows, _scores(block))


def _is_list(block: Block, name: str) -> bool:
    return isinstance(block.first(name), (list, tuple))


def _explicit_prompts(block: Block) -> pa.Array:
    if _is_list(block, "prompt"):
        return block.conversations(block.each(block.column("prompt"), partial(messages, what="'prompt'")))
    texts = block.texts("prompt")
    is_transcript = pc.and_(
        pc.match_substring_regex(texts, START), pc.ends_with(pc.utf8_rtrim_whitespace(texts), ASSISTANT)
    )
    if not pc.any(is_transcript).as_py():
        return single_turns(texts, "user")
    turns: list[Conversation] = []
    for text, transcript in zip(texts.to_pylist(), is_transcript.to_pylist(), strict=True):
        whole = _merged(parse_transcript(text)[:-1]) if transcript else [Message(role="user", content=text)]
        turns.append(whole)
    return block.conversations(turns)


def _implicit(block: Block) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Split texts that begin with their prompt: transcripts if most are, else at the shared beginning."""
    texts = [block.texts(side) for side in ("chosen", "rejected")]
    marked = sum(pc.sum(pc.match_substring_regex(side, START)).as_py() for side in texts)
    split = _split_transcripts if marked > len(block) else _split_texts
    return _three(block, [split(*sides) for sides in zip(*(s.to_pylist() for s in texts), strict=True)])


def _split_transcripts(chosen: str, rejected: str) -> tuple[Conversation, Conversation, Conversation]:
    return _split_turns(_merged(parse_transcript(chosen)), _merged(parse_transcript(rejected)))


def _merged(turns: Conversation) -> Conversation:
    """Join turns of one speaker in a row, as some HH rows have them: most chat templates refuse those."""
    merged: Conversation = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            content = f"{merged[-1]['content']}\n\n{turn['content']}"
            merged[-1] = Message(role=turn["role"], content=content)
        else:
            merged.append(turn)
    return merged


def _split_turns(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, Conversation, Conversation]:
    shared = split_shared(chosen, rejected)
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _split_texts(chosen: str, rejected: str) -> tuple[Conversation, Conversation, Conversation]:
    start = os.path.commonprefix([chosen, rejected])  # noqa: RUF071
    words = re.match(r".*(?=\s)", start, re.DOTALL)  # never cut inside a word
    shared = words.end() if words else 0
    prompt = [Message(role="user", content=start[:shared].rstrip())] if start[:shared].strip() else []
    sides = [[Message(role="assistant", content=text[shared:].lstrip())] for text in (chosen, rejected)]
    return prompt, sides[0], sides[1]


def _conversational(block: Block, has_prompt: bool) -> tuple[pa.Array, pa.Array, pa.Array]:
    sides = [block.each(block.column(side), partial(messages, what=f"'{side}'")) for side in ("chosen", "rejected")]
    if not has_prompt:
        return _three(block, [_split_turns(*both) for both in zip(*sides, strict=True)])
    if _is_list(block, "prompt"):
        prompts = block.each(block.column("prompt"), partial(messages, what="'prompt'"))
    else:
        texts = block.texts("prompt").to_pylist()
        prompts = [[Message(role="user", content=text)] for text in texts]
    rows = []
    for prompt, chosen, rejected in zip(prompts, *sides, strict=True):
        repeated = any(side and side[0]["role"] != "assistant" for side in (chosen, rejected))
        rows.append(_split_turns(chosen, rejected) if repeated else (prompt, chosen, rejected))
    return _three(block, rows)


def _three(
    block: Block, rows: Sequence[tuple[Conversation, Conversation, Conversation]]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    prompt, chosen, rejected = (block.conversations([row[part] for row in rows]) for part in range(3))
    return prompt, chosen, rejected


def _scores(block: Block) -> Scores:
    found: Scores = {}
    for name in block.columns:
        for pattern, other in _SCORES:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            partner, declared = other.format(match[1]), pattern is _SCORES[0][0]
            if declared and partner not in block.columns:
                raise UserError(f"{block.name} has '{name}' without '{partner}'")
            if declared or (partner in block.columns and block.is_number(name) and block.is_number(partner)):
                first, second = (block.numbers(side, truths=not declared) for side in (name, partner))
                found[match[1]] = first, second
            break
    return found


def _labels(block: Block) -> list[str]:
    return [name.removesuffix(_LABEL) for name in block.columns if name.endswith(_LABEL)]


def _labelled(block: Block, label: str) -> Pairs:
    """Convert rows of two responses and labels; every label also becomes a score of 0 or 1."""
    prompt = single_turns(block.texts("prompt"), "user")
    responses = [block.texts(f"response_{index}") for index in (0, 1)]
    preferred = {name: block.numbers(name + _LABEL) for name in {label: 0} | dict.fromkeys(_labels(block))}
    for name, ids in preferred.items():
        wrong = np.flatnonzero(~np.isin(ids, (0, 1)) & ~np.isnan(ids))
        if len(wrong):
            got = f"{ids[wrong[0]]:g}"
            raise UserError(f"{block.where(int(wrong[0]))}: '{name}{_LABEL}' must be 0 or 1, got {got}")
    decided = ~np.isnan(preferred[label])
    second = preferred[label] == 1
    is_second = pa.array(second)
    chosen = single_turns(pc.if_else(is_second, responses[1], responses[0]), "assistant")
    rejected = single_turns(pc.if_else(is_second, responses[0], responses[1]), "assistant")
    scores: Scores = {}
    for name, ids in preferred.items():
        agrees = np.where(np.isnan(ids), np.nan, ids == second)
        scores[name] = agrees, 1 - agrees
    pairs = Pairs.from_columns(prompt, chosen, rejected, block.name, block.rows, scores)
    undecided = int((~decided).sum())
    return Pairs(pairs.filter(decided).table, {f"no label '{label}'": undecided} if undecided else {})
