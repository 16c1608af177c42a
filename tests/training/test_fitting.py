"""Memory that is short: batches are halved, that is said, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from valuesoup.errors import RunError
from valuesoup.soup import Soup
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TrainingRows
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import Trained

Rows = Callable[..., TrainingRows]
PROBE = 16
"""Tokens of a row; the self-check of a base has no more."""


@pytest.fixture
def settings(small: TrainingSettings) -> TrainingSettings:
    return small


def narrow(soup: Soup, most: int) -> Soup:
    """Let a forward pass of more rows run out of memory."""
    base = soup.model.base_model

    def before(_: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        ids = inputs["input_ids"] if "input_ids" in inputs else arguments[0]
        if len(ids) > most and ids.shape[1] > PROBE:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    base.register_forward_pre_hook(before, with_kwargs=True)
    return soup


def fails_backward(soup: Soup, most: int) -> Soup:
    """Let the backward pass of more rows run out of memory in its middle, when some gradients are there already."""

    def after(_: Any, __: Any, output: Tensor) -> None:
        def grown(gradient: Tensor) -> None:
            if len(gradient) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        if output.requires_grad:
            output.register_hook(grown)

    first = next(module for name, module in soup.model.named_modules() if name.endswith("o_proj"))
    first.register_forward_hook(after)
    return soup


def assert_close(one: Trained, other: Trained) -> None:
    for name, vector in one.vectors.items():
        for layer, factors in vector.layers.items():
            torch.testing.assert_close(factors.B, other.vectors[name].layers[layer].B, rtol=1e-4, atol=2e-6)
    for mine, theirs in zip(one.curves, other.curves, strict=True):
        assert dict(mine) == pytest.approx(dict(theirs), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("breaks", [narrow, fails_backward])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_whose_batches_do_not_fit_ends_in_the_same_vectors(
    fresh: Callable[..., Soup],
    rows: Rows,
    train: Callable[..., Trained],
    settings: TrainingSettings,
    breaks: Callable[[Soup, int], Soup],
    accumulate: int,
) -> None:
    settings = settings.model_copy(update={"batch_size": 8, "accumulate": accumulate, "learning_rate": 1e-3})
    said: list[str] = []
    whole = train(fresh("a"), rows(19), settings, rows(5, seed=1), work="whole")
    short = train(breaks(fresh("a"), 2), rows(19), settings, rows(5, seed=1), work="short", say=said.append)
    assert_close(short, whole)
    assert said[-1] == "memory does not suffice for 4 pairs at a time: 2 from here on"
    assert len(said) == (2 if accumulate == 1 else 1)


def test_one_pair_that_does_not_fit_stops_the_training_in_one_sentence(
    fresh: Callable[..., Soup], rows: Rows, train: Callable[..., Trained], settings: TrainingSettings
) -> None:
    with pytest.raises(RunError, match=r"memory does not suffice to train on one pair .*; lower max_length, or set"):
        train(narrow(fresh("a"), 0), rows(4), settings, say=lambda _: None)


def test_reference_log_probabilities_are_the_same_in_halves(fresh: Callable[..., Soup], rows: Rows) -> None:
    pairs = rows(11).pairs
    said: list[str] = []
    found = pair_log_probs(narrow(fresh(), 2), None, pairs, say=said.append)
    assert found == pytest.approx(pair_log_probs(fresh(), None, pairs), abs=1e-4)
    assert said == ["memory does not suffice for 11 pairs at a time: such batches are halved"]
    with pytest.raises(RunError, match="memory does not suffice for one pair"):
        pair_log_probs(narrow(fresh(), 0), None, pairs, say=said.append)
