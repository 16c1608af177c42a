"""A tiny base, its pairs and their reference log-probabilities, shared by the tests of the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from valuesoup.soup import Soup, target_layers
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TrainingRows, tokenise
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import Trained, train_vectors

torch.set_num_threads(1)


@pytest.fixture
def model_of() -> Callable[[str], Any]:
    """Make a tiny model of a family, e.g. ``gpt2``, or with a window of so many tokens, e.g. ``mistral-window-64``."""

    def make(kind: str) -> Any:
        family, _, window = kind.partition("-window-")
        model = tiny.family(family)
        if window:
            model.config.sliding_window = int(window)
        if family == "granite":
            model.config.logits_scaling = 4.0
        return model

    return make


@pytest.fixture
def small() -> TrainingSettings:
    return TrainingSettings(rank=4, dropout=0.0, learning_rate=5e-3, batch_size=4, epochs=2, max_length=64)


@pytest.fixture
def fresh(model_of: Callable[[str], Any]) -> Callable[..., Soup]:
    """Make a soup with new vectors on a tiny base."""

    def make(*names: str, kind: str = "llama", dropout: float = 0.0, seed: int = 0) -> Soup:
        model = model_of(kind)
        soup = Soup(model, tiny.tokenizer(), layers=target_layers(model), dropout=dropout)
        for name in names:
            soup.add_fresh(name, rank=4, alpha=8, seed=seed)
        return soup

    return make


@pytest.fixture
def rows(fresh: Callable[..., Soup]) -> Callable[..., TrainingRows]:
    """Make training rows of random pairs with the base's reference."""

    def make(count: int, seed: int = 0, *, kind: str = "llama", vector: int = 0) -> TrainingRows:
        pairs = tokenise(tiny.random_pairs(count, seed), tiny.tokenizer(), 64)
        return TrainingRows.plain(pairs, pair_log_probs(fresh(kind=kind), None, pairs), vector)

    return make


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """Train the vectors of a soup in a folder of its own."""

    def run(
        soup: Soup,
        training: TrainingRows,
        settings: TrainingSettings,
        validation: TrainingRows | None = None,
        work: str = "work",
        **options: Any,
    ) -> Trained:
        options = {"names": soup.names, "seed": 0, **options}
        return train_vectors(soup, training, validation, settings, work=tmp_path / work, **options)

    return run
