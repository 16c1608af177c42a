"""Figures of what training did: the geometry of the value vectors per layer, and the training curves."""

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
from valuesoup.report.look import DASHES, VALUE_COLOURS, cycle, method_scale
from valuesoup.report.model import ReportData
from valuesoup.report.tables import number

MOST_NAMED = 16  # trainings with a dash and a legend entry of their own; of more, one entry per method
MOST_STEPS = 300  # per training: a line has no more pixels to show


def _layers(data: ReportData) -> Table:
    rows: list[Row] = []
    for method, entries in data.geometry.items():
        own = [entry for entry in entries if entry.layer is not None]
        for entry, block in zip(own, blocks([str(entry.layer) for entry in own]), strict=True):
            row: Row = {
                "method": method,
                "pair": f"{entry.first} – {entry.second}",
                "layer": entry.layer,
                "block": block,
            }
            rows.append(row | {"cosine": entry.cosine, "l2": entry.l2})
    return Table(rows)


def _geometry_panel(data: ReportData, table: Table, field: str, title: str) -> alt.LayerChart:
    pairs = list(dict.fromkeys(str(row["pair"]) for row in table.rows))
    chart = source(table).encode(
        x=alt.X("block:Q", title="layer", axis=depth_axis(table), scale=alt.Scale(nice=False, padding=8)),
        color=method_colour(data.results, present_methods(table)),
    )
    points = chart.mark_point(filled=True, size=22, opacity=0.35).encode(
        y=alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False)),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("pair:N"),
            alt.Tooltip("layer:N"),
            alt.Tooltip("cosine:Q", format=".3f"),
            alt.Tooltip("l2:Q", title="distance", format=".3f"),
        ],
    )
    lines = chart.mark_line(strokeWidth=2.2).encode(y=alt.Y(f"mean({field}):Q", title=title), detail="pair:N")
    if len(pairs) > 1:
        dashes = [list(dash) for dash in cycle(DASHES, len(pairs))]
        lines = lines.encode(
            strokeDash=alt.StrokeDash("pair:N", title=None, scale=alt.Scale(domain=pairs, range=dashes))
        )
    return alt.layer(points, lines).properties(width=300, height=240)


def _geometry(data: ReportData, table: Table) -> alt.TopLevelMixin:
    return panels(
        [
            _geometry_panel(data, table, "cosine", "cosine"),
            _geometry_panel(data, table, "l2", "distance (L2)"),
        ]
    )


def _geometry_caption(data: ReportData, table: Table) -> str:
    text = (
        "How alike the value vectors of a method are, by depth. Lines are means over the adapted matrices of a "
        "layer, points the single matrices. "
    )
    overall = [
        f"{method} {number(float(np.mean([e.cosine for e in entries if e.layer is None])), 2)}"
        for method, entries in data.geometry.items()
        if any(e.layer is None for e in entries)
    ]
    return text + (f"Cosine over all layers: {', '.join(overall)}." if overall else "")


GEOMETRY = Figure(
    "geometry",
    "Geometry of the value vectors",
    _layers,
    _geometry,
    _geometry_caption,
    "No method of this run has two value vectors to compare.",
)

_PANELS = (
    ("loss", "loss"),
    ("margin", "reward margin (β · log-ratio)"),
    ("logp", "log-probability of a response"),
    ("accuracy", "reward accuracy"),
)


def _curves(data: ReportData) -> Table:
    """Long form: training, panel, kind of line, step, number."""
    rows: list[Row] = []
    lines = _lines(data)
    for training, points in data.curves.items():
        steps = set(np.linspace(0, max(len(points) - 1, 0), MOST_STEPS).round().astype(int).tolist())
        for k, point in enumerate(points):
            kinds = {
                ("loss", "training"): point.loss,
                ("loss", "validation"): point.eval_loss,
                ("margin", "training"): point.margin,
                ("logp", "chosen"): point.chosen,
                ("logp", "rejected"): point.rejected,
                ("accuracy", "training"): point.accuracy,
            }
            for (panel, kind), y in kinds.items():
                # Validation is measured seldom: all of its points are kept.
                if y is not None and np.isfinite(y) and (kind == "validation" or k in steps):
                    row: Row = {"training": training, "line": lines[training], "panel": panel, "kind": kind}
                    row |= {"step": point.step}
                    rows.append(row | {"y": float(y)})
    return Table(rows)


def _owner(data: ReportData, training: str) -> str | None:
    """The method that a training's name starts with."""
    names, _, _ = method_scale(data.results)
    return max((n for n in names if training == n or training.startswith(f"{n}/")), key=len, default=None)


def _lines(data: ReportData) -> dict[str, str]:
    """The legend entry of each training: its own name, or that of its method where there are many."""
    if len(data.curves) <= MOST_NAMED:
        return {training: training for training in data.curves}
    return {training: _owner(data, training) or training for training in data.curves}


def _count_lines(table: Table) -> str:
    trainings, lines = (len({row[field] for row in table.rows}) for field in ("training", "line"))
    return f"{trainings} trainings in the colours of their methods. " if lines < trainings else ""


def _fate(data: ReportData) -> str:
    """What became of the likelihood of chosen and rejected, from the first fifth of each training's log to its last."""
    both, less, apart, risen, count = 0, 0, 0, 0, 0
    for points in data.curves.values():
        known = [(p.chosen, p.rejected) for p in points if p.chosen is not None and p.rejected is not None]
        if len(known) < 2:
            continue
        table, part = np.array(known, dtype=np.float64), max(1, len(known) // 5)
        chosen, rejected = (table[-part:].mean(axis=0) - table[:part].mean(axis=0)).tolist()
        count += 1
        both += chosen < 0 and rejected < 0
        less += rejected < chosen < 0
        apart += chosen >= 0 > rejected
        risen += chosen >= 0 and rejected >= 0
    found = (
        (both, f"in {both} both responses become less likely, the chosen one less in {less or 'none'} of them"),
        (apart, f"in {apart} the chosen one becomes likelier and the rejected one less likely"),
        (risen, f"in {risen} both become likelier"),
        (count - both - apart - risen, f"in {count - both - apart - risen} the chosen one alone becomes less likely"),
    )
    said = "; ".join(text for number, text in found if number)
    return f" Of {count} training{'s' * (count > 1)}, from the first to the last fifth: {said}." if said else ""


def _training_colours(data: ReportData, trainings: list[str]) -> tuple[list[str], list[list[int]]]:
    """Colour of the method that a legend entry starts with, and a dash that tells its trainings apart."""
    names, colours, _ = method_scale(data.results)
    palette = dict(zip(names, colours, strict=True))
    others = iter(cycle(VALUE_COLOURS, len(trainings)))
    chosen: list[str] = []
    dashes: list[list[int]] = []
    for training in trainings:
        owner = _owner(data, training)
        colour = palette[owner] if owner else next(others)
        dashes.append(list(DASHES[chosen.count(colour) % len(DASHES)]))
        chosen.append(colour)
    return chosen, dashes


def _curve_panel(table: Table, panel: str, title: str, colour: alt.Color, dash: alt.StrokeDash) -> alt.LayerChart:
    rows = [row for row in table.rows if row["panel"] == panel]
    own = source(table).transform_filter(alt.FieldEqualPredicate(field="panel", equal=panel))
    chart = own.encode(
        x=alt.X("step:Q", title="step", scale=alt.Scale(nice=False)),
        y=alt.Y("y:Q", title=title, scale=alt.Scale(zero=False)),
        color=colour,
        detail="training:N",
        tooltip=[
            alt.Tooltip("training:N"),
            alt.Tooltip("kind:N", title="of"),
            alt.Tooltip("step:Q"),
            alt.Tooltip("y:Q", title=title, format=".4f"),
        ],
    )
    layers = []
    for kind in sorted({str(row["kind"]) for row in rows}):
        line = chart.transform_filter(alt.FieldEqualPredicate(field="kind", equal=kind))
        if kind in ("validation", "rejected"):
            layers.append(line.mark_line(strokeWidth=1, opacity=0.65).encode(strokeDash=dash))
        else:
            layers.append(line.mark_line(strokeWidth=1.8).encode(strokeDash=dash))
        if kind == "validation":
            layers.append(line.mark_point(size=22, filled=True, opacity=0.8))
    return alt.layer(*layers).properties(width=300, height=200)


def _curve_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    lines = list(dict.fromkeys(str(row["line"]) for row in table.rows))
    colours, dashes = _training_colours(data, lines)
    columns = 4 if max(len(line) for line in lines) <= 24 else 2
    legend = alt.Legend(symbolType="stroke", symbolLimit=60, columns=columns, symbolSize=400, labelLimit=320)
    colour = alt.Color("line:N", title=None, scale=alt.Scale(domain=lines, range=colours), legend=legend)
    dash = alt.StrokeDash("line:N", title=None, scale=alt.Scale(domain=lines, range=dashes), legend=legend)
    drawn = {row["panel"] for row in table.rows}
    return panels([_curve_panel(table, panel, title, colour, dash) for panel, title in _PANELS if panel in drawn])


CURVES = Figure(
    "training-curves",
    "Training curves",
    _curves,
    _curve_chart,
    lambda data, table: (
        f"{_count_lines(table)}Thin lines are the loss on validation pairs and the log-probability of the rejected "
        "responses. DPO widens the margin between chosen and rejected and often makes both less likely; a chosen line "
        f"that falls far is a sign of lost fluency.{_fate(data)}"
    ),
    "No training of this run logged its curves.",
)
