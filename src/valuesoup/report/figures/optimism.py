"""Selection optimism as figure and table: frontiers where they were chosen, the same candidates on test."""

import altair as alt

from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    matrix,
    method_colour,
    method_shape,
    present_methods,
    ring,
    source,
)
from valuesoup.report.figures.scores import HIGHER
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.schema import CandidateResult, Estimate, OptimismResult
from valuesoup.report.tables import PageTable, estimate_text, label_of, number

WHOLE = "whole frontier"
"""Label of the mean over a frontier, beside those of its candidates."""


def _selected(candidate: CandidateResult, value: str) -> Estimate | None:
    """The figure by which a candidate was chosen: its smoothed mean, where a search found one, else that of answers."""
    smoothed = candidate.get("smoothed")
    return (smoothed or candidate.get("validation") or {}).get(value)


def _moves(data: ReportData) -> Table:
    """A row per tested frontier candidate, and one per method with their mean: validation ``v{j}``, test ``t{j}``."""
    values = data.results["values"]
    rows: list[Row] = []
    for candidate in data.results.get("candidates") or ():
        test = candidate.get("test") or {}
        if not candidate["on_frontier"] or any(v not in test or _selected(candidate, v) is None for v in values):
            continue
        row: Row = {"id": candidate["id"], "method": "base" if is_base(candidate) else candidate["method"]}
        row["candidate"] = label_of(candidate)
        for j, value in enumerate(values):
            before = _selected(candidate, value)
            row |= {f"v{j}": before and before["mean"], f"t{j}": test[value]["mean"]}
        rows.append(row)
    if not _known(data):
        return Table([])
    means: list[Row] = []
    for method in present_methods(Table(rows)):
        own = [row for row in rows if row["method"] == method]
        mean: Row = {"id": None, "method": method, "candidate": WHOLE}
        for j in range(len(values)):
            mean |= {f"{part}{j}": sum(float(row[f"{part}{j}"] or 0) for row in own) / len(own) for part in "vt"}
        means.append(mean)
    headings = {f"v{j}": f"{value} on validation" for j, value in enumerate(values)}
    headings |= {f"t{j}": f"{value} on test" for j, value in enumerate(values)}
    return Table([*rows, *means], headings)


def _tips(data: ReportData) -> list[alt.Tooltip]:
    tips = [alt.Tooltip("method:N"), alt.Tooltip("candidate:N")]
    for j, value in enumerate(data.results["values"]):
        tips.append(alt.Tooltip(f"v{j}:Q", title=f"{value} on validation", format=".3f"))
        tips.append(alt.Tooltip(f"t{j}:Q", title=f"{value} on test", format=".3f"))
    return tips


def _panel(data: ReportData, table: Table, i: int, j: int, size: tuple[int, int]) -> alt.LayerChart:
    values = data.results["values"]
    only = present_methods(table)
    scale = alt.Scale(zero=False, nice=True, padding=10)
    across, up = (f"{values[k]} {HIGHER}" if len(values) == 2 else values[k] for k in (i, j))

    def at(part: str) -> dict[str, alt.X | alt.Y]:
        return {
            "x": alt.X(f"{part}{i}:Q", title=across, scale=scale),
            "y": alt.Y(f"{part}{j}:Q", title=up, scale=scale),
        }

    chart = source(table).encode(color=method_colour(data.results, only), tooltip=_tips(data))
    ends = {"x2": f"t{i}:Q", "y2": f"t{j}:Q"}
    means = chart.transform_filter(f"datum.candidate === '{WHOLE}'")
    single = chart.transform_filter(f"datum.candidate !== '{WHOLE}'")
    return alt.layer(
        single.mark_rule(strokeWidth=1, opacity=0.35).encode(**at("v"), **ends),
        single.mark_point(shape="circle", filled=True, size=22, opacity=0.55).encode(**at("t")),
        means.mark_rule(strokeWidth=2.4, opacity=0.9).encode(**at("v"), **ends),
        means.mark_point(shape="circle", filled=False, size=80, strokeWidth=2).encode(**at("v")),
        means.mark_point(filled=True, size=110, opacity=1).encode(**at("t"), shape=method_shape(data.results, only)),
        ring(source(table), 150, **at("t")),
    ).properties(width=size[0], height=size[1])


def _dots(data: ReportData, table: Table) -> alt.LayerChart:
    """One value: methods on the vertical axis, scores on the horizontal one."""
    only = present_methods(table)
    title = f"{data.results['values'][0]} {HIGHER}"
    scale = alt.Scale(zero=False, nice=True, padding=10)
    before, after = (alt.X(f"{part}0:Q", title=title, scale=scale) for part in "vt")
    chart = source(table).transform_filter(f"datum.candidate === '{WHOLE}'")
    chart = chart.encode(
        y=alt.Y("method:N", title=None, sort=only),
        color=method_colour(data.results, only, legend=None),
        tooltip=_tips(data),
    )
    shape = method_shape(data.results, only, legend=None)
    return alt.layer(
        chart.mark_rule(strokeWidth=2.4).encode(x=before, x2="t0:Q"),
        chart.mark_point(shape="circle", filled=False, size=80, strokeWidth=2).encode(x=before),
        chart.mark_point(filled=True, size=110, opacity=1).encode(x=after, shape=shape),
    ).properties(width=640, height=36 * len(only) + 10)


def _chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    n = len(data.results["values"])
    if n == 1:
        return _dots(data, table)
    if n == 2:
        return _panel(data, table, 0, 1, (520, 320)).properties(usermeta={"plane": True})
    size = (250, 220) if n == 3 else (180, 165)
    return matrix(n, lambda i, j: _panel(data, table, i, j, size), size)


def _caption(data: ReportData, table: Table) -> str:
    text = (
        "From the open circle, the mean of a method's frontier by the figures that chose it on validation, to its "
        "mark, the mean of the same candidates on test"
    )
    text += ". " if len(data.results["values"]) == 1 else "; thin lines are single candidates. "
    text += (
        "A step that the base takes too is between the prompts; what a method falls beyond it is luck of the choice, "
        "or chance."
    )
    searched = [name for name, of in (data.results.get("methods") or {}).items() if of.get("search")]
    if searched:
        text += f" {', '.join(searched)} searched: the figures that chose are smoothed means."
    return text


OPTIMISM = Figure("optimism", "Chosen on validation, measured on test", _moves, _chart, _caption, "")


def _known(data: ReportData) -> dict[str, OptimismResult]:
    """What is known of the optimism of each method that has a frontier; of results of an older version nothing."""
    methods = data.results.get("methods") or {}
    return {name: found for name, of in methods.items() if (found := of.get("optimism"))}


def optimism_table(data: ReportData) -> PageTable:
    """Per method: hypervolume of its frontier on validation and on test, and the mean drop per value."""
    values = data.results["values"]
    rows = [
        [
            name,
            number(of["validation"]),
            number(of["test"]),
            *(estimate_text(of["drop"][value], 3) for value in values),
        ]
        for name, of in _known(data).items()
    ]
    drops = [f"drop of {value}" for value in values]
    return PageTable(("method", "hypervolume on validation", "on test", *drops), rows)
