"""Splits the pairs of all values together into train, validation and test by prompt, leaking none."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.pairs import Messages, Pairs
from valuesoup.data.spool import batches
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
    ordered = {value: _Ordered(of_value, seed) for value, of_value in pairs.items()}
    test = {value: prompts.first(test_prompts, set()) for value, prompts in ordered.items()}
    tested = {conversation for prompts in test.values() for _, conversation in prompts}
    validation = {value: prompts.first(validation_prompts, tested) for value, prompts in ordered.items()}
    held_out = tested | {conversation for prompts in validation.values() for _, conversation in prompts}
    splits: dict[str, Split] = {}
    for value, of_value in pairs.items():
        ids = of_value.table["prompt_id"].combine_chunks()
        own = _among_texts(ids, [prompt for prompt, _ in [*test[value], *validation[value]]])
        out = np.concatenate([np.empty(0, np.bool_), *(_among_texts(turns, held_out) for turns in _turns(of_value))])
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


def conversations(pairs: Pairs) -> pa.ChunkedArray:
    """Return the text of the first turn of each pair's prompt that is not a system turn, (N,) strings."""
    return pa.chunked_array(_turns(pairs), pa.large_string())


def _turns(pairs: Pairs) -> Iterator[pa.Array]:
    """Yield the first turns, batch by batch."""
    for batch in batches(pairs.table, ["prompt"]):
        prompt = batch["prompt"]
        starts = prompt.offsets.to_numpy()
        turns = prompt.values
        roles = turns.field("role").take(pa.array(starts[:-1]))
        system = pc.equal(roles, "system").to_numpy(zero_copy_only=False) & (np.diff(starts) > 1)
        yield turns.field("content").take(pa.array(starts[:-1] + system))


class _Ordered:
    """The conversations of one value's pairs in the seed's order, each known by its first prompt in that order.

    Of a conversation a hash of its text is held, and the row of that prompt: the texts may be more than memory holds.
    """

    def __init__(self, pairs: Pairs, seed: int) -> None:
        """Put the conversations in order."""
        self._pairs = pairs
        names = (name for batch in batches(pairs.table, ["prompt_id"]) for name in batch["prompt_id"].to_pylist())
        ranks = _sortable((f"{seed}:{name}".encode() for name in names), len(pairs))
        texts = (text for turns in _turns(pairs) for text in turns.cast(pa.large_binary()).to_pylist())
        hashes = _sortable(texts, len(pairs))
        order = np.lexsort(ranks.T[::-1])
        of_order = hashes[order]
        # Stable, so that of each conversation the first in the seed's order comes first.
        grouped = np.lexsort(of_order.T)
        begins = np.ones(len(pairs), dtype=np.bool_)
        begins[1:] = (of_order[grouped[1:]] != of_order[grouped[:-1]]).any(axis=1)
        self._rows = order[np.sort(grouped[begins])]

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, count: int, without: Collection[str]) -> list[tuple[str, str]]:
        """Return (prompt id, conversation) of the first conversations that are not among those of ``without``."""
        found: list[tuple[str, str]] = []
        for start in range(0, len(self), max(count, 1)):
            if len(found) >= count:
                break
            for row in self._rows[start : start + count]:
                one = self._pairs.slice(int(row), 1)
                conversation = conversations(one)[0].as_py()
                if conversation not in without:
                    found.append((one.table["prompt_id"][0].as_py(), conversation))
        return found[:count]


def _sortable(texts: Iterable[bytes], count: int) -> NDArray[np.uint64]:
    """Return the 128-bit hashes of texts as (count, 2) numbers, which sort as the hashes do."""
    digests = np.fromiter((blake2b(text, digest_size=16).digest() for text in texts), "S16", count)
    return digests.view(">u8").reshape(count, 2).astype(np.uint64)


def _among_texts(texts: pa.Array, wanted: Iterable[str]) -> NDArray[np.bool_]:
    inside = pc.is_in(texts, value_set=pa.array(sorted(wanted), texts.type))
    return np.asarray(inside.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _part(pairs: Pairs, prompts: list[tuple[str, str]]) -> Pairs:
    ids = pairs.table["prompt_id"].combine_chunks()
    return Pairs(pairs.filter(_among_texts(ids, [prompt for prompt, _ in prompts])).table)
