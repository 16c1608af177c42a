"""Training rows: token ids of pairs, pairs that are too long, batches, and the reference's log-probabilities."""

import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tiny
from valuesoup.data.pairs import Pairs
from valuesoup.soup import Soup, sequences
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import LengthGroups, Ragged, SideBySide, TrainingRows, pair_batch, tokenise
from valuesoup.training.settings import PretrainSettings, TrainingSettings


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, list[dict[str, str]]]:
    turn = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
    return {key: [{"role": role, "content": text}] for key, (role, text) in turn.items()}


def test_a_pair_is_tokenised_as_the_policy_sees_it() -> None:
    made = tokenise(Pairs.from_rows([pair("w0 w1", "w2", "w3 w4")]), tiny.tokenizer(), 64)
    assert made.prompts[0] == [2, 5, 6, 3]  # <user> w0 w1 <asst>
    assert made.chosen[0] == [7, 1]  # w2 </s>
    assert made.rejected[0] == [8, 9, 1]


def test_a_pair_is_left_out_when_either_side_is_too_long_and_the_places_say_which_stay() -> None:
    pairs = Pairs.from_rows(
        [
            pair("w0", "w1", "w2"),  # 3 + 2 tokens
            pair("w0", "w1 w2 w3 w4", "w1"),  # 3 + 5
            pair("w0 w1 w2", "w1", "w2 w3"),  # 5 + 3
            pair("w0", "w1 w2", "w1 w2 w3"),  # 3 + 4
            pair("w0", "w1", "w1 w2 w3 w4 w5"),  # 3 + 6
        ]
    )
    made = tokenise(pairs, tiny.tokenizer(), 7)
    assert made.places.tolist() == [0, 3]
    assert made.ids == [pairs.ids[0], pairs.ids[3]]
    assert made.rejected[1] == [6, 7, 8, 1]  # never cut
    assert tokenise(pairs, tiny.tokenizer(), 8).places.tolist() == [0, 1, 2, 3]
    assert len(tokenise(pairs, tiny.tokenizer(), 1)) == 0
    assert len(tokenise(pairs.take([]), tiny.tokenizer(), 64)) == 0


def test_pairs_tokenised_a_few_at_a_time_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = tiny.random_pairs(11)
    longest = int(np.median(tokenise(pairs, tiny.tokenizer(), 64).lengths()))
    whole = tokenise(pairs, tiny.tokenizer(), longest)
    assert 0 < len(whole) < 11
    monkeypatch.setattr("valuesoup.training.rows.AT_ONCE", 3)
    parts = tokenise(pairs, tiny.tokenizer(), longest)
    assert parts.ids == whole.ids == [pairs.ids[place] for place in whole.places]
    assert parts.places.tolist() == whole.places.tolist()
    for found, expected in zip(
        (parts.prompts, parts.chosen, parts.rejected), (whole.prompts, whole.chosen, whole.rejected), strict=True
    ):
        assert (found.tokens.dtype, found.starts.dtype) == (np.int32, np.int64)
        assert [found[place] for place in range(len(found))] == [expected[place] for place in range(len(expected))]


def test_tokenising_takes_little_more_memory_than_the_token_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuesoup.training.rows.AT_ONCE", 32)
    words = " ".join(f"w{place % 20}" for place in range(200))
    pairs = Pairs.from_rows([pair(f"w1 {words}", words, f"w2 {words}")]).take(np.zeros(1000, int))
    tokenizer = tiny.tokenizer()
    tokenise(pairs.slice(0, 32), tokenizer, 1024)  # what the libraries keep
    tracemalloc.start()
    try:
        made = tokenise(pairs, tokenizer, 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(made) == 1000
    assert peak < 1.5 * 4 * int(made.lengths().sum() + made.chosen.common(made.rejected).sum())


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=8))
def test_flat_arrays_give_the_sequences_back(sequences: list[list[int]]) -> None:
    ragged = Ragged.of(sequences)
    assert [ragged[place] for place in range(len(ragged))] == sequences
    assert ragged.lengths().tolist() == [len(ids) for ids in sequences]


def test_a_batch_holds_each_rows_own_numbers_and_its_answers_side_by_side(rows: Callable[..., TrainingRows]) -> None:
    made = replace(rows(5, vector=1), margin=np.arange(5) / 10, scale=np.full(5, 0.5))
    batch = made.collate([3, 0])
    assert batch["row"].tolist() == [3, 0]
    assert batch["margin"].tolist() == pytest.approx([0.3, 0.0])
    assert batch["scale"].tolist() == [0.5, 0.5]
    assert batch["weight"].tolist() == [1.0, 1.0]
    assert batch["vector"].tolist() == [1, 1]
    np.testing.assert_allclose(batch["reference"].numpy(), made.reference[[3, 0]], rtol=1e-6)
    apart = pair_batch(batch).apart()
    for place, ids in enumerate([made.pairs.chosen[3], made.pairs.chosen[0], made.pairs.rejected[3]]):
        assert apart.responses[place][apart.response_mask[place]].tolist() == ids
        whole = made.pairs.prompts[[3, 0, 3][place]] + ids
        assert apart.input_ids[place][apart.attention_mask[place].bool()].tolist() == whole


lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=6)


@given(lists, lists)
def test_the_common_start_is_counted_and_leaves_each_sequence_a_token(
    one: list[list[int]], other: list[list[int]]
) -> None:
    both = list(zip(one, other, strict=False))
    found = Ragged.of([a for a, _ in both]).common(Ragged.of([b for _, b in both])).tolist()
    for (a, b), same in zip(both, found, strict=True):
        assert a[:same] == b[:same]
        assert same < min(len(a), len(b))
        assert same == min(len(a), len(b)) - 1 or a[same] != b[same]


def test_the_lengths_of_rows_are_the_tokens_that_the_model_reads(rows: Callable[..., TrainingRows]) -> None:
    made = rows(6)
    for place in range(6):
        assert made.collate([place])["tokens"].shape[1] == made.lengths()[place] - 1
    wanted = (
        len(made.pairs.prompts[p]) + max(len(made.pairs.chosen[p]), len(made.pairs.rejected[p])) for p in range(6)
    )
    assert made.pairs.longest() == max(wanted)


@pytest.mark.filterwarnings("ignore:mistral. prompts are computed once for each response")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_reference_log_probabilities_equal_a_plain_float64_computation(kind: str, fresh: Callable[..., Soup]) -> None:
    made = tokenise(tiny.random_pairs(7), tiny.tokenizer(), 64)
    counted: list[int] = []
    found = pair_log_probs(fresh(kind=kind), None, made, batch_pairs=3, on_done=counted.append)
    dense = tiny.family(kind).double()
    with torch.no_grad():
        for place in range(7):
            for side, answers in enumerate((made.chosen, made.rejected)):
                ids, start = made.prompts[place] + answers[place], len(made.prompts[place])
                logits = dense(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                truth = sum(logits[at - 1, ids[at]].item() for at in range(start, len(ids)))
                assert found[place, side] == pytest.approx(truth, abs=1e-4)
    assert sum(counted) == 7
    np.testing.assert_allclose(found, pair_log_probs(fresh(kind=kind), None, made, batch_pairs=1), atol=1e-4)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_vocabulary_limits_the_pairs_of_a_pass_only_where_all_logits_are_held(
    adapted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "LOGIT_BUDGET", 1)
    model = tiny.llama()
    soup = Soup(model, layers=["lm_head"] if adapted else [])
    made = tokenise(tiny.random_pairs(9), tiny.tokenizer(), 64)
    counted: list[int] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "llama: logits are computed whole")
        pair_log_probs(soup, None, made, on_done=counted.append)
    assert counted == ([1] * 9 if adapted else [9])
    monkeypatch.setattr(sequences, "TOKEN_BUDGET", 2 * int(made.lengths().max()))
    counted.clear()
    pair_log_probs(soup, None, made, on_done=counted.append)
    assert sum(counted) == 9
    assert len(counted) > 2


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    assert TrainingSettings(rank=16).lora_alpha == 32.0
    assert TrainingSettings(rank=16, alpha=8).lora_alpha == 8.0
    with pytest.raises(ValidationError, match="accumulate = 3 must divide batch_size = 8"):
        TrainingSettings(batch_size=8, accumulate=3)
    with pytest.raises(ValidationError, match="hidden = 36 must be a multiple of 2 x heads = 8"):
        PretrainSettings(hidden=36, heads=4)
    with pytest.raises(ValidationError, match="schedule"):
        TrainingSettings.model_validate({"schedule": "liner"})
    with pytest.raises(ValidationError, match="dropout"):
        TrainingSettings(dropout=1.0)


def test_rows_of_a_batch_have_similar_lengths_and_every_row_comes_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 1003)
    groups = LengthGroups(lengths, 8, seed=1)
    first = list(groups)
    assert sorted(first) == list(range(1003))
    spans = [np.ptp(lengths[first[start : start + 8]]) for start in range(0, 1000, 8)]
    assert np.mean(spans) < 3  # in a random order about 43
    groups.set_epoch(1)
    second = list(groups)
    assert second != first
    groups.set_epoch(0)
    assert list(groups) == first


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_vectors_side_by_side_have_the_batches_that_each_has_alone(count: int) -> None:
    lengths = np.random.default_rng(1).integers(5, 60, 21 * count)
    vector = np.random.default_rng(2).permutation(np.repeat(np.arange(count), 21))
    groups = SideBySide(lengths, vector, 4, seed=3)
    for epoch in (0, 1):
        groups.set_epoch(epoch)
        order = np.array(list(groups))
        assert sorted(order) == list(range(len(groups)))
        steps = np.split(order, range(4 * count, len(order), 4 * count))
        assert [len(step) for step in steps] == [4 * count] * 5 + [count]
        for one in range(count):
            places = np.flatnonzero(vector == one)
            alone = LengthGroups(lengths[places], 4, seed=3)
            alone.set_epoch(epoch)
            mine = np.concatenate([step[vector[step] == one] for step in steps])
            assert mine.tolist() == places[list(alone)].tolist()
    with pytest.raises(ValueError, match="equally many"):
        SideBySide(lengths[:5], np.array([0, 0, 1, 1, 1]), 4, seed=3)


WORDS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


@given(st.lists(WORDS, min_size=1, max_size=3))
def test_flat_arrays_join_into_the_sequences_of_all(parts: list[list[list[int]]]) -> None:
    joined = Ragged.concat([Ragged.of(part) for part in parts])
    assert [joined[place] for place in range(len(joined))] == [ids for part in parts for ids in part]


@given(st.lists(st.tuples(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)), st.booleans()), max_size=6))
def test_where_takes_each_sequence_from_one_side(rows: list[tuple[list[int], list[int], bool]]) -> None:
    mine, other = Ragged.of([row[0] for row in rows]), Ragged.of([row[1] for row in rows])
    found = mine.where(np.array([row[2] for row in rows], bool), other)
    assert [found[place] for place in range(len(found))] == [a if take else b for a, b, take in rows]


def numbered(made: TrainingRows, vector: int = 0) -> TrainingRows:
    """Give every row numbers of its own."""
    place = np.arange(len(made), dtype=float)
    return replace(
        made, weight=1 + place, scale=0.1 + place, margin=place - 3, vector=np.full(len(made), vector, np.int64)
    )


def assert_equal_rows(one: TrainingRows, other: TrainingRows) -> None:
    assert len(one) == len(other)
    for place in range(len(one)):
        first, second = one[place], other[place]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_joined_rows_are_the_rows_of_each_part_with_their_numbers(rows: Callable[..., TrainingRows]) -> None:
    first, second = numbered(rows(3)), numbered(rows(4, seed=1), vector=1)
    joined = TrainingRows.concat([first, second])
    assert joined.pairs.ids == first.pairs.ids + second.pairs.ids
    for place in range(7):
        row = joined[place]
        own = first[place] if place < 3 else second[place - 3]
        assert all(torch.equal(row[key], own[key]) for key in row if key != "row")
    assert joined.lengths().tolist() == [*first.lengths(), *second.lengths()]


def test_a_swapped_row_is_the_pair_written_the_other_way_round(rows: Callable[..., TrainingRows]) -> None:
    made = numbered(rows(5))
    mask = np.array([True, False, False, True, False])
    found = made.swapped(mask)
    pairs = replace(made.pairs, chosen=made.pairs.rejected, rejected=made.pairs.chosen)
    turned = replace(made, pairs=pairs, reference=made.reference[:, ::-1], margin=-made.margin)
    for place, swap in enumerate(mask):
        expected = (turned if swap else made)[place]
        assert all(torch.equal(found[place][key], expected[key]) for key in expected)
    assert_equal_rows(found.swapped(mask), made)
    assert made.swapped(np.zeros(5, bool)) is made
