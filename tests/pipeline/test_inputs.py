"""A reward model that a worker opened for one stage serves the next one, with the same scores and counts of its own."""

from pathlib import Path

import numpy as np
import pytest

from valuesoup.pipeline import inputs
from valuesoup.pipeline.inputs import open_reward
from valuesoup.rewards import ClassifierReward
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
    kept.begin("scores")
    first, found = scores(reward)
    loaded, first.truncated = first._loaded, 3
    assert np.array_equal(found, expected)
    kept.begin("scores")
    again, found = scores(reward)
    assert again._loaded is loaded is not None
    assert again.truncated == 0, "of this stage alone"
    assert np.array_equal(found, expected)
    kept.begin("train")
    assert scores(reward)[0] is not first
