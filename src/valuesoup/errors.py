"""Errors that a person reads: one sentence saying what is wrong, where, and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_LINE = 1000
"""Characters of a line of an error's text; of a longer one the middle is left out."""


class ValuesoupError(Exception):
    """Base of every error that valuesoup raises on purpose; its text is complete without a traceback.

    Its arguments are sentences, as many as there are mistakes, and each is a line of its text.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Return the sentences fit for a terminal: they may quote keys and names out of files that nobody trusts.

        Control characters, which could move the cursor or paint over what stands there, are shown by their codes.
        """
        return "\n".join(_shown(str(sentence)) for sentence in self.args)


class UserError(ValuesoupError):
    """The user's input (configuration, data, argument) is wrong; the command line exits with 2."""

    exit_code = 2


class RunError(ValuesoupError):
    """The input was right but the run failed (disk, memory, NaN loss); the command line exits with 1."""


def _shown(sentence: str) -> str:
    if len(sentence) > LONGEST_LINE:
        half = LONGEST_LINE // 2 - 8
        sentence = f"{sentence[:half]} … {sentence[-half:]}"
    if sentence.isprintable():
        return sentence
    shown = printable(" ".join(sentence.split("\n")), spaces="")
    return shown if len(shown) <= LONGEST_LINE else f"{shown[: LONGEST_LINE - 2]} …"


def printable(text: str, spaces: str = "\u00a0\u202f") -> str:
    """Return a line fit for a terminal, though it be out of a file that nobody trusts.

    Control characters, line breaks among them, and what hides text or turns it around are shown by their codes.

    Args:
        text: The line.
        spaces: Spaces that stay beside the plain one; by default those that do not break.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in spaces else one.encode("unicode_escape").decode() for one in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or the list of known names when none is near.

    Args:
        name: What was written.
        known: What could have been written.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def first_fault(error: "ValidationError") -> tuple[str, str]:
    """Return the first mistake that pydantic found: its key, ``a.0.b`` or empty for the whole, and what is wrong."""
    first = error.errors(include_url=False)[0]
    said = first["msg"].removeprefix("Value error, ")
    return ".".join(map(str, first["loc"])), f"{said[0].lower()}{said[1:]}"
