"""Figure of all values at once: parallel coordinates, one line per candidate."""

import altair as alt
import numpy as np

from valuesoup.evaluation.frontier import pareto
from valuesoup.report.figures.base import (
    CHOSEN,
    Figure,
    Row,
    Table,
    method_colour,
    method_shape,
    present_methods,
    source,
)
from valuesoup.report.figures.scores import CROWD, candidate_rows, full_strength
from valuesoup.report.model import ReportData


def _parallel_table(data: ReportData) -> Table:
    """Long form: one row per candidate and value; empty for one or two values, which need no such figure.

    Where many are drawn, those on the frontier are the non-dominated of all methods together.
    """
    values = data.results["values"]
    wide = candidate_rows(data).rows if len(values) > 2 else []
    rows: list[Row] = []
    if len(wide) > CROWD:
        best = pareto(np.array([[row[f"s{j}"] for j in range(len(values))] for row in wide], dtype=np.float64))
        wide = [row | {"frontier": bool(strong)} for row, strong in zip(wide, best, strict=True)]
    for j, value in enumerate(values if wide else ()):
        scores = np.array([row[f"s{j}"] for row in wide], dtype=np.float64)
        spread = float(np.ptp(scores)) or 1.0
        rows += [
            {
                "id": row["id"],
                "method": row["method"],
                "weights": row["weights"],
                "frontier": row["frontier"],
                "value": value,
                "order": j,
                "score": row[f"s{j}"],
                "relative": (float(score) - float(scores.min())) / spread,
            }
            for row, score in zip(wide, scores, strict=True)
        ]
    return Table(rows)


def _parallel(data: ReportData, table: Table) -> alt.LayerChart:
    only = present_methods(table)
    values = list(data.results["values"])
    strong, faint = (0.4, 0.1) if len(table.rows) > CROWD * len(values) else (0.85, 0.16)
    base = source(table).encode(
        x=alt.X(
            "value:N", title=None, sort=values, axis=alt.Axis(labelAngle=0, grid=True), scale=alt.Scale(padding=0.2)
        ),
        y=alt.Y("relative:Q", title="score within its range (1 = best)", scale=alt.Scale(domain=[0, 1])),
        color=method_colour(data.results, only),
        detail="id:N",
        opacity={"condition": {**full_strength(), "value": strong}, "value": faint},
        tooltip=[
            alt.Tooltip("method:N", title="method"),
            alt.Tooltip("weights:N", title="weights"),
            alt.Tooltip("value:N", title="value"),
            alt.Tooltip("score:Q", title="score", format=".3f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.8).encode(order="order:Q")
    points = base.mark_point(filled=True, size=45).encode(shape=method_shape(data.results, only))
    chosen = source(table).transform_filter(f"datum.id === {CHOSEN}")
    line = chosen.mark_line(style="ring", strokeWidth=4).encode(x=base.encoding.x, y=base.encoding.y, order="order:Q")
    return alt.layer(lines, points, line).properties(width=640, height=320)


PARALLEL = Figure(
    "parallel",
    "All values at once",
    _parallel_table,
    _parallel,
    lambda data, table: (
        "One line per candidate; each value's axis runs from the worst to the best score of any candidate. "
        "Lines that cross between two values show the conflict; faint lines are off the frontier"
        + (" of all methods together." if len(table.rows) > CROWD * len(data.results["values"]) else ".")
    ),
    "",
)
