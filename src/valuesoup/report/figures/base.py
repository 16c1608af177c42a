"""What a figure is, and the few pieces that all figures are put together from."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import altair as alt

from valuesoup.report.look import method_scale
from valuesoup.report.model import ReportData
from valuesoup.report.schema import Results

Cell = str | int | float | bool | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Table:
    """The data of a figure.

    Attributes:
        rows: One mapping per mark, keyed by plain field names, which are safe inside a Vega expression
            whatever the values of a run are called.
        headings: Field name to the column heading of the CSV file; fields that are absent head themselves.
    """

    rows: list[Row]
    headings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: File name without extension.
        title: Heading.
        table: The figure's data; no rows means that the figure cannot be drawn.
        chart: Draws it from that data (Altair chart).
        caption: What is to be seen, in a sentence or two; computed, since it states numbers.
        missing: The sentence that stands in the figure's place where its data are missing.
    """

    name: str
    title: str
    table: Callable[[ReportData], Table]
    chart: Callable[[ReportData, Table], alt.TopLevelMixin]
    caption: Callable[[ReportData, Table], str]
    missing: str


MOST_DEPTHS = 12
"""Ticks of an axis of layers."""
DATA = "table"  # the name under which a specification refers to its figure's own rows
CHOSEN = "chosen"
"""The signal that holds the id of the candidate that the reader chose on the page; empty in the files."""


def source(table: Table, dataset: str | None = None) -> alt.Chart:
    """A chart on the figure's rows, or on those of one data set.

    The rows are named here and put into the finished specification: Altair would check each one, for seconds.
    """
    chart = alt.Chart(alt.NamedData(DATA))
    if dataset is None:
        return chart
    return chart.transform_filter(alt.FieldEqualPredicate(field="dataset", equal=dataset))


def extra(rows: Sequence[Row]) -> alt.Chart:
    """A chart on a few rows of its own, such as the thresholds of a histogram."""
    return alt.Chart(alt.Data(values=list(rows)))


def bounded(chart: alt.Chart, value: int | str = "") -> alt.Chart:
    """Keep the rows whose interval has both ends: ``low`` and ``high``, or those numbered as the value."""
    return chart.transform_filter(f"isValid(datum.low{value}) && isValid(datum.high{value})")


def ring(chart: alt.Chart, size: float = 260, **at: Any) -> alt.Chart:
    """A ring around the point of the chosen candidate, for figures whose rows carry the field ``id``.

    Args:
        chart: With the data of the points.
        size: Of the ring, in square pixels.
        at: The ``x`` and ``y`` of the points.
    """
    chosen = chart.transform_filter(f"datum.id === {CHOSEN}")
    return chosen.mark_point(style="ring", shape="circle", filled=False, size=size, strokeWidth=2.4).encode(**at)


def method_colour(results: Results, only: Sequence[str] | None = None, legend: Any = alt.Undefined) -> alt.Color:
    """The colour encoding of the field ``method``; ``only`` limits the legend to those methods."""
    names, colours, _ = method_scale(results)
    shown = [(n, c) for n, c in zip(names, colours, strict=True) if only is None or n in only]
    scale = alt.Scale(domain=[n for n, _ in shown], range=[c for _, c in shown])
    return alt.Color("method:N", scale=scale, legend=legend, title=None)


def method_shape(results: Results, only: Sequence[str] | None = None, legend: Any = alt.Undefined) -> alt.Shape:
    """The shape encoding of the field ``method``, beside the colour for those who see no colours."""
    names, _, shapes = method_scale(results)
    shown = [(n, s) for n, s in zip(names, shapes, strict=True) if only is None or n in only]
    scale = alt.Scale(domain=[n for n, _ in shown], range=[s for _, s in shown])
    return alt.Shape("method:N", scale=scale, legend=legend, title=None)


def present_methods(table: Table) -> list[str]:
    """The methods that occur in a table."""
    return list(dict.fromkeys(str(row["method"]) for row in table.rows))


def blocks(layers: Sequence[str]) -> list[int]:
    """The depth of each layer: the first number in its name, or its place where a name has none."""
    places = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
    found = (re.search(r"(?:^|\.)(\d+)(?:\.|$)", layer) for layer in layers)
    return [int(number[1]) if number else places[layer] for layer, number in zip(layers, found, strict=True)]


def depth_axis(table: Table) -> alt.Axis:
    """The axis of the field ``block``: ticks at depths that there are, at most as many as there is room for."""
    depths = sorted({int(row["block"] or 0) for row in table.rows})
    return alt.Axis(values=depths[:: -(-len(depths) // MOST_DEPTHS)], format="d")


def value_pairs(count: int) -> Iterator[tuple[int, int]]:
    """Index pairs i < j of ``count`` values."""
    return combinations(range(count), 2)


def panels(charts: Sequence[alt.TopLevelMixin], columns: int | None = None) -> alt.TopLevelMixin:
    """Several panels as small multiples with common legends, at most three in a row; one panel stays alone."""
    if len(charts) == 1:
        return charts[0]
    return alt.concat(*charts, columns=columns or (2 if len(charts) in (2, 4) else 3))


def matrix(count: int, panel: Callable[[int, int], alt.TopLevelMixin], size: tuple[int, int]) -> alt.TopLevelMixin:
    """A panel per two of ``count`` values: three in a row, of more values the lower triangle of a matrix.

    Args:
        count: At least 3.
        panel: Draws value i on the horizontal axis against value j.
        size: Width and height of a panel in pixels, for the cells above the diagonal that stay empty.
    """
    if count == 3:
        return panels([panel(i, j) for i, j in value_pairs(count)])
    cells = []
    for j in range(1, count):
        for i in range(count - 1):
            empty = alt.Chart(alt.Data(values=[])).mark_point().properties(name=f"empty_{j}_{i}")
            cells.append(panel(i, j) if i < j else empty.properties(width=size[0], height=size[1]))
    return alt.concat(*cells, columns=count - 1).properties(usermeta={"matrix": True})
