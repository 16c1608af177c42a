"""The command line: thin commands; everything heavy is imported where it is used."""

import os
import signal
import sys
from typing import Any, NoReturn

from valuesoup.cli import evidence, exploring, running, starting, using
from valuesoup.cli.app import app
from valuesoup.errors import RunError, ValuesoupError

COMMANDS = (
    running.demo,
    starting.init,
    running.run,
    running.status,
    running.report,
    evidence.compare,
    evidence.judge,
    evidence.check,
    evidence.audit,
    evidence.methods,
    using.pick,
    using.export,
    exploring.explore,
    starting.doctor,
)
"""In the order of the help."""

for _command in COMMANDS:
    app.command()(_command)


def main() -> None:
    """Run the command line; a mistake of the user's ends with one sentence and code 2, an interruption with 130."""
    # Nothing here needs the hub at start-up, and forked tokenizers only warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _swallowed
    try:
        app()
    except ValuesoupError as error:
        _stop(f"error: {error}", error.exit_code)
    except OSError as error:
        from valuesoup.store.files import file_error

        told = file_error(error)
        if told is None:
            raise
        _stop(f"error: {told}", told.exit_code)
    except Interruption:
        _stop("interrupted; the same command continues where it stopped.", 130)


class Interruption(BaseException):
    """The process was asked to stop; an exception that neither typer nor a library takes for its own."""


def _interrupt(*_: Any) -> NoReturn:
    raise Interruption


def _swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt again, a moment later, where the interruption met a finaliser: what that raises goes nowhere."""
    if unraisable.exc_type is Interruption:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    else:
        sys.__unraisablehook__(unraisable)


def _stop(text: str, code: int) -> NoReturn:
    from valuesoup.store.team import speaks

    if speaks() or code == RunError.exit_code:  # any process of a team may fail; the rest all of them have in common
        print(text, file=sys.stderr)
    sys.exit(code)
