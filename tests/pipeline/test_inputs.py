"""A model that a worker opened for one stage serves the next one, as if it were loaded anew."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import random_vector, save_base
from valuesoup.config import BaseConfig
from valuesoup.pipeline import inputs
from valuesoup.pipeline.inputs import base_ref, open_base, open_reward
from valuesoup.rewards import ClassifierReward
from valuesoup.soup import Soup, target_layers
from valuesoup.store import Artifact
from valuesoup.store.kept import Kept


@pytest.fixture
def reward(demo_run: tuple[Path, str]) -> Artifact:
    path = next((demo_run[0] / "artifacts").glob("reward-*"))
    return Artifact(path, path.name.partition("-")[2], 0.0)


def scores(reward: Artifact) -> tuple[ClassifierReward, np.ndarray]:
    source = open_reward(reward, "cpu")
    assert isinstance(source, ClassifierReward)
    asked = [[{"role": "user", "content": text}] for text in ("Where is the key?", "Who is it?")]
    return source, source.score(asked, ["In the hall.", "No."])


def test_a_worker_loads_it_once_and_scores_alike(reward: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, expected = scores(reward)
    assert scores(reward)[0] is not fresh, "a process that is no worker keeps nothing"
    monkeypatch.setattr(inputs, "KEPT", kept := Kept())
    kept.begin()
    first, found = scores(reward)
    loaded, first.truncated = first._loaded, 3
    assert np.array_equal(found, expected)
    again, found = scores(reward)
    assert again._loaded is loaded is not None
    assert again.truncated == 0, "of this stage alone"
    assert np.array_equal(found, expected)
    kept.let_go()
    assert scores(reward)[0] is not first


def test_a_worker_loads_a_base_once_and_hands_it_out_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_base(tmp_path / "base")
    base = base_ref(BaseConfig(model=str(folder), dtype="float32"))
    assert open_base(base, "cpu")[0] is not open_base(base, "cpu")[0], "a process that is no worker keeps nothing"
    monkeypatch.setattr(inputs, "KEPT", kept := Kept())
    kept.begin()
    model, tokenizer = open_base(base, "cpu")
    tokens = torch.tensor([[5, 6, 7, 8]])
    expected = model(tokens).logits
    kinds = [type(module) for module in model.modules()]
    vector = random_vector(model, 1)
    soup = Soup(model, tokenizer, layers=target_layers(model), dropout=0.5)
    soup.add("first", vector)
    with warnings.catch_warnings(action="error"):  # users would be told of names of transformers
        soup.checkpoint_activations()
    soup.requires_grad_(True)
    soup.train()
    soup.row_weights.set(torch.ones(1, 1))
    assert not torch.equal(model(tokens).logits, expected)
    again, _ = open_base(base, "cpu")
    assert again is model
    assert [type(module) for module in again.modules()] == kinds
    assert not again.training
    assert not any(getattr(module, "gradient_checkpointing", False) for module in again.modules())
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(again(tokens).logits, expected)
    Soup(again, tokenizer, layers=target_layers(again))
    other = base_ref(BaseConfig(model=str(folder), dtype="bfloat16"))
    assert open_base(other, "cpu")[0] is not model
