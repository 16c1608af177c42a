"""Drops the pairs that nothing can be learnt from, and those that would leak; counts each by reason."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.pairs import MESSAGES, Messages, Pairs, encode
from valuesoup.data.spool import batches, filtered

_TOGETHER = 1 << 20  # rows whose repeats are looked for at a time


def check(pairs: Pairs) -> Pairs:
    """Drop unusable pairs; the reasons and counts are added to ``dropped``.

    In this order, so that a pair counts once: ``no prompt`` (no turn, or a blank last turn), ``prompt does
    not end in a user turn``, ``empty chosen`` and ``empty rejected`` (no turn, or a blank last turn),
    ``answer does not end in an assistant turn``, ``equal sides``, ``contradiction`` (both orders occur of the
    same prompt and answers: all of them go), ``duplicate`` (all but the first go). White space around a
    message makes no difference to the last three.
    """
    no_prompt, prompt_by_user = _last_turns(pairs, "prompt", "user")
    no_chosen, chosen_by_assistant = _last_turns(pairs, "chosen", "assistant")
    no_rejected, rejected_by_assistant = _last_turns(pairs, "rejected", "assistant")
    prompt, chosen, rejected = (_keys(pairs, side) for side in ("prompt", "chosen", "rejected"))
    reasons = [
        ("no prompt", no_prompt),
        ("prompt does not end in a user turn", ~prompt_by_user),
        ("empty chosen", no_chosen),
        ("empty rejected", no_rejected),
        ("answer does not end in an assistant turn", ~(chosen_by_assistant & rejected_by_assistant)),
        ("equal sides", chosen == rejected),
    ]
    good = np.ones(len(pairs), dtype=np.bool_)
    counts = dict(pairs.dropped)
    for reason, bad in reasons:
        _drop(good, bad, reason, counts)
    rows = np.flatnonzero(good)
    for reason, bad in _repeats(prompt[rows], chosen[rows], rejected[rows]).items():
        whole = np.zeros(len(pairs), dtype=np.bool_)
        whole[rows] = bad
        _drop(good, whole, reason, counts)
    if good.all():
        return Pairs(pairs.table, counts)
    return Pairs(filtered(pairs.table, good), counts)


def drop_shared_prompts(pairs: Pairs, held_out: Collection[str], reason: str) -> Pairs:
    """Drop the pairs whose prompt is held out for another use, e.g. occurs in the user's own test split.

    Args:
        pairs: The pairs to train on.
        held_out: Prompt ids (``Pairs.prompt_ids``) that must not be among them.
        reason: The reason to count them under.
    """
    if not held_out:
        return pairs
    good = np.ones(len(pairs), dtype=np.bool_)
    counts = dict(pairs.dropped)
    shared = pc.is_in(pairs.table["prompt_id"], value_set=pa.array(sorted(held_out), pa.string()))
    _drop(good, shared.to_numpy(), reason, counts)
    return Pairs(pairs.filter(good).table, counts)


def drop_long(pairs: Pairs, max_words: int) -> Pairs:
    """Drop the pairs whose prompt and longer response have more than ``max_words`` words between blanks.

    A limit that needs no tokenizer: for data of which some pairs are too long for every model of a run.
    """
    good = np.ones(len(pairs), dtype=np.bool_)
    counts = dict(pairs.dropped)
    words = (_words(pair.prompt) + max(_words(pair.chosen), _words(pair.rejected)) for pair in pairs)
    _drop(good, np.fromiter(words, np.int64, len(pairs)) > max_words, f"longer than {max_words} words", counts)
    return Pairs(pairs.filter(good).table, counts)


def _words(messages: Messages) -> int:
    return sum(len(message["content"].split()) for message in messages)


def _drop(good: NDArray[np.bool_], bad: NDArray[np.bool_], reason: str, counts: dict[str, int]) -> None:
    count = int((good & bad).sum())
    if count:
        counts[reason] = counts.get(reason, 0) + count
        good &= ~bad


def _last_turns(pairs: Pairs, side: str, role: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say of each row whether its last turn is absent or blank, and whether ``role`` speaks it."""
    blank, spoken = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    for batch in batches(pairs.table, [side]):
        lengths = pc.list_value_length(batch[side]).to_numpy(zero_copy_only=False)
        last = pa.array(np.cumsum(lengths) - 1, pa.int64(), mask=lengths == 0)
        turns = batch[side].flatten().take(last)  # null where there is no turn
        text = pc.utf8_trim_whitespace(pc.struct_field(turns, "content"))
        blank.append(pc.fill_null(pc.equal(text, ""), True).to_numpy(zero_copy_only=False))
        by_role = pc.equal(pc.struct_field(turns, "role"), role)
        spoken.append(pc.fill_null(by_role, False).to_numpy(zero_copy_only=False))
    return np.concatenate(blank), np.concatenate(spoken)


def _keys(pairs: Pairs, side: str) -> NDArray[np.uint64]:
    """Return a hash of each row's turns, white space around them aside; it is never written anywhere."""
    import polars as pl

    keys = [np.empty(0, np.uint64)]
    for batch in batches(pairs.table, [side]):
        lengths = pc.list_value_length(batch[side]).to_numpy(zero_copy_only=False)
        turns = batch[side].flatten()
        content = pc.utf8_trim_whitespace(turns.field("content"))
        trimmed = pa.StructArray.from_arrays([turns.field("role"), content], fields=list(MESSAGES.value_type))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        whole = encode(pa.ListArray.from_arrays(offsets, trimmed, type=MESSAGES))
        keys.append(pl.Series(whole).hash(seed=0).to_numpy())
    return np.concatenate(keys)


def _repeats(
    prompt: NDArray[np.uint64], chosen: NDArray[np.uint64], rejected: NDArray[np.uint64]
) -> dict[str, NDArray[np.bool_]]:
    """Say of each row whether its pair contradicts or repeats another one, which has the same prompt."""
    found = {name: np.zeros(len(prompt), dtype=np.bool_) for name in ("contradiction", "duplicate")}
    groups = np.uint64(len(prompt) // _TOGETHER + 1)
    for group in range(int(groups)):
        rows = np.flatnonzero(prompt % groups == group)
        for name, bad in _repeats_among(prompt[rows], chosen[rows], rejected[rows]).items():
            found[name][rows] = bad
    return found


def _repeats_among(
    prompt: NDArray[np.uint64], chosen: NDArray[np.uint64], rejected: NDArray[np.uint64]
) -> dict[str, NDArray[np.bool_]]:
    import polars as pl

    rows = pl.DataFrame({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    pair = [pl.col("prompt"), pl.min_horizontal("chosen", "rejected"), pl.max_horizontal("chosen", "rejected")]
    found = rows.select(
        contradiction=(pl.col("chosen").min() != pl.col("chosen").max()).over(pair),
        duplicate=pl.struct("prompt", "chosen", "rejected").is_first_distinct().not_(),
    )
    return {name: found[name].to_numpy() for name in ("contradiction", "duplicate")}
