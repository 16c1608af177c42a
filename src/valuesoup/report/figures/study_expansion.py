"""Figures of prompt expansion over the seeds of a study: pass@N by kind of prompt, effect of the added pairs."""

from collections.abc import Mapping, Sequence

import altair as alt

from valuesoup.report.figures.base import (
    Row,
    Table,
    bounded,
    method_colour,
    method_shape,
    panels,
    present_methods,
    source,
)
from valuesoup.report.figures.expansion import EVERY, JOINT
from valuesoup.report.figures.study_base import StudyFigure, ends, listed, seeds_text
from valuesoup.report.look import BASE_COLOUR, VALUE_COLOURS, cycle
from valuesoup.report.model import Expansion
from valuesoup.report.study import Spread, StudyData, over_seeds
from valuesoup.report.tables import number

Place = tuple[str, str, int]
"""Kind of prompts, value and N."""
NOTHING_ADDED: Spread = {"mean": 0.0, "low": None, "high": None, "each": []}


def _distinct(study: StudyData) -> list[tuple[str, list[Expansion]]]:
    """The expansions that every seed has, one that several methods share listed once, under all of their names."""
    found: dict[str, tuple[list[str], str, list[Expansion]]] = {}
    for method, parts in study.runs[0].expansions.items() if study.runs else ():
        for what in parts:
            each = [run.expansions[method][what] for run in study.runs if what in run.expansions.get(method, {})]
            if len(each) == len(study.runs):
                key = repr((what, [expansion.profile for expansion in each]))
                found.setdefault(key, ([], what, each))[0].append(method)
    return [(f"{', '.join(methods)}: {what}", each) for methods, what, each in found.values()]


def _profile_of(expansion: Expansion) -> Mapping[Place, float]:
    rows: Sequence[Mapping[str, object]] = expansion.profile
    return {(str(row["prompts"]), str(row["value"]), int(str(row["n"]))): float(str(row["pass"])) for row in rows}


def _passes(study: StudyData) -> Table:
    shown = _distinct(study)
    rows: list[Row] = []
    for name, each in shown:
        profiles = [_profile_of(expansion) for expansion in each]
        for place in profiles[0]:
            if all(place in profile for profile in profiles):
                kind, value, n = place
                spread = over_seeds([profile[place] for profile in profiles], study.combined["level"], "share")
                row: Row = {"dataset": kind if len(shown) == 1 else f"{kind} – {name}", "prompts": kind}
                row |= {"expansion": name, "value": EVERY if value == JOINT else value, "n": n, **ends(spread, "share")}
                rows.append(row)
    return Table(rows, {"dataset": "panel", "n": "N", "share": "pass@N"})


def _pass_panel(study: StudyData, table: Table, name: str, width: int) -> alt.LayerChart:
    values = study.values
    scale = alt.Scale(domain=[*values, EVERY], range=[*cycle(VALUE_COLOURS, len(values)), BASE_COLOUR])
    chart = source(table, name).encode(
        x=alt.X("n:Q", title="N rollouts", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        color=alt.Color("value:N", title=None, scale=scale),
    )
    y = {"title": "pass@N", "axis": alt.Axis(format="%"), "scale": alt.Scale(domain=[0, 1])}
    tips = [alt.Tooltip("value:N"), alt.Tooltip("n:Q", title="N")]
    tips += [alt.Tooltip(f"{field}:Q", format=".1%") for field in ("share", "low", "high")]
    band = bounded(chart).mark_area(opacity=0.16).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    line = chart.mark_line(point=alt.OverlayMarkDef(size=26)).encode(
        y=alt.Y("share:Q", **y),
        strokeWidth=alt.condition(alt.FieldEqualPredicate(field="value", equal=EVERY), alt.value(3), alt.value(1.8)),
        tooltip=tips,
    )
    first = next(row for row in table.rows if row["dataset"] == name)
    several = first["dataset"] != first["prompts"]
    title = alt.TitleParams(str(first["prompts"]), subtitle=str(first["expansion"])) if several else name
    return alt.layer(band, line).properties(title=title, width=width, height=210)


def _pass_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    names = list(dict.fromkeys(str(row["dataset"]) for row in table.rows))
    kinds = len({row["prompts"] for row in table.rows})
    columns = kinds if kinds < len(names) and kinds <= 4 else None  # an expansion per row, where there are several
    return panels([_pass_panel(study, table, name, 300 if len(names) > 1 else 640) for name in names], columns)


def _pass_caption(study: StudyData, table: Table) -> str:
    text = (
        "Share of prompts of which at least one of N rollouts has a reward above its threshold, per value and for "
        f"every value at once, by kind of prompts, over {seeds_text(study)}. "
    )
    for name in dict.fromkeys(str(row["expansion"]) for row in table.rows):
        rows = [row for row in table.rows if row["expansion"] == name and row["value"] == EVERY]
        last = max(int(row["n"] or 0) for row in rows) if rows else 0
        reached = ", ".join(f"{float(row['share'] or 0):.0%} of {row['prompts']}" for row in rows if row["n"] == last)
        if reached:
            text += f"{name}: {EVERY} at N = {last} on {reached} prompts. "
    return text.strip()


def _added(study: StudyData) -> Table:
    """Per method that expands, or is like one that does: hypervolume and most balanced scores by pairs added."""
    groups = [[m for m in group if m in study.combined["methods"]] for group in study.expanding]
    grouped = {method for group in groups for method in group}
    groups += [[method] for method in study.combined["expansions"] if method not in grouped]
    balanced: dict[str, dict[str, Spread]] = {}
    for point in study.combined["points"]:
        balanced[point["method"]] = point["scores"]  # the most balanced one stands last, or alone
    rows: list[Row] = []
    for k, group in enumerate(groups):
        for method in group:
            pairs = study.added(method) or NOTHING_ADDED
            measures = {"hypervolume": study.combined["methods"][method]["hypervolume"], **balanced.get(method, {})}
            for measure, spread in measures.items():
                row: Row = {"method": method, "group": f"{k}", "pairs": pairs["mean"]}
                row |= {"dataset": f"{measure}", **ends(spread, "score")}
                rows.append(row)
    amounts = {row["pairs"] for row in rows}
    return Table(rows if len(amounts) > 1 else [], {"pairs": "pairs added", "dataset": "measure"})


def _added_panel(study: StudyData, table: Table, name: str) -> alt.LayerChart:
    only = present_methods(table)
    chart = source(table, name).encode(
        x=alt.X("pairs:Q", title="pairs added", scale=alt.Scale(zero=False, padding=16)),
    )
    title = "hypervolume" if name == "hypervolume" else f"score of {name}"
    y = alt.Y("score:Q", title=title, scale=alt.Scale(zero=False))
    colour = method_colour(study.results, only)
    tips = [alt.Tooltip("method:N"), alt.Tooltip("pairs:Q", title="pairs added", format=",.1f")]
    tips += [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("score", "low", "high")]
    line = chart.mark_line(color=BASE_COLOUR, strokeWidth=1.4).encode(y=y, detail="group:N")
    bars = bounded(chart).mark_rule(strokeWidth=2.2, opacity=0.45)
    points = chart.mark_point(filled=True, size=85, opacity=1)
    return alt.layer(
        line,
        bars.encode(y=alt.Y("low:Q", title=title), y2="high:Q", color=colour),
        points.encode(y=y, color=colour, shape=method_shape(study.results, only), tooltip=tips),
    ).properties(width=300, height=220)


def _added_chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
    names = dict.fromkeys(str(row["dataset"]) for row in table.rows)
    return panels([_added_panel(study, table, name) for name in names])


def _added_caption(study: StudyData, table: Table) -> str:
    rows = sorted(
        (row for row in table.rows if row["dataset"] == "hypervolume"), key=lambda row: float(row["pairs"] or 0)
    )
    told = [
        f"{float(row['pairs'] or 0):,.0f} pairs {number(float(row['score'] or 0), 3)} ({row['method']})" for row in rows
    ]
    text = (
        "What a method reaches against the pairs that its expansion added (mean over seeds): hypervolume, and the "
        f"test scores of its most balanced point, over {seeds_text(study)}. "
    )
    if any(len([row for row in rows if row["group"] == one["group"]]) > 1 for one in rows):
        text += "A line joins methods that differ in nothing else. "
    none = [str(row["method"]) for row in rows if not row["pairs"]]
    if none:
        text += f"{listed(none)} {'adds' if len(none) == 1 else 'add'} none. "
    return f"{text}Hypervolume: {', '.join(told)}."


pass_figure = StudyFigure("pass-at-n", "Pass@N by kind of prompt", _passes, _pass_chart, _pass_caption)
added_figure = StudyFigure("added-pairs", "Effect of the added pairs", _added, _added_chart, _added_caption)
