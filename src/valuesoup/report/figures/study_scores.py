"""Figures of what a study reached: hypervolumes over seeds, and frontiers of means over seeds."""

import altair as alt
import numpy as np

from valuesoup.evaluation.frontier import pareto
from valuesoup.report.figures.base import (
    Row,
    Table,
    bounded,
    method_colour,
    method_shape,
    panels,
    present_methods,
    source,
    value_pairs,
)
from valuesoup.report.figures.scores import HIGHER, OUTSIDE
from valuesoup.report.figures.study_base import StudyFigure, ends, seeds_text
from valuesoup.report.look import BASE_COLOUR
from valuesoup.report.model import weights_text
from valuesoup.report.study import StudyData, policy_label

MOST_TOTALS = 3
"""Sums of weights that each get a line; beyond that weights fill an area, which has no order to be joined in."""
MOST_BARS = 40
"""Candidates that all show their intervals; of more, only those that their method does not dominate do."""
_OPEN = alt.Legend(orient="bottom", symbolType="circle", symbolFillColor="transparent", symbolStrokeColor=BASE_COLOUR)


def _seeds(study: StudyData) -> Table:
    """A row per method and seed, and one per method with its mean (seed None), methods by their mean."""
    methods = study.combined["methods"]
    rows: list[Row] = []
    for name in sorted(methods, key=lambda name: -methods[name]["hypervolume"]["mean"]):
        volume = methods[name]["hypervolume"]
        rows.append({"method": name, "seed": None, **ends(volume, "hypervolume")})
        for seed, figure in zip(study.seeds, volume["each"], strict=True):
            rows.append({"method": name, "seed": seed, "hypervolume": figure, "low": None, "high": None})
    return Table(rows)


def _seeds_chart(study: StudyData, table: Table) -> alt.LayerChart:
    only = present_methods(table)
    title = "hypervolume (higher is better)"
    y = alt.Y("method:N", title=None, sort=only, axis=alt.Axis(labelLimit=220, labelFontSize=13))
    x = alt.X("hypervolume:Q", title=title, scale=alt.Scale(zero=False, padding=24))
    chart = source(table).encode(
        y=y,
        color=method_colour(study.results, only, legend=None),
        tooltip=[
            *(alt.Tooltip(f"{name}:N") for name in ("method", "seed")),
            *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("hypervolume", "low", "high")),
        ],
    )
    means = chart.transform_filter("!isValid(datum.seed)")
    shape = method_shape(study.results, only, legend=None)
    dots = chart.transform_filter("isValid(datum.seed)").mark_circle(size=42, opacity=0.55, yOffset=8).encode(x=x)
    rule = bounded(means).mark_rule(strokeWidth=3, opacity=0.45)
    label = source(table).transform_filter("!isValid(datum.seed)").mark_text(dy=-13, fontSize=12)
    layers = [
        dots,
        rule.encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        means.mark_point(filled=True, size=130, opacity=1).encode(x=x, shape=shape),
        label.encode(x=x, y=y, text=alt.Text("hypervolume:Q", format=".3f")),
    ]
    step = 52 if len(only) <= 6 else 40
    return alt.layer(*layers).properties(width=640, height=step * len(only) + 10)


def _seeds_caption(study: StudyData, table: Table) -> str:
    return (
        f"The volume that a method's frontier dominates on the test prompts, over {seeds_text(study)}: a large mark is "
        "the mean, a dot below it one seed. Each seed has a box of its own, so a spread over seeds moves all methods "
        "together: compare methods by their paired differences, not by the overlap of intervals."
    )


def _candidates(study: StudyData) -> Table:
    """A row per candidate; ``line`` names what joins it to others, in the order of ``place``."""
    values = study.values
    dials, merging = study.dials(), study.merging()
    rows: list[Row] = []
    weights: list[list[float]] = []
    for candidate in study.combined["candidates"]:
        known = candidate["weights"] or {}
        row: Row = {"id": candidate["id"], "method": candidate["method"]}
        row |= {"weights": weights_text(known) or policy_label(candidate["id"], known)}
        row |= {"outside": candidate["outside_simplex"], "dial": candidate["method"] in dials}
        row |= {"separate": candidate["method"] in dials - merging}
        for j, value in enumerate(values):
            row |= ends(candidate["validation"][value], f"s{j}", f"low{j}", f"high{j}")
        rows.append(row)
        weights.append([float(known.get(value, 0.0)) for value in values])
    for method in present_methods(Table(rows)):
        _mark(method, rows, weights, len(values))
    headings = {f"s{j}": value for j, value in enumerate(values)}
    headings |= {f"{end}{j}": f"{value} {end}" for j, value in enumerate(values) for end in ("low", "high")}
    headings |= {f"w{j}": f"weight of {value}" for j, value in enumerate(values)}
    return Table(rows, headings)


def _mark(method: str, rows: list[Row], weights: list[list[float]], n: int) -> None:
    """Mark which candidates of a method show bars, and which lines join them.

    A line runs through the mixtures of two values with one sum of the weights. Where a method has too many sums,
    weights fill an area, and the line joins its frontier.
    """
    own = [k for k, row in enumerate(rows) if row["method"] == method]
    scores = np.array([[rows[k][f"s{j}"] for j in range(n)] for k in own], dtype=np.float64)
    front = {k for k, keep in zip(own, pareto(scores), strict=True) if keep}
    totals = {round(sum(weights[k]), 6) for k in own}
    for k in own:
        row = rows[k]
        row["frontier"] = k in front
        row["bars"] = len(rows) <= MOST_BARS or k in front
        row |= {f"w{j}": weight for j, weight in enumerate(weights[k])}
        if not row["dial"]:
            row["line"] = None
        elif len(totals) <= MOST_TOTALS:
            row["line"] = f"{method} {sum(weights[k]):.6g}"
        else:
            row["line"] = method if k in front and n == 2 else None
        row["area"] = len(totals) > MOST_TOTALS


def _lines(table: Table, chart: alt.Chart, i: int, j: int, n: int) -> list[alt.Chart]:
    """The lines of one panel: of more than two values, along the edge of the simplex between its two."""
    rest = [f"datum.w{k} == 0" for k in range(n) if k not in (i, j)]
    mixed = chart.transform_filter(" && ".join(["isValid(datum.line)", *rest]))
    layers = []
    for apart, dash in (("false", [1, 0]), ("true", [3, 3])):
        for area, order in (("false", f"w{i}:Q"), ("true", f"s{i}:Q")):
            if any(str(row["separate"]).lower() == apart and str(row["area"]).lower() == area for row in table.rows):
                kept = mixed.transform_filter(f"datum.separate == {apart} && datum.area == {area}")
                layers.append(
                    kept.mark_line(strokeWidth=1.8, opacity=0.7, strokeDash=dash).encode(order=order, detail="line:N")
                )
    return layers


def _panel(study: StudyData, table: Table, i: int, j: int, size: tuple[int, int]) -> alt.LayerChart:
    values = study.values
    only = present_methods(table)
    across, up = f"{values[i]} {HIGHER}", f"{values[j]} {HIGHER}"
    scale = alt.Scale(zero=False, nice=True, padding=8)  # the base often lies in the corner
    x = alt.X(f"s{i}:Q", title=across, scale=scale)
    y = alt.Y(f"s{j}:Q", title=up, scale=scale)
    plain = source(table)
    chart = plain.encode(x=x, y=y, color=method_colour(study.results, only))
    layers = _lines(table, chart, i, j, len(values))
    for axis, field, title in (("x", i, across), ("y", j, up)):
        low = {"x": alt.X, "y": alt.Y}[axis](f"low{field}:Q", title=title)
        known = bounded(chart.transform_filter("datum.bars"), field)
        layers.append(
            known.mark_rule(strokeWidth=1.1, opacity=0.32).encode(**{axis: low, f"{axis}2": f"high{field}:Q"})
        )
    tips = [alt.Tooltip("method:N"), alt.Tooltip("weights:N")]
    for k, value in enumerate(values):
        tips.append(alt.Tooltip(f"s{k}:Q", title=value, format=".3f"))
        tips += [alt.Tooltip(f"{end}{k}:Q", title=f"{value} {end}", format=".3f") for end in ("low", "high")]
    marked = chart.encode(shape=method_shape(study.results, only), tooltip=tips)
    faint = {"condition": {"test": "datum.frontier || datum.method == 'base'", "value": 1}, "value": 0.4}
    # Policies without a dial are often the ends of another method's: rings, so that both are seen.
    rings = marked.transform_filter("!datum.dial && datum.method != 'base'")
    layers.append(rings.mark_point(filled=False, size=220, strokeWidth=2.2))
    points = marked.transform_filter("datum.dial || datum.method == 'base'").encode(opacity=faint)
    inside = points.transform_filter("!datum.outside")
    sizes = {"condition": {"test": "datum.method == 'base'", "value": 150}, "value": 52}
    layers.append(inside.mark_point(filled=True, strokeWidth=1.5).encode(size=sizes))
    if any(row["outside"] for row in table.rows):
        place = alt.StrokeDash("place:N", scale=alt.Scale(domain=[OUTSIDE], range=[[1, 0]]), legend=_OPEN, title=None)
        outside = points.transform_filter("datum.outside").transform_calculate(place=f"'{OUTSIDE}'")
        layers.append(outside.mark_point(filled=False, size=60, strokeWidth=1.6).encode(strokeDash=place))
    if "base" in only:
        base = plain.transform_filter("datum.method == 'base'").encode(x=x, y=y)
        layers.append(base.mark_text(dx=10, dy=-10, align="left", text="base", fontWeight=600))
    return alt.layer(*layers).properties(width=size[0], height=size[1])


def _dots(study: StudyData, table: Table) -> alt.LayerChart:
    """One value: methods on the vertical axis, scores on the horizontal one."""
    only = present_methods(table)
    title = f"{study.values[0]} {HIGHER}"
    chart = source(table).encode(
        y=alt.Y("method:N", title=None, sort=only),
        color=method_colour(study.results, only, legend=None),
        tooltip=["method:N", "weights:N", *(alt.Tooltip(f"{end}0:Q", format=".3f") for end in ("s", "low", "high"))],
    )
    known = bounded(chart, 0)
    return alt.layer(
        known.mark_rule(strokeWidth=1.5, opacity=0.5).encode(x=alt.X("low0:Q", title=title), x2="high0:Q"),
        chart.mark_point(filled=True, size=90).encode(x=alt.X("s0:Q", title=title, scale=alt.Scale(zero=False))),
    ).properties(width=640, height=46 * len(only) + 20)


def _frontier(study: StudyData, table: Table) -> alt.TopLevelMixin:
    n = len(study.values)
    if n == 1:
        return _dots(study, table)
    size = (640, 480) if n == 2 else (300, 260)
    return panels([_panel(study, table, i, j, size) for i, j in value_pairs(n)])


def _frontier_caption(study: StudyData, table: Table) -> str:
    text = f"Mean score of every candidate on the validation prompts, over {seeds_text(study)}. "
    if len(study.values) == 1:
        return text.strip()
    if any(row["line"] for row in table.rows):
        of = "" if len(study.values) == 2 else " between the two values of a panel"
        text += f"A line joins the mixtures{of} in the order of their weights"
        text += ", a dotted one where each point is trained" if any(row["separate"] for row in table.rows) else ""
        if any(row["area"] and row["line"] for row in table.rows):
            text += "; of a method whose weights fill an area it joins the frontier"
        text += ". "
    text += "Strong points are not dominated within their method"
    text += ". " if all(row["bars"] for row in table.rows) else ", and only they show their intervals. "
    if any(not row["dial"] and row["method"] != "base" for row in table.rows):
        text += "Rings are policies without a dial. "
    if outside := sum(bool(row["outside"]) for row in table.rows):
        text += f"The {outside} open points have weights {OUTSIDE}. "
    if len(study.values) > 2:
        text += "Each panel is a projection on two values, in which points hide that win on a third."
    return text.strip()


seeds_figure = StudyFigure("seeds", "Hypervolume over seeds", _seeds, _seeds_chart, _seeds_caption)
frontier_figure = StudyFigure("frontiers", "Frontiers over seeds", _candidates, _frontier, _frontier_caption)
