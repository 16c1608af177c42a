"""What the page draws: every candidate with its scores, and what is expected between the candidates of a dial."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from valuesoup.explorer.models import dials
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.run import Finished
from valuesoup.report.look import glyph_of
from valuesoup.report.model import fluency_of
from valuesoup.report.schema import CandidateResult, Results
from valuesoup.report.tables import label_of

Array = NDArray[np.float64]
BEYOND = 1.5
"""How far a slider goes, in units of the largest weight that was evaluated, where weights need not sum to 1."""
SAME = 1e-9
"""Candidates whose weights differ by less are one."""


def read_board(finished: Finished) -> dict[str, Any]:
    """Return the page's data, plain enough for JSON.

    Points are drawn by their scores on the validation prompts, the only ones that every candidate was measured on
    (smoothed ones where a search has smoothed them); test scores are those of the candidates that have any.
    """
    results, config = finished.results, finished.plan.config
    values = list(results["values"])
    turned = set(dials(finished))
    methods = []
    for entry in config.methods:
        rows = [row for row in results["candidates"] if row["method"] == entry.name]
        candidates = [_candidate(row, values, config.evaluation.fluency_bound) for row in rows]
        glyph = glyph_of(entry.name, cast(Results, results))
        methods.append(
            {
                "name": entry.name,
                "title": entry.title,
                "colour": glyph.colour,
                "path": glyph.path,
                "candidates": candidates,
                "dial": _dial(rows, candidates, values) if entry.name in turned else None,
            }
        )
    base = next(row for row in results["candidates"] if row["method"] == BASE)
    return {
        "values": values,
        "level": config.evaluation.level,
        "methods": methods,
        "start": _start(results, methods),
        "base": _candidate(base, values, config.evaluation.fluency_bound),
    }


def _start(results: Mapping[str, Any], methods: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return where A and B begin: the dial of the largest hypervolume and the first other one, or what there is."""

    def volume(method: Mapping[str, Any]) -> float:
        found = results["methods"][method["name"]]["hypervolume"]
        return float(found["value"]) if found else 0.0

    dials = [method["name"] for method in sorted(methods, key=volume, reverse=True) if method["dial"]]
    if len(dials) > 1:
        return [
            ("dial", dials[0]),
            ("dial", next(one["name"] for one in methods if one["dial"] and one["name"] != dials[0])),
        ]
    policies = [one for method in methods if not method["dial"] for one in method["candidates"]]
    ids = [one["id"] for one in policies if one["frontier"]] + [BASE]
    return [
        ("dial", dials[0]) if dials else ("policy", ids[0]),
        ("policy", BASE if dials else ids[min(1, len(ids) - 1)]),
    ]


def interpolation(points: Array, heights: Array) -> tuple[Array, Array]:
    """Return coefficients of the surface through all points that is linear between them where there is one dimension.

    f(x) = Σ_k c_k |x − x_k| + a_0 + a·x, the linear radial basis function with an affine part
    (Wendland, Scattered Data Approximation, 2004, section 8.4). Where the points lie on a line or a plane, the smallest
    affine part of all that fit is taken.

    Args:
        points: (K, d), all different.
        heights: (K, n).

    Returns:
        c, (K, n), and a, (1 + d, n).
    """
    count, dimensions = points.shape
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    affine = np.column_stack([np.ones(count), points])
    system = np.block([[distances, affine], [affine.T, np.zeros((dimensions + 1, dimensions + 1))]])
    right = np.vstack([heights, np.zeros((dimensions + 1, heights.shape[1]))])
    solved = np.linalg.lstsq(system, right, rcond=1e-12)[0]
    return solved[:count], solved[count:]


def _dial(rows: Sequence[Mapping[str, Any]], candidates: Sequence[dict[str, Any]], values: list[str]) -> dict[str, Any]:
    """Return a dial's centres, its surface, how far apart its candidates are, and where it starts."""
    table = np.array([[row["weights"][value] for value in values] for row in rows], dtype=np.float64)
    heights = np.array([[one["plot"][place] for place in range(len(values))] for one in candidates], dtype=np.float64)
    kept = _distinct(table)
    points, heights = table[kept], heights[kept]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    spacing = float(distances.min(axis=1).max()) if len(points) > 1 else 0.0
    bent, affine = interpolation(points, heights)
    simplex = bool((np.abs(points.sum(axis=1) - 1) < 1e-6).all() and (points > -SAME).all())
    middle = np.full(len(values), 1 / len(values))
    return {
        "centres": points.tolist(),
        "bent": bent.tolist(),
        "affine": affine.tolist(),
        "simplex": simplex and len(values) > 1,
        # The middle of a cell of a grid is half its diagonal from the corners.
        "reach": spacing * max(1.0, np.sqrt(len(values)) / 2) * 1.001 + SAME,
        "low": min(0.0, float(points.min())),
        "high": BEYOND * max(1.0, float(points.max())),
        "start": points[np.linalg.norm(points - middle, axis=1).argmin()].tolist(),
    }


def _distinct(points: Array) -> list[int]:
    kept: list[int] = []
    for place, point in enumerate(points):
        if all(np.abs(points[other] - point).max() > SAME for other in kept):
            kept.append(place)
    return kept


def _candidate(row: Mapping[str, Any], values: Sequence[str], bound: float) -> dict[str, Any]:
    validation = row["validation"] or {}
    smoothed = row.get("smoothed") or validation
    fluency = fluency_of(cast(CandidateResult, row))
    return {
        "id": row["id"],
        "label": label_of(cast(CandidateResult, row)),
        "weights": None if row["weights"] is None else [row["weights"][value] for value in values],
        "plot": [smoothed[value]["mean"] for value in values],
        "smoothed": row.get("smoothed") is not None,
        "validation": _estimates(validation, values),
        "test": _estimates(row.get("test"), values),
        "frontier": row["on_frontier"],
        "fluency": fluency,
        "broken": fluency is not None and fluency < bound,
    }


def _estimates(scores: Mapping[str, Any] | None, values: Sequence[str]) -> list[list[float]] | None:
    return [[scores[value][part] for part in ("mean", "low", "high")] for value in values] if scores else None
