"""Rewards from functions and columns, and the scoring of pairs: each response once, every mistake named."""

import json
import sys

import numpy as np
import pytest

from valuesoup.data.pairs import Pairs
from valuesoup.errors import UserError
from valuesoup.rewards import CallableReward, ClassifierReward, ColumnReward, RewardSource, as_source, score


def length(prompts, answers):
    return [len(answer) for answer in answers]


def turns(prompts, answers):
    return np.array([len(prompt) for prompt in prompts], dtype=np.float32)


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


PAIRS = [
    {"prompt": "hello", "chosen": "good day", "rejected": "what"},
    {"prompt": "hello", "chosen": "hi", "rejected": "good day"},
    {"prompt": "bye", "chosen": "good day", "rejected": "so long then"},
]


def test_both_sides_of_every_pair_are_scored_under_every_value():
    pairs = Pairs.from_rows(PAIRS)
    table = score(pairs, {"short": lambda p, a: [-len(x) for x in a], "long": length}, "greetings")
    assert table.items == pairs.ids
    assert table.sides == ("chosen", "rejected")
    assert table.values == ("short", "long")
    assert table.dataset == "greetings"
    np.testing.assert_array_equal(table.scores[:, :, 1], [[8, 4], [2, 8], [8, 12]])
    np.testing.assert_array_equal(table.scores[:, :, 0], -table.scores[:, :, 1])


def test_each_distinct_prompt_and_response_is_scored_once():
    seen = []

    def spy(prompts, answers):
        seen.extend((prompt[-1]["content"], answer) for prompt, answer in zip(prompts, answers, strict=True))
        return length(prompts, answers)

    score(Pairs.from_rows(PAIRS), {"v": spy})
    assert len(seen) == len(set(seen)) == 5


def test_pairs_scored_in_parts_have_the_scores_of_all_at_once(monkeypatch):
    table = Pairs.from_rows(PAIRS).table.append_column("chosen_score/honest", [[1.0, 2.0, 3.0]])
    pairs = Pairs(table.append_column("rejected_score/honest", [[0.5, 2.5, 0.0]]))
    rewards = {"long": length, "truth": ColumnReward("honest"), "turns": turns}
    whole = score(pairs, rewards, "greetings")
    monkeypatch.setattr("valuesoup.rewards.sources.TOGETHER", 2)
    parts = score(pairs, rewards, "greetings")
    assert (parts.items, parts.values, parts.dataset) == (whole.items, whole.values, whole.dataset)
    np.testing.assert_array_equal(parts.scores, whole.scores)


def test_a_number_that_is_not_finite_names_its_pair_also_in_a_later_part(monkeypatch):
    monkeypatch.setattr("valuesoup.rewards.sources.TOGETHER", 2)
    pairs = Pairs.from_rows(PAIRS)
    with pytest.raises(UserError, match=f"Pair {pairs.ids[2]} of data set 'greetings', value 'v'"):
        score(
            pairs,
            {"v": lambda _, answers: [float("nan") if a == "so long then" else 1.0 for a in answers]},
            "greetings",
        )


def test_a_response_of_several_turns_is_its_last_turn_after_the_others():
    rows = [{"prompt": [user("a")], "chosen": [bot("b"), user("c"), bot("dd")], "rejected": [bot("e")]}]
    np.testing.assert_array_equal(score(Pairs.from_rows(rows), {"v": length}).scores[0, :, 0], [2, 1])
    np.testing.assert_array_equal(score(Pairs.from_rows(rows), {"v": turns}).scores[0, :, 0], [3, 1])


def test_the_boundary_between_turns_is_not_confused_by_the_texts():
    rows = [
        {"prompt": [user("a")], "chosen": [bot("b c")], "rejected": [bot("x")]},
        {"prompt": [user("a b")], "chosen": [bot("c")], "rejected": [bot("x")]},
    ]
    np.testing.assert_array_equal(score(Pairs.from_rows(rows), {"v": length}).scores[:, 0, 0], [3, 1])


def scored_pairs(chosen=(1.0, 2.0, 3.0)):
    table = Pairs.from_rows(PAIRS).table.append_column("chosen_score/honest", [chosen])
    return Pairs(table.append_column("rejected_score/honest", [[0.5, 2.5, 0.0]]))


def test_a_column_brings_the_scores_of_the_data():
    table = score(scored_pairs(), {"truth": ColumnReward("honest"), "long": length})
    np.testing.assert_array_equal(table.scores[:, :, 0], [[1, 0.5], [2, 2.5], [3, 0]])
    with pytest.raises(UserError, match="honest"):
        score(scored_pairs(), {"truth": ColumnReward("honnest")})


def test_a_score_missing_in_the_data_names_the_pair():
    pairs = scored_pairs(chosen=(1.0, np.nan, 3.0))
    with pytest.raises(UserError, match=pairs.ids[1]):
        score(pairs, {"truth": ColumnReward("honest")})


def test_settings_become_sources():
    assert isinstance(as_source(length), CallableReward)
    assert isinstance(as_source("math:fsum"), CallableReward)
    assert isinstance(as_source("org/reward-model"), ClassifierReward)
    source = ColumnReward("x")
    assert as_source(source) is source
    for one in (as_source(length), as_source("org/reward-model")):
        assert isinstance(one, RewardSource)
    with pytest.raises(UserError, match="no reward"):
        as_source(3)


def test_a_function_is_found_by_name_also_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_own_rewards.py").write_text("def count(prompts, answers):\n    return [1.5 for _ in answers]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    reward = CallableReward("my_own_rewards:count")
    assert reward.score([[user("a")]], ["b"]).tolist() == [1.5]
    with pytest.raises(UserError, match="did you mean 'count'"):
        CallableReward("my_own_rewards:coutn")
    with pytest.raises(UserError, match="no_such_module_here"):
        CallableReward("no_such_module_here:count")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p, a: [1.0], "2 answers went in"),
        (lambda p, a: 1.0, "2 answers went in"),
        (lambda p, a: [[1.0], [2.0]], "2 answers went in"),
        (lambda p, a: ["good", "bad"], "does not convert to numbers"),
        (lambda p, a: None, "one number per answer"),
        (lambda p, a: [0.0, float("nan")], "returned nan for answer 1 .'worse'"),
        (lambda p, a: [float("inf"), 0.0], "returned inf for answer 0 .'better'"),
    ],
)
def test_what_a_function_returns_is_checked_and_named(function, words):
    with pytest.raises(UserError, match=words) as caught:
        CallableReward(function).score([[user("q")]] * 2, ["better", "worse"])
    assert "test_reward_sources" in str(caught.value)


def test_fingerprints_are_plain_data_that_tell_rewards_apart():
    prints = [
        CallableReward(length).fingerprint,
        CallableReward(turns).fingerprint,
        CallableReward("math:fsum").fingerprint,
        CallableReward(lambda prompts, answers: [0.0]).fingerprint,
        CallableReward(lambda prompts, answers: [1.0]).fingerprint,
        ColumnReward("a").fingerprint,
        ColumnReward("b").fingerprint,
    ]
    assert len({json.dumps(one, sort_keys=True) for one in prints}) == len(prints)


def test_scoring_nothing_is_refused():
    pairs = Pairs.from_rows(PAIRS)
    with pytest.raises(UserError, match="at least one pair and one value"):
        score(pairs, {})
    with pytest.raises(UserError, match="'empty'"):
        score(pairs.take([]), {"v": length}, "empty")
