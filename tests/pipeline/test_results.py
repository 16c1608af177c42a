"""results.json of a real, tiny run: its fields, their types, and what must hold between them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from tiny import save_base
from valuesoup.configfile import load_config, parse_config
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.run import open_run, read_results, run
from valuesoup.pipeline.status import run_status
from valuesoup.report.assemble import write_run_report
from valuesoup.store import Progress
from valuesoup.worlds.errands import pairs as errands


@pytest.fixture(scope="module")
def results(demo_run: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((demo_run[0] / "results.json").read_text())  # type: ignore[no-any-return]


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def check_schema(results: dict[str, Any], values: list[str], *, sound: bool = True) -> None:
    """Check every documented field, its type, and what must hold between the fields; ``sound``: texts are fluent."""
    assert results["schema"] == 1
    assert results["values"] == values
    assert isinstance(results["seed"], int)
    assert all(math.isfinite(number) for number in numbers(results))
    for model in results["reward_models"].values():
        assert 0 <= model["validation_accuracy"] <= 1
        assert isinstance(model["pairs"], int)
        assert model["pairs"] > 0
    for of in results["filters"].values():
        assert list(of) == values
        for rule in of.values():
            assert -1 <= rule["tau"] <= 1
            assert 0 < rule["kept"] <= rule["pairs"]
            assert isinstance(rule["undefined"], int)
            assert rule["kept"] + rule["undefined"] <= rule["pairs"]
    ids = [row["id"] for row in results["candidates"]]
    assert len(set(ids)) == len(ids)
    for row in results["candidates"]:
        assert row["method"] in results["methods"]
        assert list(row["weights"]) == values
        assert sum(row["weights"].values()) == pytest.approx(0 if row["method"] == "base" else 1, abs=1e-12)
        assert isinstance(row["on_frontier"], bool)
        assert (row["test"] is None) <= (not row["on_frontier"]), (
            "every frontier candidate is scored on the test prompts"
        )
        for part in ("validation", "test"):
            if row[part] is not None:
                assert list(row[part]) == values
                for score in row[part].values():
                    assert set(score) == {"mean", "low", "high"}
                    assert score["low"] <= score["mean"] <= score["high"]
        if row["test"] is not None:
            assert 0 <= row["frontier_probability"] <= 1
            assert row["quality"]["kl"] >= -1e-6
            assert row["quality"]["tokens"] >= 0
            assert 0 <= row["quality"]["truncated"] <= 1
    for name, method in results["methods"].items():
        mine = [row for row in results["candidates"] if row["method"] == name]
        assert any(row["on_frontier"] for row in mine) or not sound
        volume = method["hypervolume"]
        assert 0 <= volume["low"] <= volume["value"] + 1e-12
        assert volume["value"] <= volume["high"] + 1e-12
        assert volume["value"] <= 1 + 1e-9  # a resample may pass the best point estimates
        assert isinstance(method["trained_pairs"], int)
        assert method["train_seconds"] >= 0
        assert method["evaluate_seconds"] > 0
    for of in results["geometry"].values():
        assert of["cosine"] is None or -1 - 1e-6 <= of["cosine"] <= 1 + 1e-6
        assert of["l2"] >= 0


def test_results_have_the_documented_fields_with_finite_numbers(results: dict[str, Any]) -> None:
    documented = {"schema", "values", "seed", "reward_models", "filters", "candidates", "methods", "geometry"}
    assert documented <= set(results)
    check_schema(results, ["helpful", "harmless"])
    assert set(results["reward_models"]) == {"helpful", "harmless"}
    assert list(results["filters"]) == ["vc-soup"]
    assert set(results["geometry"]) == {"dpo", "soup", "vc-soup"}
    assert list(results["methods"]) == ["base", "dpo", "soup", "vc-soup"]


def test_the_base_is_a_candidate_that_trained_nothing_and_has_not_moved(results: dict[str, Any]) -> None:
    (base,) = [row for row in results["candidates"] if row["method"] == "base"]
    assert base["on_frontier"]
    assert base["quality"]["kl"] == pytest.approx(0, abs=1e-6)
    assert results["methods"]["base"]["trained_pairs"] == 0
    assert results["methods"]["base"]["train_seconds"] == 0


def test_methods_that_share_vectors_share_their_figures(results: dict[str, Any]) -> None:
    by_id = {row["id"]: row for row in results["candidates"]}
    for weights in ("helpful=1,harmless=0", "helpful=0,harmless=1"):
        assert by_id[f"dpo/{weights}"]["validation"] == by_id[f"soup/{weights}"]["validation"]
    assert results["geometry"]["dpo"] == results["geometry"]["soup"]
    assert results["methods"]["dpo"]["trained_pairs"] == results["methods"]["soup"]["trained_pairs"]
    assert results["methods"]["vc-soup"]["trained_pairs"] == sum(
        rule["kept"] for rule in results["filters"]["vc-soup"].values()
    )


def test_each_methods_frontier_is_what_no_other_of_its_candidates_beats(results: dict[str, Any]) -> None:
    for method in results["methods"]:
        rows = [row for row in results["candidates"] if row["method"] == method]
        means = np.array([[score["mean"] for score in row["validation"].values()] for row in rows])
        for row, mine in zip(rows, means, strict=True):
            beaten = ((means >= mine).all(axis=1) & (means > mine).any(axis=1)).any()
            assert row["on_frontier"] == (not beaten)


def test_validation_and_test_prompts_are_as_many_as_asked_and_never_trained_on(demo_run: tuple[Path, str]) -> None:
    finished = open_run(demo_run[0])
    from valuesoup.pipeline.data import load_part

    split = finished.artifacts[finished.plan.split.key]
    parts = {
        part: {
            identity for value in finished.plan.config.values for identity in load_part(split, value, part).prompt_ids
        }
        for part in ("train", "validation", "test")
    }
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]
    for part, size in (("validation", 8), ("test", 12)):
        asked = load_prompts(finished.artifacts[getattr(finished.plan.evaluated[0], part).prompts.key])
        assert [prompt["datasets"] for prompt in asked] == [["helpful"]] * size + [["harmless"]] * size


def test_status_of_a_finished_run_is_all_done_and_its_stages_are_the_artifacts(demo_run: tuple[Path, str]) -> None:
    stages = run_status(demo_run[0])
    assert all(stage.done for stage in stages)
    assert stages[-1].label == "results"
    assert {stage.folder for stage in stages[:-1]} == {path.name for path in (demo_run[0] / "artifacts").iterdir()}


def test_status_of_a_run_that_has_not_begun_is_all_to_do(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(demo_run[0] / "config.yaml", tmp_path)
    stages = run_status(tmp_path)
    assert not any(stage.done for stage in stages)
    assert stages[0].label == "read the pairs of helpful"


def test_a_finished_run_opens_in_another_place_without_the_cache(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    moved = shutil.copytree(demo_run[0], tmp_path / "moved")
    (moved / "report.html").unlink()
    finished = open_run(moved)
    assert finished.results == read_results(demo_run[0])
    page = write_run_report(finished)
    assert page == moved / "report.html"
    assert "vc-soup" in page.read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_or_no_finished_run_is_refused(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    for reader in (open_run, run_status):
        with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
            reader(tmp_path)  # type: ignore[operator]
    shutil.copy(demo_run[0] / "config.yaml", tmp_path)
    with pytest.raises(UserError, match=r"has not finished; continue it with `valuesoup run .*config.yaml --out"):
        open_run(tmp_path)
    shutil.copy(demo_run[0] / "results.json", tmp_path)
    with pytest.raises(UserError, match="lacks pairs-"):
        open_run(tmp_path)


@pytest.mark.parametrize(("text", "says"), [("{", "not valid JSON"), ("[]", "schema 1"), ('{"schema": 2}', "schema 1")])
def test_results_that_cannot_be_read_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=r"has no results\.json"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_results(tmp_path)


def test_results_of_the_right_shape_that_the_configuration_does_not_make_are_damaged(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    right = read_results(folder)
    names = {row["id"]: f"{row['method']}/{place}" for place, row in enumerate(right["candidates"][1:])}
    renamed = [{**row, "id": names.get(row["id"], row["id"])} for row in right["candidates"]]
    without = [row for row in right["candidates"] if row["method"] != "vc-soup"]
    for changed in ({"candidates": renamed}, {"candidates": without}, {"values": right["values"][::-1]}, {"seed": 9}):
        (folder / "results.json").write_text(json.dumps({**right, **changed}))
        with pytest.raises(UserError, match=r"results\.json is damaged \((candidates|values|seed): .*; run the conf"):
            open_run(folder)
    (folder / "results.json").write_text(json.dumps(right))
    assert open_run(folder).results == right


class Said(Progress):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_damaged_artifact_of_a_run_is_named_and_made_again_alone(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    config = load_config(folder / "config.yaml")
    split = open_run(folder).plan.split.folder
    file = folder / "artifacts" / split / "helpful" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    (folder / "results.json").write_text("{")
    said = Said()
    run(config, folder, said)
    assert any("damaged" in line and split in line and "train.parquet" in line for line in said.lines)
    assert [line for line in said.lines if line.startswith("[")] == ["[1/1] split by prompt"]
    assert tiny_run.figures(folder) == tiny_run.figures(demo_run[0])


def test_presentation_settings_change_the_intervals_and_make_no_stage_anew(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    config = load_config(folder / "config.yaml", ["evaluation.level=0.5"])
    said = Said()
    narrow = run(config, folder, said).results["candidates"][0]["validation"]["helpful"]
    wide = read_results(demo_run[0])["candidates"][0]["validation"]["helpful"]
    assert not [line for line in said.lines if line.startswith("[")]
    assert narrow["mean"] == wide["mean"]
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]


def test_own_prompts_measure_each_value_on_its_own_data_set(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    finished = run(load_config(folder / "config.yaml", ["evaluation.prompts=own"]), folder)
    check_schema(finished.results, ["helpful", "harmless"])
    from valuesoup.rewards import RewardTable

    measured = finished.plan.evaluated[0].validation
    for place, value in enumerate(["helpful", "harmless"]):
        table = RewardTable.load(finished.artifacts[measured.scores[value].key].path / "scores.parquet")
        own = table.scores[8 * place : 8 * place + 8, 0, 0]
        assert finished.results["candidates"][0]["validation"][value]["mean"] == pytest.approx(own.mean())


def test_candidates_of_broken_text_are_on_no_frontier_and_the_report_is_written_all_the_same(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    finished = run(load_config(folder / "config.yaml", ["evaluation.fluency_bound=1"]), folder)
    check_schema(finished.results, ["helpful", "harmless"], sound=False)
    assert not any(row["on_frontier"] or row["on_overall_frontier"] for row in finished.results["candidates"])
    assert all(method["hypervolume"]["value"] == 0 for method in finished.results["methods"].values())
    assert finished.results["candidates"][0]["test"] is not None
    assert write_run_report(finished).is_file()


@pytest.mark.parametrize("values", [["honest"], ["harmless", "honest", "helpful"]])
def test_one_and_three_values_run_from_pairs_to_results_and_report(values: list[str], tmp_path: Path) -> None:
    config = demo_config(values, [*tiny_run.overrides(*values), "seed=1"])
    finished = run(config, tmp_path / "run")
    results = finished.results
    check_schema(results, values)
    assert results["seed"] == 1
    assert sum(row["method"] == "soup" for row in results["candidates"]) == {1: 1, 3: 6}[len(values)]
    assert set(results["geometry"]) == (set() if len(values) == 1 else {"dpo", "soup", "vc-soup"})
    page = write_run_report(finished).read_text(encoding="utf-8")
    assert all(value in page for value in values)


def test_a_finished_run_gives_its_soup_and_names_its_methods(demo_run: tuple[Path, str]) -> None:
    finished = open_run(demo_run[0])
    soup = finished.soup("vc-soup")
    assert soup.names == ["helpful", "harmless"]
    assert soup.generate(["how do i bake bread ?"], {"helpful": 0.5, "harmless": 0.5}, max_new_tokens=3) != []
    with pytest.raises(UserError, match=r"no method 'vc-sop'; did you mean 'vc-soup'\?"):
        finished.soup("vc-sop")


def test_a_prompt_of_two_data_sets_is_answered_and_counted_once(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    rows = list(errands("helpful", 60))
    for value in ("a", "b"):
        (tmp_path / f"{value}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = parse_config(
        f"""
base: {{model: {base}, device: cpu}}
values:
  a: {{data: {tmp_path / "a.jsonl"}, reward: {{function: "tiny_rewards:length"}}}}
  b: {{data: {tmp_path / "b.jsonl"}, reward: {{function: "tiny_rewards:vowels"}}}}
methods: [dpo]
training: {{rank: 2, epochs: 1, batch_size: 4}}
generation: {{max_new_tokens: 4}}
evaluation: {{test_prompts: 6, validation_prompts: 4, resamples: 20}}
""",
        "shared prompts",
    )
    finished = run(config, tmp_path / "run")
    asked = load_prompts(finished.artifacts[finished.plan.evaluated[0].test.prompts.key])
    assert len(asked) == 6
    assert all(prompt["datasets"] == ["a", "b"] for prompt in asked)


def test_a_base_made_here_never_sees_a_held_out_prompt(demo_run: tuple[Path, str]) -> None:
    lines = [line for line in demo_run[1].splitlines() if "begin as held-out prompts: left out" in line]
    assert len(lines) == 1
    assert int(lines[0].split()[0]) > 0
