"""The diagnostics' part of ``results.json``: conflict, connectivity and correlation, with their intervals."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from valuesoup.consistency import gap_correlation
from valuesoup.evaluation.correlation import correlation_interval
from valuesoup.evaluation.statistics import resamples
from valuesoup.pipeline.plan import Plan
from valuesoup.pipeline.rating import answer_scores
from valuesoup.store import Artifact

ALL_PAIRS = "all pairs"
"""What the conflict without any filter is called; no method can be, as its name holds no space."""


def diagnosed(plan: Plan, found: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return ``conflict``, ``connectivity`` and ``correlation`` of the results."""
    level = plan.config.evaluation.level
    width = NormalDist().inv_cdf((1 + level) / 2)
    return {
        "conflict": {
            method or ALL_PAIRS: _conflict(found[node.key].json("conflict.json"), width)
            for method, node in plan.conflict.items()
        },
        "connectivity": {
            method: _connectivity(found[node.key].json("connectivity.json"), width)
            for method, node in plan.connectivity.items()
        },
        "correlation": _correlations(plan, found, level),
    }


def _conflict(content: Mapping[str, Any], width: float) -> dict[str, Any]:
    between = []
    for row in content["conflicts"]:
        interval = _interval(row["cosine"], row["error"], width)
        ends = {end: None if interval[end] is None else max(-1.0, min(1.0, interval[end])) for end in ("low", "high")}
        between.append({**{key: row[key] for key in ("first", "second", "cosine", "ceiling")}, **ends})
    return {"pairs": content["pairs"], "between": between}


def _connectivity(content: Mapping[str, Any], width: float) -> dict[str, Any]:
    paths = [
        {
            "first": path["first"],
            "second": path["second"],
            "squared_distance": path["squared_distance"],
            "curvature": _interval(path["curvature"], path["curvature_error"], width),
            "ladder": [
                {
                    "weight": rung["weight"],
                    "loss": rung["loss"],
                    "gap": _interval(rung["gap"], rung["error"], width),
                    "predicted": rung["predicted"],
                }
                for rung in path["ladder"]
            ],
        }
        for path in content["paths"]
    ]
    return {"pairs": content["pairs"], "paths": paths}


def _interval(mean: float | None, error: float | None, width: float) -> dict[str, Any]:
    if mean is None or error is None:
        return {"mean": mean, "low": None, "high": None}
    return {"mean": mean, "low": mean - width * error, "high": mean + width * error}


def _correlations(plan: Plan, found: Mapping[str, Artifact], level: float) -> list[dict[str, Any]]:
    """Return how the values' rewards go together: gaps of training pairs, test answers, answers to the same prompt."""
    between = list(combinations(enumerate(plan.config.values), 2))
    rows: list[dict[str, Any]] = []
    for dataset, node in plan.gaps.items():
        gaps = np.load(found[node.key].path / "gaps_train.npy")
        matrix = gap_correlation(gaps)
        rows += [
            _correlation("gaps", dataset, first, second, len(gaps), (float(matrix[i, j]), None, None))
            for (i, first), (j, second) in between
            if np.isfinite(matrix[i, j])
        ]
    tested: list[Any] = []
    for evaluated in plan.evaluated:
        scores = {value: found[node.key] for value, node in evaluated.test.scores.items()}
        tested += answer_scores(scores, found[evaluated.test.prompts.key], own=False).values()
    answers = np.stack(tested, axis=1)
    draws = resamples(len(answers), plan.config.evaluation.resamples, plan.config.seed)
    within = answers - answers.mean(axis=1, keepdims=True)
    for over, table in (("answers", answers), ("answers to one prompt", within)):
        for (i, first), (j, second) in between:
            interval = correlation_interval(table[:, :, i], table[:, :, j], draws, level)
            if interval is not None:
                rows.append(_correlation(over, None, first, second, table[:, :, 0].size, interval))
    return rows


def _correlation(
    over: str, dataset: str | None, first: str, second: str, count: int, ends: Sequence[float | None]
) -> dict[str, Any]:
    mean, low, high = ends
    what = {"over": over, "dataset": dataset, "first": first, "second": second, "count": count}
    return {**what, "mean": mean, "low": low, "high": high}
