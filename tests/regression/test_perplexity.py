"""Perplexities of many candidates in one pass, against dense float64 merges that transformers runs one by one."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from valuesoup.regression import perplexity
from valuesoup.regression.perplexity import document_nats, document_tokens, windows
from valuesoup.soup import Soup

WEIGHTS = (0.7, -0.4, 0.2, 1.1, 0.3)


@given(length=st.integers(2, 60), context=st.integers(2, 17))
def test_every_token_is_predicted_once_from_all_before_it_or_from_half_a_context(length: int, context: int) -> None:
    cut = windows(3, range(length), context)
    predicted = [token for window in cut for token in window.tokens[-window.scored :]]
    assert predicted == list(range(1, length))
    for window in cut:
        assert window.document == 3
        assert len(window.tokens) - 1 <= context
        assert list(window.tokens) == list(range(window.tokens[0], window.tokens[-1] + 1))
        before = len(window.tokens) - window.scored  # known when the first of them is predicted
        assert before > context // 2 or window.tokens[0] == 0


def soup_of(model: Any, count: int) -> tuple[Soup, list[Any]]:
    vectors = [tiny.random_vector(model, seed=k, rank=k + 1, std=0.1) for k in range(count)]
    return Soup.from_adapters(copy.deepcopy(model), {f"v{k}": vector for k, vector in enumerate(vectors)}), vectors


def documents(seed: int = 0, longest: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[1, *rng.integers(5, 65, size).tolist()] for size in (1, 3, longest, 7, 12, 12)]


@torch.no_grad()
def reference(model: Any, tokens: Sequence[int], context: int) -> float:
    """−log π(document), each token predicted by a pass of its own over what it may see."""
    nats = 0.0
    for place in range(1, len(tokens)):
        start = 0
        if place > context:
            moved = (place - context - 1) // (context // 2) + 1  # windows after the first
            end = min(context + 1 + moved * (context // 2), len(tokens))
            start = end - context - 1
        logits = model(input_ids=torch.tensor([tokens[start:place]])).logits[0, -1]
        nats -= float(logits.log_softmax(-1)[tokens[place]])
    return nats


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_nats_equal_those_of_dense_float64_merges_for_any_number_of_values(n: int) -> None:
    model = tiny.llama()
    soup, vectors = soup_of(model, n)
    rows = np.array([[0.0] * n, list(WEIGHTS[:n]), [1.0] + [0.0] * (n - 1)], np.float32)
    found = document_nats(soup, rows, documents())
    for row, own in zip(rows, found, strict=True):
        dense = tiny.merged(model, list(zip(vectors, row.tolist(), strict=True)))
        np.testing.assert_allclose(own, [reference(dense, tokens, 256) for tokens in documents()], rtol=1e-5)
    assert abs(found[1] - found[0]).max() > 0.1


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral"])
def test_long_documents_are_cut_into_windows_in_every_family(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "LONGEST", 9)
    model = tiny.family(kind)
    soup, vectors = soup_of(model, 2)
    found = document_nats(soup, np.array([[0, 0], [0.7, -0.4]], np.float32), documents())
    for own, terms in zip(found, ([], [(vectors[0], 0.7), (vectors[1], -0.4)]), strict=True):
        dense = tiny.merged(model, terms)
        np.testing.assert_allclose(own, [reference(dense, tokens, 9) for tokens in documents()], rtol=1e-5)


def test_a_row_of_zeros_is_the_base_whoever_shares_its_batch() -> None:
    model = tiny.llama()
    soup, _ = soup_of(model, 2)
    alone = document_nats(
        Soup(copy.deepcopy(model), layers=soup.layer_names), np.zeros((1, 0), np.float32), documents()
    )
    beside = document_nats(soup, np.array([[0.5, 0.5], [0, 0], [1, 0]], np.float32), documents())
    np.testing.assert_allclose(beside[1], alone[0], rtol=1e-6)


def test_progress_counts_every_window_of_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "LONGEST", 9)
    soup, _ = soup_of(tiny.llama(), 1)
    done: list[int] = []
    document_nats(soup, np.array([[0.0], [1.0], [0.5]], np.float32), documents(), on_done=done.append)
    assert sum(done) == 3 * sum(len(windows(0, tokens, 9)) for tokens in documents())


def test_a_document_begins_after_the_token_that_begins_a_text() -> None:
    tokenizer = tiny.tokenizer()
    assert document_tokens(tokenizer, ["w1 w2", "</s> w1"]) == [[1, 6, 7], [1, 6]]
    tokenizer.bos_token = "<pad>"
    assert document_tokens(tokenizer, ["w1"]) == [[0, 6]]
