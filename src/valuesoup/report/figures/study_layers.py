"""Figures of the value vectors by depth, over the seeds of a study: their geometry and their dependence."""

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from valuesoup.report.figures.base import (
    Row,
    Table,
    blocks,
    bounded,
    depth_axis,
    method_colour,
    panels,
    present_methods,
    source,
)
from valuesoup.report.figures.dependence import WIDE
from valuesoup.report.figures.study_base import StudyFigure, ends, listed, seeds_text
from valuesoup.report.model import LayerDependence, LayerGeometry
from valuesoup.report.study import StudyData, over_seeds
from valuesoup.report.tables import number

Entries = Sequence[LayerGeometry] | Sequence[LayerDependence]


def _by_depth(entries: Entries, field: str) -> dict[int, float]:
    """The mean of a field over the matrices of each depth and the pairs of values, where it is known."""
    own = [entry for entry in entries if entry.layer is not None and getattr(entry, field) is not None]
    found: dict[int, list[float]] = {}
    for entry, block in zip(own, blocks([str(entry.layer) for entry in own]), strict=True):
        found.setdefault(block, []).append(float(getattr(entry, field)))
    return {block: float(np.mean(figures)) for block, figures in sorted(found.items())}


def _rows(study: StudyData, runs: Sequence[Mapping[str, Entries]], fields: Sequence[str]) -> list[Row]:
    """A row per method, field and depth that every seed has; a method with the curves of an earlier one shares them."""
    rows: list[Row] = []
    seen: dict[tuple[object, ...], str] = {}
    for method in runs[0] if runs else ():
        if not all(method in run for run in runs):
            continue
        curves = {field: [_by_depth(run[method], field) for run in runs] for field in fields}
        key = tuple(tuple(curve.items()) for each in curves.values() for curve in each)
        same = seen.setdefault(key, method)
        for field, each in curves.items():
            for block in each[0]:
                if all(block in curve for curve in each):
                    spread = over_seeds([curve[block] for curve in each], study.combined["level"], field)
                    row: Row = {"method": method, "field": field, "block": block, "drawn_as": same}
                    rows.append(row | ends(spread, "y"))
    return rows


def _panel(study: StudyData, table: Table, field: str, title: str, scale: alt.Scale, width: int) -> alt.LayerChart:
    only = _drawn(table)
    chart = source(table).transform_filter(alt.FieldEqualPredicate(field="field", equal=field))
    chart = chart.transform_filter("datum.method == datum.drawn_as").encode(
        x=alt.X("block:Q", title="layer", axis=depth_axis(table), scale=alt.Scale(nice=False, padding=8)),
        color=method_colour(study.results, only),
    )
    tips = [alt.Tooltip("method:N"), alt.Tooltip("block:Q", title="layer")]
    tips += [alt.Tooltip(f"{name}:Q", title=label, format=".3g") for name, label in _TIPS]
    band = bounded(chart).mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
    line = chart.mark_line(strokeWidth=2.1, point=alt.OverlayMarkDef(size=30)).encode(
        y=alt.Y("y:Q", title=title, scale=scale), tooltip=tips
    )
    layers = [band, line]
    if field == "after" and any(row["field"] == "before" for row in table.rows):
        before = source(table).transform_filter(alt.FieldEqualPredicate(field="field", equal="before"))
        before = before.transform_filter("datum.method == datum.drawn_as").mark_line(strokeWidth=1.6, strokeDash=[4, 4])
        layers.append(before.encode(x="block:Q", y=alt.Y("y:Q", scale=scale), color=method_colour(study.results, only)))
    return alt.layer(*layers).properties(width=width, height=260)


_TIPS = (("y", "mean"), ("low", "low"), ("high", "high"))


def _drawn(table: Table) -> list[str]:
    """The methods that have a curve of their own."""
    return list(dict.fromkeys(str(row["drawn_as"]) for row in table.rows))


def _shared(table: Table) -> str:
    """``A has the vectors of B.`` for methods that share their curves."""
    text = ""
    for method in _drawn(table):
        others = [str(name) for name in present_methods(table) if name != method and _as(table, name) == method]
        if others:
            text += f"{listed(others)} {'has' if len(others) == 1 else 'have'} the vectors of {method}. "
    return text


def _as(table: Table, method: str) -> str:
    return next(str(row["drawn_as"]) for row in table.rows if row["method"] == method)


def _geometry(study: StudyData) -> Table:
    rows = _rows(study, [run.geometry for run in study.runs], ("cosine", "l2"))
    return Table(rows, {"block": "layer", "y": "mean"})


def _geometry_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    free = alt.Scale(zero=False)
    titles = (("cosine", "cosine"), ("l2", "distance (L2)"))
    return panels([_panel(study, table, field, title, free, 300) for field, title in titles])


def _geometry_caption(study: StudyData, table: Table) -> str:
    text = (
        f"How alike the value vectors of a method are by depth, over {seeds_text(study)}; means over the adapted "
        f"matrices of a layer{_over_pairs(study)}. "
    )
    overall = study.combined["geometry"]
    known = [(name, overall[name]["cosine"]) for name in _drawn(table) if (overall.get(name) or {}).get("cosine")]
    if known:
        told = ", ".join(f"{name} {number(of['mean'], 2)}" for name, of in known)
        text += f"Cosine over all layers: {told}. "
    return (text + _shared(table)).strip()


def _over_pairs(study: StudyData) -> str:
    return " and the pairs of values" if len(study.values) > 2 else ""


def _dependence(study: StudyData) -> Table:
    rows = _rows(study, [run.dependence for run in study.runs], ("after", "before"))
    return Table(rows, {"block": "layer", "y": "mean", "field": "training"})


def _dependence_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    # An interval that reaches below zero has no place on a logarithmic axis.
    ends_ = [float(x) for row in table.rows for x in (row["y"], row["low"], row["high"]) if x is not None]
    wide = min(ends_) > 0 and max(ends_) > WIDE * min(ends_)
    scale = alt.Scale(type="log", nice=False, padding=8) if wide else alt.Scale(zero=False, padding=8)
    return _panel(study, table, "after", "HSIC (log scale)" if wide else "HSIC", scale, 640)


def _dependence_caption(study: StudyData, table: Table) -> str:
    text = (
        "How far the A factors of two value vectors depend on each other (HSIC, 0 for independent ones) by depth, over "
        f"{seeds_text(study)}; means over the adapted matrices of a layer{_over_pairs(study)}. "
    )
    penalised = list(dict.fromkeys(str(row["method"]) for row in table.rows if row["field"] == "before"))
    changes = []
    for method in penalised:
        before, after = (
            sum(float(r["y"] or 0) for r in table.rows if (r["method"], r["field"]) == (method, field))
            for field in ("before", "after")
        )
        if before > 0:
            changes.append(f"{method} {f'{after / before - 1:+.0%}'.replace('-', '−')}")
    if changes:
        text += f"Dashed: before training, of methods penalised for it, which changed it by: {', '.join(changes)}. "
    return (text + _shared(table)).strip()


geometry_figure = StudyFigure(
    "geometry", "Geometry of the value vectors", _geometry, _geometry_chart, _geometry_caption
)
dependence_figure = StudyFigure(
    "dependence", "Dependence of the value vectors", _dependence, _dependence_chart, _dependence_caption
)
