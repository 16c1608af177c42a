"""The audit in the terminal."""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from valuesoup.consistency import LADDER, gap_correlation, opposite_signs
from valuesoup.report.summary import equal_gaps
from valuesoup.report.tables import number
from valuesoup.report.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from valuesoup.pipeline.audit import DatasetAudit


def print_audit(found: "Mapping[str, DatasetAudit]", console: "Console", show: int) -> None:
    """Print value conflict on a terminal: distribution, retention, conflict matrix, the most conflicting pairs.

    Args:
        found: The audit of each data set.
        console: Where to.
        show: How many conflicting pairs per data set.
    """
    summary = _table("Value consistency", "data set", "pairs", "undefined", "10 %", "median", "90 %")
    matrix = _table("Conflict between two values", "data set", "values", "opposite signs", "correlation of gaps")
    for name, of in found.items():
        defined = of.consistency[~np.isnan(of.consistency)]
        quantiles = np.quantile(defined, [0.1, 0.5, 0.9]).tolist() if len(defined) else [None] * 3
        undefined = f"{len(of.gaps) - len(defined):,}"
        summary.add_row(cell(name), f"{len(of.gaps):,}", undefined, *(number(x, 2) for x in quantiles))
        opposite, correlation = opposite_signs(of.gaps), gap_correlation(of.gaps)
        for i, j in combinations(range(len(of.values)), 2):
            both = cell(f"{of.values[i]} × {of.values[j]}")
            linked = None if np.isnan(correlation[i, j]) else float(correlation[i, j])
            matrix.add_row(cell(name), both, f"{opposite[i, j]:.1%}", number(linked, 2))
    kept = _table("Pairs kept at a threshold τ", "τ", *(cell(name) for name in found))
    for place, tau in enumerate(LADDER):
        kept.add_row(f"{tau:g}", *(f"{of.retention[place] / len(of.gaps):.0%}" for of in found.values()))
    for table in (summary, kept, matrix):
        console.print(table)
    for name, of in found.items():
        for sentence in equal_gaps(name, of.values, of.gaps):
            say(console, sentence)
    for name, of in found.items():
        for pair in of.conflicts[:show]:
            gaps = ", ".join(f"{value} {gap:+.2f}" for value, gap in pair.gaps.items())
            say(console, f"{name}, pair {pair.id}: {gaps}")
            for side, text in (
                ("prompt", pair.prompt[-1]["content"]),
                ("chosen", pair.chosen),
                ("rejected", pair.rejected),
            ):
                say(console, f"    {side:<9}{' '.join(text.split())[:160]}")


def _table(title: str, *headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in headings:
        text = heading in ("data set", "values")
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    return table
