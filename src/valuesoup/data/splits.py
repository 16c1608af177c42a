"""Splits the pairs of all values together into train, validation and test by prompt, leaking none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.pairs import Pairs
from valuesoup.errors import UserError

HELD_OUT = "prompt held out by another value"


@dataclass(frozen=True)
class Split:
    """The three parts of one value's pairs; ``train.dropped`` goes on counting, the other two start at none."""

    train: Pairs
    validation: Pairs
    test: Pairs


def split_pairs(
    pairs: Mapping[str, Pairs], test_prompts: int = 200, validation_prompts: int = 50, seed: int = 0
) -> dict[str, Split]:
    """Split the pairs of every value by prompt; the sizes of the paper are the defaults.

    The seed puts all prompts of all values into one random order. A value's test prompts are the first
    ``test_prompts`` of its own in that order, its validation prompts the next ones that are no value's test
    prompts, and it trains on what no value holds out. So each test set is a fair sample of its own data,
    values that share prompts share test prompts, and no prompt is trained on under one value and judged
    under another. What a value loses to the others is counted in ``train.dropped``.

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
    for value, prompts in ordered.items():
        if len(prompts) <= test_prompts + validation_prompts:
            raise UserError(
                f"value '{value}' has {len(prompts)} prompts, too few for {test_prompts} test and "
                f"{validation_prompts} validation prompts and any to train on: give more data or lower "
                "test_prompts and validation_prompts"
            )
    test = {value: prompts[:test_prompts] for value, prompts in ordered.items()}
    all_test = set().union(*test.values())
    left = {value: [p for p in prompts if p not in all_test] for value, prompts in ordered.items()}
    validation = {value: prompts[:validation_prompts] for value, prompts in left.items()}
    held_out = all_test.union(*validation.values())
    splits: dict[str, Split] = {}
    for value, of_value in pairs.items():
        own = _among(of_value, [*test[value], *validation[value]])
        out = _among(of_value, held_out)
        train = Pairs(of_value.filter(~out).table, of_value.dropped)
        if others := int((out & ~own).sum()):
            train.dropped[HELD_OUT] = others
        if not len(train) or len(validation[value]) < validation_prompts:
            raise UserError(
                f"value '{value}' has {len(ordered[value])} prompts, of which the test sets of all values take "
                f"{len(ordered[value]) - len(left[value])}; that leaves {len(left[value])}, too few for "
                f"{validation_prompts} validation prompts and any to train on: give more data or lower "
                "test_prompts and validation_prompts"
            )
        splits[value] = Split(train, _part(of_value, validation[value]), _part(of_value, test[value]))
    return splits


def _ordered(pairs: Pairs, seed: int) -> list[str]:
    unique = pc.unique(pairs.table["prompt_id"]).to_pylist()
    return sorted(unique, key=lambda prompt: blake2b(f"{seed}:{prompt}".encode(), digest_size=16).digest())


def _among(pairs: Pairs, prompts: Iterable[str]) -> NDArray[np.bool_]:
    inside = pc.is_in(pairs.table["prompt_id"], value_set=pa.array(sorted(prompts), pa.string()))
    return np.asarray(inside.to_numpy(), dtype=np.bool_)


def _part(pairs: Pairs, prompts: list[str]) -> Pairs:
    return Pairs(pairs.filter(_among(pairs, prompts)).table)
