"""Figures of runs side by side: frontiers and hypervolumes, colours for runs and shapes for methods."""

from collections.abc import Callable

import altair as alt
import numpy as np

from valuesoup.evaluation.frontier import pareto
from valuesoup.report.comparison import ComparisonData, ordered_methods
from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    bounded,
    method_shape,
    panels,
    present_methods,
    source,
    value_pairs,
)
from valuesoup.report.figures.scores import HIGHER, MOST_BARS
from valuesoup.report.look import BASE_COLOUR, METHOD_COLOURS, cycle
from valuesoup.report.model import weights_text
from valuesoup.report.study import policy_label

ROOM = 0.4
"""Of the range of the points, how far intervals may reach beyond it before they are cut."""
FULL = {"condition": {"test": "datum.frontier || datum.base", "value": 1}, "value": 0.3}


def comparison_figures(data: ComparisonData) -> list[Figure]:
    """The figures of a comparison, in the order of the page."""
    made = (
        ("frontiers", "Frontiers", _frontier_table, _frontiers, _frontier_caption),
        ("hypervolume", "Hypervolume", _volume_table, _volumes, _volume_caption),
    )
    return [_figure(data, *parts) for parts in made]


def _figure(
    comparison: ComparisonData,
    name: str,
    title: str,
    table: Callable[[ComparisonData], Table],
    chart: Callable[[ComparisonData, Table], alt.TopLevelMixin],
    caption: Callable[[ComparisonData, Table], str],
) -> Figure:
    return Figure(
        name,
        title,
        lambda _: table(comparison),
        lambda _, rows: chart(comparison, rows),
        lambda _, rows: caption(comparison, rows),
        "",
    )


def _colour(data: ComparisonData, legend: bool = True) -> alt.Color:
    scale = alt.Scale(domain=data.runs, range=cycle(METHOD_COLOURS, len(data.runs)))
    return alt.Color("run:N", scale=scale, title=None, legend=alt.Legend(symbolType="circle") if legend else None)


def _shape(data: ComparisonData, table: Table, legend: bool = True) -> alt.Shape:
    """Shapes of methods in grey, which is seen on a light and on a dark page; colours are those of runs."""
    grey = alt.Legend(symbolFillColor=BASE_COLOUR, symbolStrokeColor=BASE_COLOUR)
    return method_shape(data.results, present_methods(table), legend=grey if legend else None)


def _method(data: ComparisonData, name: str) -> str:
    """What figures call a method; the base keeps its own mark."""
    return name if name == "base" else str(data.compared["titles"][name])


def _frontier_table(data: ComparisonData) -> Table:
    """A row per candidate that has scores; ``joined`` are those of a dial that no other of the series dominates."""
    values = data.values
    rows: list[Row] = []
    dials: set[tuple[str, str]] = set()
    for candidate in data.compared["candidates"]:
        weights = candidate["weights"] or {}
        series = (candidate["run"], candidate["method"])
        if sum(weight != 0 for weight in weights.values()) > 1:
            dials.add(series)
        row: Row = {"run": candidate["run"], "method": _method(data, candidate["method"]), "id": candidate["id"]}
        row |= {"weights": weights_text(weights) or policy_label(candidate["id"], weights)}
        row |= {"place": data.runs.index(candidate["run"])}
        row |= {"outside": candidate["outside_simplex"], "base": candidate["method"] == "base"}
        row |= {"frontier": candidate["on_frontier"], "series": " of ".join(reversed(series))}
        for j, value in enumerate(values):
            score = candidate["scores"][value]
            row |= {f"s{j}": score["mean"], f"low{j}": score["low"], f"high{j}": score["high"]}
        rows.append(row)
    joinable = {" of ".join(reversed(series)) for series in dials}
    for series_name in {str(row["series"]) for row in rows}:
        _mark([row for row in rows if row["series"] == series_name], series_name in joinable, len(values))
    headings = {f"s{j}": value for j, value in enumerate(values)}
    headings |= {f"{end}{j}": f"{value} {end}" for j, value in enumerate(values) for end in ("low", "high")}
    return Table(rows, headings)


def _mark(own: list[Row], dial: bool, n: int) -> None:
    """Mark the frontier of one method of one run where none was chosen, its line, and which points carry bars."""
    scores = np.array([[row[f"s{j}"] for j in range(n)] for row in own], dtype=np.float64)
    if own[0]["frontier"] is None:  # a study chooses one in each seed; here it is that of the means
        for row, keep in zip(own, pareto(scores), strict=True):
            row["frontier"] = bool(keep)
    line = [k for k, row in enumerate(own) if row["frontier"] and dial]
    best = dict(zip(line, pareto(scores[line]) if line else [], strict=True))
    few = sum(bool(row["frontier"]) for row in own) <= MOST_BARS
    for k, row in enumerate(own):
        row["joined"] = bool(best.get(k, False))
        row["barred"] = bool(row["base"]) or (bool(row["frontier"]) and (few or (n == 2 and bool(row["joined"]))))


def _tips(data: ComparisonData) -> list[alt.Tooltip]:
    tips = [alt.Tooltip(f"{name}:N") for name in ("run", "method", "weights")]
    for j, value in enumerate(data.values):
        tips.append(alt.Tooltip(f"s{j}:Q", title=value, format=".3f"))
        tips += [alt.Tooltip(f"{end}{j}:Q", title=f"{value} {end}", format=".3f") for end in ("low", "high")]
    return tips


def _panel(data: ComparisonData, table: Table, i: int, j: int, size: tuple[int, int]) -> alt.LayerChart:
    values = data.values
    across, up = f"{values[i]} {HIGHER}", f"{values[j]} {HIGHER}"
    x, y = (
        axis(f"s{k}:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=8, domain=_extent(table, k)[:2]))
        for axis, k, title in ((alt.X, i, across), (alt.Y, j, up))
    )
    chart = source(table).encode(x=x, y=y, color=_colour(data))
    layers: list[alt.Chart] = []
    for axis, k, title in ((alt.X, i, across), (alt.Y, j, up)):
        name = axis.__name__.lower()
        known = bounded(chart.transform_filter("datum.barred"), k)
        low = axis(f"low{k}:Q", title=title)
        layers.append(
            known.mark_rule(strokeWidth=1.1, opacity=0.32, clip=True).encode(**{name: low, f"{name}2": f"high{k}:Q"})
        )
    if len(values) == 2:  # beyond two values a projection's points have no order to be joined in
        joined = chart.transform_filter("datum.joined")
        layers.append(joined.mark_line(strokeWidth=2, opacity=0.75).encode(order=f"s{i}:Q", detail="series:N"))
    large = 75 if len(values) == 2 else 50
    # Runs that share a seed share many points: an earlier run's mark is larger, so that both are seen.
    grown = f"{large} * (1 + 0.7 * ({len(data.runs) - 1} - datum.place))"
    chart = chart.transform_calculate(size=f"{grown} * (datum.base ? 1.8 : datum.frontier ? 1 : 0.45)")
    points = chart.encode(
        shape=_shape(data, table),
        opacity=FULL,
        size=alt.Size("size:Q", scale=None),
        tooltip=_tips(data),
    )
    layers.append(points.mark_point(filled=True, strokeWidth=1.5))
    base = source(table).transform_filter("datum.base").encode(x=x, y=y)
    layers.append(base.mark_text(dx=12, dy=-12, align="left", text="base", fontWeight=600))
    return alt.layer(*layers).properties(width=size[0], height=size[1])


def _extent(table: Table, j: int) -> tuple[float, float, bool]:
    """The ends of an axis, and whether an interval passes them.

    An axis is around the points: intervals of few seeds are so wide that they would push the points together.
    """
    scores = [float(row[f"s{j}"] or 0) for row in table.rows]
    barred = [row for row in table.rows if row["barred"] and row[f"low{j}"] is not None]
    ends = scores + [float(row[f"{end}{j}"] or 0) for row in barred for end in ("low", "high")]
    room = ROOM * ((max(scores) - min(scores)) or 1.0)
    low, high = max(min(scores) - room, min(ends)), min(max(scores) + room, max(ends))
    return low, high, low > min(ends) or high < max(ends)


def _is_cut(data: ComparisonData, table: Table) -> bool:
    return len(data.values) > 1 and any(_extent(table, j)[2] for j in range(len(data.values)))


def _dots(data: ComparisonData, table: Table) -> alt.LayerChart:
    """One value: a line for each method of each run, scores on the horizontal axis."""
    labels = list(dict.fromkeys(f"{row['method']} · {row['run']}" for row in table.rows))
    title = f"{data.values[0]} {HIGHER}"
    chart = source(table).transform_calculate(label="datum.method + ' · ' + datum.run")
    chart = chart.encode(
        y=alt.Y("label:N", title=None, sort=sorted(labels), axis=alt.Axis(labelLimit=320)),
        color=_colour(data, legend=False),
        tooltip=_tips(data),
    )
    known = bounded(chart.transform_filter("datum.barred"), 0)
    points = chart.mark_point(filled=True, size=90).encode(
        x=alt.X("s0:Q", title=title, scale=alt.Scale(zero=False)),
        shape=_shape(data, table, legend=False),
        opacity=FULL,
    )
    rules = known.mark_rule(strokeWidth=1.5, opacity=0.5).encode(x=alt.X("low0:Q", title=title), x2="high0:Q")
    return alt.layer(rules, points).properties(width=560, height=34 * len(labels) + 20)


def _frontiers(data: ComparisonData, table: Table) -> alt.TopLevelMixin:
    n = len(data.values)
    if n == 1:
        return _dots(data, table)
    size = (640, 460) if n == 2 else (300, 260)
    return panels([_panel(data, table, i, j, size) for i, j in value_pairs(n)])


def _frontier_caption(data: ComparisonData, table: Table) -> str:
    if data.compared["kind"] == "studies":
        text = "Mean validation score of every candidate over the seeds of its study; bars are Student intervals. "
        text += "Strong points are not dominated within their method and study. "
    else:
        text = (
            "Scores of every tested candidate on the test prompts of its run; bars are bootstrap intervals over them. "
        )
        text += "Strong points are on the validation frontier of their method and run. "
    text += "Bars end at the edge of the figure. " if _is_cut(data, table) else ""
    text += f"A colour is a {'run' if data.compared['kind'] == 'runs' else 'study'}, a shape a method. "
    if any(row["joined"] for row in table.rows) and len(data.values) == 2:
        text += "A line joins the frontier of a method with a dial. "
    if len(data.values) > 2:
        text += "Each panel is a projection on two values, in which points hide that win on a third."
    return text.strip()


def _volume_table(data: ComparisonData) -> Table:
    rows: list[Row] = []
    for row in ordered_methods(data.compared):
        method = _method(data, row["method"])
        volume = row["hypervolume"]
        line: Row = {"label": f"{method} · {row['run']}", "run": row["run"], "method": method}
        rows.append(line | {"hypervolume": volume["mean"], "low": volume["low"], "high": volume["high"]})
    return Table(rows)


def _volumes(data: ComparisonData, table: Table) -> alt.LayerChart:
    title = "hypervolume in the common box (higher is better)"
    labels = [str(row["label"]) for row in table.rows]
    chart = source(table).encode(
        y=alt.Y("label:N", title=None, sort=labels, axis=alt.Axis(labelLimit=320)),
        color=_colour(data),
        tooltip=[
            *(alt.Tooltip(f"{name}:N") for name in ("run", "method")),
            *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("hypervolume", "low", "high")),
        ],
    )
    x = alt.X("hypervolume:Q", title=title, scale=alt.Scale(zero=False, padding=24))
    known = bounded(chart)
    points = chart.mark_point(filled=True, size=110, opacity=1)
    label = (
        source(table)
        .mark_text(dy=-12, fontSize=11.5)
        .encode(x=x, y=alt.Y("label:N", title=None, sort=labels), text=alt.Text("hypervolume:Q", format=".3f"))
    )
    return alt.layer(
        known.mark_rule(strokeWidth=3, opacity=0.45).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        points.encode(x=x, shape=_shape(data, table, legend=False)),
        label,
    ).properties(width=560, height=36 * len(labels) + 10)


def _volume_caption(data: ComparisonData, table: Table) -> str:
    over = "Student intervals over seeds" if data.compared["kind"] == "studies" else "bootstrap intervals over prompts"
    return (
        "The volume that each method's frontier dominates on test, in one box for all: from one reference point to the "
        f"best scores of them together; {over}. Overlap is no verdict: see the differences, paired where they can be."
    )
