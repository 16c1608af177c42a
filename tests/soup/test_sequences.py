"""Log-probabilities of responses against a plain float64 computation; batches within their budget."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from valuesoup.soup import Soup, sequences
from valuesoup.soup.sequences import SequenceBatch, batches_by_length, padded, token_log_probs


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_log_probabilities_equal_a_plain_float64_computation(kind: str) -> None:
    model = tiny.family(kind)
    vector = tiny.random_vector(model, 0)
    soup = Soup.from_adapters(copy.deepcopy(model), {"a": vector})
    prompts = [[7, 8, 9], [10], [11, 12, 13, 14, 15, 16]]
    answers = [[20, 1], [21, 22, 23, 1], [1]]
    weights = torch.tensor([[1.0], [0.5], [0.0]])
    with torch.no_grad():
        found = token_log_probs(soup, weights, SequenceBatch.build(prompts, answers))
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            dense = tiny.merged(model, [(vector, float(weights[place, 0]))])
            logits = dense(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            for step, token in enumerate(answer):
                truth = logits[len(prompt) + step - 1, token]
                assert found[place, step].item() == pytest.approx(truth.item(), abs=1e-5)
            assert found[place, len(answer) :].abs().sum() == 0


def test_a_batch_by_hand() -> None:
    batch = SequenceBatch.build([[5, 6], [7]], [[8], [9, 1]])
    assert batch.input_ids.tolist() == [[5, 6, 8, 0], [0, 7, 9, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert batch.responses.tolist() == [[8, 0], [9, 1]]
    assert batch.response_mask.tolist() == [[True, False], [True, True]]


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 99), st.integers(0, 1 << 20))
def test_batches_hold_every_place_once_and_keep_to_their_limits(lengths: list[int], rows: int, vocabulary: int) -> None:
    found = list(batches_by_length(lengths, rows, vocabulary))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        widest = max(lengths[place] for place in batch)
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * widest * vocabulary <= sequences.LOGIT_BUDGET
        assert len(batch) == 1 or len(batch) * widest <= sequences.TOKEN_BUDGET


ragged = st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=5)


@given(ragged, st.booleans())
def test_padding_stands_on_one_side_and_is_no_token(rows: list[list[int]], left: bool) -> None:
    ids, real = padded(rows, left=left)
    width = max(map(len, rows))
    assert ids.shape == real.shape == (len(rows), width)
    for row, found, own in zip(rows, ids, real, strict=True):
        assert found[own].tolist() == row
        filler = [0] * (width - len(row))
        assert found.tolist() == (filler + row if left else row + filler)
