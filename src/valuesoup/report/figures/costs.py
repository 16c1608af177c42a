"""Figure of what a frontier costs: hypervolume against seconds, in all and per frontier point."""

import altair as alt

from valuesoup.report.costs import Cost, costs
from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    bounded,
    method_colour,
    method_shape,
    panels,
    present_methods,
    source,
)
from valuesoup.report.model import ReportData
from valuesoup.report.tables import number


def _cost_rows(data: ReportData) -> Table:
    """One row per method with a hypervolume and known, positive seconds."""
    methods = data.results.get("methods") or {}
    rows: list[Row] = []
    for cost in costs(data):
        volume = methods[cost.method].get("hypervolume")
        if volume and cost.seconds and cost.points:
            row: Row = {"method": cost.method, "hypervolume": volume["value"]}
            row |= {"low": volume.get("low"), "high": volume.get("high")}
            row |= {"trainings": cost.trainings, "points": cost.points, "training": cost.train}
            row |= {"expansion": cost.expand, "evaluation": cost.evaluate, "seconds": cost.seconds}
            row |= {"training_per_point": cost.per_point(cost.train), "per_point": cost.per_point(cost.seconds)}
            rows.append(row)
    return Table(
        rows,
        {
            "points": "frontier points",
            "training": "training seconds",
            "expansion": "expansion seconds",
            "evaluation": "evaluation seconds",
            "training_per_point": "training seconds per frontier point",
            "per_point": "seconds per frontier point",
        },
    )


def _panel(data: ReportData, table: Table, field: str, title: str) -> alt.LayerChart:
    only = present_methods(table)
    colour = method_colour(data.results, only)
    up = "hypervolume (higher is better)"
    x = alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=24))
    chart = source(table)
    bars = (
        bounded(chart)
        .mark_rule(strokeWidth=2.5, opacity=0.4)
        .encode(x=x, y=alt.Y("low:Q", title=up), y2="high:Q", color=colour)
    )
    points = chart.mark_point(filled=True, size=110, opacity=1).encode(
        x=x,
        y=alt.Y("hypervolume:Q", title=up, scale=alt.Scale(zero=False, padding=12)),
        color=colour,
        shape=method_shape(data.results, only),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("hypervolume:Q", format=".3f"),
            alt.Tooltip("trainings:Q"),
            alt.Tooltip("points:Q", title="frontier points"),
            *(alt.Tooltip(f"{part}:Q", title=f"{part}, s", format=",.1f") for part in _PARTS),
            alt.Tooltip("training_per_point:Q", title="training per frontier point, s", format=",.1f"),
            alt.Tooltip("per_point:Q", title="all per frontier point, s", format=",.1f"),
        ],
    )
    return alt.layer(bars, points).properties(width=300, height=280)


_PARTS = ("training", "expansion", "evaluation")


def _cost_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    return panels(
        [
            _panel(data, table, "seconds", "seconds in all (log scale)"),
            _panel(data, table, "per_point", "seconds per frontier point (log scale)"),
        ]
    )


def _cost_caption(data: ReportData, table: Table) -> str:
    expands = any(row["expansion"] for row in table.rows)
    parts = "training, prompt expansion and evaluation" if expands else "training and evaluation"
    text = (
        f"Hypervolume with its bootstrap interval against the seconds of {parts} that a method takes on its own: "
        "what it shares with another is counted in both. Up and left is better. "
    )
    drawn = present_methods(table)
    known = [cost for cost in costs(data) if cost.method in drawn]
    cheapest, dearest = (choose(known, key=_all_per_point) for choose in (min, max))
    text += f"Seconds per frontier point: {_price(cheapest)}"
    if cheapest is not dearest:
        text += f" to {_price(dearest)}"
    text += ". "
    if left := len(costs(data)) - len(known):
        text += f"{left} {'method is' if left == 1 else 'methods are'} not drawn: no hypervolume, frontier or seconds."
    return text.strip()


def _all_per_point(cost: Cost) -> float:
    return cost.per_point(cost.seconds) or 0.0


def _price(cost: Cost) -> str:
    return f"{number(_all_per_point(cost), 1)} ({cost.method})"


COST = Figure("cost", "Cost of a frontier", _cost_rows, _cost_chart, _cost_caption, "")
