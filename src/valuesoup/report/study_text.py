"""The table of a study as the command line prints it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valuesoup.report.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console


def print_study(combined: Mapping[str, Any], console: "Console") -> None:
    """Print each method's hypervolume over the seeds, and the scores of its most balanced candidate.

    Args:
        combined: The content of ``study.json``.
        console: Where to print.
    """
    from rich import box
    from rich.table import Table

    from valuesoup.report.study import policy_label

    weights = {row["id"]: row["weights"] for row in combined["candidates"]}
    table = Table(box=box.SIMPLE_HEAD, title=f"Test scores over {len(combined['seeds'])} seeds", title_justify="left")
    table.add_column("policy", overflow="fold")
    for heading in (*combined["values"], "average", "hypervolume"):
        table.add_column(cell(heading), justify="right", no_wrap=True)
    for point in combined["points"]:
        volume = combined["methods"][point["method"]]["hypervolume"]
        cells = [*(point["scores"][value] for value in combined["values"]), point["average"], volume]
        label = policy_label(point["id"], weights.get(point["id"]))
        table.add_row(cell(f"{point['method']} {label}".strip()), *map(_estimate, cells))
    console.print(table)
    shown = {point["method"] for point in combined["points"]}
    if missing := [name for name in combined["methods"] if name not in shown]:
        say(console, f"No row for {', '.join(missing)}: in some seed no candidate is on the frontier.")


def _estimate(spread: Mapping[str, Any]) -> str:
    if spread["low"] is None:
        return f"{spread['mean']:.2f}"
    return f"{spread['mean']:.2f} ±{(spread['high'] - spread['low']) / 2:.2f}"
