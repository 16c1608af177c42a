"""Malformed results of runs and studies: every reader answers with a sentence, or with what the file says."""

import io
import json
import warnings
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

import fuzz.oracle as oracle
import tiny_studies
from fuzz.cases import CASES
from valuesoup.evaluation.seeds import combine
from valuesoup.explorer.board import read_board
from valuesoup.pipeline.compared import comparisons
from valuesoup.pipeline.comparison import compare_runs
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.picking import pick
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.planned import plan_fault
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished, open_run, read_results
from valuesoup.pipeline.status import run_status
from valuesoup.pipeline.study import open_study, seed_folders
from valuesoup.report import figures
from valuesoup.report.assemble import with_titles
from valuesoup.report.figures.base import Figure
from valuesoup.report.model import ReportData
from valuesoup.report.panel import panel
from valuesoup.report.study_text import print_study
from valuesoup.report.summary import summarise
from valuesoup.report.tables import candidates_table, costs_table, filters_table, methods_table, print_frontier
from valuesoup.shipping.choice import choose, every

FIGURES = [one for one in vars(figures).values() if isinstance(one, Figure)]

VALUES = ("helpful", "harmless")
METHODS = {"soup": [[1.0, 0.5], [0.8, 0.7], [0.2, 0.9]], "dpo": [[1.0, 0.5], [0.2, 0.9]]}


@cache
def plan() -> Plan:
    return make_plan(demo_config(VALUES, ["methods=[{preset: soup, steps: 2}, dpo]", "evaluation.diagnostics=true"]))


def whole() -> dict[str, Any]:
    """Return results with every part that a run may have."""
    content = tiny_studies.results(VALUES, 0, METHODS)
    offered = [(method, one) for of in plan().stacks for method, offered in of.offered.items() for one in offered]
    for row, (method, one) in zip(content["candidates"], offered, strict=True):
        row["id"], row["weights"] = candidate_id(method, one), dict(one.weights or {})
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    pair = dict(zip(("first", "second"), VALUES, strict=True))
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
        {**pair, "over": "gaps", "dataset": VALUES[0], "count": 9, "mean": 0.1, "low": 0.0, "high": 0.2}
    ]
    content["differences"] = [{"first": "soup", "second": "dpo", "value": 0.1, "low": 0.0, "high": 0.2}]
    content["methods"]["soup"]["optimism"] = {"drop": dict.fromkeys(VALUES, estimate), "validation": 0.5, "test": 0.4}
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]  # each part on its own


def use(content: dict[str, Any], folder: Path) -> None:
    """Read results that were taken for right as the commands do."""
    oracle.answer(lambda: pick(folder))
    oracle.answer(lambda: pick(folder, maximise=content["values"][0], on="test"))
    screen = Console(file=io.StringIO())
    with oracle.deadline():
        print_frontier(content, screen)  # type: ignore[arg-type]
        print_study(combine([content, {**content, "seed": content["seed"] + 1}]), screen)  # type: ignore[list-item]
    if plan_fault(content, plan()) is None:
        use_opened(Finished(folder, plan(), {}, content))


def use_opened(finished: Finished) -> None:
    """Go on with a run that was opened: the explorer's board, all that the report says and draws, a choice."""
    content = finished.results
    with oracle.deadline(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that are too large to be added
        json.dumps(read_board(finished), allow_nan=False)
        data = ReportData(results=with_titles(content), title="fuzzed")
        assert summarise(data)
        json.dumps(panel(data), default=str)
        for table in (methods_table, costs_table, candidates_table, filters_table):
            assert table(data).headings
        for figure in FIGURES:
            if (table := figure.table(data)).rows:
                assert figure.caption(data, table)
    every(finished)
    oracle.answer(lambda: choose(finished, candidates=[content["candidates"][-1]["id"]]))
    oracle.answer(lambda: choose(finished, "soup", dict.fromkeys(VALUES, 0.5)))
    oracle.answer(lambda: comparisons(finished, [], [], {}))


def write(folder: Path, content: Any) -> None:
    (folder / "results.json").write_text(json.dumps(content))


def test_what_is_changed_here_is_right_before(tmp_path: Path) -> None:
    write(tmp_path, whole())
    assert read_results(tmp_path) == whole()
    assert pick(tmp_path, maximise="helpful").method == "dpo"
    assert plan_fault(whole(), plan()) is None
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
            row["test"]["helpful"]["mean"] = bad
        elif part in ("validation", "weights"):
            row[part] = {**row[part], "helpful": bad}
        elif part == "reference_point":
            content[part]["helpful"] = bad
        elif part == "hypervolume":
            content["methods"]["soup"][part]["value"] = bad
        elif bad != "0.5":
            content["methods"]["soup"][part] = bad
        else:
            continue
        write(tmp_path, content)
        assert oracle.answer(lambda: read_results(tmp_path)) is None


WRONG = {
    "no base": lambda of: of.update(candidates=of["candidates"][1:]),
    "no candidate": lambda of: of.update(candidates=[]),
    "nothing at all": lambda of: of.update(candidates=[], methods={}, differences=[]),
    "no weights": lambda of: of["candidates"][1].update(weights={}),
    "no validation": lambda of: of["candidates"][1].update(validation=None),
    "other ids": lambda of: [row.update(id=f"zz/{place}") for place, row in enumerate(of["candidates"])],
    "a probability": lambda of: of["candidates"][1].update(frontier_probability=-0.1),
    "a share": lambda of: of["candidates"][1].update(quality={"truncated": 1.1}),
    "an accuracy": lambda of: of["reward_models"]["helpful"].update(validation_accuracy=7.0),
    "a cosine": lambda of: of["geometry"]["soup"].update(cosine=5.0),
    "a count": lambda of: of["reward_models"]["helpful"].update(pairs=10**400),
    "more kept than there are": lambda of: of["filters"]["soup"]["helpful"].update(kept=10),
    "the box": lambda of: of.update(reference_point=of["best_point"]),
    "a box without end": lambda of: of.update(
        reference_point=dict.fromkeys(VALUES, -1e308), best_point=dict.fromkeys(VALUES, 1e308)
    ),
    "scores without end": lambda of: of["candidates"][1]["test"]["helpful"].update(mean=1e308, high=1e308),
    "a hypervolume": lambda of: of["methods"]["soup"].update(hypervolume=None),
    "a filter of nobody": lambda of: of["filters"].update(nobody={}),
    "a reward model of nothing": lambda of: of["reward_models"].update(nothing=of["reward_models"]["helpful"]),
    "an interval": lambda of: of["differences"][0].update(low=1.0),
    "half an interval": lambda of: of["correlation"][0].update(low=None),
}
OTHERS = {
    "values: other": lambda of: of.update(values=of["values"][::-1]),
    "methods: other": lambda of: of["methods"].update(more=of["methods"]["dpo"]),
    "seed: other": lambda of: of.update(seed=1),
    "those of 'dpo'": lambda of: of.update(candidates=of["candidates"][:-2]),
    "those of 'soup'": lambda of: of["candidates"].reverse(),
    "other weights": lambda of: of["candidates"][1].update(weights={"helpful": 0.9, "harmless": 0.1}),
    "has other weights": lambda of: of["candidates"][1].update(weights=None),
    "outside its interval": lambda of: of["candidates"][1]["test"]["helpful"].update(mean=9.0),
}


@pytest.mark.parametrize("what", WRONG)
def test_results_of_the_right_types_that_cannot_be_are_refused(what: str, tmp_path: Path) -> None:
    content = whole()
    WRONG[what](content)
    write(tmp_path, content)
    assert oracle.answer(lambda: read_results(tmp_path)) is None


@pytest.mark.parametrize("what", OTHERS)
def test_results_that_a_plan_does_not_make_are_told_from_its_own(what: str, tmp_path: Path) -> None:
    content = whole()
    OTHERS[what](content)
    write(tmp_path, content)
    assert what in str(plan_fault(read_results(tmp_path), plan()))


def test_an_interval_of_few_resamples_may_miss_its_mean() -> None:
    content = whole()
    content["candidates"][1]["test"]["helpful"]["mean"] = 9.0
    few = make_plan(demo_config(VALUES, ["methods=[{preset: soup, steps: 2}, dpo]", "evaluation.resamples=1"]))
    assert plan_fault(content, few) is None


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
