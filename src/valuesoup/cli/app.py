"""The application that the commands join, and what they share: the console, and agreement to a cost."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valuesoup.errors import UserError, printable

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="valuesoup",
    help="One base model, several human values, a soup whose trade-off is a dial.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from valuesoup import __version__

        print(f"valuesoup {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def console() -> "Console":
    """Return what the tables and progress bars are written to: names and texts of any file do no harm there."""
    from rich.console import Console
    from rich.text import Text

    class Screen(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str("\n".join(map(printable, text.split("\n"))), **how)

    # A file or a pipe is as wide as a table of many values needs.
    return Screen(width=None if sys.stdout.isatty() else 140, emoji=False)


def agree(costs: str, agreed: bool) -> None:
    """Say what is to be spent, and go on only where the person agrees."""
    print(printable(f"to ask: {costs}"))
    if agreed:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody is here to agree to that cost; add --yes to ask, or --limit to ask less.")
    if not typer.confirm("Ask?"):
        print("nothing was asked.", file=sys.stderr)
        raise typer.Exit
