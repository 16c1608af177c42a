"""The audit in the terminal."""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from valuesoup.consistency import LADDER, gap_correlation, opposite_signs
from valuesoup.report.tables import number

if TYPE_CHECKING:
    from rich.console import Console

    from valuesoup.pipeline.audit import DatasetAudit


def print_audit(found: "Mapping[str, DatasetAudit]", console: "Console", show: int) -> None:
    """Print value conflict on a terminal: distribution, retention, conflict matrix, the most conflicting pairs.

    Args:
        found: The audit of each data set.
        console: Where to.
        show: How many conflicting pairs per data set.
    """
    from rich.markup import escape
    from rich.table import Table

    summary = Table(title="Value consistency", title_justify="left")
    for heading in ("data set", "pairs", "undefined", "10 %", "median", "90 %"):
        summary.add_column(heading, justify="left" if heading == "data set" else "right")
    kept = Table(title="Pairs kept at a threshold", title_justify="left")
    kept.add_column("data set")
    for tau in LADDER:
        kept.add_column(f"{tau:g}", justify="right")
    matrix = Table(title="Conflict: share of opposite signs, correlation of gaps", title_justify="left")
    for heading in ("data set", "values", "opposite", "correlation"):
        matrix.add_column(heading, justify="left" if heading in ("data set", "values") else "right")
    for name, of in found.items():
        low, median, high = np.nanquantile(of.consistency, [0.1, 0.5, 0.9])
        undefined = int(np.isnan(of.consistency).sum())
        summary.add_row(escape(name), str(len(of.gaps)), str(undefined), *(number(x, 2) for x in (low, median, high)))
        kept.add_row(escape(name), *(f"{count / len(of.gaps):.0%}" for count in of.retention))
        opposite, correlation = opposite_signs(of.gaps), gap_correlation(of.gaps)
        for i, j in combinations(range(len(of.values)), 2):
            both = f"{of.values[i]} × {of.values[j]}"
            matrix.add_row(escape(name), escape(both), f"{opposite[i, j]:.1%}", number(correlation[i, j], 2))
    for table in (summary, kept, matrix):
        console.print(table)
    for name, of in found.items():
        for pair in of.conflicts[:show]:
            gaps = ", ".join(f"{value} {gap:+.2f}" for value, gap in pair.gaps.items())
            console.print(f"{name}, pair {pair.id}: {gaps}", markup=False, highlight=False)
            for side, text in (
                ("prompt", pair.prompt[-1]["content"]),
                ("chosen", pair.chosen),
                ("rejected", pair.rejected),
            ):
                console.print(f"    {side:<9}{' '.join(text.split())[:160]}", markup=False, highlight=False)
