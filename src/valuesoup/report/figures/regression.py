"""Figure of the base-model check: how far each policy is from the base on held-out text and in a command's metrics."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import altair as alt

from valuesoup.report.figures.base import (
    Figure,
    Row,
    Table,
    bounded,
    extra,
    method_colour,
    method_shape,
    panels,
    source,
)
from valuesoup.report.model import ReportData, weights_text
from valuesoup.report.regression import percent, remarks

MOST_PANELS = 12
"""Texts and metrics that are drawn; the tables hold all."""
_ROW = 26  # pixels of one policy
_TOLD = 3


def _rows(data: ReportData) -> Table:
    """One row per text or metric and policy but the base: its difference to the base, in percent for perplexities."""
    rows: list[Row] = []
    for text in data.checked.get("texts") or ():
        for row in text["policies"]:
            if row["log_ratio"] is not None:
                ends = {name: _change(end) for name, end in row["log_ratio"].items()}
                rows.append(_row(f"perplexity on {text['name']}", row, "%", row["perplexity"], ends))
    for command in data.checked.get("commands") or ():
        for metric in command["metrics"]:
            for row in metric["policies"]:
                if row["difference"] is not None:
                    better = {True: "higher is better", False: "lower is better"}.get(metric["higher_is_better"], "")
                    rows.append(_row(metric["name"], row, better, row["value"], row["difference"]))
    return Table(rows, {"dataset": "measured", "mean": "difference to the base"})


def _row(panel: str, row: Mapping[str, Any], unit: str, value: float, ends: Mapping[str, float | None]) -> Row:
    return {
        **{"dataset": panel, "method": row["method_title"], "policy": row["title"]},
        **{"weights": weights_text(row["weights"]), "unit": unit, "value": value},
        **{name: ends[name] for name in ("mean", "low", "high")},
    }


def _change(log_ratio: float | None) -> float | None:
    return None if log_ratio is None else 100 * math.expm1(log_ratio)


def _panel(data: ReportData, table: Table, name: str) -> alt.LayerChart:
    own = [row for row in table.rows if row["dataset"] == name]
    unit = str(own[0]["unit"])
    title = "change against the base, % (higher is worse)" if unit == "%" else "difference to the base"
    title = f"{title} ({unit})" if unit not in ("", "%") else title
    x = alt.X("mean:Q", title=title, scale=alt.Scale(padding=12, nice=True))
    names = list(dict.fromkeys(str(row["policy"]) for row in own))
    y = alt.Y(
        "policy:N", title=None, sort=names, axis=alt.Axis(labelLimit=200, labelPadding=8, ticks=False, domain=False)
    )
    chart = source(table, name).encode(y=y, color=method_colour(data.results, legend=None))
    tips = [alt.Tooltip(f"{field}:N") for field in ("policy", "weights")]
    tips += [alt.Tooltip(f"{field}:Q", format=".4g") for field in ("value", "mean", "low", "high")]
    known = bounded(chart)
    marks = chart.encode(x=x, shape=method_shape(data.results, legend=None), tooltip=tips)
    layers = [
        extra([{"base": 0}]).mark_rule(strokeDash=[4, 4], opacity=0.7).encode(x="base:Q"),
        known.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q"),
        marks.mark_point(filled=True, size=90, opacity=1),
    ]
    return alt.layer(*layers).properties(title=name, width=300, height=_ROW * max(2, len(names)))


def _names(table: Table) -> list[str]:
    return list(dict.fromkeys(str(row["dataset"]) for row in table.rows))


def _chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    return panels([_panel(data, table, name) for name in _names(table)[:MOST_PANELS]], columns=2)


def _caption(data: ReportData, table: Table) -> str:
    checked = data.checked
    level = f"{100 * checked['level']:.0f}%"
    text = "Each policy's distance from the base model, the dashed line. "
    if checked["texts"]:
        text += f"Perplexities are per token, with {level} bootstrap intervals paired over documents. "
    if checked["commands"]:
        text += (
            f"Differences of a command's metrics have {level} intervals from its standard errors, as if the two models "
            "had answered other questions, so they are wider than paired ones. "
        )
    for of in checked["texts"]:
        costly = sorted(of["policies"][1:], key=lambda row: -row["log_ratio"]["mean"])[:_TOLD]
        told = ", ".join(f"{row['title']} {percent(row['log_ratio'])}" for row in costly)
        text += f"Highest on {of['name']}: {told}. "
    if (more := len(_names(table)) - MOST_PANELS) > 0:
        text += f"{more} further metrics stand in the tables alone. "
    return " ".join([text.strip(), *remarks(checked)])


REGRESSION = Figure("alignment-cost", "Against the base model", _rows, _chart, _caption, "")


def regression_section(data: ReportData) -> list[Figure]:
    """The figure of what alignment cost; none where nothing was checked, a sentence where nothing of it holds."""
    return [replace(REGRESSION, missing=" ".join(remarks(data.checked)))] if data.checked else []
