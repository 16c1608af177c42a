"""Figures of what was reached: frontiers and hypervolumes."""

from collections import Counter
from collections.abc import Iterable

import altair as alt
import numpy as np

from valuesoup.evaluation.frontier import pareto
from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    bounded,
    matrix,
    method_colour,
    method_shape,
    present_methods,
    ring,
    source,
)
from valuesoup.report.look import BASE_COLOUR, WARNING
from valuesoup.report.model import ReportData, fluency_of, is_base, shown_scores
from valuesoup.report.tables import label_of, number

HIGHER = "reward (higher is better)"
OUTSIDE = "outside the simplex"
_OPEN = alt.Legend(orient="bottom", symbolType="circle", symbolFillColor="transparent", symbolStrokeColor=BASE_COLOUR)
CROWD = 60  # candidates, beyond which small panels have small points, and many lines are told apart more strictly
MOST_BARS = 12  # frontier points of a method, beyond which only those on its line carry their intervals
CROSSED = "M-1,-1L1,1M-1,1L1,-1"  # laid over a point whose text breaks down


def candidate_rows(data: ReportData) -> Table:
    """A row per candidate with scores under every value: on test those that have them, else all on validation."""
    values = data.results["values"]
    rows: list[Row] = []
    for candidate in data.results.get("candidates") or ():
        split, scores = shown_scores(candidate)
        if any(value not in scores for value in values):
            continue
        base = is_base(candidate)
        fluency = fluency_of(candidate)
        row: Row = {
            "id": candidate["id"],
            "method": "base" if base else candidate["method"],
            "weights": label_of(candidate),
            "outside": candidate.get("outside_simplex", False),
            "split": split,
            "frontier": candidate["on_frontier"],
            "mixed": sum(weight != 0 for weight in (candidate["weights"] or {}).values()) > 1,
            "probability": candidate.get("frontier_probability"),
            "fluency": fluency,
            "low_fluency": fluency is not None and fluency < data.fluency_bound,
        }
        for j, value in enumerate(values):
            estimate = scores[value]
            row |= {f"s{j}": estimate["mean"], f"low{j}": estimate.get("low"), f"high{j}": estimate.get("high")}
        rows.append(row)
    dials = {row["method"] for row in rows if row.pop("mixed")}
    separate = _separate(data)
    for row in rows:
        row["dial"], row["separate"] = row["method"] in dials, row["method"] in separate
    if any(row["split"] == "test" for row in rows):  # one figure never mixes prompts
        rows = [row for row in rows if row["split"] == "test"]
    _mark_lines(rows, len(values))
    headings = {f"s{j}": value for j, value in enumerate(values)}
    headings |= {f"{end}{j}": f"{value} {end}" for j, value in enumerate(values) for end in ("low", "high")}
    return Table(rows, headings)


def _separate(data: ReportData) -> set[str]:
    """The methods that train as many policies as they have candidates: nothing lies between two of them."""
    counted = Counter(candidate["method"] for candidate in data.results.get("candidates") or ())
    methods = data.results.get("methods") or {}
    return {name for name, of in methods.items() if (of.get("trainings") or 0) >= counted[name] > 0}


def _mark_lines(rows: list[Row], n: int) -> None:
    """Mark the points that carry bars, and those that a method's line joins: the non-dominated of its frontier.

    Policies of one value each, or without weights, are not joined: a line would promise what lies on it.
    """
    for method in {str(row["method"]) for row in rows}:
        own = [row for row in rows if row["method"] == method]
        few = sum(bool(row["frontier"]) for row in own) <= MOST_BARS
        line = [row for row in own if row["frontier"] and row["dial"]]
        scores = np.array([[row[f"s{j}"] for j in range(n)] for row in line], dtype=np.float64)
        for row in own:
            row["joined"] = False
            row["barred"] = row["method"] == "base" or (bool(row["frontier"]) and few)
        for row, keep in zip(line, pareto(scores) if line else [], strict=True):
            row["joined"] = bool(keep)
            row["barred"] = few or (n == 2 and bool(keep))


def _tooltip(data: ReportData) -> list[alt.Tooltip]:
    tips = [alt.Tooltip("method:N", title="method"), alt.Tooltip("weights:N", title="weights")]
    tips += [alt.Tooltip(f"s{j}:Q", title=value, format=".3f") for j, value in enumerate(data.results["values"])]
    return [
        *tips,
        alt.Tooltip("split:N", title="scored on"),
        alt.Tooltip("probability:Q", title="P(on frontier)", format=".2f"),
        alt.Tooltip("fluency:Q", title="fluency", format=".2f"),
    ]


def full_strength() -> dict[str, object]:
    """The opacity of what is on a frontier, as a condition of an encoding."""
    return {"test": "datum.frontier || datum.method == 'base'", "value": 1}


def _crosses(data: ReportData, chart: alt.Chart, x: alt.X, y: alt.Y) -> alt.Chart:
    low = chart.transform_filter("datum.low_fluency")
    cross = low.mark_point(shape=CROSSED, size=230, color=WARNING, filled=False, strokeWidth=2)
    return cross.encode(x=x, y=y, tooltip=_tooltip(data))


def _lines(chart: alt.Chart, order: str) -> list[alt.Chart]:
    """Join the mixtures of each method in the order of a score; dotted where each point is trained."""
    joined = chart.transform_filter("datum.joined && datum.method != 'base'")
    return [
        joined.transform_filter(f"datum.separate == {apart}")
        .mark_line(strokeWidth=2, opacity=0.75, strokeDash=dash)
        .encode(order=order)
        for apart, dash in (("false", [1, 0]), ("true", [3, 3]))
    ]


def _projection(data: ReportData, table: Table, i: int, j: int, width: int, height: int) -> alt.LayerChart:
    values = data.results["values"]
    only = present_methods(table)
    across, up = (f"{values[k]} {HIGHER}" if len(values) == 2 else values[k] for k in (i, j))
    ticks = alt.Axis(tickCount=6 if width > 200 else 4)
    x = alt.X(f"s{i}:Q", title=across, scale=alt.Scale(zero=False, nice=True), axis=ticks)
    y = alt.Y(f"s{j}:Q", title=up, scale=alt.Scale(zero=False, nice=True), axis=ticks)
    colour = method_colour(data.results, only)
    chart = source(table)
    size = 75 if len(values) == 2 or len(table.rows) <= CROWD else 36
    # Beyond two values a projection's points have no order to be joined in.
    layers = _lines(chart.encode(x=x, y=y, color=colour), f"s{i}:Q") if len(values) == 2 else []
    bold = chart.transform_filter("datum.barred").encode(color=colour)
    layers += [
        bounded(bold, i)
        .mark_rule(strokeWidth=1.2, opacity=0.4)
        .encode(x=alt.X(f"low{i}:Q", title=across), x2=f"high{i}:Q", y=y),
        bounded(bold, j)
        .mark_rule(strokeWidth=1.2, opacity=0.4)
        .encode(x=x, y=alt.Y(f"low{j}:Q", title=up), y2=f"high{j}:Q"),
    ]
    # Policies without a dial are often the ends of another method's: rings, so that both are seen.
    rings = chart.transform_filter("!datum.dial && datum.method != 'base'")
    layers.append(
        rings.mark_point(filled=False, size=3.5 * size, strokeWidth=2.2).encode(
            x=x,
            y=y,
            color=colour,
            shape=method_shape(data.results, only),
            tooltip=_tooltip(data),
        )
    )
    points = chart.transform_filter("datum.dial || datum.method == 'base'").encode(
        x=x,
        y=y,
        color=colour,
        shape=method_shape(data.results, only),
        opacity={"condition": full_strength(), "value": 0.3},
        size={
            "condition": [{"test": "datum.method == 'base'", "value": 2 * size}, {**full_strength(), "value": size}],
            "value": 0.35 * size,
        },
        tooltip=_tooltip(data),
    )
    layers.append(points.transform_filter("!datum.outside").mark_point(filled=True, strokeWidth=1.5))
    if any(row["outside"] for row in table.rows):
        place = alt.StrokeDash("place:N", scale=alt.Scale(domain=[OUTSIDE], range=[[1, 0]]), legend=_OPEN, title=None)
        outside = points.transform_filter("datum.outside").transform_calculate(place=f"'{OUTSIDE}'")
        layers.append(outside.mark_point(filled=False, strokeWidth=1.6).encode(strokeDash=place))
    if any(row["low_fluency"] for row in table.rows):
        layers.append(_crosses(data, chart, x, y))
    if "base" in only:
        base = chart.transform_filter("datum.method == 'base'")
        layers.append(base.mark_text(dx=10, dy=-10, align="left", text="base", fontWeight=600).encode(x=x, y=y))
    layers.append(ring(chart, 5 * size, x=x, y=y))
    return alt.layer(*layers).properties(width=width, height=height)


def _dots(data: ReportData, table: Table) -> alt.LayerChart:
    """One value: methods on the vertical axis, scores on the horizontal one."""
    only = present_methods(table)
    chart = source(table)
    title = f"{data.results['values'][0]} {HIGHER}"
    x = alt.X("s0:Q", title=title, scale=alt.Scale(zero=False))
    y = alt.Y("method:N", title=None, sort=only)
    colour = method_colour(data.results, only, legend=None)
    bold = chart.transform_filter("datum.frontier || datum.method == 'base'")
    known = bounded(bold, 0)
    rule = known.mark_rule(strokeWidth=1.5, opacity=0.5).encode(
        x=alt.X("low0:Q", title=title), x2="high0:Q", y=y, color=colour
    )
    points = chart.mark_point(filled=True, size=90).encode(
        x=x,
        y=y,
        color=colour,
        opacity={"condition": full_strength(), "value": 0.4},
        tooltip=_tooltip(data),
    )
    layers = [rule, points]
    if any(row["low_fluency"] for row in table.rows):
        layers.append(_crosses(data, chart, x, y))
    layers.append(ring(chart, 300, x=x, y=y))
    step = 46 if len(only) <= 6 else 34
    return alt.layer(*layers).properties(width=640, height=step * len(only) + 20)


def _frontier(data: ReportData, table: Table) -> alt.TopLevelMixin:
    n = len(data.results["values"])
    if n == 1:
        return _dots(data, table)
    if n == 2:
        return _projection(data, table, 0, 1, 640, 420).properties(usermeta={"plane": True})
    size = (250, 230) if n == 3 else (180, 165)
    return matrix(n, lambda i, j: _projection(data, table, i, j, *size), size)


def _share(rows: Iterable[Row], key: str) -> int:
    return sum(bool(row[key]) for row in rows)


def _crowded(table: Table) -> bool:
    return any(row["frontier"] and not row["barred"] for row in table.rows)


def _frontier_caption(data: ReportData, table: Table) -> str:
    n = len(data.results["values"])
    if any(row["split"] == "test" for row in table.rows):
        text = "Scores on the test prompts. "
        if left := len(data.results.get("candidates") or ()) - len(table.rows):
            text += (
                f"{left} candidates off their method's validation frontier were not scored there and are not drawn. "
            )
    else:
        text = "No candidate has test scores: these are of the validation prompts, on which they were chosen. "
    text += (
        "Strong points are on their method's validation frontier, faint ones are not; bars are bootstrap "
        "intervals over prompts"
    )
    text += f", left out where a method has more than {MOST_BARS} points. " if _crowded(table) else ". "
    if n == 2:
        text += "A line joins the frontier of a method whose points can be mixed"
        apart = any(row["joined"] and row["separate"] for row in table.rows)
        text += ", a dotted one that of a method that trains each point. " if apart else ". "
    elif n > 2:
        text += "Each panel sets the rewards of two values against each other, and hides who wins on a third. "
    if outside := _share(table.rows, "outside"):
        text += f"The {outside} open points have weights {OUTSIDE}. "
    if low := _share(table.rows, "low_fluency"):
        text += f"A red cross marks the {low} with fluency below {number(data.fluency_bound, 2)}."
    elif all(row["fluency"] is None for row in table.rows):
        text += "Fluency was not measured."
    return text.strip()


FRONTIER = Figure(
    "frontier",
    "Frontiers",
    candidate_rows,
    _frontier,
    _frontier_caption,
    "No candidate has scores under every value, so there is no frontier to draw.",
)


def _volumes(data: ReportData) -> Table:
    rows: list[Row] = []
    for name, method in (data.results.get("methods") or {}).items():
        if volume := method.get("hypervolume"):
            low, high = volume.get("low"), volume.get("high")
            rows.append({"method": name, "hypervolume": volume["value"], "low": low, "high": high})
    return Table(sorted(rows, key=lambda row: -float(row["hypervolume"] or 0)))


def _interval_chart(
    table: Table, x: str, title: str, colour: alt.Color, shape: alt.Shape, y: str, tips: list[alt.Tooltip]
) -> alt.LayerChart:
    chart = source(table)
    axis = alt.Y(
        f"{y}:N", title=None, sort=[row[y] for row in table.rows], axis=alt.Axis(labelLimit=200, labelFontSize=13)
    )
    horizontal = alt.X(f"{x}:Q", title=title, scale=alt.Scale(zero=False, padding=24))
    known = bounded(chart)
    rule = known.mark_rule(strokeWidth=3, opacity=0.45).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=axis, color=colour
    )
    point = chart.mark_point(filled=True, size=130, opacity=1).encode(
        x=horizontal, y=axis, color=colour, shape=shape, tooltip=tips
    )
    label = chart.mark_text(dy=-13, fontSize=12).encode(x=horizontal, y=axis, text=alt.Text(f"{x}:Q", format=".3f"))
    step = 52 if len(table.rows) <= 6 else 38
    return alt.layer(rule, point, label).properties(width=640, height=step * len(table.rows) + 10)


def _hypervolume(data: ReportData, table: Table) -> alt.LayerChart:
    tips = [
        alt.Tooltip("method:N"),
        *(alt.Tooltip(f"{k}:Q", format=".4f") for k in ("hypervolume", "low", "high")),
    ]
    colour = method_colour(data.results, present_methods(table), legend=None)
    shape = method_shape(data.results, present_methods(table), legend=None)
    return _interval_chart(table, "hypervolume", "hypervolume (higher is better)", colour, shape, "method", tips)


HYPERVOLUME = Figure(
    "hypervolume",
    "Hypervolume",
    _volumes,
    _hypervolume,
    lambda data, table: (
        "The volume that a method's frontier dominates, from one reference point for all methods, with its "
        "bootstrap interval. Overlap is no verdict: methods are compared on the same resamples, see the summary."
    ),
    "No hypervolume was computed.",
)
