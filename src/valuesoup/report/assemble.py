"""From a finished run, or an audit, to what the page shows; reads artifacts, computes nothing heavy."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from valuesoup.config import RunConfig
from valuesoup.configfile import dump_config
from valuesoup.evaluation.seeds import balanced
from valuesoup.methods import Consistent, Expanded
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.audit import DatasetAudit
from valuesoup.pipeline.data import load_prompts, summary_of
from valuesoup.pipeline.judging import Docket, judged_run, judged_study
from valuesoup.pipeline.plan import BASE, Plan
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import LOG, Finished
from valuesoup.pipeline.study import Study
from valuesoup.pipeline.training import POLICY
from valuesoup.regression import checked_run
from valuesoup.report.made_with import made_with
from valuesoup.report.model import (
    Answer,
    ConflictPair,
    CurvePoint,
    Expansion,
    GapTable,
    LayerDependence,
    LayerGeometry,
    ReportData,
    SampleAnswers,
)
from valuesoup.report.page import write_audit, write_report
from valuesoup.report.schema import Results
from valuesoup.report.study import StudyData, families, titled, write_study
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact

Found = Mapping[str, Artifact]


def write_run_report(finished: Finished) -> Path:
    """Write the HTML report and the figures of a finished run into its folder, and return the page's path."""
    return write_report(report_data(finished), finished.folder)


def write_judged(docket: Docket) -> Path:
    """Write the reports of what was judged again, and return the page's path."""
    pages = [write_run_report(case.finished) for case in docket.cases]
    return pages[0] if docket.study is None else write_study_report(docket.study)


def write_audit_report(found: Mapping[str, DatasetAudit], out: Path) -> Path:
    """Write the page and the figures of an audit, and return the page's path."""
    values = next(iter(found.values())).values
    data = ReportData(
        results={"schema": 1, "values": values},
        title="Value conflict",
        gaps={name: GapTable(of.gaps, of.consistency) for name, of in found.items()},
        dropped={name: of.dropped for name, of in found.items()},
        sizes={name: {"pairs": len(of.gaps)} for name, of in found.items()},
        conflicts={name: [ConflictPair(**vars(pair)) for pair in of.conflicts] for name, of in found.items()},
    )
    return write_audit(data, out)


def report_data(finished: Finished) -> ReportData:
    """Gather what the report shows from a finished run."""
    plan, found, results = finished.plan, finished.artifacts, finished.results
    config = plan.config
    summary = summary_of(found[plan.split.key])
    return ReportData(
        results=with_titles(results),
        title=config.title,
        created=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        config_yaml=dump_config(config),
        made_with=made_with({"run": finished.folder / LOG}),
        gaps={value: _gaps(plan, found, value) for value in config.values},
        dropped={value: of["dropped"] for value, of in summary.items()},
        sizes={value: of["sizes"] for value, of in summary.items()},
        answers=_samples(plan, found, results),
        representatives=_balanced(results),
        geometry={_title(plan, method): _layers(found[node.key]) for method, node in plan.geometry.items()},
        dependence={_title(plan, method): _dependence(plan, found, method) for method in plan.geometry},
        expansions={
            entry.title: {name: _expansion(found[node.key]) for name, node in recipe.expansions.items()}
            for entry in config.methods
            if (recipe := plan.recipes[entry.name]).expansions
        },
        curves=_curves(plan, found),
        fluency_bound=config.evaluation.fluency_bound,
        judged=_judged(judged_run(finished), plan.config),
        checked=checked_run(finished) or {},
    )


def with_titles(results: Mapping[str, Any]) -> Results:
    """Return the results with every method under its title, as figures and tables write it."""
    titles = {name: of.get("title", name) for name, of in results["methods"].items() if name != BASE}

    def renamed(table: Mapping[str, Any]) -> dict[str, Any]:
        return {titles.get(name, name): of for name, of in table.items()}

    return cast(
        "Results",
        {
            **results,
            "candidates": [
                {**row, "method": titles.get(row["method"], row["method"])} for row in results["candidates"]
            ],
            "differences": [
                {**row, **{side: titles.get(row[side], row[side]) for side in ("first", "second")}}
                for row in results.get("differences", ())
            ],
            **{part: renamed(results[part]) for part in ("methods", "filters", "geometry")},
            **{part: renamed(results.get(part, {})) for part in ("conflict", "connectivity")},
        },
    )


def _judged(judged: Mapping[str, Any] | None, config: RunConfig) -> Mapping[str, Any]:
    """Return what a judge said, nothing where none was asked; methods that it left out are under their titles."""
    if not judged or "left_out" not in judged:
        return judged or {}
    titles = {entry.name: entry.title for entry in config.methods}
    return {**judged, "left_out": {titles.get(name, name): why for name, why in judged["left_out"].items()}}


def _gaps(plan: Plan, found: Found, dataset: str) -> GapTable:
    artifact = found[plan.gaps[dataset].key]
    # A method that normalises by other spreads has another consistency than the one drawn here.
    drawn = [entry for entry in plan.config.methods if getattr(entry.method.pairs, "statistics", "") == "dataset"]
    filters = {entry.title: plan.recipes[entry.name].filters[dataset] for entry in drawn}
    thresholds = {title: float(found[node.key].json("summary.json")["tau"]) for title, node in filters.items()}
    return GapTable(
        np.load(artifact.path / "gaps_train.npy"), np.load(artifact.path / "consistency_train.npy"), thresholds
    )


def _title(plan: Plan, method: str) -> str:
    return next(entry.title for entry in plan.config.methods if entry.name == method)


def _layers(geometry: Artifact) -> list[LayerGeometry]:
    return [
        LayerGeometry(row["layer"] or None, row["first"], row["second"], row["cosine"], row["l2"])
        for row in geometry.json("geometry.json")
        if row["cosine"] is not None
    ]


def _dependence(plan: Plan, found: Found, method: str) -> list[LayerDependence]:
    """Return the HSIC of finished vectors, beside that at the start of a training that was penalised for it."""
    before: dict[tuple[str, str, str], float] = {}
    for trained, node in plan.recipes[method].trainings.items():
        path = found[node.key].path / "hsic.json"
        for row in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []:
            # One vector trained alone stands there as the policy; in the results it has its value's name.
            second = trained if row["second"] == POLICY else row["second"]
            before[row["layer"], row["first"], second] = row["before"]
    return [
        LayerDependence(
            row["layer"],
            row["first"],
            row["second"],
            row["hsic"],
            before.get((row["layer"], row["first"], row["second"])),
        )
        for row in found[plan.geometry[method].key].json("hsic.json")
    ]


def _expansion(artifact: Artifact) -> Expansion:
    content = artifact.json("expansion.json")
    names = ("counts", "rollouts", "thresholds", "profile", "distribution")
    return Expansion(**{name: content[name] for name in names})


def _curves(plan: Plan, found: Found) -> dict[str, list[CurvePoint]]:
    """Return the curves of each training once, named after the first method that asked for it."""
    names: dict[str, str] = {}
    for method, recipe in plan.recipes.items():
        for trained, node in recipe.trainings.items():
            names.setdefault(node.key, f"{_title(plan, method)}/{trained}")
    shown = ("loss", "eval_loss", "chosen", "rejected", "margin", "accuracy")
    curves = {}
    for key, name in names.items():
        rows = found[key].json("curves.json")
        curves[name] = [
            CurvePoint(int(row["step"]), **{field: row[field] for field in shown if field in row}) for row in rows
        ]
    return curves


def _samples(plan: Plan, found: Found, results: Mapping[str, Any]) -> list[SampleAnswers]:
    """Return some test prompts with the answers of every tested candidate."""
    config: RunConfig = plan.config
    shown = dict.fromkeys(row["id"] for row in results["candidates"] if row["test"])
    texts: dict[tuple[int, str], Answer] = {}
    prompts = load_prompts(found[plan.evaluated[0].test.prompts.key])
    order = np.random.default_rng(config.seed).permutation(len(prompts))[: config.evaluation.samples].tolist()
    for stack, evaluated in zip(plan.stacks, plan.evaluated, strict=True):
        places = {}
        for method, rows in stack.methods.items():
            for place, candidate in zip(rows, stack.offered[method], strict=True):
                if candidate_id(method, candidate) in shown:
                    places[place] = candidate_id(method, candidate)
        tables = {
            value: RewardTable.load(found[node.key].path / "scores.parquet")
            for value, node in evaluated.test.scores.items()
        }
        table = load_answers(found[evaluated.test.answers.key])
        written = zip(
            table["candidate"].to_pylist(), table["prompt"].to_pylist(), table["text"].to_pylist(), strict=True
        )
        for place, number, text in written:
            if place in places and number in order:
                scores = {
                    value: float(scored.scores[number, scored.sides.index(str(place)), scored.value_index(value)])
                    for value, scored in tables.items()
                }
                texts[number, places[place]] = Answer(text, scores)
    return [
        SampleAnswers(
            prompts[number]["messages"],
            {name: texts[number, name] for name in shown if (number, name) in texts},
        )
        for number in order
    ]


def _balanced(results: Mapping[str, Any]) -> list[str]:
    """Return the base and the most balanced candidate of each method."""
    found = [balanced(results, method) for method in results["methods"] if method != BASE]
    return [BASE, *(row["id"] for row in found if row is not None)]


def write_study_report(study: Study) -> Path:
    """Write the HTML report and the figures of a study into its folder, and return the page's path."""
    runs = [report_data(finished) for finished in study.runs]
    config = study.runs[0].plan.config
    combined = titled(study.combined)
    methods = {entry.title: entry.method for entry in config.methods}
    data = StudyData(
        results={
            "schema": 1,
            "values": combined["values"],
            "methods": {title: {"hypervolume": None} for title in combined["methods"]},
        },
        title=config.title,
        created=runs[0].created,
        config_yaml=dump_config(config.model_copy(update={"seeds": tuple(combined["seeds"])})),
        made_with=made_with({finished.folder.name: finished.folder / LOG for finished in study.runs}),
        fluency_bound=config.evaluation.fluency_bound,
        judged=_judged(judged_study(study), config),
        combined=combined,
        runs=runs,
        pages=[f"{finished.folder.relative_to(study.folder).as_posix()}/report.html" for finished in study.runs],
        families=families(methods, Consistent(), {"tau", "keep", "minimum_pairs"}),
        expanding=families(methods, Expanded(), {"prompts", "most"}),
    )
    return write_study(data, study.folder)
