"""The table of a study as the command line prints it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

    table = Table(box=box.SIMPLE_HEAD, title=f"Test scores over {len(combined['seeds'])} seeds", title_justify="left")
    table.add_column("policy", overflow="fold")
    for heading in (*combined["values"], "average", "hypervolume"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in combined["points"]:
        volume = combined["methods"][point["method"]]["hypervolume"]
        cells = [*(point["scores"][value] for value in combined["values"]), point["average"], volume]
        table.add_row(point["id"], *map(_estimate, cells))
    console.print(table)


def _estimate(spread: Mapping[str, Any]) -> str:
    if spread["low"] is None:
        return f"{spread['mean']:.2f}"
    return f"{spread['mean']:.2f} ±{(spread['high'] - spread['low']) / 2:.2f}"
