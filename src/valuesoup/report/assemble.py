"""From a finished run, or an audit, to what the page shows; reads artifacts, computes nothing heavy."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from valuesoup.config import RunConfig
from valuesoup.configfile import dump_config
from valuesoup.pipeline.audit import DatasetAudit
from valuesoup.pipeline.candidates import load_answers
from valuesoup.pipeline.data import load_prompts, summary_of
from valuesoup.pipeline.plan import BASE, Plan
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished
from valuesoup.report.model import (
    Answer,
    ConflictPair,
    CurvePoint,
    GapTable,
    LayerGeometry,
    ReportData,
    Results,
    SampleAnswers,
)
from valuesoup.report.page import write_audit, write_report
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact

Found = Mapping[str, Artifact]


def write_run_report(finished: Finished) -> Path:
    """Write the HTML report and the figures of a finished run into its folder, and return the page's path."""
    return write_report(report_data(finished), finished.folder)


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
        versions=versions(),
        gaps={value: _gaps(plan, found, value) for value in config.values},
        dropped={value: of["dropped"] for value, of in summary.items()},
        sizes={value: of["sizes"] for value, of in summary.items()},
        answers=_samples(plan, found, results),
        geometry={_title(plan, method): _layers(found[node.key]) for method, node in plan.geometry.items()},
        curves=_curves(plan, found),
        fluency_bound=config.evaluation.fluency_bound,
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
                for row in results["differences"]
            ],
            **{part: renamed(results[part]) for part in ("methods", "filters", "geometry")},
        },
    )


def versions() -> dict[str, str]:
    """Return the versions of what computes the results."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("valuesoup", "torch", "transformers", "peft", "trl", "moocore", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gaps(plan: Plan, found: Found, dataset: str) -> GapTable:
    artifact = found[plan.gaps[dataset].key]
    # A method that normalises by other spreads has another consistency than the one drawn here.
    drawn = [entry for entry in plan.config.methods if getattr(entry.method.pairs, "statistics", "") == "dataset"]
    thresholds = {
        entry.title: float(found[plan.filters[entry.name][dataset].key].json("summary.json")["tau"]) for entry in drawn
    }
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


def _curves(plan: Plan, found: Found) -> dict[str, list[CurvePoint]]:
    """Return the curves of each training once, named after the first method that asked for it."""
    names: dict[str, str] = {}
    for method, vectors in plan.vectors.items():
        for vector, node in vectors.items():
            names.setdefault(node.key, f"{_title(plan, method)}/{vector}")
    shown = ("loss", "eval_loss", "chosen", "rejected", "margin", "accuracy")
    curves = {}
    for key, name in names.items():
        rows = found[key].json("curves.json")
        curves[name] = [
            CurvePoint(int(row["step"]), **{field: row[field] for field in shown if field in row}) for row in rows
        ]
    return curves


def _samples(plan: Plan, found: Found, results: Mapping[str, Any]) -> list[SampleAnswers]:
    """Return some test prompts with the answers of the base and of each method's most balanced candidate."""
    config: RunConfig = plan.config
    shown = _balanced(results)
    texts: dict[tuple[int, str], Answer] = {}
    prompts = load_prompts(found[plan.evaluated[0].test.prompts.key])
    order = np.random.default_rng(config.seed).permutation(len(prompts))[: config.evaluation.samples].tolist()
    for stack, evaluated in zip(plan.stacks, plan.evaluated, strict=True):
        places = {}
        for method, rows in stack.methods.items():
            for place in rows:
                weights = dict(zip(stack.vectors, stack.candidates[place], strict=True))
                if candidate_id(method, weights) in shown:
                    places[place] = candidate_id(method, weights)
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
                    value: float(scored.scores[number, scored.sides.index(str(place)), 0])
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
    """Return the base and, per method, the tested frontier candidate whose worst value (in the box) is best."""
    low, best = results["reference_point"], results["best_point"]
    values = results["values"]

    def worst(row: Mapping[str, Any]) -> float:
        span = {value: max(best[value] - low[value], 1e-12) for value in values}
        return float(min((row["test"][value]["mean"] - low[value]) / span[value] for value in values))

    shown = [BASE]
    for method in results["methods"]:
        mine = [row for row in results["candidates"] if row["method"] == method and row["test"] and row["on_frontier"]]
        if method != BASE and mine:
            shown.append(max(mine, key=worst)["id"])
    return shown
