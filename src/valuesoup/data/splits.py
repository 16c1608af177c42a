"""Splits the pairs of all values together into train, validation and test by prompt, leaking none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.pairs import Messages, Pairs
from valuesoup.errors import UserError

HELD_OUT = "conversation held out"


@dataclass(frozen=True)
class Split:
    """The three parts of one value's pairs; ``train.dropped`` goes on counting, the other two start at none."""

    train: Pairs
    validation: Pairs
    test: Pairs


def split_pairs(
    pairs: Mapping[str, Pairs], test_prompts: int = 200, validation_prompts: int = 50, seed: int = 0
) -> dict[str, Split]:
    """Split the pairs of every value by conversation; the sizes of the paper are the defaults.

    Prompts that begin with the same turn (but for a system turn) are one conversation: in HH-RLHF a prompt is often
    the beginning of another one. The seed puts all prompts of all values into one random order. A value's test
    prompts are the first ``test_prompts`` of its own in that order, one of each conversation, its validation prompts
    the next ones of conversations that no value tests, and it trains on the conversations that no value holds out.
    So each test set is a fair sample of its own data, values that share prompts share test prompts, and nothing of
    a conversation is trained on under one value and judged under another. What training loses beside the held-out
    prompts themselves is counted in ``train.dropped``.

    The order depends on the seed and the text of the prompts, not on the order of the rows.

    Args:
        pairs: The pairs of each of the n values.
        test_prompts: Prompts per value in its test part; all their pairs go with them.
        validation_prompts: Prompts per value in its validation part.
        seed: Chooses the order.

    Returns:
        The parts per value, in the order of ``pairs``.

    Raises:
        UserError: There are no values, a size is negative, or a value has too few prompts (with numbers).
    """
    if not pairs:
        raise UserError("no pairs to split: give the pairs of at least one value")
    for name, size in (("test_prompts", test_prompts), ("validation_prompts", validation_prompts)):
        if size < 0:
            raise UserError(f"{name} must be at least 0, got {size}")
    ordered = {value: _ordered(of_value, seed) for value, of_value in pairs.items()}
    test = {value: prompts[:test_prompts] for value, prompts in ordered.items()}
    tested = {conversation for prompts in test.values() for _, conversation in prompts}
    left = {value: [p for p in prompts if p[1] not in tested] for value, prompts in ordered.items()}
    validation = {value: prompts[:validation_prompts] for value, prompts in left.items()}
    held_out = tested | {conversation for prompts in validation.values() for _, conversation in prompts}
    splits: dict[str, Split] = {}
    for value, of_value in pairs.items():
        ids = of_value.table["prompt_id"].combine_chunks()
        own = _among_texts(ids, [prompt for prompt, _ in [*test[value], *validation[value]]])
        out = _among_texts(conversations(of_value), held_out)
        train = Pairs(of_value.filter(~out).table, of_value.dropped)
        if others := int((out & ~own).sum()):
            train.dropped[HELD_OUT] = others
        if not len(train) or len(test[value]) < test_prompts or len(validation[value]) < validation_prompts:
            raise UserError(
                f"value '{value}' has {len(pc.unique(of_value.table['prompt_id']))} prompts in {len(ordered[value])} "
                f"conversations, too few for {test_prompts} test and {validation_prompts} validation prompts of its "
                "own conversations and any to train on: give more data or lower test_prompts and validation_prompts"
            )
        splits[value] = Split(train, _part(of_value, validation[value]), _part(of_value, test[value]))
    return splits


def first_turn(messages: Messages) -> str:
    """Return the text of a conversation's first turn that is not a system turn, by which splits know it."""
    return next((turn["content"] for turn in messages if turn["role"] != "system"), messages[0]["content"])


def conversations(pairs: Pairs) -> pa.Array:
    """Return the text of the first turn of each pair's prompt that is not a system turn, (N,) strings."""
    prompt = pairs.table["prompt"].combine_chunks()
    starts = prompt.offsets.to_numpy()
    turns = prompt.values
    roles = turns.field("role").take(pa.array(starts[:-1]))
    system = pc.equal(roles, "system").to_numpy(zero_copy_only=False) & (np.diff(starts) > 1)
    return turns.field("content").take(pa.array(starts[:-1] + system))


def _ordered(pairs: Pairs, seed: int) -> list[tuple[str, str]]:
    """Return a (prompt id, conversation) of each conversation in the seed's order, its first prompt in that order."""
    table = pa.table({"prompt": pairs.table["prompt_id"].combine_chunks(), "conversation": conversations(pairs)})
    unique = table.group_by(["prompt", "conversation"]).aggregate([])
    ranked = sorted(
        zip(unique["prompt"].to_pylist(), unique["conversation"].to_pylist(), strict=True),
        key=lambda row: blake2b(f"{seed}:{row[0]}".encode(), digest_size=16).digest(),
    )
    first: dict[str, str] = {}
    for prompt, conversation in ranked:
        first.setdefault(conversation, prompt)
    return [(prompt, conversation) for conversation, prompt in first.items()]


def _among_texts(texts: pa.Array, wanted: Iterable[str]) -> NDArray[np.bool_]:
    inside = pc.is_in(texts, value_set=pa.array(sorted(wanted), texts.type))
    return np.asarray(inside.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _part(pairs: Pairs, prompts: list[tuple[str, str]]) -> Pairs:
    ids = pairs.table["prompt_id"].combine_chunks()
    return Pairs(pairs.filter(_among_texts(ids, [prompt for prompt, _ in prompts])).table)
