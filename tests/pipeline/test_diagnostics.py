"""The stages of the diagnostics as plans call them, on a tiny base, and their part of the results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.data import Pairs
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.diagnostics import gradient_conflict
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.run import run
from valuesoup.pipeline.sources import load_log_probs
from valuesoup.soup import ValueVector, geometry
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, run_graph, topological

torch.set_num_threads(1)
NAMES = "abcde"
FILTERED = "{preset: vc-soup, steps: 2, pairs: {kind: consistent, tau: -0.3, minimum_pairs: 4}}"


def length(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float(len(answer.split())) + 0.01 * int(answer.split()[0][1:]) for answer in answers]


def early(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """How early in the vocabulary the words of an answer stand; empty answers are worst."""
    return [
        -float(np.mean([int(word[1:]) for word in answer.split() if word[1:].isdigit()] or [99])) for answer in answers
    ]


def rows(file: str, swap: bool = False) -> list[dict[str, Any]]:
    found = []
    for pair in Pairs.load(Path(file)):
        sides = [list(pair.chosen), list(pair.rejected)]
        chosen, rejected = sides[::-1] if swap else sides
        found.append({"prompt": list(pair.prompt), "chosen": chosen, "rejected": rejected})
    return found


class Bench:
    """A tiny base, values whose data are files of random pairs, and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny.save_base(folder / "base")
        for place, name in enumerate(NAMES):
            tiny.random_pairs(24, seed=place).save(folder / f"{name}.parquet")

    def config(self, files: str, *overrides: str, swap: str = "", methods: str = "soup") -> RunConfig:
        """A run of values v0, v1, … with the pairs of these files; those named in ``swap`` have their sides swapped."""
        lines = [f"base: {{model: {self.base}, device: cpu}}", "values:"]
        for place, file in enumerate(files):
            arguments = f"{{file: {self.folder / file}.parquet, swap: {str(str(place) in swap).lower()}}}"
            reward = f"'{__name__}:{('length', 'early')[place % 2]}'"
            lines.append(f"  v{place}: {{data: {{function: '{__name__}:rows', arguments: {arguments}}},")
            lines.append(f"    reward: {{function: {reward}}}}}")
        lines += [
            f"methods: [{methods}]",
            "training: {rank: 2, dropout: 0, learning_rate: 0.01, batch_size: 4, epochs: 1, max_length: 64}",
            "generation: {max_new_tokens: 4}",
            "evaluation: {test_prompts: 3, validation_prompts: 5, resamples: 20, samples: 1}",
        ]
        return parse_config("\n".join(lines), "bench", overrides)

    def make(self, *nodes: Node) -> Mapping[str, Artifact]:
        return run_graph(nodes, Store(self.folder / "store"), Progress(), RunLog(self.folder / "log.jsonl"))

    def conflict(self, plan: Plan, method: str = "") -> dict[str, Any]:
        node = plan.conflict[method]
        found: dict[str, Any] = self.make(node)[node.key].json("conflict.json")
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def test_values_of_the_same_pairs_agree_and_values_of_swapped_pairs_conflict(bench: Bench) -> None:
    same = bench.conflict(make_plan(bench.config("aa")))
    assert same["conflicts"][0]["cosine"] == pytest.approx(1.0, abs=1e-9)
    swapped = bench.conflict(make_plan(bench.config("aa", swap="1")))
    assert swapped["conflicts"][0]["cosine"] == pytest.approx(-1.0, abs=1e-6)
    assert swapped["pairs"] == same["pairs"]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_two_values_are_compared_once_and_one_value_has_nothing_to_compare(bench: Bench, n: int) -> None:
    plan = make_plan(bench.config(NAMES[:n]))
    if n == 1:
        assert plan.conflict == plan.connectivity == {}
        return
    content = bench.conflict(plan)
    assert len(content["conflicts"]) == n * (n - 1) // 2
    assert list(content["pairs"]) == [f"v{place}" for place in range(n)]
    for row in content["conflicts"]:
        assert -1 <= row["cosine"] <= 1
        assert row["error"] >= 0
        assert 0 <= row["ceiling"] <= 1


def test_a_filter_gives_a_conflict_of_its_own_on_the_pairs_that_it_keeps(bench: Bench) -> None:
    plan = make_plan(bench.config("ab", methods=f"soup, {FILTERED}"))
    assert list(plan.conflict) == ["", "vc-soup"]
    kept = [
        int(np.count_nonzero(np.load(bench.make(node)[node.key].path / "train.npy")))
        for node in plan.recipes["vc-soup"].filters.values()
    ]
    whole, filtered = bench.conflict(plan), bench.conflict(plan, "vc-soup")
    assert list(filtered["pairs"].values()) == kept
    assert all(few < all_of for few, all_of in zip(kept, whole["pairs"].values(), strict=True))
    assert filtered["conflicts"] != whole["conflicts"]


def test_flipping_every_pair_of_one_value_turns_the_sign_of_the_cosine(bench: Bench) -> None:
    plan = make_plan(bench.config("ab"))
    (before,) = bench.conflict(plan)["conflicts"]
    inputs = plan.conflict[""].inputs
    flip = bench.folder / "flip"
    flip.mkdir()
    split = bench.make(plan.split)[plan.split.key]
    np.save(flip / "train.npy", -np.ones(len(load_part(split, "v1", "train"))))
    place = bench.folder / "flipped"
    place.mkdir()
    given = {**inputs, "split": split, "selections": {"v0": None, "v1": Artifact(flip, "flip", 0.0)}}
    gradient_conflict.function(tiny_work(place), **given)
    (after,) = json.loads((place / "conflict.json").read_text())["conflicts"]
    assert after["cosine"] == pytest.approx(-before["cosine"], abs=1e-6)


def tiny_work(out: Path) -> Any:
    """What a stage gets, without a store."""
    from valuesoup.store import Work

    return Work(out=out, label="test", progress=Progress(), log=lambda *_, **__: None)


def test_pairs_that_are_too_long_are_left_out_and_counted(bench: Bench) -> None:
    content = bench.conflict(make_plan(bench.config("ab", "training.max_length=16")))
    assert all(count > 0 for count in content["too_long"].values())
    pairs = make_plan(bench.config("ab"))
    assert content["pairs"].keys() == bench.conflict(pairs)["pairs"].keys()
    for value, count in bench.conflict(pairs)["pairs"].items():
        assert content["pairs"][value] + content["too_long"][value] == count
    none = bench.conflict(make_plan(bench.config("ab", "training.max_length=4")))
    assert none["conflicts"] == []
    assert set(none["pairs"].values()) == {0}


def test_speed_and_presentation_make_no_diagnostic_anew_and_the_switch_leaves_them_out(bench: Bench) -> None:
    def keys(*overrides: str) -> set[str]:
        plan = make_plan(bench.config("ab", *overrides, methods=f"soup, {FILTERED}"))
        return {node.key for of in (plan.conflict, plan.connectivity) for node in of.values()}

    assert len(keys()) == 4
    assert keys("evaluation.level=0.8", "evaluation.resamples=9", "base.device=cuda") == keys()
    assert keys("training.gradient_checkpointing=true", "training.report_to=[wandb]") & keys()
    assert keys("evaluation.diagnostics=false") == set()
    off = topological(make_plan(demo_config(overrides=["evaluation.diagnostics=false"])).targets())
    assert not {node.stage.name for node in off} & {"conflict", "connectivity"}


def test_methods_that_share_vectors_or_filters_share_their_diagnostics() -> None:
    plan = make_plan(demo_config(overrides=["methods=[dpo, soup, vc-soup, {preset: vc-soup, name: vc-cube}]"]))
    assert plan.connectivity["dpo"].key == plan.connectivity["soup"].key != plan.connectivity["vc-soup"].key
    assert plan.conflict["vc-soup"].key == plan.conflict["vc-cube"].key != plan.conflict[""].key


def test_a_run_tells_conflict_connectivity_and_correlation(bench: Bench, tmp_path: Path) -> None:
    config = bench.config("abc", methods=f"{{preset: soup, steps: 2}}, {FILTERED}")
    finished = run(config, tmp_path / "run")
    results, plan = finished.results, finished.plan
    assert list(results["conflict"]) == ["all pairs", "vc-soup"]
    assert list(results["connectivity"]) == ["soup", "vc-soup"]
    split = finished.artifacts[plan.split.key]
    for method, of in results["connectivity"].items():
        assert of["pairs"] == {value: len(load_part(split, value, "validation")) for value in results["values"]}
        vectors = {
            name: ValueVector.load(finished.artifacts[node.key].path / "adapter")
            for name, node in plan.recipes[method].geometry.items()
        }
        whole = {(row.first, row.second): row.l2 for row in geometry(vectors) if row.layer == ""}
        assert [(path["first"], path["second"]) for path in of["paths"]] == list(whole)
        for path in of["paths"]:
            assert path["squared_distance"] == pytest.approx(whole[path["first"], path["second"]] ** 2)
            ends = (path["ladder"][0], path["ladder"][-1])
            assert [end["weight"] for end in ends] == [0.0, 1.0]
            assert all(end["gap"] == {"mean": 0.0, "low": 0.0, "high": 0.0} for end in ends)
            assert all(end["predicted"] == 0.0 for end in ends)
            middle = path["ladder"][2]
            assert middle["predicted"] == pytest.approx(-0.125 * path["curvature"]["mean"])
            assert middle["gap"]["low"] <= middle["gap"]["mean"] <= middle["gap"]["high"]
            loss = middle["loss"] - (ends[0]["loss"] + ends[1]["loss"]) / 2
            assert middle["gap"]["mean"] == pytest.approx(loss, abs=1e-12)
    overs = [(row["over"], row["dataset"]) for row in results["correlation"]]
    assert overs.count(("answers", None)) == overs.count(("answers to one prompt", None)) == 3
    assert {("gaps", value) for value in results["values"]} <= set(overs)
    for row in results["candidates"]:
        if row["quality"] is not None:
            assert row["quality"]["perplexity"] >= 1
            assert 0 <= row["quality"]["repetition"] < 1
            assert 0 < row["quality"]["distinct_2"] <= 1


def test_the_loss_at_a_vector_is_that_of_its_stored_log_probabilities(bench: Bench) -> None:
    """f(θ_i) of one value alone, from a pass of its own over the trained policy."""
    config = bench.config("ab")
    plan = make_plan(config)
    node = plan.connectivity["soup"]
    found = bench.make(node)
    (path,) = found[node.key].json("connectivity.json")["paths"]
    from valuesoup.pipeline.shared import Shared

    shared = Shared.of(config)
    vector = plan.recipes["soup"].geometry["v0"]
    losses = []
    for value in ("v0", "v1"):
        nodes = [shared.log_probs(shared.split, value, of) for of in (vector, None)]
        stored = bench.make(*nodes)
        pairs = load_part(found[plan.split.key], value, "validation")
        moved, base = (load_log_probs(stored[one.key], pairs.ids) for one in nodes)
        margin = 0.1 * ((moved - base) @ np.array([1.0, -1.0]))
        losses.append(float(np.log1p(np.exp(-margin)).mean()))
    assert path["ladder"][-1]["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
