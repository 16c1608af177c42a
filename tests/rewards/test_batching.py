"""Batches: every row once, within the budget, distinct texts once, and smaller ones where memory runs out."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.errors import RunError
from valuesoup.rewards import ClassifierReward
from valuesoup.rewards.batching import Budget, distinct, in_batches, padded


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100), st.integers(0, 20))
def test_batches_hold_every_row_once_longest_first_within_the_budget(lengths, tokens, before):
    cut = []
    in_batches(lengths, Budget(tokens, "m"), cut.append, before=before)
    rows = [int(row) for batch in cut for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    for batch in cut:
        assert len(batch) == 1 or len(batch) * (max(lengths[row] for row in batch) + before) <= tokens


def fail(where):
    """Fail as an allocation does for which there is no memory."""
    import torch

    if where == "gpu":
        raise torch.OutOfMemoryError
    torch.empty(1 << 50)


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_where_memory_runs_out_batches_are_halved_until_they_fit_and_stay_so(caplog, where):
    done, tried = [], []

    def work(rows):
        tried.append(len(rows))
        if len(rows) > 3:
            fail(where)
        done.extend(rows.tolist())

    budget = Budget(1000, "org/model")
    with caplog.at_level(logging.WARNING):
        in_batches([10] * 16, budget, work)
        in_batches([10] * 4, budget, work)
    assert tried == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert sorted(done) == sorted([*range(16), *range(4)])
    assert budget.halved
    assert [record.getMessage() for record in caplog.records] == [
        "org/model: memory ran out; it goes on with smaller batches, of the same scores"
    ]


def test_each_distinct_text_is_found_once():
    texts = [np.array(ids, dtype=np.int32) for ids in ([1, 2], [3], [1, 2], [1], [3])]
    first, which = distinct(texts)
    assert first == [0, 1, 3]
    assert which.tolist() == [0, 1, 0, 2, 1]


def test_padding_stands_on_the_right():
    ids, lengths = padded([np.array([4, 5, 6]), np.array([7])], 9)
    assert ids.tolist() == [[4, 5, 6], [7, 9, 9]]
    assert lengths.tolist() == [3, 1]


@pytest.fixture
def many():
    rng = np.random.default_rng(3)
    prompts = [" ".join(f"w{i}" for i in rng.integers(0, 30, 12)) for _ in range(4)]
    rows = [(prompt, " ".join(f"w{i}" for i in rng.integers(0, 30, rng.integers(1, 9)))) for prompt in prompts * 5]
    return [[{"role": "user", "content": prompt}] for prompt, _ in rows], [answer for _, answer in rows]


def test_other_errors_are_not_taken_for_short_memory():
    def work(_):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        in_batches([10] * 4, Budget(1000, "m"), work)


def limited(reward, most, where="gpu"):
    """Make the embedding of a loaded model refuse more than so many tokens at once, as a full memory would."""

    def refuse(_, given):
        if given[0].numel() > most:
            fail(where)

    return reward._loaded.model.get_input_embeddings().register_forward_pre_hook(refuse)


@pytest.mark.parametrize("decoder", [True, False])
def test_running_out_of_memory_changes_no_score_and_counts_each_text_once(classifier, many, decoder):
    reward = ClassifierReward(classifier, logit=1)
    expected = reward.score(*many)
    if not decoder:
        object.__setattr__(reward._loaded, "last_token", None)
    assert not reward.batches_halved
    limited(reward, 60)
    done = []
    np.testing.assert_allclose(reward.score(*many, done.append), expected, atol=1e-5)
    assert sum(done) == 20
    assert reward.batches_halved


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_a_text_that_fits_no_memory_stops_the_run_by_its_length(classifier, many, where):
    reward = ClassifierReward(classifier)
    reward.score(*many)
    limited(reward, 1, where)
    with pytest.raises(RunError, match=r"does not fit into memory with a text of 2\d tokens"):
        reward.score(*many)
