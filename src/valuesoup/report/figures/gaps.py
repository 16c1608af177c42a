"""Figures of value conflict in the data: reward gaps by quadrant, consistency, retention, conflict matrix."""

import altair as alt
import numpy as np
from numpy.typing import NDArray

from valuesoup.consistency import gap_correlation
from valuesoup.report.figures.base import Figure, Row, Table, extra, panels, source, value_pairs
from valuesoup.report.look import BASE_COLOUR, DASHES, QUADRANTS, VALUE_COLOURS, cycle, method_scale
from valuesoup.report.model import GapTable, ReportData

MOST_POINTS = 2000  # per data set, and
MOST_MARKS = 6_000  # over all panels: more would only blacken the figure and fill the file
BINS = 40
NO_GAPS = "No reward gaps were given, so value conflict cannot be shown."


def quadrant_shares(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float]:
    """Shares in [0, 1] of the pairs whose two gaps are both positive, of mixed sign, both negative.

    A pair with a gap of exactly zero lies on an axis and counts as mixed. Arrays (N,); shares of no pairs are 0.
    """
    count = max(len(first), 1)
    better = int(np.sum((first > 0) & (second > 0)))
    worse = int(np.sum((first < 0) & (second < 0)))
    mixed = len(first) - better - worse
    return {"both better": better / count, "mixed": mixed / count, "both worse": worse / count}


def _panels_of(data: ReportData) -> list[tuple[str, int, int]]:
    """(data set, i, j) of each scatter; beyond two values a set named after a value shows that one's pairs only."""
    values = list(data.results["values"])
    shown = []
    for name in data.gaps:
        for i, j in value_pairs(len(values)):
            if len(values) <= 2 or name not in values or values.index(name) in (i, j):
                own_first = (j, i) if name == values[j] else (i, j)
                shown.append((name, *own_first))
    return shown


def _points(data: ReportData) -> Table:
    values = data.results["values"]
    panel_count = max(len(_panels_of(data)), 1)
    limit = min(MOST_POINTS, MOST_MARKS // panel_count)
    rows: list[Row] = []
    if len(values) > 1:
        for name, table in data.gaps.items():
            chosen = np.arange(len(table.gaps))
            if len(chosen) > limit:
                chosen = np.sort(np.random.default_rng(0).choice(chosen, limit, replace=False))
            for k in chosen:
                row: Row = {"dataset": name, "pair": int(k), "consistency": _finite(table.consistency[k])}
                row |= {f"g{j}": round(float(table.gaps[k, j]), 5) for j in range(len(values))}
                rows.append(row)
    return Table(rows, {f"g{j}": f"gap {value}" for j, value in enumerate(values)})


def _finite(x: float) -> float | None:
    return None if np.isnan(x) else round(float(x), 5)


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _scatter_panel(data: ReportData, table: Table, name: str, i: int, j: int, count: int) -> alt.LayerChart:
    values = data.results["values"]
    gaps = data.gaps[name].gaps
    shares = quadrant_shares(gaps[:, i], gaps[:, j])
    quadrant = (
        f"datum.g{i} > 0 && datum.g{j} > 0 ? 'both better' : datum.g{i} < 0 && datum.g{j} < 0 ? 'both worse' : 'mixed'"
    )
    across, up = (f"reward gap in {values[k]} (σ)" for k in (i, j))
    points = (
        source(table, name)
        .transform_calculate(quadrant=quadrant)
        .mark_point(filled=True, size=16, opacity=0.5)
        .encode(
            x=alt.X(f"g{i}:Q", title=across),
            y=alt.Y(f"g{j}:Q", title=up),
            color=alt.Color(
                "quadrant:N",
                title="chosen against rejected",
                scale=alt.Scale(domain=list(QUADRANTS), range=list(QUADRANTS.values())),
                legend=alt.Legend(symbolOpacity=1, symbolSize=90),
            ),
            tooltip=[
                alt.Tooltip("pair:Q", title="pair"),
                *(alt.Tooltip(f"g{k}:Q", title=v, format=".2f") for k, v in enumerate(values)),
                alt.Tooltip("consistency:Q", format=".2f"),
            ],
        )
    )
    zero = extra([{"zero": 0}])
    axes = zero.mark_rule(opacity=0.5, color=BASE_COLOUR)
    level, upright = axes.encode(y=alt.Y("zero:Q", title=up)), axes.encode(x=alt.X("zero:Q", title=across))
    title = alt.TitleParams(
        f"Pairs of {name}", subtitle=" · ".join(f"{quad} {_percent(share)}" for quad, share in shares.items())
    )
    size = 360 if count == 1 else 290
    return alt.layer(level, upright, points).properties(title=title, width=size, height=size if count == 1 else 260)


def _scatter(data: ReportData, table: Table) -> alt.TopLevelMixin:
    shown = _panels_of(data)
    charts = [_scatter_panel(data, table, *panel, len(shown)) for panel in shown]
    return panels(charts, columns=max(2, len(data.results["values"]) - 1))  # one data set per row


def _scatter_caption(data: ReportData, table: Table) -> str:
    text = (
        "Each point is a preference pair: how much better the chosen response is than the rejected one under "
        "two values, in standard deviations of the reward. Grey pairs teach one value at the cost of the other. "
    )
    total = sum(len(gaps.gaps) for gaps in data.gaps.values())
    if len(table.rows) < total:
        text += f"Shown: {len(table.rows):,} of {total:,} pairs, drawn at random with a fixed seed; shares are of all."
    return text.strip()


SCATTER = Figure(
    "reward-gaps",
    "Reward gaps",
    _points,
    _scatter,
    _scatter_caption,
    "Reward gaps under at least two values are needed to draw value conflict.",
)


def _histogram(data: ReportData) -> Table:
    edges = np.linspace(-1, 1, BINS + 1)
    rows: list[Row] = []
    for name, table in data.gaps.items():
        defined = np.clip(table.consistency[~np.isnan(table.consistency)], -1, 1)
        for low, high, count in zip(edges[:-1], edges[1:], np.histogram(defined, edges)[0], strict=True):
            row: Row = {"dataset": name, "from": round(float(low), 6), "to": round(float(high), 6)}
            rows.append(row | {"pairs": int(count)})
    return Table(rows)


def _thresholds(data: ReportData, table: GapTable) -> tuple[alt.Chart, alt.Color]:
    """The tau lines of a data set: in the colour of their method, or, in an audit, in one of their own."""
    methods, shades, _ = method_scale(data.results)
    palette = dict(zip(methods, shades, strict=True))
    names = list(dict.fromkeys(name for gaps in data.gaps.values() for name in gaps.thresholds))
    others = [name for name in names if name not in palette]
    palette |= dict(zip(others, cycle(VALUE_COLOURS, len(others)), strict=True))
    colour = alt.Color(
        "method:N",
        title="threshold τ",
        scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
        legend=alt.Legend(symbolType="stroke"),
    )
    return extra([{"method": name, "tau": tau} for name, tau in table.thresholds.items()]), colour


def _consistency(data: ReportData, table: Table) -> alt.TopLevelMixin:
    charts = []
    for name, gaps in data.gaps.items():
        bars = (
            source(table, name)
            .mark_bar(color="#8A94A6", binSpacing=1)
            .encode(
                x=alt.X("from:Q", bin="binned", title="value consistency", scale=alt.Scale(domain=[-1, 1])),
                x2="to:Q",
                y=alt.Y("pairs:Q", title="pairs"),
                tooltip=[
                    alt.Tooltip("from:Q", format=".2f"),
                    alt.Tooltip("to:Q", format=".2f"),
                    alt.Tooltip("pairs:Q"),
                ],
            )
        )
        layers = [bars]
        if gaps.thresholds:
            taus, colour = _thresholds(data, gaps)
            tips = [alt.Tooltip("method:N"), alt.Tooltip("tau:Q", title="τ", format=".3f")]
            layers.append(taus.mark_rule(strokeWidth=2.5).encode(x=alt.X("tau:Q"), color=colour, tooltip=tips))
        title = alt.TitleParams(f"Pairs of {name}", subtitle=_undefined(gaps))
        charts.append(alt.layer(*layers).properties(title=title, width=290 if len(data.gaps) > 1 else 640, height=200))
    return panels(charts)


def _undefined(gaps: GapTable) -> str:
    missing = int(np.isnan(gaps.consistency).sum())
    return f"{len(gaps.consistency):,} pairs" + (f", {missing:,} without a direction" if missing else "")


CONSISTENCY = Figure(
    "consistency",
    "Value consistency",
    _histogram,
    _consistency,
    lambda data, table: (
        "How far the values agree on each pair: 1 where every gap is positive and equal, −1 where every value "
        "prefers the rejected response. A filter keeps what lies right of its threshold."
    ),
    NO_GAPS,
)


def _retention_table(data: ReportData) -> Table:
    taus = np.linspace(-1, 1, 81)
    rows: list[Row] = []
    for name, table in data.gaps.items():
        ordered = np.sort(table.consistency)  # NaN sorts last
        defined = int(np.sum(~np.isnan(ordered)))
        for tau in taus:
            kept = defined - int(np.searchsorted(ordered[:defined], tau - 1e-12))
            share = kept / max(len(ordered), 1)
            rows.append({"dataset": name, "tau": round(float(tau), 6), "kept": kept, "share": round(share, 6)})
    return Table(rows)


def _retention(data: ReportData, table: Table) -> alt.LayerChart:
    names = list(data.gaps)
    lines = (
        source(table)
        .mark_line(strokeWidth=2.2)
        .encode(
            x=alt.X("tau:Q", title="threshold τ", scale=alt.Scale(domain=[-1, 1])),
            y=alt.Y("share:Q", title="share of pairs kept", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "dataset:N", title="pairs of", scale=alt.Scale(domain=names, range=cycle(VALUE_COLOURS, len(names)))
            ),
            strokeDash=alt.StrokeDash(
                "dataset:N",
                title="pairs of",
                scale=alt.Scale(domain=names, range=[list(d) for d in cycle(DASHES, len(names))]),
            ),
            tooltip=[
                alt.Tooltip("dataset:N", title="pairs of"),
                alt.Tooltip("tau:Q", title="τ", format=".3f"),
                alt.Tooltip("kept:Q"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    layers = [lines]
    taus = sorted({tau for gaps in data.gaps.values() for tau in gaps.thresholds.values()})
    if taus:
        used = extra([{"tau": tau, "label": f"τ = {tau:.3g}"} for tau in taus])
        layers.append(used.mark_rule(strokeDash=[2, 3], color=BASE_COLOUR).encode(x="tau:Q"))
        for align, dx, where in (("left", 5, "datum.tau < 0"), ("right", -5, "datum.tau >= 0")):
            label = used.transform_filter(where).mark_text(align=align, dx=dx, baseline="top")
            layers.append(label.encode(x="tau:Q", y=alt.value(4 if align == "right" else 255), text="label:N"))
    return alt.layer(*layers).properties(width=640, height=280)


RETENTION = Figure(
    "retention",
    "Retention",
    _retention_table,
    _retention,
    lambda data, table: (
        "The share of pairs that a filter keeps at each threshold; pairs without a direction are never kept. "
        "Dotted lines are the thresholds that this run used."
    ),
    NO_GAPS,
)


def _conflicts(data: ReportData) -> Table:
    """Per data set and pair of values: share of opposite signs and the correlation of the gaps."""
    values = data.results["values"]
    rows: list[Row] = []
    for name, table in data.gaps.items():
        if len(values) < 2 or not len(table.gaps):
            continue
        correlation = gap_correlation(table.gaps)
        for i, first in enumerate(values):
            for j, second in enumerate(values):
                if i != j:
                    opposite = float(np.mean(table.gaps[:, i] * table.gaps[:, j] < 0))
                    row: Row = {"dataset": name, "first": first, "second": second, "conflict": round(opposite, 6)}
                    rows.append(row | {"correlation": _finite(correlation[i, j])})
    return Table(rows)


def _matrix(data: ReportData, table: Table) -> alt.TopLevelMixin:
    values = list(data.results["values"])
    charts = []
    for name in dict.fromkeys(str(row["dataset"]) for row in table.rows):
        chart = source(table, name).encode(
            x=alt.X("second:N", title=None, sort=values, axis=alt.Axis(labelAngle=0, orient="top")),
            y=alt.Y("first:N", title=None, sort=values),
        )
        cells = chart.mark_rect(cornerRadius=4).encode(
            color=alt.Color(
                "conflict:Q",
                title="opposite signs",
                # Nothing darker than its white label can bear, on a light page or a dark one.
                scale=alt.Scale(domain=[0, 0.5, 1], range=["#4C78A8", "#8A6FA8", "#C4452E"]),
                legend=alt.Legend(format="%", gradientLength=160),
            ),
            tooltip=[
                alt.Tooltip("first:N"),
                alt.Tooltip("second:N"),
                alt.Tooltip("conflict:Q", title="opposite signs", format=".1%"),
                alt.Tooltip("correlation:Q", format=".2f"),
            ],
        )
        share = chart.mark_text(color="white", fontSize=14, fontWeight=600, dy=-7)
        correlation = chart.transform_calculate(
            r="'r = ' + (isValid(datum.correlation) ? format(datum.correlation, '.2f') : '–')"
        )
        layers = [
            cells,
            share.encode(text=alt.Text("conflict:Q", format=".0%")),
            correlation.mark_text(color="white", dy=10, fontSize=11).encode(text="r:N"),
        ]
        size = 62 * len(values) + 30
        charts.append(alt.layer(*layers).properties(title=f"Pairs of {name}", width=size + 100, height=size))
    return panels(charts)


MATRIX = Figure(
    "conflict-matrix",
    "Conflict between values",
    _conflicts,
    _matrix,
    lambda data, table: (
        "Share of pairs on which two values prefer different responses, and the correlation r of their gaps."
    ),
    "Reward gaps under at least two values are needed to draw value conflict.",
)
