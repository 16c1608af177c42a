"""Errors that a person reads: one sentence saying what is wrong, where, and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches


class ValuesoupError(Exception):
    """Base of every error that valuesoup raises on purpose; its text is complete without a traceback."""

    exit_code = 1


class UserError(ValuesoupError):
    """The user's input (configuration, data, argument) is wrong; the command line exits with 2."""

    exit_code = 2


class RunError(ValuesoupError):
    """The input was right but the run failed (disk, memory, NaN loss); the command line exits with 1."""


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
