"""Words for a terminal that may be out of files that nobody trusts: no markup, emoji or control character counts."""

from typing import TYPE_CHECKING

from valuesoup.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def cell(text: str) -> str:
    """Return a text for a cell, title or heading of a rich table that shows it as it stands."""
    from rich.markup import escape

    return escape(printable(text))


def say(console: "Console", text: str) -> None:
    """Print one line as it stands."""
    console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
