"""The stages of MORA in a row: which prompts are mined, which pairs come out, and what is counted."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tiny_expansion import ADMITS, FUNCTION, ROLLOUTS, THRESHOLDS, Chain, calm, eager, made
from valuesoup.data import Pairs
from valuesoup.errors import UserError
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.expansion import EXPANDED, select_pairs
from valuesoup.store import Artifact, Store
from valuesoup.worlds.errands import fuse
from valuesoup.worlds.errands.tables import FUSED


def test_prompts_are_drawn_from_training_each_once_per_rollout(chain: Chain, store: Store) -> None:
    first, again, others, parts = made(
        store, chain.prompts(), chain.prompts(limit=10), chain.prompts(seed=1), chain.split
    )
    listed = first.json("prompts.json")["prompts"]
    ids = [prompt["id"].split("#")[0] for prompt in listed]
    assert len(set(ids)) == 40
    assert [prompt["id"] for prompt in listed] == [f"{one}#{k}" for one in dict.fromkeys(ids) for k in range(ROLLOUTS)]
    training = {value: set(load_part(parts, value, "train").prompt_ids) for value in THRESHOLDS}
    for prompt, one in zip(listed, ids, strict=True):
        assert prompt["datasets"] == [value for value in THRESHOLDS if one in training[value]]
    assert any(len(prompt["datasets"]) == 2 for prompt in listed), "a prompt of two data sets counts once"
    assert again.json("prompts.json")["prompts"] == listed[: 10 * ROLLOUTS], "a smaller draw begins the larger one"
    assert others.json("prompts.json")["prompts"] != listed


def test_prompts_that_are_too_long_are_counted_and_none_left_is_an_error(chain: Chain, store: Store) -> None:
    (cut,) = made(store, chain.prompts(max_tokens=16, limit=None))
    found = cut.json("prompts.json")
    assert found["too_long"] > 0
    (whole,) = made(store, chain.prompts(limit=None))
    assert (
        len(found["prompts"]) // ROLLOUTS + found["too_long"] == len(whole.json("prompts.json")["prompts"]) // ROLLOUTS
    )
    with pytest.raises(UserError, match="every training prompt is longer than"):
        made(store, chain.prompts(max_tokens=3))


def test_single_reward_prompts_are_the_narrow_ones_and_lack_what_they_do_not_admit(chain: Chain, store: Store) -> None:
    (mined,) = made(store, chain.mined())
    found = mined.json("mined.json")
    counts = found["counts"]
    assert counts["prompts"] == 40 == counts["joint"] + counts["none"] + counts["single_reward"]
    assert len(found["prompts"]) == counts["single_reward"] > 5
    assert counts["joint"] > 0 and counts["none"] > 0
    assert np.load(mined.path / "scores.npy").shape == (counts["single_reward"], ROLLOUTS, 2)
    narrow = 0
    for prompt in found["prompts"]:
        clause = next((c for c in ADMITS if prompt["messages"][-1]["content"].endswith(c)), None)
        if clause is not None:
            narrow += 1
            assert prompt["missing"] == [value for value in THRESHOLDS if value != ADMITS[clause]]
    assert narrow > 5
    rows = {(row["prompts"], row["value"], row["n"]): row for row in found["profile"]}
    assert {name for name, _, _ in rows} == {"eager", "calm", "single-reward"}
    assert all(rows["single-reward", "joint", n]["pass"] == 0 for n in range(1, ROLLOUTS + 1))
    assert all(row["low"] <= row["pass"] <= row["high"] for row in rows.values())
    assert rows["single-reward", "joint", 1]["size"] == counts["single_reward"]


def test_the_default_thresholds_are_the_medians(chain: Chain, store: Store) -> None:
    prompts = chain.prompts()
    scores = chain.rolled(prompts)[1]
    mined, *rated = made(store, chain.mined(None), *scores.values())
    medians = [float(np.median(pq_scores(one))) for one in rated]
    assert list(mined.json("mined.json")["thresholds"].values()) == medians


def pq_scores(rated: Artifact) -> Any:
    from valuesoup.rewards import RewardTable

    return RewardTable.load(rated.path / "scores.parquet").scores


@pytest.mark.parametrize(
    ("thresholds", "values", "message"),
    [
        (None, ["eager"], "this run has one value only"),
        ({"eager": 0.0, "clam": 0.0}, ["eager", "calm"], "'clam', which is no value of the run; did you mean 'calm'"),
        ({"eager": 0.0}, ["eager", "calm"], "the thresholds lack one of 'calm'"),
        ({"eager": 5.0, "calm": 0.0}, ["eager", "calm"], "no rollout passes 'eager': its threshold is 5 and its high"),
        ({"eager": -9.0, "calm": -9.0}, ["eager", "calm"], "of 40, 40 have a rollout that passes every value and 0"),
    ],
)
def test_thresholds_that_find_nothing_are_refused(
    chain: Chain, store: Store, thresholds: dict[str, float] | None, values: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(store, chain.mined(thresholds, values))


def test_the_worlds_fusion_lets_every_value_pass_and_the_counts_add_up(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    fused, expanded, answers, mined = made(
        store, prompts, chain.selected(prompts), chain.rolled(prompts)[0], chain.mined()
    )
    listed = fused.json("prompts.json")["prompts"]
    found = expanded.json("expansion.json")
    counts = found["counts"]
    listed, again = listed[: counts["fused"] * ROLLOUTS], listed[counts["fused"] * ROLLOUTS :]
    for one, other in zip(listed, again, strict=True):
        assert one["messages"][-1]["content"].endswith(FUSED)
        assert one["messages"][-1]["content"] == fuse(other["messages"][-1]["content"])
    mined_ids = {prompt["id"] for prompt in made(store, chain.prompts())[0].json("prompts.json")["prompts"]}
    assert not {prompt["id"] for prompt in again} & mined_ids, "new ids, new draws"
    dropped = ("failed", "empty", "unchanged", "too_long", "held_out", "duplicate")
    assert counts["single_reward"] == counts["fused"] + sum(counts[reason] for reason in dropped)
    assert counts["fused"] * ROLLOUTS == len(listed) == counts["responses"]
    assert counts["fused"] == counts["pairs"] + counts["without_pair"] + counts["left_out"]
    assert counts["unchanged"] > 0, "some prompts were fused from the start"
    joint = {row["prompts"]: row for row in found["profile"] if row["value"] == "joint" and row["n"] == ROLLOUTS}
    assert joint["fused"]["low"] > joint["single-reward again"]["pass"] >= joint["single-reward"]["pass"] == 0
    assert joint["fused"]["size"] == joint["single-reward again"]["size"] == counts["fused"]

    pairs = Pairs.load(expanded.path / EXPANDED / "train.parquet")
    assert len(pairs) == counts["pairs"] > 3
    assert [len(load_part(expanded, EXPANDED, part)) for part in ("validation", "test")] == [0, 0]
    sigma = np.std([pq_scores(one)[:, 0, 0] for one in made(store, *chain.rolled(prompts)[1].values())], axis=1)
    margins = []
    for place, pair in enumerate(pairs):
        sides = [pairs.scores(value)[place] for value in THRESHOLDS]
        told = [
            reward([pair.prompt] * 2, [pair.chosen[0]["content"], pair.rejected[0]["content"]])
            for reward in (eager, calm)
        ]
        np.testing.assert_array_equal(sides, told)
        assert all(chosen > rejected for chosen, rejected in sides), "better in every value"
        margins.append(sum((one - other) / of for (one, other), of in zip(sides, sigma, strict=True)))
    assert margins == sorted(margins, reverse=True)
    table = load_answers(answers).to_pylist()
    asked = {json.dumps(prompt["messages"]) for prompt in listed}
    cut = {row["text"] for row in table if not row["finished"]} - {row["text"] for row in table if row["finished"]}
    for pair in pairs:
        assert json.dumps(list(pair.prompt)) in asked
        assert not {pair.chosen[0]["content"], pair.rejected[0]["content"]} & (cut | {""})

    for value in THRESHOLDS:
        rows = [row for row in found["distribution"] if row["value"] == value]
        sides = [[row for row in rows if row["prompts"] == name] for name in ("single-reward", "fused")]
        edges = [[(row["low"], row["high"]) for row in side] for side in sides]
        assert edges[0] == edges[1]
        assert [sum(row["share"] for row in side) for side in sides] == pytest.approx([1, 1])
    before = np.load(mined.path / "scores.npy")
    low = min(row["low"] for row in found["distribution"] if row["value"] == "eager")
    assert low <= before[:, :, 0].min()


def test_the_pairs_of_the_largest_margin_are_kept(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    whole, some = made(store, chain.selected(prompts), chain.selected(prompts, most=3))
    assert load_part(some, EXPANDED, "train").ids == load_part(whole, EXPANDED, "train").ids[:3]
    counts = some.json("expansion.json")["counts"]
    assert (counts["pairs"], counts["left_out"]) == (3, whole.json("expansion.json")["counts"]["pairs"] - 3)


def constantly(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [1.0] * len(answers)


def test_no_pair_at_all_says_the_counts_of_each_step(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    answers, scores = chain.rolled(prompts)
    scores["calm"] = chain.rated(answers, prompts, "calm", f"{__name__}:constantly")
    none = select_pairs("select", mined=chain.mined(), prompts=prompts, answers=answers, scores=scores, most=None)
    with pytest.raises(UserError, match=r"of 40 prompts \d+ admit some values only, \d+ of them were fused, and of"):
        made(store, none)
