"""Figure of how far the value vectors depend on each other: HSIC by depth, and before and after its penalty."""

import altair as alt
import numpy as np

from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    blocks,
    depth_axis,
    method_colour,
    panels,
    present_methods,
    source,
)
from valuesoup.report.look import DASHES, cycle
from valuesoup.report.model import ReportData

WIDE = 30.0  # from this ratio of largest to smallest on, a linear axis shows the large ones only


def _dependence(data: ReportData) -> Table:
    rows: list[Row] = []
    for method, entries in data.dependence.items():
        for entry, block in zip(entries, blocks([entry.layer for entry in entries]), strict=True):
            row: Row = {"method": method, "pair": f"{entry.first} – {entry.second}", "layer": entry.layer}
            rows.append(row | {"block": block, "after": entry.after, "before": entry.before})
    return Table(rows)


def _scale(table: Table) -> alt.Scale:
    found = [float(x) for row in table.rows for x in (row["after"], row["before"]) if x is not None]
    wide = min(found) > 0 and max(found) > WIDE * min(found)
    return alt.Scale(type="log", nice=False, padding=8) if wide else alt.Scale(zero=False, padding=8)


def _tips() -> list[alt.Tooltip]:
    tips = [alt.Tooltip("method:N"), alt.Tooltip("pair:N"), alt.Tooltip("layer:N")]
    return [*tips, *(alt.Tooltip(f"{when}:Q", format=".3g") for when in ("before", "after"))]


def _depth(table: Table) -> alt.X:
    return alt.X("block:Q", title="layer", axis=depth_axis(table), scale=alt.Scale(nice=False, padding=10))


def _title(scale: alt.Scale) -> str:
    return "HSIC (log scale)" if scale.to_dict().get("type") == "log" else "HSIC"


def _after(data: ReportData, table: Table, scale: alt.Scale, width: int) -> alt.LayerChart:
    pairs = list(dict.fromkeys(str(row["pair"]) for row in table.rows))
    chart = source(table).encode(x=_depth(table), color=method_colour(data.results, present_methods(table)))
    title = _title(scale)
    points = chart.mark_point(filled=True, size=22, opacity=0.35).encode(
        y=alt.Y("after:Q", title=title, scale=scale), tooltip=_tips()
    )
    lines = chart.mark_line(strokeWidth=2.2).encode(y=alt.Y("mean(after):Q", title=title), detail="pair:N")
    if len(pairs) > 1:
        dashes = [list(dash) for dash in cycle(DASHES, len(pairs))]
        dash = alt.StrokeDash("pair:N", title=None, scale=alt.Scale(domain=pairs, range=dashes))
        lines = lines.encode(strokeDash=dash)
    return alt.layer(points, lines).properties(title="after training", width=width, height=250)


def _change(data: ReportData, table: Table, scale: alt.Scale) -> alt.LayerChart:
    """From an open to a full point per layer and pair of the methods that were penalised."""
    title = _title(scale)
    chart = source(table).transform_filter("isValid(datum.before)")
    chart = chart.encode(x=_depth(table), color=method_colour(data.results, present_methods(table)), tooltip=_tips())
    before, after = (alt.Y(f"{when}:Q", title=title, scale=scale) for when in ("before", "after"))
    layers = [
        chart.mark_rule(strokeWidth=1.5, opacity=0.55).encode(y=before, y2="after:Q"),
        chart.mark_point(filled=False, size=45, strokeWidth=1.6).encode(y=before),
        chart.mark_point(filled=True, size=50, opacity=1).encode(y=after),
    ]
    heading = alt.TitleParams("where it was penalised", subtitle="open: before training, full: after")
    return alt.layer(*layers).properties(title=heading, width=300, height=250)


def _chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    scale = _scale(table)
    if all(row["before"] is None for row in table.rows):
        return _after(data, table, scale, 640)
    return panels([_after(data, table, scale, 300), _change(data, table, scale)])


def _caption(data: ReportData, table: Table) -> str:
    text = (
        "How far the A factors of two value vectors depend on each other (HSIC, 0 for independent ones), by depth; "
        "lines are means over the adapted matrices of a layer. "
    )
    overall, changes = [], []
    for method in present_methods(table):
        rows = [row for row in table.rows if row["method"] == method]
        overall.append(f"{method} {_sum(rows, 'after'):.3g}")
        penalised = [row for row in rows if row["before"] is not None]
        if penalised:
            before, after = _sum(penalised, "before"), _sum(penalised, "after")
            change = f" ({after / before - 1:+.0%})".replace("-", "−") if before > 0 else ""
            changes.append(f"{method} from {before:.3g} to {after:.3g}{change}")
    text += f"Summed over layers: {', '.join(overall)}."
    return text + (f" The penalty took {'; '.join(changes)}." if changes else "")


def _sum(rows: list[Row], field: str) -> float:
    return float(np.sum([float(row[field] or 0.0) for row in rows]))


DEPENDENCE = Figure("dependence", "Dependence of the value vectors", _dependence, _chart, _caption, "")
