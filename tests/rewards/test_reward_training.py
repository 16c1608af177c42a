"""Training a reward model: it learns what is there, leaves a clean folder, and repeats itself by seed."""

import json
import math
import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from valuesoup.data.pairs import Pairs
from valuesoup.errors import UserError
from valuesoup.rewards import ClassifierReward, RewardTraining, train_reward_model
from valuesoup.rewards.training import accuracy

QUICK = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 16}


@pytest.mark.parametrize("rank", [None, 8])
def test_an_easy_preference_is_learnt_in_seconds(base, tmp_path, easy, rank, capfd):
    out = tmp_path / "rm"
    report = train_reward_model(base, easy(300), easy(100, seed=1), out, RewardTraining(**QUICK, rank=rank))
    assert report.validation_accuracy >= 0.95
    assert (report.pairs, report.validation_pairs, report.too_long) == (300, 100, 0)
    assert report.train_loss < math.log(2)
    assert ClassifierReward(out, self_check=(("w1", "w2 good", "w2 bad"),)).score([], []).shape == (0,)
    assert accuracy(ClassifierReward(out), easy(100, seed=1)) == report.validation_accuracy
    assert accuracy(ClassifierReward(out, sign=-1), easy(100, seed=1)) == 1 - report.validation_accuracy
    assert capfd.readouterr().out == ""


def test_the_folder_holds_a_model_and_its_tokenizer_and_nothing_else(base, tmp_path, easy):
    out = tmp_path / "rm"
    train_reward_model(base, easy(16), easy(4), out, RewardTraining())
    names = {path.name for path in out.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl")) or name.startswith("checkpoint")}
    config = json.loads((out / "config.json").read_text())
    assert config["pad_token_id"] == 0
    assert config["architectures"] == ["LlamaForSequenceClassification"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(base, tmp_path, easy):
    def scores(name, seed):
        train_reward_model(base, easy(32), easy(4), tmp_path / name, RewardTraining(seed=seed))
        return ClassifierReward(tmp_path / name).score([p.prompt for p in easy(8)], ["w1 w2"] * 8)

    first = scores("one", 0)
    np.testing.assert_array_equal(scores("two", 0), first)
    assert (scores("three", 1) != first).any()


def test_pairs_beyond_the_limit_are_left_out_and_counted(base, tmp_path, easy):
    long = Pairs.from_rows([{"prompt": "w1 " * 70, "chosen": "w2", "rejected": "w3"}])
    train, validation = Pairs.concat([easy(16), long]), Pairs.concat([easy(4), long, long])
    report = train_reward_model(base, train, validation, tmp_path / "rm", RewardTraining())
    assert (report.pairs, report.validation_pairs, report.too_long) == (16, 4, 3)
    with pytest.raises(UserError, match="None of the 1 training pairs fits the 64 tokens"):
        train_reward_model(base, long, validation, tmp_path / "none", RewardTraining())


def test_without_validation_pairs_the_accuracy_is_unknown(base, tmp_path, easy):
    report = train_reward_model(base, easy(16), easy(4).take([]), tmp_path / "rm")
    assert math.isnan(report.validation_accuracy)
    assert report.validation_pairs == 0


def test_a_template_is_used_in_training_as_in_scoring(base, tmp_path, easy):
    settings = RewardTraining(**QUICK, template="sys: {prompt} bot: {response}")
    report = train_reward_model(base, easy(300), easy(50, seed=1), tmp_path / "rm", settings)
    reward = ClassifierReward(tmp_path / "rm", template=settings.template)
    assert accuracy(reward, easy(50, seed=1)) == report.validation_accuracy >= 0.95


def test_ties_count_half(classifier, easy):
    same = Pairs.from_rows([{"prompt": "w1", "chosen": "w2 w40", "rejected": "w2 w41"}])  # both unknown words
    assert accuracy(ClassifierReward(classifier), same) == 0.5


def test_a_base_without_tokenizer_is_named(base, tmp_path, easy):
    bare = tmp_path / "bare"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    with pytest.raises(UserError, match="tokenizer"):
        train_reward_model(bare, easy(4), easy(4), tmp_path / "rm")
    assert not (tmp_path / "rm").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"learning_rate": -1},
        {"batch_size": 0},
        {"max_length": 0},
        {"rank": 0},
        {"learning_rate": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        RewardTraining(**settings)
