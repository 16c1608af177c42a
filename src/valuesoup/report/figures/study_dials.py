"""Figures of a study's two dials: scores against the weights, and conflict against the threshold."""

import altair as alt

from valuesoup.report.figures.base import (
    Row,
    Table,
    bounded,
    extra,
    method_colour,
    method_shape,
    panels,
    present_methods,
    source,
)
from valuesoup.report.figures.study_base import StudyFigure, ends, listed, seeds_text
from valuesoup.report.look import BASE_COLOUR, DASHES, cycle
from valuesoup.report.model import weights_text
from valuesoup.report.study import Spread, StudyData
from valuesoup.report.tables import number

NEAR = 1e-6
LEAST = 3
"""Points that make a curve."""
MOST_CROSSED = 3
"""Values up to which the score under each is drawn against each weight; of more, under the weighed value only."""
REST = "equal rest"


def _paths(rows: list[tuple[str, list[float]]], v: int) -> dict[str, list[int]]:
    """The ways along the simplex on which the weight of value v goes from 0 to 1: places of ``rows`` by name.

    With the other weights equal to each other where the candidates allow, else along the edges.
    """
    n = len(rows[0][1])
    on = [k for k, (_, w) in enumerate(rows) if abs(sum(w) - 1) < NEAR and min(w) > -NEAR]
    others = [j for j in range(n) if j != v]
    level = [k for k in on if max(rows[k][1][j] for j in others) - min(rows[k][1][j] for j in others) < NEAR]
    if len(level) >= LEAST:
        return {REST: level}
    edges = {j: [k for k in on if abs(rows[k][1][v] + rows[k][1][j] - 1) < NEAR] for j in others}
    return {f"edge {j}": places for j, places in edges.items() if len(places) >= LEAST}


def _weights(study: StudyData) -> Table:
    """A row per candidate on the way, value that is weighed (``weighed``) and value that is scored (``scored``)."""
    values = study.values
    rows: list[Row] = []
    for method in study.combined["methods"] if len(values) > 1 else ():
        if method not in study.dials():
            continue
        own = [row for row in study.combined["candidates"] if row["method"] == method]
        placed = [(row["id"], [float((row["weights"] or {}).get(value, 0.0)) for value in values]) for row in own]
        for v, weighed in enumerate(values[:1] if len(values) == 2 else values):
            for path, places in _paths(placed, v).items():
                name = REST if path == REST else f"between {weighed} and {values[int(path.split()[1])]}"
                for k in places:
                    for scored in values:
                        row: Row = {"method": method, "weighed": weighed, "scored": scored, "path": name}
                        row |= {"weights": weights_text(own[k]["weights"]), "weight": placed[k][1][v]}
                        rows.append(row | ends(own[k]["validation"][scored], "score"))
    return Table(rows)


def _weight_panel(study: StudyData, table: Table, weighed: str, scored: str, size: tuple[int, int]) -> alt.LayerChart:
    only = present_methods(table)
    both = (
        alt.FieldEqualPredicate(field="weighed", equal=weighed),
        alt.FieldEqualPredicate(field="scored", equal=scored),
    )
    chart = source(table).transform_filter(both[0]).transform_filter(both[1])
    chart = chart.encode(
        x=alt.X("weight:Q", title=f"weight of {weighed}", scale=alt.Scale(domain=[0, 1])),
        color=method_colour(study.results, only),
        detail="path:N",
    )
    title = f"score of {scored}"
    band = bounded(chart).mark_area(opacity=0.1).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    y = alt.Y("score:Q", title=title, scale=alt.Scale(zero=False))
    tips = [*(alt.Tooltip(f"{name}:N") for name in ("method", "weights", "path"))]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("score", "low", "high")]
    line = chart.mark_line(strokeWidth=1.8).encode(y=y)
    points = chart.mark_point(filled=True, size=34, opacity=1).encode(
        y=y, shape=method_shape(study.results, only), tooltip=tips
    )
    return alt.layer(band, line, points).properties(width=size[0], height=size[1])


def _weight_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    values = study.values
    weighed = list(dict.fromkeys(str(row["weighed"]) for row in table.rows))
    crossed = len(values) <= MOST_CROSSED
    shown = [(w, s) for s in values for w in weighed if crossed or w == s]
    charts = [_weight_panel(study, table, w, s, (300, 240)) for w, s in shown]
    return panels(charts, len(weighed) if crossed and len(weighed) > 1 else None)


def _weight_caption(study: StudyData, table: Table) -> str:
    text = f"What the weights do: mean score on the validation prompts, over {seeds_text(study)}, against a weight; "
    paths = {row["path"] for row in table.rows}
    if len(study.values) == 2:
        text += "the weights sum to 1. "
    else:
        ways = ["with the other weights equal"] if REST in paths else []
        ways += ["along the edges of the simplex"] if paths - {REST} else []
        text += f"the weights sum to 1, {' or '.join(ways)}. "
    rises = []
    for method in present_methods(table):
        own = [row for row in table.rows if row["method"] == method and row["weighed"] == row["scored"]]
        first = [row for row in own if row["weighed"] == own[0]["weighed"] and row["path"] == own[0]["path"]]
        low, high = (choose(first, key=lambda row: float(row["weight"] or 0)) for choose in (min, max))
        moved = float(high["score"] or 0) - float(low["score"] or 0)
        rises.append(f"{method} {'+' if moved >= 0 else ''}{number(moved, 2)}")
    value = table.rows[0]["weighed"]
    return f"{text}From the least to the largest weight of {value}, its score moves by: {', '.join(rises)}."


MEASURES = {
    "cosine": "cosine",
    "l2": "distance (L2)",
    "extent": "extent of the frontier",
    "kept": "share of pairs kept",
    "hypervolume": "hypervolume",
}
"""What is drawn against the threshold."""


def _measured(study: StudyData, method: str) -> dict[str, Spread | None]:
    shape = study.combined["geometry"].get(method) or {}
    of = study.combined["methods"][method]
    everything: Spread = {"mean": 1.0, "low": None, "high": None, "each": [1.0 for _ in study.seeds]}
    return {
        **{name: shape.get(name) for name in ("cosine", "l2")},
        "extent": of["extent"],
        "kept": study.kept(method) or everything,
        "hypervolume": of["hypervolume"],
    }


def _taus(study: StudyData) -> Table:
    rows: list[Row] = []
    for k, series in enumerate(study.thresholds()):
        for method, tau in series.methods.items():
            filtered = study.kept(method) is not None
            for name, spread in _measured(study, method).items():
                if spread is not None:
                    row: Row = {"method": method, "series": f"{k}", "varied": series.name, "tau": tau}
                    rows.append({**row, "filtered": filtered, "measure": name, **ends(spread, "y")})
    return Table(rows, {"tau": "τ", "y": "mean"})


def _tau_panel(study: StudyData, table: Table, measure: str) -> alt.LayerChart:
    only = present_methods(table)
    title = MEASURES[measure]
    varied = list(dict.fromkeys(str(row["varied"]) for row in table.rows))
    chart = source(table).transform_filter(alt.FieldEqualPredicate(field="measure", equal=measure))
    chart = chart.encode(x=alt.X("tau:Q", title="τ", scale=alt.Scale(nice=False, padding=14)))
    y = alt.Y(
        "y:Q",
        title=title,
        scale=alt.Scale(zero=False, padding=8),
        axis=alt.Axis(format="%" if measure == "kept" else ".3~g"),
    )
    line = chart.mark_line(color=BASE_COLOUR, strokeWidth=1.5).encode(y=y, detail="series:N")
    if len(varied) > 1:
        dashes = [list(dash) for dash in cycle(DASHES, len(varied))]
        line = line.encode(
            strokeDash=alt.StrokeDash("varied:N", title=None, scale=alt.Scale(domain=varied, range=dashes))
        )
    colour = method_colour(study.results, only)
    bars = bounded(chart).mark_rule(strokeWidth=2.2, opacity=0.45)
    tips = [*(alt.Tooltip(f"{name}:N") for name in ("method", "varied")), alt.Tooltip("tau:Q", title="τ", format=".2f")]
    tips += [alt.Tooltip(f"{name}:Q", title=label, format=".3f") for name, label in _TIPS]
    points = chart.mark_point(filled=True, size=85, opacity=1).encode(
        y=y, color=colour, shape=method_shape(study.results, only), tooltip=tips
    )
    layers: list[alt.Chart] = [line, bars.encode(y=alt.Y("low:Q", title=title), y2="high:Q", color=colour), points]
    if measure == "cosine":
        layers.insert(0, extra([{"zero": 0}]).mark_rule(strokeDash=[4, 4], opacity=0.5).encode(y="zero:Q"))
    return alt.layer(*layers).properties(width=300, height=230)


_TIPS = (("y", "mean"), ("low", "low"), ("high", "high"))


def _tau_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    there = {row["measure"] for row in table.rows}
    return panels([_tau_panel(study, table, measure) for measure in MEASURES if measure in there])


def _tau_caption(study: StudyData, table: Table) -> str:
    text = (
        f"Methods that differ in the threshold of their filter only, over {seeds_text(study)}: how alike their value "
        "vectors are, how far their candidates reach (extent, in units of the box), what the filter keeps. "
    )
    unfiltered = list(dict.fromkeys(str(row["method"]) for row in table.rows if not row["filtered"]))
    if unfiltered:
        text += f"{listed(unfiltered)} {'filters' if len(unfiltered) == 1 else 'filter'} nothing, drawn at τ = −1. "
    return text.strip()


weight_figure = StudyFigure("weights", "Scores against the weights", _weights, _weight_chart, _weight_caption)
tau_figure = StudyFigure("thresholds", "Conflict against the threshold", _taus, _tau_chart, _tau_caption)
