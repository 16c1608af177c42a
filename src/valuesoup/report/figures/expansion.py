"""Figures of prompt expansion: pass@N by kind of prompt, rewards before and after fusion, effect of the added pairs."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from valuesoup.report.expansions import Expanded, added_pairs, distinct_expansions, label
from valuesoup.report.figures.base import (
    Cell,
    Figure,
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
from valuesoup.report.look import BASE_COLOUR, VALUE_COLOURS, cycle
from valuesoup.report.model import ReportData, is_base, shown_scores
from valuesoup.report.tables import number

JOINT = "joint"  # what the profile calls passing every value at once
AGAIN = "single-reward again"  # what it calls new rollouts of the single-reward prompts
EVERY = "every value at once"
MOST_SHOWN = 6  # expansions with panels of their own
SIDES = ("#8A94A6", "#009E73")  # before and after fusion


def _panel_name(shown: Sequence[Expanded], one: Expanded, part: str) -> str:
    return part if len(shown) == 1 else f"{part} – {label(one)}"


def _columns(shown: Sequence[Expanded], parts: int) -> int | None:
    """An expansion per row where there are several and its panels fit in one."""
    return parts if len(shown) > 1 and parts <= 4 else None


def _left_out(shown: Sequence[Expanded]) -> str:
    return f" Drawn are {MOST_SHOWN} of {len(shown)} expansions." if len(shown) > MOST_SHOWN else ""


def _value_scale(data: ReportData) -> alt.Scale:
    values = list(data.results["values"])
    return alt.Scale(domain=[*values, EVERY], range=[*cycle(VALUE_COLOURS, len(values)), BASE_COLOUR])


def _profiles(data: ReportData) -> list[Expanded]:
    return distinct_expansions(data, lambda expansion: expansion.profile)


def _profile(data: ReportData) -> Table:
    shown = _profiles(data)
    rows: list[Row] = []
    for one in shown[:MOST_SHOWN]:
        for entry in one.expansion.profile:
            known: dict[str, Cell] = {**entry}  # type: ignore[dict-item]  # a TypedDict of such cells
            row: Row = {"dataset": _panel_name(shown, one, entry["prompts"]), "prompts": entry["prompts"]}
            row |= {"of": label(one), "value": EVERY if entry["value"] == JOINT else entry["value"], "n": entry["n"]}
            rows.append(
                row | {"share": known["pass"], "low": entry["low"], "high": entry["high"], "size": entry["size"]}
            )
    return Table(rows, {"dataset": "panel", "n": "N", "share": "pass@N"})


def _names(table: Table) -> list[str]:
    return list(dict.fromkeys(str(row["dataset"]) for row in table.rows))


def _profile_panel(data: ReportData, table: Table, name: str, width: int) -> alt.LayerChart:
    kind, of, size = next((row["prompts"], row["of"], row["size"]) for row in table.rows if row["dataset"] == name)
    several = len({row["of"] for row in table.rows}) > 1
    chart = source(table, name).encode(
        x=alt.X("n:Q", title="N rollouts", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        color=alt.Color("value:N", title=None, scale=_value_scale(data)),
    )
    y = {"title": "pass@N", "axis": alt.Axis(format="%"), "scale": alt.Scale(domain=[0, 1])}
    tips = [alt.Tooltip("value:N"), alt.Tooltip("n:Q", title="N")]
    tips += [alt.Tooltip(f"{field}:Q", format=".1%") for field in ("share", "low", "high")]
    band = chart.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    line = chart.mark_line(point=alt.OverlayMarkDef(size=26)).encode(
        y=alt.Y("share:Q", **y),
        strokeWidth=alt.condition(alt.FieldEqualPredicate(field="value", equal=EVERY), alt.value(3), alt.value(1.8)),
        tooltip=tips,
    )
    title = alt.TitleParams(kind, subtitle=[f"{size:,} prompts", *([of] if several else [])], limit=width + 60)
    return alt.layer(band, line).properties(title=title, width=width, height=210)


def _profile_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    names = _names(table)
    shown = _profiles(data)[:MOST_SHOWN]
    columns = _columns(shown, max(len({row["prompts"] for row in one.expansion.profile}) for one in shown))
    width = 300 if len(names) > 1 else 640
    return panels([_profile_panel(data, table, name, width) for name in names], columns)


def _profile_caption(data: ReportData, table: Table) -> str:
    text = (
        "Share of prompts of which at least one of N rollouts has a reward above its threshold, per value and for "
        "every value at once, with 95% intervals over prompts. "
    )
    shown = _profiles(data)
    reached: dict[str, list[float]] = {}
    for one in shown:
        for row in one.expansion.profile:
            if row["value"] == JOINT and row["n"] == one.expansion.rollouts:
                reached.setdefault(row["prompts"], []).append(float(row["pass"]))  # type: ignore[typeddict-item]
    told = ", ".join(f"{_span(shares)} of {kind}" for kind, shares in reached.items())
    text += f"Every value at once, with all rollouts: {told} prompts." if told else ""
    if AGAIN in reached:
        text += (
            f" “{AGAIN}” are new rollouts of the same prompts, which had been chosen for passing no rollout in every "
            "value: what fusion does shows against these."
        )
    return text + _left_out(shown)


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


PASS_AT_N = Figure("pass-at-n", "Pass@N by kind of prompt", _profile, _profile_chart, _profile_caption, "")


def _distributions(data: ReportData) -> list[Expanded]:
    return distinct_expansions(data, lambda expansion: (expansion.distribution, expansion.thresholds))


def _rewards(data: ReportData) -> Table:
    shown = _distributions(data)
    rows: list[Row] = []
    for one in shown[:MOST_SHOWN]:
        for entry in one.expansion.distribution:
            value = entry["value"]
            row: Row = {"dataset": _panel_name(shown, one, value), "value": value, "prompts": entry["prompts"]}
            row |= {"of": label(one), "low": entry["low"], "high": entry["high"], "share": entry["share"]}
            rows.append(row | {"threshold": one.expansion.thresholds.get(value)})
    return Table(rows, {"dataset": "panel"})


def _rewards_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    names = _names(table)
    kinds = list(dict.fromkeys(str(row["prompts"]) for row in table.rows))
    scale = alt.Scale(domain=kinds, range=cycle(SIDES, len(kinds)))
    several = len({row["of"] for row in table.rows}) > 1
    charts = []
    for name in names:
        bars = (
            source(table, name)
            .mark_bar(opacity=0.55, binSpacing=0)
            .encode(
                x=alt.X("low:Q", bin="binned", title="reward"),
                x2="high:Q",
                y=alt.Y("share:Q", title="share of rollouts", stack=None, axis=alt.Axis(format="%")),
                color=alt.Color("prompts:N", title="rollouts of prompts", scale=scale),
                tooltip=[
                    alt.Tooltip("prompts:N"),
                    *(alt.Tooltip(f"{end}:Q", format=".2f") for end in ("low", "high")),
                    alt.Tooltip("share:Q", format=".1%"),
                ],
            )
        )
        layers: list[alt.Chart] = [bars]
        value, of, threshold = next(
            (row["value"], row["of"], row["threshold"]) for row in table.rows if row["dataset"] == name
        )
        if threshold is not None:
            rule = extra([{"threshold": threshold}]).mark_rule(strokeDash=[4, 4], strokeWidth=1.5)
            layers.append(rule.encode(x=alt.X("threshold:Q", title="reward")))
        width = 300 if len(names) > 1 else 640
        title = alt.TitleParams(value, **({"subtitle": of, "limit": width + 60} if several else {}))
        charts.append(alt.layer(*layers).properties(title=title, width=width, height=190))
    return panels(charts, _columns(_distributions(data), len({row["value"] for row in table.rows})))


def _rewards_caption(data: ReportData, table: Table) -> str:
    text = (
        "Rewards of the rollouts before and after the missing intents are fused into the prompts; the dashed line is "
        "the threshold to pass. Mean reward, from the bins"
    )
    drawn = len({row["of"] for row in table.rows})
    means = []
    for value in dict.fromkeys(str(row["value"]) for row in table.rows):
        rows = [row for row in table.rows if row["value"] == value]
        kinds = dict.fromkeys(str(row["prompts"]) for row in rows)
        ends = [number(_mean([row for row in rows if row["prompts"] == kind]) / drawn, 2) for kind in kinds]
        means.append(f"{value} {' → '.join(ends)}")
    over = f" and over the {drawn} expansions" if drawn > 1 else ""
    return f"{text}{over}: {'; '.join(means)}.{_left_out(_distributions(data))}"


def _mean(rows: list[Row]) -> float:
    low, high, share = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("low", "high", "share"))
    return float(((low + high) / 2 * share).sum())


REWARDS = Figure("expansion-rewards", "Rewards before and after fusion", _rewards, _rewards_chart, _rewards_caption, "")


def _added(data: ReportData) -> Table:
    """Per method that expands: hypervolume, and per value the best and the most balanced frontier score."""
    added = added_pairs(data)
    if len(set(added.values())) < 2:
        return Table([])
    values = list(data.results["values"])
    ranges, methods = _ranges(data), data.results.get("methods") or {}
    rows: list[Row] = []
    for method, pairs in added.items():
        if method in methods and (volume := methods[method].get("hypervolume")):
            row: Row = {"method": method, "pairs": pairs, "dataset": "hypervolume", "kind": "hypervolume"}
            rows.append(row | {"score": volume["value"], "low": volume.get("low"), "high": volume.get("high")})
        scores = [
            shown_scores(c)[1]
            for c in data.results.get("candidates") or ()
            if c["method"] == method and c["on_frontier"] and not is_base(c)
        ]
        scores = [score for score in scores if all(value in score for value in values)]
        if not scores:
            continue
        balanced = max(scores, key=lambda score: min(_within(score[v]["mean"], ranges[v]) for v in values))
        for value in values:
            best = max(scores, key=lambda score: score[value]["mean"])
            for kind, chosen in (("best", best[value]), ("most balanced", balanced[value])):
                row = {"method": method, "pairs": pairs, "dataset": value, "kind": kind}
                rows.append(row | {"score": chosen["mean"], "low": chosen.get("low"), "high": chosen.get("high")})
    return Table(rows, {"pairs": "pairs added", "dataset": "measure"})


def _ranges(data: ReportData) -> dict[str, tuple[float, float]]:
    """Lowest and highest shown score of each value over all candidates."""
    found = [shown_scores(c)[1] for c in data.results.get("candidates") or ()]
    means = {v: [score[v]["mean"] for score in found if v in score] for v in data.results["values"]}
    return {value: (min(own, default=0.0), max(own, default=0.0)) for value, own in means.items()}


def _within(score: float, ends: tuple[float, float]) -> float:
    return (score - ends[0]) / ((ends[1] - ends[0]) or 1.0)


def _added_panel(data: ReportData, table: Table, name: str) -> alt.LayerChart:
    only = present_methods(table)
    kinds = list(dict.fromkeys(str(row["kind"]) for row in table.rows if row["dataset"] == name))
    chart = source(table, name)
    x = alt.X("pairs:Q", title="pairs added", scale=alt.Scale(zero=False, padding=16))
    y = alt.Y("score:Q", title="hypervolume" if name == "hypervolume" else "reward", scale=alt.Scale(zero=False))
    colour = method_colour(data.results, only)
    layers: list[alt.Chart] = []
    for kind in kinds:
        own = chart.transform_filter(alt.FieldEqualPredicate(field="kind", equal=kind))
        dash = [4, 4] if kind == "most balanced" else [1, 0]
        bars = bounded(own)
        layers += [
            own.mark_line(color=BASE_COLOUR, strokeWidth=1.3, strokeDash=dash).encode(x=x, y=alt.Y("mean(score):Q")),
            bars.mark_rule(strokeWidth=2, opacity=0.4).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
            own.mark_point(filled=kind != "most balanced", size=85, opacity=1, strokeWidth=1.8).encode(
                x=x,
                y=y,
                color=colour,
                shape=method_shape(data.results, only),
                tooltip=[
                    *(alt.Tooltip(f"{field}:N") for field in ("method", "kind")),
                    alt.Tooltip("pairs:Q", title="pairs added", format=","),
                    *(alt.Tooltip(f"{field}:Q", format=".3f") for field in ("score", "low", "high")),
                ],
            ),
        ]
    return alt.layer(*layers).properties(title=name, width=300, height=220)


def _added_caption(data: ReportData, table: Table) -> str:
    volumes = sorted(
        (row for row in table.rows if row["kind"] == "hypervolume"), key=lambda row: (row["pairs"], row["method"])
    )
    told = ", ".join(
        f"{row['pairs']:,} pairs {number(float(row['score'] or 0), 3)} ({row['method']})" for row in volumes
    )
    text = (
        "What a method reaches against the pairs that its expansion added. Per value: the best score on its frontier "
        "(full, solid line) and that of its most balanced point (open, dashed), whose worst value is the best. "
    )
    return (text + (f"Hypervolume: {told}." if told else "")).strip()


ADDED_PAIRS = Figure(
    "added-pairs",
    "Effect of the added pairs",
    _added,
    lambda data, table: panels([_added_panel(data, table, name) for name in _names(table)]),
    _added_caption,
    "",
)
