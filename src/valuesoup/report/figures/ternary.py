"""Figure of three values: each score over the triangle of weights, one row of triangles per method."""

import math

import altair as alt
import numpy as np

from valuesoup.report.figures.base import Figure, Row, Table, extra, panels, present_methods, ring, source
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.tables import label_of

LEAST = 4
"""Weightings that make a landscape; of fewer the frontier says as much."""
HEIGHT = math.sqrt(3) / 2
ASPECT = 1.15 / 1.36
"""Height of a panel by its width, at which the triangle is equilateral within `_X` and `_Y`."""
_X, _Y = alt.Scale(domain=[-0.18, 1.18]), alt.Scale(domain=[-0.15, 1.0])
_SIDE = 250  # width of a panel, in pixels
_TICKS = (0.25, 0.5, 0.75)
_OUT = 0.1  # how far outside the triangle a tick's label stands, in sides


def place(weights: tuple[float, float, float]) -> tuple[float, float]:
    """Where a weighting stands in the triangle: the first value at (0, 0), the second at (1, 0), the third above."""
    _, second, third = weights
    return second + third / 2, third * HEIGHT


def _landscape(data: ReportData) -> Table:
    """A row per value and candidate with weights on the simplex of three values, by its validation scores."""
    values = list(data.results["values"])
    found: dict[str, list[Row]] = {}
    for candidate in data.results.get("candidates") or () if len(values) == 3 else ():
        weights, scores = candidate["weights"] or {}, candidate.get("validation") or {}
        if is_base(candidate) or set(weights) != set(values) or candidate.get("outside_simplex"):
            continue
        if any(value not in scores for value in values):
            continue
        first, second, third = (weights[value] for value in values)
        x, y = place((first, second, third))
        row: Row = {"id": candidate["id"], "method": candidate["method"], "weights": label_of(candidate)}
        row |= {"x": x, "y": y, "frontier": candidate["on_frontier"]}
        found.setdefault(candidate["method"], []).extend(
            row | {"value": value, "score": scores[value]["mean"]} for value in values
        )
    rows = [row for own in found.values() if len({row["weights"] for row in own}) >= LEAST for row in own]
    for value in values:
        own = [row for row in rows if row["value"] == value]
        scores_of = np.array([row["score"] for row in own], dtype=np.float64)
        if len(own):
            relative = (scores_of - scores_of.min()) / (float(np.ptp(scores_of)) or 1.0)
            for row, share in zip(own, relative.tolist(), strict=True):
                row |= {"relative": share, "dataset": f"{row['method']}: {value}"}
    return Table(rows, {"dataset": "panel"})


def _frame(values: list[str]) -> list[alt.Chart]:
    """The triangle with its grid, ticks and the names of its corners."""
    corners = [place(corner) for corner in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]
    outline: list[Row] = [{"x": x, "y": y, "order": k} for k, (x, y) in enumerate([*corners, corners[0]])]
    grid: list[Row] = []
    ticks: list[Row] = []
    for t in _TICKS:
        for k in range(3):  # the line on which value k has weight t, from the edge where its tick stands
            here, there = [0.0] * 3, [0.0] * 3
            here[k] = there[k] = t
            here[k - 1], there[k - 2] = 1 - t, 1 - t
            (x, y), (x2, y2) = place((here[0], here[1], here[2])), place((there[0], there[1], there[2]))
            grid.append({"x": x, "y": y, "x2": x2, "y2": y2})
            ticks.append({"x": x + _OUT * (x - x2) / (1 - t), "y": y + _OUT * (y - y2) / (1 - t), "text": f"{t:g}"})
    at = {"x": alt.X("x:Q", axis=None, scale=_X), "y": alt.Y("y:Q", axis=None, scale=_Y)}
    names = [
        extra([{"x": x, "y": y, "text": value}]).mark_text(fontWeight=600, fontSize=11.5, align=align, dy=dy, dx=dx)
        for value, (x, y), align, dx, dy in zip(
            values, corners, ("left", "right", "center"), (-24, 24, 0), (24, 24, -16), strict=True
        )
    ]
    return [
        extra(grid).mark_rule(strokeWidth=1, opacity=0.25).encode(**at, x2="x2:Q", y2="y2:Q"),
        extra(outline).mark_line(style="ring", strokeWidth=1.2).encode(**at, order="order:Q"),
        extra(ticks).mark_text(fontSize=10, opacity=0.75).encode(**at, text="text:N"),
        *(name.encode(**at, text="text:N") for name in names),
    ]


def _panel(data: ReportData, table: Table, method: str, value: str) -> alt.LayerChart:
    name = f"{method}: {value}"
    own = [row for row in table.rows if row["dataset"] == name]
    steps = max((math.sqrt(8 * len(own) + 1) - 3) / 2, 4)  # of a whole grid of so many weightings
    size = math.pi / 4 * min(0.74 * 0.78 * _SIDE / steps, 20.0) ** 2
    at = {"x": alt.X("x:Q", axis=None, scale=_X), "y": alt.Y("y:Q", axis=None, scale=_Y)}
    chart = source(table, name)
    legend = alt.Legend(gradientLength=220, gradientThickness=10, values=[0, 0.5, 1], format=".1f", titleLimit=320)
    points = chart.mark_point(shape="circle", filled=True, opacity=1, size=size).encode(
        **at,
        color=alt.Color(
            "relative:Q",
            scale=alt.Scale(scheme="viridis", domain=[0, 1]),
            legend=legend,
            title="validation score, 0 the worst and 1 the best of all",
        ),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("weights:N"),
            alt.Tooltip("value:N"),
            alt.Tooltip("score:Q", format=".3f"),
        ],
    )
    frontier = chart.transform_filter("datum.frontier").mark_point(
        style="ring", shape="circle", filled=False, size=1.25 * size, strokeWidth=1.1
    )
    layers = [*_frame(list(data.results["values"])), points, frontier.encode(**at), ring(chart, 2.6 * size, **at)]
    return alt.layer(*layers).properties(title=name, width=_SIDE, height=ASPECT * _SIDE)


def _chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    values = list(data.results["values"])
    charts = [_panel(data, table, method, value) for method in present_methods(table) for value in values]
    return panels(charts, columns=3).properties(usermeta={"aspect": ASPECT})


TERNARY = Figure(
    "ternary",
    "Scores over the weights",
    _landscape,
    _chart,
    lambda data, table: (
        "At a corner one value has all the weight; each point of the triangle is a candidate, and a tick gives the "
        "weight of the value whose corner it counts up to. Colour is the validation score under the value that the "
        "panel names, on one scale for all methods; outlined points are on their method's frontier. A method mixes "
        "well where all three of its triangles stay bright in the middle."
    ),
    "",
)
