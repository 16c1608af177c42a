"""Synthetic results of several seeds, of which a study is combined, for n values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_report import NAMES, estimate, expansion

from valuesoup.evaluation.seeds import combine
from valuesoup.report.figures.base import Figure
from valuesoup.report.figures.study import study_figures
from valuesoup.report.model import LayerDependence, LayerGeometry, ReportData
from valuesoup.report.study import StudyData, titled
from valuesoup.search import simplex_grid

FILTERED = {"kept-0": 0.0, "kept-7": 0.7}
"""Methods that differ from ``merge`` in their threshold only."""
GROWN = {"grown-20": 20, "grown-40": 40}
"""Methods with a prompt expansion, and the pairs that it adds."""


def seed_results(n: int, seed: int) -> dict[str, Any]:
    """Methods of one policy per value, that merge, that filter too, that train each point, of a cube, that expand."""
    rng = np.random.default_rng(seed)
    values = list(NAMES[:n])
    rows: list[dict[str, Any]] = []

    def add(method: str, name: str, weights: Any, scores: Any, outside: bool = False) -> None:
        estimates = {value: estimate(float(x)) for value, x in zip(values, scores, strict=True)}
        rows.append(
            {
                **{"id": name if method == "base" else f"{method}/{name}", "method": method, "weights": weights},
                **{"outside_simplex": outside, "validation": estimates, "test": estimates, "on_frontier": True},
                "quality": {
                    **{"fluency": 0.9, "kl": 1.0 + seed, "tokens": 20.0, "truncated": 0.0},
                    **{"perplexity": 4.0 + seed / 10, "repetition": 0.1},
                },
            }
        )

    def weigh(raw: Any) -> dict[str, float]:
        return dict(zip(values, map(float, raw), strict=True))

    def scores(raw: Any, height: float) -> Any:
        return np.sqrt(np.clip(raw, 0, None)) * height + rng.normal(0, 0.02, n)

    add("base", "base", weigh(np.zeros(n)), np.full(n, -0.6))
    for k, value in enumerate(values):
        add("each", f"{value}=1", weigh(np.eye(n)[k]), scores(np.eye(n)[k], 0.9))
    grid = simplex_grid(n, 6 if n < 4 else 2)
    for method, height in (("merge", 0.8), ("kept-0", 0.9), ("kept-7", 1.0), ("trained", 0.85)):
        for raw in grid:
            add(method, ",".join(f"{x:.3g}" for x in raw), weigh(raw), scores(raw, height))
    for k, raw in enumerate(np.random.default_rng(5).uniform(0, 1, (9, n))):
        add("cube", str(k), weigh(raw), scores(raw, 0.7), outside=True)
    for method, added in GROWN.items():
        add(method, "all", None, np.full(n, 0.4 + added / 200) + rng.normal(0, 0.02, n))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    level = dict(zip(methods, np.linspace(0.1, 0.9, len(methods)), strict=True))
    counted = {method: sum(row["method"] == method for row in rows) for method in methods}
    pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    return {
        **{"schema": 1, "values": values, "seed": seed, "candidates": rows},
        "methods": {
            name: {
                "title": name.capitalize(),
                "hypervolume": {"value": level[name] + float(rng.normal(0, 0.02)), "low": 0.0, "high": 1.0},
                "trainings": counted[name] if name in ("trained", "each") else 0 if name == "base" else min(n, 1),
                **{"trained_pairs": 100, "train_seconds": 10.0 + seed, "expand_seconds": 0, "evaluate_seconds": 2.0},
                "optimism": {
                    "drop": {v: {"mean": 0.1 * k + 0.01 * seed, "low": None, "high": None} for v in values},
                    **{"validation": 0.5, "test": 0.4},
                },
            }
            for k, name in enumerate(methods)
        },
        "filters": {
            name: {v: {"tau": tau, "pairs": 100, "kept": 50 - seed, "undefined": 0} for v in values}
            for name, tau in FILTERED.items()
        },
        "geometry": {
            name: {"cosine": shift + 0.01 * seed, "l2": 2 - shift, "hsic": 0.1}
            for name, shift in (("merge", -0.1), ("kept-0", 0.3), ("kept-7", 0.6))
            if pairs
        },
        "conflict": {
            name: {"pairs": {}, "between": [conflict(a, b, cosine + seed / 100) for a, b in pairs]}
            for name, cosine in (("all pairs", -0.2), ("kept-7", 0.7))
            if pairs
        },
        "connectivity": {
            name: {"pairs": {}, "paths": [path(a, b, gap - seed / 100) for a, b in pairs]}
            for name, gap in (("merge", 0.3), ("each", 0.3), ("kept-7", -0.4))
            if pairs
        },
        "correlation": [
            {"over": over, "dataset": dataset, "first": a, "second": b, "mean": 0.1 * k + seed / 100, "count": 9}
            for k, (over, dataset) in enumerate((("gaps", values[0]), ("answers", None)))
            for a, b in pairs
        ],
        "expansions": {name: {"policy": dict(expansion(n, added).counts)} for name, added in GROWN.items()},
        "reference_point": dict.fromkeys(values, -0.7),
        "best_point": dict.fromkeys(values, 1.1),
    }


def conflict(a: str, b: str, cosine: float) -> dict[str, Any]:
    return {"first": a, "second": b, "cosine": cosine, "low": None, "high": None, "ceiling": 0.9}


def path(a: str, b: str, gap: float) -> dict[str, Any]:
    """A path whose gap is largest in the middle, and a little of the other sign beside it."""
    ladder = [{"weight": x, "gap": {"mean": y}} for x, y in ((0, 0.0), (0.25, -gap / 10), (0.5, gap), (1, 0.0))]
    return {"first": a, "second": b, "squared_distance": 4.0, "curvature": {"mean": -2 * gap}, "ladder": ladder}


def run_data(n: int, seed: int) -> ReportData:
    """What the run of one seed left behind per layer and expansion."""
    values = list(NAMES[:n])
    pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    layers = [f"model.layers.{k}.self_attn.{m}_proj" for k in range(3) for m in "qv"]
    shifts = {"Merge": -0.1, "Each": -0.1, "Kept-7": 0.6}
    moved = 0.02 * seed
    return ReportData(
        results={"schema": 1, "values": values},
        geometry={
            name: [LayerGeometry(layer, a, b, shift + moved, 1 - shift + moved) for a, b in pairs for layer in layers]
            for name, shift in shifts.items()
            if pairs
        },
        dependence={
            name: [
                LayerDependence(layer, a, b, 0.02 - shift / 100 + moved, 0.04 if name == "Kept-7" else None)
                for a, b in pairs
                for layer in layers
            ]
            for name, shift in shifts.items()
            if pairs
        },
        expansions={name.capitalize(): {"policy": expansion(n, added)} for name, added in GROWN.items()},
    )


def study_data(n: int = 2, seeds: int = 3, **changes: Any) -> StudyData:
    """A study of n values over some seeds, in which every figure has something to show."""
    combined = titled(combine([seed_results(n, seed) for seed in range(seeds)]))
    data = StudyData(
        results={
            "schema": 1,
            "values": combined["values"],
            "methods": {title: {"hypervolume": None} for title in combined["methods"]},
        },
        title="A study of a small world",
        created="2026-03-01 12:00 UTC",
        config_yaml="seeds: [0, 1, 2]\n",
        made_with={"versions": "Python 3.11.9, valuesoup 0.1.0"},
        combined=combined,
        runs=[run_data(n, seed) for seed in range(seeds)],
        pages=[str(Path(f"seed-{seed}") / "report.html") for seed in range(seeds)],
        families=[["Merge", "Kept-0", "Kept-7"]],
        expanding=[["Each", "Grown-20", "Grown-40"]],
    )
    return replace(data, **changes)


def figures(study: StudyData) -> dict[str, Figure]:
    return {figure.name: figure for of in study_figures(study).values() for figure in of}


def rows(study: StudyData, name: str) -> list[dict[str, Any]]:
    return figures(study)[name].table(study).rows


def caption(study: StudyData, name: str) -> str:
    figure = figures(study)[name]
    return figure.caption(study, figure.table(study))


def spread(mean: float, half: float | None, each: list[float] | None = None) -> dict[str, Any]:
    """An estimate over seeds, as a combined study has it."""
    ends = {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    return {"mean": mean, **ends, "each": each or [mean, mean]}


def with_volumes(study: StudyData, differences: list[tuple[str, str, float, float | None]]) -> StudyData:
    """Take these differences of hypervolumes: one method, another, mean, half width."""
    listed = [{"first": a, "second": b, **spread(mean, half)} for a, b, mean, half in differences]
    return replace(study, combined={**study.combined, "differences": listed})
