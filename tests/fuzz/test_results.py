"""Malformed results of runs and studies: every reader answers with a sentence, or with what the file says."""

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

import fuzz.oracle as oracle
import tiny_studies
from fuzz.cases import CASES
from valuesoup.evaluation.seeds import combine
from valuesoup.pipeline.comparison import compare_runs
from valuesoup.pipeline.picking import pick
from valuesoup.pipeline.run import open_run, read_results
from valuesoup.pipeline.status import run_status
from valuesoup.pipeline.study import open_study, seed_folders
from valuesoup.report.study_text import print_study
from valuesoup.report.tables import print_frontier

VALUES = ("kind", "brief")
METHODS = {"soup": [[1.0, 0.5], [0.2, 0.9]], "other": [[0.7, 0.7]]}


def whole() -> dict[str, Any]:
    """Return results with every part that a run may have."""
    content = tiny_studies.results(VALUES, 0, METHODS)
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    pair = {"first": "kind", "second": "brief"}
    counts = dict.fromkeys(VALUES, 9)
    ladder = [{"weight": 0.5, "loss": 0.7, "gap": estimate, "predicted": 0.1}]
    content["reward_models"] = {v: {"validation_accuracy": 0.8, "validation_pairs": 9, "pairs": 90} for v in VALUES}
    content["filters"] = {
        "soup": {v: {"tau": 0.5, "pairs": 9, "kept": 4, "flipped": 0, "undefined": 1} for v in VALUES}
    }
    content["geometry"] = {"soup": {"cosine": 0.1, "l2": 2.0, "hsic": 0.3}}
    cosine = {**pair, "cosine": 0.1, "low": 0.0, "high": 0.2, "ceiling": 0.9}
    content["conflict"] = {"all pairs": {"pairs": counts, "between": [cosine]}}
    path = {**pair, "squared_distance": 2.0, "curvature": estimate, "ladder": ladder}
    content["connectivity"] = {"soup": {"pairs": counts, "paths": [path]}}
    content["correlation"] = [
        {**pair, "over": "gaps", "dataset": "kind", "count": 9, "mean": 0.1, "low": 0.0, "high": 0.2}
    ]
    content["differences"] = [{"first": "soup", "second": "other", "value": 0.1, "low": 0.0, "high": 0.2}]
    content["methods"]["soup"]["optimism"] = {"drop": dict.fromkeys(VALUES, estimate), "validation": 0.5, "test": 0.4}
    return content


def use(content: dict[str, Any], folder: Path) -> None:
    """Read results that were taken for right as the commands do."""
    oracle.answer(lambda: pick(folder))
    oracle.answer(lambda: pick(folder, maximise=content["values"][0], on="test"))
    screen = Console(file=io.StringIO())
    with oracle.deadline():
        print_frontier(content, screen)  # type: ignore[arg-type]
        print_study(combine([content, {**content, "seed": content["seed"] + 1}]), screen)  # type: ignore[list-item]


def write(folder: Path, content: Any) -> None:
    (folder / "results.json").write_text(json.dumps(content))


def test_what_is_changed_here_is_right_before(tmp_path: Path) -> None:
    write(tmp_path, whole())
    assert read_results(tmp_path) == whole()
    assert pick(tmp_path, maximise="kind").id == "soup/0"
    use(whole(), tmp_path)


def test_results_with_anything_changed_are_refused_in_words_or_read_as_written(tmp_path: Path) -> None:
    taken = 0
    for seed in range(CASES["results"]):
        content = oracle.mutated(whole(), Random(seed))
        write(tmp_path, content)
        found = oracle.answer(lambda: read_results(tmp_path))
        if found is not None:
            taken += 1
            assert found == content
            use(found, tmp_path)
    assert taken < CASES["results"] / 3, "most changes are harm"


def test_results_that_are_cut_or_damaged_are_refused_in_words_or_read_as_written(tmp_path: Path) -> None:
    data = json.dumps(whole()).encode()
    for seed in range(CASES["damaged results"]):
        path = tmp_path / "results.json"
        path.write_bytes(oracle.damaged(data, Random(seed)))
        found = oracle.answer(lambda: read_results(tmp_path))
        if found is not None:
            assert found == json.loads(path.read_bytes())
            use(found, tmp_path)


@pytest.mark.parametrize("part", ["mean", "validation", "weights", "hypervolume", "reference_point", "title"])
def test_a_number_of_another_kind_is_not_taken_for_one(part: str, tmp_path: Path) -> None:
    for bad in ("0.5", True, None, [0.5], {"mean": 0.5}, float("nan"), float("inf")):
        content = whole()
        row = content["candidates"][1]
        if part == "mean":
            row["test"]["kind"]["mean"] = bad
        elif part in ("validation", "weights"):
            row[part] = {**row[part], "kind": bad}
        elif part == "reference_point":
            content[part]["kind"] = bad
        elif part == "hypervolume":
            content["methods"]["soup"][part]["value"] = bad
        elif bad != "0.5":
            content["methods"]["soup"][part] = bad
        else:
            continue
        write(tmp_path, content)
        assert oracle.answer(lambda: read_results(tmp_path)) is None


def study(folder: Path) -> Path:
    return tiny_studies.write_study(folder, VALUES, {0: METHODS, 1: METHODS})


def test_studies_with_a_file_changed_are_refused_in_words(tmp_path: Path) -> None:
    right, other = study(tmp_path / "right"), study(tmp_path / "other")
    assert compare_runs([right, other])
    files = ["study.json", "seed-0/results.json", "seed-1/results.json", "seed-1/config.yaml"]
    for seed in range(CASES["studies"]):
        random = Random(seed)
        path = other / random.choice(files)
        before = path.read_bytes()
        if random.random() < 0.5:
            path.write_bytes(oracle.damaged(before, random))
        else:
            path.write_text(json.dumps(oracle.mutated(json.loads(before), random)))
        oracle.answer(lambda: compare_runs([right, other]), lines=oracle.MOST_LINES)
        oracle.answer(lambda: open_study(other), lines=oracle.MOST_LINES)
        path.write_bytes(before)


@pytest.mark.parametrize(
    "content",
    [
        '{"seeds": 3}',
        '{"seeds": []}',
        '{"seeds": ["../../x"]}',
        '{"seeds": [null]}',
        '{"seeds": [true, 1]}',
        "[" * 99999,
        '{"seeds": {"0": 1}}',
        '{"seeds": "01"}',
        '{"seeds": [[0]]}',
        '{"seeds": [0, 0]}',
        '{"seeds": [-1]}',
        "3",
        "",
    ],
)
def test_a_study_of_another_shape_is_refused_in_words(content: str, tmp_path: Path) -> None:
    right, other = study(tmp_path / "right"), study(tmp_path / "other")
    (other / "study.json").write_text(content)
    assert oracle.answer(lambda: compare_runs([right, other])) is None
    assert oracle.answer(lambda: open_study(other)) is None


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "/proc/self/mem", "/dev/null", "../../..", "x" * 5000])
def test_what_is_no_run_folder_is_refused_in_words(name: str, tmp_path: Path) -> None:
    for reader in (open_run, run_status, open_study, pick, lambda folder: compare_runs([folder, tmp_path])):
        assert oracle.answer(lambda reader=reader: reader(name)) is None  # type: ignore[operator]
    oracle.answer(lambda: seed_folders(name))
