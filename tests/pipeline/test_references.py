"""Reference log-probabilities: one pass over a base and its pairs, whatever the split, the seed and the method."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.data import Pairs
from valuesoup.errors import RunError
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import run
from valuesoup.pipeline.sources import load_log_probs, save_log_probs
from valuesoup.soup import Soup, load_model
from valuesoup.store import Artifact, Node, topological
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import tokenise


def config(folder: Path, *overrides: str) -> RunConfig:
    """A run on files of pairs and a tiny base that are there already."""
    folder.mkdir(exist_ok=True)
    if not (folder / "base").exists():
        tiny.save_base(folder / "base")
        for place, value in enumerate("ab"):
            rows = [
                {"prompt": list(pair.prompt), "chosen": list(pair.chosen), "rejected": list(pair.rejected)}
                for pair in tiny.random_pairs(40, seed=place)
            ]
            (folder / f"{value}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [f"base: {{model: {folder / 'base'}, device: cpu}}", "values:"]
    rewards = "reward: {function: 'tiny_rewards:length'}"
    lines += [f"  {value}: {{data: {folder / f'{value}.jsonl'}, {rewards}}}" for value in "ab"]
    lines += [
        "methods: [{preset: soup, steps: 2}]",
        "training: {rank: 2, epochs: 1, batch_size: 8, learning_rate: 1.0e-3, dropout: 0}",
        "generation: {max_new_tokens: 4}",
        "evaluation: {test_prompts: 4, validation_prompts: 4, resamples: 50, samples: 1, fluency_bound: 0}",
    ]
    return parse_config("\n".join(lines), "test", overrides=list(overrides))


def references(of: RunConfig) -> list[Node]:
    return [node for node in topological(make_plan(of).targets()) if node.stage.name == "reference"]


def started(folder: Path) -> list[str]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [event["stage"] for event in map(json.loads, lines) if event["event"] == "start"]


@pytest.mark.parametrize(
    "override", ["seed=1", "evaluation.test_prompts=7", "training.rank=4", "methods=[{preset: vc-soup, tau: 0}, modpo]"]
)
def test_every_seed_split_rank_and_method_asks_for_the_same_references(tmp_path: Path, override: str) -> None:
    one, other = references(config(tmp_path)), references(config(tmp_path, override))
    assert len(one) == 2
    assert {node.key for node in one} <= {node.key for node in other}
    assert all(node.inputs["policy"] is not None for node in other if node.key not in {had.key for had in one})


def test_a_second_seed_makes_no_reference_pass_and_ends_as_it_does_without_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config(tmp_path / "data"), tmp_path / "one")
    second = run(config(tmp_path / "data", "seed=1"), tmp_path / "two")
    assert started(tmp_path / "one").count("reference") == 2
    assert "reference" not in started(tmp_path / "two")
    assert "train" in started(tmp_path / "two")
    monkeypatch.setenv("VALUESOUP_CACHE", str(tmp_path / "another"))
    alone = run(config(tmp_path / "data", "seed=1"), tmp_path / "alone")
    assert started(tmp_path / "alone").count("reference") == 2
    assert second.results["candidates"] == alone.results["candidates"] != first.results["candidates"]


def test_stored_log_probabilities_are_those_of_every_pair_as_read(tmp_path: Path) -> None:
    given = config(tmp_path / "data")
    run(given, tmp_path / "run")
    for node in references(given):
        artifact = Artifact(tmp_path / "run" / "artifacts" / node.folder, node.label, 0.0)
        value = node.inputs["pairs"].inputs["value"]
        pairs = Pairs.load(tmp_path / "run" / "artifacts" / node.inputs["pairs"].folder / "pairs.parquet")
        assert value in node.label
        assert len(pairs) == 40
        soup = Soup(load_model(tmp_path / "data" / "base"), layers=[])
        plain = pair_log_probs(soup, None, tokenise(pairs, tiny.tokenizer(), 1024))
        np.testing.assert_allclose(load_log_probs(artifact, pairs.ids), plain, atol=1e-4)


def of_stages(of: RunConfig, *names: str) -> list[Node]:
    return [node for node in topological(make_plan(of).targets()) if node.stage.name in names]


TRAINED = ("reference", "train", "train-joint")
METHODS = "methods=[{preset: soup, steps: 2}, seqt, {preset: mva, mode: joint}, {preset: modpo, steps: 3}]"


def test_a_training_and_its_references_compute_alike_and_their_keys_say_in_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (METHODS, "evaluation.diagnostics=false")  # which refer to the base in float32 alone
    plain, half, auto = (
        of_stages(config(tmp_path, *given, f"training.bf16={bf16}"), *TRAINED) for bf16 in ("false", "true", "auto")
    )
    assert {node.stage.name for node in plain} == set(TRAINED)
    assert {node.key for node in auto} == {node.key for node in plain}  # on a CPU
    assert not {node.key for node in half} & {node.key for node in plain}
    for nodes, bf16 in ((plain, False), (half, True)):
        for node in nodes:
            assert (node.inputs["settings"].bf16 if "settings" in node.inputs else node.inputs["bf16"]) is bf16
    # The same configuration on a machine with a GPU that computes in bfloat16, and on one without.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for device, gpu, same in (("auto", True, half), ("auto", False, plain), ("'cuda:1'", True, half)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        found = of_stages(config(tmp_path, *given, f"base.device={device}"), *TRAINED)
        assert {node.key for node in found} == {node.key for node in same}


def test_a_run_in_bfloat16_starts_at_ln_2(tmp_path: Path) -> None:
    plain = "evaluation.diagnostics=false"
    tiny_steps = ("training.batch_size=40", "training.learning_rate=1e-9")
    given = config(tmp_path / "data", plain, "training.bf16=true", *tiny_steps)
    run(given, tmp_path / "run")
    exact = config(tmp_path / "data", plain, "training.bf16=false")
    run(exact, tmp_path / "exact")
    folder = tmp_path / "run" / "artifacts"
    for node, other in zip(references(given), references(exact), strict=True):
        found = np.load(folder / node.folder / "log_probs.npy")
        assert np.abs(found - np.load(tmp_path / "exact" / "artifacts" / other.folder / "log_probs.npy")).max() > 1e-2
    for node in of_stages(given, "train"):
        curves = json.loads((folder / node.folder / "curves.json").read_text(encoding="utf-8"))
        assert curves[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)


def test_log_probabilities_are_looked_up_by_pair_and_a_pair_without_any_is_an_error(tmp_path: Path) -> None:
    pairs = tiny.random_pairs(30)
    found = np.random.default_rng(0).normal(size=(30, 2))
    found[3] = np.nan
    save_log_probs(tmp_path, pairs.ids, found)
    artifact = Artifact(tmp_path, "reference", 0.0)
    order = random.Random(0).sample(range(30), 12)
    np.testing.assert_array_equal(load_log_probs(artifact, [pairs.ids[place] for place in order]), found[order])
    assert load_log_probs(artifact, []).shape == (0, 2)
    with pytest.raises(RunError, match="lacks log-probabilities of some pairs"):
        load_log_probs(artifact, [pairs.ids[0], "0" * 16])
    (tmp_path / "none").mkdir()
    save_log_probs(tmp_path / "none", [], np.zeros((0, 2)))
    assert load_log_probs(Artifact(tmp_path / "none", "reference", 0.0), []).shape == (0, 2)
    with pytest.raises(RunError, match="lacks"):
        load_log_probs(Artifact(tmp_path / "none", "reference", 0.0), ["0" * 16])
