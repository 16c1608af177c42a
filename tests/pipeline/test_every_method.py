"""Every method of the papers and their combinations in one tiny run from the command line, and what it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_run

FUSE = "rewriter: {function: 'valuesoup.worlds.errands:fuse'}, prompts: 60, rollouts: 3"
FILTER = "{kind: consistent, tau: 0, minimum_pairs: 4}"
METHODS = [
    "dpo",
    "{preset: seqt, orders: all}",
    "{preset: dpo-lw, steps: 2}",
    "{preset: modpo, steps: 2}",
    "{preset: soup, steps: 2}",
    "{preset: vc-soup, tau: 0, steps: 2}",
    "{preset: mva, levels: [0.5, 1]}",
    f"{{preset: mora, {FUSE}}}",
    f"{{name: vc-mva, preset: mva, mode: joint, points: 2, pairs: {FILTER}}}",
    "{name: vc-modpo, preset: modpo, rewards: models, normalise: true, primary: harmless, steps: 2, "
    f"pairs: {FILTER}}}",
    f"{{name: vc-dpo-lw, preset: dpo-lw, steps: 2, pairs: {FILTER}}}",
    f"{{name: vc-mora, pairs: {{kind: expanded, {FUSE}, filter: {FILTER}}}, objective: {{kind: mixed}}}}",
    "{name: ties, preset: soup, steps: 2, composition: {kind: ties}}",
]
TRAININGS = {
    "base": 0,
    "dpo": 2,
    "seqt": 4,
    "dpo-lw": 3,
    "modpo": 3,  # (1, 0) and (1/2, 1/2), and the policy whose implicit reward is the margin
    "soup": 2,
    "vc-soup": 2,
    "mva": 2,
    "mora": 2,
    "vc-mva": 1,
    "vc-modpo": 2,
    "vc-dpo-lw": 3,
    "vc-mora": 1,
    "ties": 2,
}
VALUES = ["helpful", "harmless"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root: Path = tmp_path_factory.mktemp("every")
    settings = [
        *tiny_run.overrides(*VALUES),
        f"methods=[{', '.join(METHODS)}]",
        "base.pretrain.steps=150",
        "generation.max_new_tokens=30",
        "training.epochs=0.5",
        "training.evaluations=1",
        "evaluation.test_prompts=6",
        "evaluation.validation_prompts=4",
    ]
    done = tiny_run.valuesoup(root / "cache", *tiny_run.demo_arguments(root / "run", settings))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads((root / "run" / "results.json").read_text(encoding="utf-8"))


def candidates(results: Any, method: str) -> list[Any]:
    return [row for row in results["candidates"] if row["method"] == method]


def test_every_method_has_a_frontier_with_a_hypervolume_and_its_costs(results: Any) -> None:
    assert list(results["methods"]) == list(TRAININGS)
    for name, method in results["methods"].items():
        volume = method["hypervolume"]
        assert 0 <= volume["low"] <= volume["value"] <= max(volume["high"], 1), name
        assert method["frontier_points"] == sum(row["on_frontier"] for row in candidates(results, name)) >= 1
        assert method["trainings"] == TRAININGS[name], name
        assert (method["train_seconds"] > 0) == (method["trained_pairs"] > 0) == (name != "base")
        assert (method["expand_seconds"] > 0) == ("mora" in name)
        assert method["evaluate_seconds"] > 0


def test_candidates_are_called_differently_and_scored(results: Any) -> None:
    ids = [row["id"] for row in results["candidates"]]
    assert len(set(ids)) == len(ids)
    assert {"seqt/helpful>harmless", "seqt/harmless>helpful", "mora/helpful>harmless", "vc-mora/all"} <= set(ids)
    for row in results["candidates"]:
        assert list(row["validation"]) == VALUES
        assert (row["test"] is not None) >= row["on_frontier"]


def test_only_policies_without_weights_have_none(results: Any) -> None:
    for row in results["candidates"]:
        assert (row["weights"] is None) == (row["method"] in ("seqt", "mora", "vc-mora")), row["id"]
        assert row["weights"] is None or list(row["weights"]) == VALUES


def test_candidates_outside_the_simplex_are_those_of_a_cube(results: Any) -> None:
    for row in results["candidates"]:
        total = sum((row["weights"] or {}).values())
        assert row["outside_simplex"] == (row["method"] in ("mva", "vc-mva") and abs(total - 1) > 1e-9), row["id"]
    assert [row["outside_simplex"] for row in candidates(results, "mva")] == [False, True, True, True]


def test_dpo_and_the_one_hot_policies_of_soup_dpo_lw_and_modpo_are_the_same_policy(results: Any) -> None:
    # The same answers; a reward model reads them in other batches, so its scores are equal up to rounding.
    by_id = {
        row["id"]: [score for value in row["validation"].values() for score in value.values()]
        for row in results["candidates"]
    }
    found = {name: pytest.approx(scores, abs=1e-5) for name, scores in by_id.items()}
    for weights in ("helpful=1,harmless=0", "helpful=0,harmless=1"):
        assert by_id[f"dpo/{weights}"] == found[f"soup/{weights}"]
        assert by_id[f"dpo/{weights}"] == found[f"dpo-lw/{weights}"]
        assert by_id[f"vc-soup/{weights}"] == found[f"vc-dpo-lw/{weights}"]
    assert by_id["modpo/helpful=1,harmless=0"] == found["dpo/helpful=1,harmless=0"]
    assert by_id["vc-modpo/helpful=0,harmless=1"] == found["vc-soup/helpful=0,harmless=1"]


def test_every_training_says_how_many_pairs_it_took(results: Any) -> None:
    for name, trainings in results["trainings"].items():
        assert len(trainings) == TRAININGS[name]
        assert sum(one["pairs"] for one in trainings.values()) == results["methods"][name]["trained_pairs"]
    taken = {name: {key: one["pairs"] for key, one in of.items()} for name, of in results["trainings"].items()}
    both = sum(taken["dpo"].values())
    assert taken["dpo-lw"]["helpful=0.5,harmless=0.5"] == both
    assert taken["seqt"]["helpful then harmless"] == taken["seqt"]["harmless"] == taken["dpo"]["harmless"]
    kept = {value: rule["kept"] for value, rule in results["filters"]["vc-dpo-lw"].items()}
    assert list(results["filters"]) == ["vc-soup", "vc-mva", "vc-modpo", "vc-dpo-lw", "vc-mora"]
    assert results["filters"]["vc-soup"] == results["filters"]["vc-mora"]
    assert taken["vc-mva"] == {"all values jointly": sum(kept.values())}
    assert set(taken["vc-modpo"].values()) == {kept["harmless"]}
    assert taken["vc-dpo-lw"]["helpful=1,harmless=0"] == kept["helpful"]


def test_the_counts_of_prompt_expansion_add_up_to_the_pairs_that_were_trained(results: Any) -> None:
    expansions = results["expansions"]
    assert {name: list(of) for name, of in expansions.items()} == {
        "mora": ["helpful", "harmless after helpful"],
        "vc-mora": ["helpful and harmless"],
    }
    for of in expansions.values():
        for counts in of.values():
            assert counts["prompts"] == counts["joint"] + counts["none"] + counts["single_reward"] == 60
            lost = ("failed", "empty", "unchanged", "too_long", "held_out", "duplicate")
            assert counts["single_reward"] == counts["fused"] + sum(counts[reason] for reason in lost)
            assert counts["fused"] == counts["pairs"] + counts["without_pair"] + counts["left_out"]
            assert counts["responses"] == 3 * counts["fused"]
            assert counts["pairs"] > 0
    own = {value: of["pairs"] for value, of in results["trainings"]["dpo"].items()}
    added = {name: of["pairs"] for name, of in expansions["mora"].items()}
    assert [of["pairs"] for of in results["trainings"]["mora"].values()] == [
        own["helpful"] + added["helpful"],
        own["harmless"] + added["harmless after helpful"],
    ]
    kept = sum(rule["kept"] for rule in results["filters"]["vc-mora"].values())
    (together,) = results["trainings"]["vc-mora"].values()
    assert together["pairs"] == kept + expansions["vc-mora"]["helpful and harmless"]["pairs"]


def test_vectors_are_compared_where_a_method_has_several(results: Any) -> None:
    assert set(results["geometry"]) == {"dpo", "soup", "vc-soup", "mva", "vc-mva", "ties"}
    assert all(of["hsic"] > 0 for of in results["geometry"].values())
