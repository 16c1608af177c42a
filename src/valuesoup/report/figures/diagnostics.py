"""Figures that say why: gradient conflict, merging gaps, signs of over-optimisation, correlation of the rewards."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np

from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    bounded,
    extra,
    method_colour,
    method_shape,
    panels,
    present_methods,
    ring,
    source,
)
from valuesoup.report.look import BASE_COLOUR, VALUE_COLOURS
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.schema import CandidateResult
from valuesoup.report.tables import interval, label_of, number, short

ALL = "all pairs"  # what the results call the conflict without any filter
PAIR = "dataset"  # the field that tells panels apart, by the two values compared
CURVE = 25  # points of a predicted curve

SIGNS = {
    "fluency": "fluency",
    "perplexity": "perplexity under the base",
    "repetition": "repeated 3-grams",
    "distinct_1": "distinct tokens (distinct-1)",
    "distinct_2": "distinct token pairs (distinct-2)",
    "tokens": "tokens of an answer",
    "truncated": "cut at the longest length",
}
"""What a candidate's quality holds, and how a figure writes it."""
DRAWN = ("fluency", "perplexity", "repetition", "distinct_2", "tokens", "truncated")


def _between(first: str, second: str) -> str:
    return f"{first} – {second}"


def _float(found: object) -> float | None:
    return float(found) if isinstance(found, int | float) else None


def _size(found: object) -> float:
    """A number by which rows are put in order; where there is none, 0."""
    return _float(found) or 0.0


def _ranges(table: Table, title: str, colour: Any) -> alt.TopLevelMixin:
    """A point with its interval per row, one panel per two values, and a line at 0."""
    y = alt.Y("label:N", title=None, sort=_labels(table), axis=alt.Axis(labelLimit=260))
    x = alt.X("x:Q", title=title, scale=alt.Scale(domain=[-1, 1]))
    names = list(dict.fromkeys(str(row[PAIR]) for row in table.rows))
    charts = []
    for name in names:
        chart = source(table, name).encode(y=y, color=colour)
        known = bounded(chart)
        zero = extra([{"zero": 0}]).mark_rule(strokeDash=[3, 3], color=BASE_COLOUR).encode(x="zero:Q")
        tips = [
            alt.Tooltip("label:N", title="on"),
            *(alt.Tooltip(f"{f}:Q", format=".3f") for f in ("x", "low", "high")),
        ]
        layers = [
            zero,
            known.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
            chart.mark_point(filled=True, size=75, opacity=1).encode(x=x, tooltip=tips),
        ]
        if any(row.get("ceiling") is not None for row in table.rows):
            tick = chart.mark_tick(thickness=2, size=14, opacity=0.8)
            layers.append(
                tick.encode(x=alt.X("ceiling:Q", title=title), tooltip=[alt.Tooltip("ceiling:Q", format=".2f")])
            )
        height = 34 * len({row["label"] for row in table.rows}) + 20
        charts.append(alt.layer(*layers).properties(width=300 if len(names) > 1 else 520, height=height, title=name))
    return panels(charts, columns=2 if len(charts) > 1 else None)


def _conflicts(data: ReportData) -> Table:
    rows: list[Row] = []
    for where, of in (data.results.get("conflict") or {}).items():
        for row in of["between"]:
            if row["cosine"] is not None:
                named: Row = {
                    PAIR: _between(row["first"], row["second"]),
                    "label": where,
                    "method": "base" if where == ALL else where,
                }
                rows.append(
                    named | {"x": row["cosine"], "low": row["low"], "high": row["high"], "ceiling": row["ceiling"]}
                )
    headings = {PAIR: "values", "label": "pairs of", "x": "cosine"}
    return Table(rows, headings)


def _labels(table: Table) -> list[str]:
    return list(dict.fromkeys(str(row["label"]) for row in table.rows))


def _conflict_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    colour = method_colour(data.results, present_methods(table), legend=None)
    return _ranges(table, "cosine of the two gradients", colour)


def _conflict_caption(data: ReportData, table: Table) -> str:
    text = (
        "Cosine of the mean DPO gradients of two values at the base, in the B factors of one fresh LoRA: the direction "
        "in which training starts to move. Below 0 the values pull against each other (Eq. 16). Bars are the interval "
        "of so few pairs, ticks the cosine that equal values would show through the same noise. "
    )
    raw = {row[PAIR]: row for row in table.rows if row["label"] == ALL}
    worst = min(raw.values(), key=lambda row: _size(row["x"]), default=None)
    if worst is None:
        return text.strip()
    said = f"On all pairs: {_range(worst)}" + (f" ({worst[PAIR]}, the lowest)" if len(raw) > 1 else "")
    filtered = [
        f"{row['label']} {_range(row)}" for row in table.rows if row[PAIR] == worst[PAIR] and row["label"] != ALL
    ]
    return text + said + (f"; after filtering: {', '.join(filtered)}." if filtered else ".")


def _range(row: Row) -> str:
    mean, low, high = (_float(row[key]) for key in ("x", "low", "high"))
    return interval(mean, low, high, 2)


CONFLICT = Figure(
    "gradient-conflict", "Gradient conflict at the base", _conflicts, _conflict_chart, _conflict_caption, ""
)


def _paths(data: ReportData) -> Table:
    """Measured gaps with their intervals, and the predicted parabola; methods of the same vectors are drawn once."""
    rows: list[Row] = []
    seen: set[tuple[str, float, float]] = set()
    for method, of in (data.results.get("connectivity") or {}).items():
        for path in of["paths"]:
            curvature = path["curvature"]["mean"]
            key = (_between(path["first"], path["second"]), path["squared_distance"], curvature)
            if key in seen:
                continue
            common: Row = {PAIR: key[0], "method": method, "first": path["first"], "second": path["second"]}
            seen.add(key)
            for rung in path["ladder"]:
                row = common | {"kind": "measured", "weight": rung["weight"], "y": rung["gap"]["mean"]}
                row |= {"low": rung["gap"]["low"], "high": rung["gap"]["high"], "predicted": rung["predicted"]}
                rows.append(row | {"loss": rung["loss"], "distance": path["squared_distance"]})
            for share in np.linspace(0.0, 1.0, CURVE).tolist():
                predicted = -0.5 * share * (1 - share) * curvature
                rows.append(common | {"kind": "predicted", "weight": share, "y": predicted})
    return Table(rows, {PAIR: "values", "y": "gap", "distance": "squared distance", "weight": "weight of the first"})


def _path_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    names = list(dict.fromkeys(str(row[PAIR]) for row in table.rows))
    charts = []
    for name in names:
        first, second = next((row["first"], row["second"]) for row in table.rows if row[PAIR] == name)
        chart = source(table, name).encode(
            x=alt.X("weight:Q", title=f"λ: {second} at 0, {first} at 1", scale=alt.Scale(domain=[0, 1])),
            color=method_colour(data.results, present_methods(table)),
        )
        title = "merging gap Δ(λ), nats per pair"
        y = alt.Y("y:Q", title=title)
        measured = chart.transform_filter(alt.FieldEqualPredicate(field="kind", equal="measured"))
        predicted = chart.transform_filter(alt.FieldEqualPredicate(field="kind", equal="predicted"))
        known = bounded(measured).transform_filter("datum.low < datum.high")
        tips = [
            alt.Tooltip("method:N"),
            alt.Tooltip("weight:Q", title="λ"),
            alt.Tooltip("y:Q", title="Δ", format=".4g"),
            alt.Tooltip("predicted:Q", format=".4g"),
            alt.Tooltip("loss:Q", format=".4f"),
            alt.Tooltip("distance:Q", title="‖d‖²", format=".3g"),
        ]
        zero = extra([{"zero": 0}]).mark_rule(strokeDash=[3, 3], color=BASE_COLOUR).encode(y="zero:Q")
        layers = [
            zero,
            predicted.mark_line(strokeDash=[5, 3], strokeWidth=1.6).encode(y=y),
            known.mark_rule(strokeWidth=1.5, opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
            measured.mark_point(filled=True, size=60, opacity=1).encode(
                y=y, shape=method_shape(data.results, present_methods(table)), tooltip=tips
            ),
        ]
        width = 300 if len(names) > 1 else 560
        charts.append(alt.layer(*layers).properties(width=width, height=240, title=name if len(names) > 1 else ""))
    return panels(charts)


def _path_caption(data: ReportData, table: Table) -> str:
    text = (
        "What merging two value vectors adds to the DPO loss on held-out pairs (all data sets count alike), against "
        "the straight line between the losses at its ends: below 0 it gains (points, Eq. 22). Dashed is what the "
        "loss's curvature at λ = ½ alone predicts (Eq. 24). "
    )
    said = []
    for method in present_methods(table):
        middle = [row for row in table.rows if row["method"] == method and row["kind"] == "measured"]
        middle = [row for row in middle if row["weight"] == 0.5]
        if middle:
            worst = max(middle, key=lambda row: _size(row["y"]))
            of = f", {worst[PAIR]}" if len(middle) > 1 else ""
            gap, low, high, predicted, distance = (
                short(_size(worst[key])) for key in ("y", "low", "high", "predicted", "distance")
            )
            ends = "" if worst["low"] is None else f" [{low}, {high}]"
            said.append(f"{method}{of} {gap}{ends}, predicted {predicted}, ‖d‖² {distance}")
    many = len({row[PAIR] for row in table.rows}) > 1
    text += f"At λ = ½{', the worst two values of each method' if many else ''}: {'; '.join(said)}."
    hidden = [method for method in (data.results.get("connectivity") or {}) if method not in present_methods(table)]
    return text + (f" {' and '.join(hidden)}: the same vectors as another method, drawn once." if hidden else "")


MERGING = Figure("merging-gap", "Loss between the value vectors", _paths, _path_chart, _path_caption, "")


def _signs(data: ReportData) -> Table:
    rows: list[Row] = []
    values = list(data.results["values"])
    for candidate in data.results.get("candidates") or ():
        quality: Mapping[str, object] = candidate.get("quality") or {}
        if quality.get("kl") is None or quality.get("perplexity") is None:
            continue
        row: Row = {"id": candidate["id"], "method": "base" if is_base(candidate) else candidate["method"]}
        row |= {"weights": label_of(candidate), "kl": _float(quality["kl"])}
        row |= {sign: _float(quality.get(sign)) for sign in SIGNS}
        rows.append(row | {f"reward{k}": _reward(candidate, value) for k, value in enumerate(values)})
    headings = {"kl": "KL from the base", **SIGNS, **{f"reward{k}": value for k, value in enumerate(values)}}
    return Table(rows, headings)


def _reward(candidate: CandidateResult, value: str) -> float | None:
    test = candidate.get("test") or {}
    return test[value]["mean"] if value in test else None


def _sign_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    only = present_methods(table)
    tips = [alt.Tooltip("method:N"), alt.Tooltip("weights:N"), alt.Tooltip("kl:Q", title="KL", format=".3f")]
    tips += [
        alt.Tooltip(f"reward{k}:Q", title=f"reward: {value}", format=".3f")
        for k, value in enumerate(data.results["values"])
    ]
    charts = []
    for sign in DRAWN:
        if any(row[sign] is not None for row in table.rows):
            chart = source(table).transform_filter(f"isValid(datum.{sign})")
            points = chart.mark_point(filled=True, size=60, opacity=0.85).encode(
                x=alt.X("kl:Q", title="KL from the base, nats per answer", scale=alt.Scale(zero=True, padding=8)),
                y=alt.Y(f"{sign}:Q", title=SIGNS[sign], scale=alt.Scale(zero=False, padding=8)),
                color=method_colour(data.results, only),
                shape=method_shape(data.results, only),
                tooltip=[*tips, alt.Tooltip(f"{sign}:Q", title=SIGNS[sign], format=".3f")],
            )
            chosen = ring(chart, 240, x=points.encoding.x, y=points.encoding.y)
            charts.append(alt.layer(points, chosen).properties(width=220, height=190))
    return panels(charts, columns=3)


def _sign_caption(data: ReportData, table: Table) -> str:
    text = (
        "What a reward does not see of each candidate's test answers, by how far it has moved from the base. Where "
        "a reward rises together with perplexity or repetition, or as variety falls, look whether the answers are "
        "better or only please the reward. "
    )
    base = next((row for row in table.rows if row["method"] == "base"), None)
    others = [row for row in table.rows if row["method"] != "base"]
    if base is None or not others:
        return text.strip()
    said = []
    for sign, name, furthest in (
        ("perplexity", "the highest perplexity", max),
        ("repetition", "the most repetition", max),
        ("distinct_2", "the least variety (distinct-2)", min),
    ):
        known = [row for row in others if row[sign] is not None]
        if known and base[sign] is not None:
            row = furthest(known, key=lambda row: _size(row[sign]))
            digits = 1 if sign == "perplexity" else 3
            found, before = (number(_float(of[sign]), digits) for of in (row, base))
            said.append(f"{name} is {found} ({row['method']}, {row['weights']}; the base has {before})")
    return text + (f"Of all candidates, {', '.join(said)}." if said else "")


OVER_OPTIMISATION = Figure("over-optimisation", "Signs of over-optimisation", _signs, _sign_chart, _sign_caption, "")


def _correlations(data: ReportData) -> Table:
    rows: list[Row] = []
    for row in data.results.get("correlation") or ():
        label = f"gaps of the {row['dataset']} pairs" if row["over"] == "gaps" else f"test {row['over']}"
        ends = {"x": row["mean"], "low": row["low"], "high": row["high"], "count": row["count"]}
        rows.append({PAIR: _between(row["first"], row["second"]), "label": label, **ends})
    return Table(rows, {PAIR: "values", "label": "over", "x": "correlation"})


def _correlation_chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    return _ranges(table, "correlation of the two rewards", alt.value(VALUE_COLOURS[0]))


def _correlation_caption(data: ReportData, table: Table) -> str:
    text = (
        "How the rewards of two values go together: over the gaps of training pairs, over all test answers, and over "
        "answers to one prompt (its mean taken away), where a trade-off shows. Answers are those of every candidate "
        "that answered the test prompts, intervals resample prompts. "
    )
    last = [row for row in table.rows if row["label"] == "test answers to one prompt"]
    worst = min(last, key=lambda row: _size(row["x"]), default=None)
    if worst is None:
        return text.strip()
    which = f"{worst[PAIR]}, the lowest: " if len(last) > 1 else ""
    return f"{text}Over answers to one prompt: {which}{_range(worst)}."


CORRELATION = Figure(
    "reward-correlation",
    "Correlation between the values' rewards",
    _correlations,
    _correlation_chart,
    _correlation_caption,
    "",
)
