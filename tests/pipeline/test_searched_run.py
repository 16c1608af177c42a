"""Runs with a search: the plan, the settings and their mistakes, and a run from the command line to the report."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from tiny import save_base
from valuesoup.configfile import load_config, parse_config
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import open_run, read_results, run
from valuesoup.report.assemble import report_data
from valuesoup.report.summary import summarise
from valuesoup.report.tables import costs_table
from valuesoup.store import Node, topological

torch.set_num_threads(1)
THREE = "methods=[dpo, soup, vc-soup]"

ADAPTIVE = "methods.1={preset: soup, weights: {kind: simplex, steps: 10, evaluations: 7}}"
RACING = "evaluation.racing={first: 4}"


def nodes(of: Any) -> dict[str, Node]:
    return {node.key: node for node in topological(make_plan(of).targets())}


def renewed(before: Any, after: Any) -> list[Node]:
    """Return the nodes that a changed configuration makes anew."""
    known = nodes(before)
    return [node for key, node in nodes(after).items() if key not in known]


def config(*overrides: str) -> Any:
    return demo_config(overrides=[THREE, *overrides])


def test_a_search_takes_the_place_of_the_validation_and_of_the_frontier() -> None:
    plain, raced = config(), config("evaluation.racing=true")
    found = renewed(plain, raced)
    assert {node.stage.name for node in found} == {"search", "answers", "rated", "quality"}
    assert all("validation" not in node.label for node in found)
    assert sum(node.stage.name == "search" for node in found) == 2, "one for each stack of vectors, none for the base"
    assert [of.searched for of in make_plan(raced).evaluated] == [False, True, True]


def test_a_limit_searches_the_stack_of_its_method_alone() -> None:
    found = renewed(config(), config(ADAPTIVE))
    (search,) = [node for node in found if node.stage.name == "search"]
    assert search.inputs["limits"] == {"soup": 7}
    assert all("vc-soup" not in node.label for node in found)


@pytest.mark.parametrize(
    "override", ["evaluation.racing=false", ADAPTIVE.replace("7", "11"), ADAPTIVE.replace("7", "99")]
)
def test_no_race_and_a_limit_as_large_as_the_grid_change_nothing(override: str) -> None:
    assert nodes(config()).keys() == nodes(config(override)).keys()


def test_methods_without_a_dial_have_nothing_to_race_for() -> None:
    alone = demo_config(overrides=["methods=[dpo, seqt]"])
    assert nodes(alone).keys() == nodes(demo_config(overrides=["methods=[dpo, seqt]", "evaluation.racing=true"])).keys()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluation={racing: true, validation_prompts: 31}", r"starts with 16 prompts .* there are 31"),
        ("evaluation.racing={first: 3}", "first"),
        ("evaluation.racing={growth: 1}", "growth"),
        ("evaluation.racing={confidence: 1}", "confidence"),
        ("evaluation.racing={frist: 8}", r"frist"),
        ("evaluation.racing=quick", "racing"),
        (ADAPTIVE.replace("7", "4"), r"evaluations is 4, and a search over 2 values starts with 5"),
        (ADAPTIVE.replace("7", "0"), "evaluations"),
    ],
)
def test_a_search_that_cannot_start_is_refused(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(override)


@pytest.mark.parametrize("preset", ["dpo-lw", "modpo"])
def test_a_limit_on_policies_that_are_trained_anyway_is_refused(preset: str) -> None:
    method = f"methods.1={{preset: {preset}, weights: {{kind: simplex, steps: 10, evaluations: 7}}}}"
    with pytest.raises(UserError, match=f"'{preset}' makes a policy for each .* before any is measured"):
        make_plan(config(method))


def test_every_kind_of_grid_takes_a_limit() -> None:
    text = "base: {model: some/base}\nvalues: {a: {data: {function: 'valuesoup.worlds.errands:pairs', arguments: "
    text += "{value: helpful, size: 9}}, reward: {function: 'tiny_rewards:length'}}}\nmethods:\n"
    for name, weights in {
        "one": "{kind: cube, evaluations: 4}",
        "two": "{kind: sobol, points: 32, evaluations: 6}",
        "three": "{kind: simplex, totals: [0.5, 1, 1.5, 2], evaluations: 3}",
    }.items():
        text += f"  - {{name: {name}, weights: {weights}}}\n"
    (_, stack) = make_plan(parse_config(text, "grids")).stacks
    assert stack.limits == {"one": 4, "two": 6, "three": 3}


@pytest.fixture(scope="module")
def searched(demo_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a finished run with an adaptive method and a race, and what the command printed."""
    root = tmp_path_factory.mktemp("searched")
    folder = shutil.copytree(demo_run[0], root / "run")
    given = ["run", folder / "config.yaml", "--out", folder, "--set", ADAPTIVE, "--set", RACING]
    done = tiny_run.valuesoup(root / "cache", *given)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_with_a_search_prints_what_it_saved(searched: tuple[Path, str]) -> None:
    (line,) = [line for line in searched[1].splitlines() if line.strip().startswith("soup:")]
    assert "of 176 answers (" in line
    assert "7 of 11 candidates measured" in line
    assert "train " not in searched[1], "a search changes no training"


def test_results_of_a_search_say_who_answered_how_much(searched: tuple[Path, str]) -> None:
    results = json.loads((searched[0] / "results.json").read_text())
    soup = [row for row in results["candidates"] if row["method"] == "soup"]
    assert len(soup) == results["methods"]["soup"]["search"]["measured"] == 7
    (base,) = [row for row in results["candidates"] if row["method"] == "base"]
    assert base["prompts"] == 16
    assert "search" not in results["methods"]["base"]
    for row in soup:
        assert 4 <= row["prompts"] <= 16
        for value in results["values"]:
            score = row["validation"][value]
            assert score["low"] <= score["mean"] <= score["high"]
        assert (row["smoothed"] is None) == (row["left"] is not None)
        if row["smoothed"]:
            assert list(row["smoothed"]) == results["values"]
        assert not (row["left"] and row["on_frontier"])
        assert (row["test"] is not None) or not row["on_frontier"]
    search = results["methods"]["soup"]["search"]
    assert sum(row["prompts"] for row in soup) == search["answers"] <= search["all_answers"] == 11 * 16
    assert results["methods"]["soup"]["evaluate_seconds"] > 0
    assert results["methods"]["dpo"]["frontier_points"] >= 1


def test_the_report_of_a_search_shows_what_it_saved(searched: tuple[Path, str]) -> None:
    data = report_data(open_run(searched[0]))
    (sentence,) = [one for one in summarise(data) if one.startswith("Searched")]
    assert "on 7 of 11 candidates" in sentence
    assert "among the candidates that stayed" in sentence
    table = costs_table(data)
    assert tuple(table.headings[-3:-1]) == ("candidates measured", "validation answers")
    assert table.headings[-1] == "hypervolume kept, of all candidates'"
    assert "of the hypervolume that all answers of all 11 candidates would find" in sentence
    assert any(row[-3] == "7 of 11" for row in table.rows)
    page = (searched[0] / "report.html").read_text()
    assert "hypervolume kept" in page


def test_values_on_data_sets_of_different_size_are_compared_on_their_own_prompts(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    rows = [{"prompt": f"w{number} w1", "chosen": "a w3", "rejected": "w4"} for number in range(60)]
    short = [
        {**row, "prompt": f"w5 {row['prompt']}" + " w6" * (30 if number % 4 else 0)} for number, row in enumerate(rows)
    ]
    for name, of in (("a", rows), ("b", short)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of), encoding="utf-8")
    text = f"""
base: {{model: {base}, device: cpu}}
values:
  a: {{data: {tmp_path / "a.jsonl"}, reward: {{function: "tiny_rewards:length"}}}}
  b: {{data: {tmp_path / "b.jsonl"}, reward: {{function: "tiny_rewards:vowels"}}}}
methods: [soup]
training: {{rank: 2, epochs: 1, batch_size: 4}}
generation: {{max_new_tokens: 4, max_prompt_tokens: 20}}
evaluation: {{test_prompts: 12, validation_prompts: 24, resamples: 20, prompts: own, racing: {{first: 4}}}}
"""
    finished = run(parse_config(text, "uneven"), tmp_path / "run")
    results = read_results(tmp_path / "run")
    asked = load_prompts(finished.artifacts[finished.plan.evaluated[0].validation.prompts.key])
    sizes = [sum(value in prompt["datasets"] for prompt in asked) for value in "ab"]
    assert sizes[1] < sizes[0]
    search = results["methods"]["soup"]["search"]
    soup = [row for row in results["candidates"] if row["method"] == "soup"]
    assert sum(row["prompts"] for row in soup) == search["answers"]
    assert all(row["prompts"] == len(asked) for row in results["candidates"] if row["method"] == "base")
    assert any(row["on_overall_frontier"] for row in results["candidates"])
    assert all(math.isfinite(row["validation"][value]["mean"]) for row in results["candidates"] for value in "ab")


def test_a_search_that_is_made_again_gives_the_same_results(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(searched[0], tmp_path / "run")
    before = tiny_run.figures(folder)
    found = (folder / "artifacts").glob("search-*")
    search = next(path for path in found if "vc-soup" not in (path / "chosen.json").read_text())
    shutil.rmtree(search)
    run(load_config(folder / "config.yaml"), folder)
    assert search.is_dir()
    assert tiny_run.figures(folder) == before
