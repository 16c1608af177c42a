"""Figures of how far the rewards can be trusted: reward-model accuracy, and reward models against the truth."""

import altair as alt
import numpy as np

from valuesoup.evaluation.statistics import wilson_interval
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
from valuesoup.report.look import VALUE_COLOURS, WARNING, cycle
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.tables import label_of, number


def _accuracies(data: ReportData) -> Table:
    rows: list[Row] = []
    for name, model in (data.results.get("reward_models") or {}).items():
        accuracy, held_out = model.get("validation_accuracy"), model.get("validation_pairs")
        if accuracy is not None:
            row: Row = {"value": name, "accuracy": accuracy, "low": None, "high": None, "pairs": held_out}
            if held_out:
                ends = wilson_interval(accuracy * held_out, held_out)
                row |= {"low": float(ends.low), "high": float(ends.high)}
            rows.append(row)
    return Table(rows, {"pairs": "held-out pairs"})


def _accuracy(data: ReportData, table: Table) -> alt.LayerChart:
    names = [str(row["value"]) for row in table.rows]
    chart = source(table)
    y = alt.Y("value:N", title=None, sort=names, axis=alt.Axis(labelLimit=200, labelFontSize=13))
    title = "held-out pairs ranked as labelled"
    x = alt.X("accuracy:Q", title=title, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    scale = alt.Scale(domain=names, range=cycle(VALUE_COLOURS, len(names)))
    bars = chart.mark_bar(height=18, cornerRadiusEnd=3, opacity=0.75).encode(
        x=x,
        y=y,
        color=alt.Color("value:N", scale=scale, legend=None),
        tooltip=[
            alt.Tooltip("value:N"),
            *(alt.Tooltip(f"{field}:Q", format=".1%") for field in ("accuracy", "low", "high")),
            alt.Tooltip("pairs:Q", title="held-out pairs"),
        ],
    )
    labels = chart.mark_text(dx=6, align="left").transform_calculate(
        end="isValid(datum.high) ? datum.high : datum.accuracy"
    )
    layers = [bars, labels.encode(x=alt.X("end:Q", title=title), y=y, text=alt.Text("accuracy:Q", format=".1%"))]
    if any(row["low"] is not None for row in table.rows):
        known = bounded(chart)
        layers.append(known.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y))
    layers.append(extra([{"chance": 0.5}]).mark_rule(strokeDash=[4, 4], color=WARNING).encode(x="chance:Q"))
    return alt.layer(*layers).properties(width=640, height=44 * len(names) + 10)


ACCURACY = Figure(
    "reward-accuracy",
    "Reward models",
    _accuracies,
    _accuracy,
    lambda data, table: (
        "How often each reward model prefers the chosen response of a held-out pair, with a 95% Wilson interval; "
        "the dashed line is chance."
    ),
    "No reward model was trained here, so there is no held-out accuracy to show.",
)


def _truths(data: ReportData) -> Table:
    """One row per candidate and value whose true reward is known; beside it the reward model's mean on test."""
    rows: list[Row] = []
    for candidate in data.results.get("candidates") or ():
        truth, test = candidate.get("truth") or {}, candidate.get("test") or {}
        base = is_base(candidate)
        rows += [
            {
                "id": candidate["id"],
                "method": "base" if base else candidate["method"],
                "weights": label_of(candidate),
                "dataset": value,
                "reward": test[value]["mean"],
                "truth": truth[value],
            }
            for value in data.results["values"]
            if value in truth and value in test
        ]
    return Table(rows, {"dataset": "value", "reward": "reward model", "truth": "true reward"})


def _agreement(table: Table, value: str) -> float | None:
    """Correlation over candidates of reward model and truth, None where it is not defined."""
    points = [(row["reward"], row["truth"]) for row in table.rows if row["dataset"] == value]
    scores = np.array(points, dtype=np.float64)
    if len(scores) < 3 or not scores.std(axis=0).all():
        return None
    return float(np.asarray(np.corrcoef(scores, rowvar=False))[0, 1])


def _truth(data: ReportData, table: Table) -> alt.TopLevelMixin:
    only = present_methods(table)
    known = list(dict.fromkeys(str(row["dataset"]) for row in table.rows))
    charts = []
    for value in known:
        points = source(table, value).mark_point(filled=True, size=75, opacity=0.85)
        scale = alt.Scale(zero=False)
        chart = points.encode(
            x=alt.X("reward:Q", title=f"{value} by the reward model", scale=scale),
            y=alt.Y("truth:Q", title=f"{value} in truth", scale=scale),
            color=method_colour(data.results, only),
            shape=method_shape(data.results, only),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("weights:N"),
                alt.Tooltip("reward:Q", title="reward model", format=".3f"),
                alt.Tooltip("truth:Q", title="in truth", format=".3f"),
            ],
        )
        title = f"r = {number(_agreement(table, value), 2)}"
        chosen = ring(source(table, value), x=chart.encoding.x, y=chart.encoding.y)
        charts.append(
            alt.layer(chart, chosen).properties(title=title, width=300 if len(known) > 1 else 640, height=260)
        )
    return panels(charts)


TRUTH = Figure(
    "truth",
    "Reward models against the truth",
    _truths,
    _truth,
    lambda data, table: (
        "Mean reward of each candidate's test answers, by the reward model and in truth, which only a made world "
        "knows; r is the correlation over candidates. A point far right but low has learnt to please the reward model."
    ),
    "",
)
