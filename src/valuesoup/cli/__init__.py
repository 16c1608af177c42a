"""The command line: thin commands; everything heavy is imported where it is used."""

import os
import shlex
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

AGAIN = 0.05
"""Seconds after which an interruption that could not be raised is tried again."""
LONGEST_IMPORT = 10.0
"""Seconds for which an import is not interrupted."""


def main() -> None:
    """Run the command line; a mistake of the user's ends with one sentence and code 2, an interruption with 130."""
    try:
        _handle_signals()
        _run()
    except Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # another one would find nobody any more
        _stop(f"interrupted; {_again()} continues where it stopped.", 130)


def _run() -> None:
    # Nothing here needs the hub at start-up, and forked tokenizers only warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from valuesoup.cli.commands import app
    from valuesoup.errors import ValuesoupError

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


class Interruption(BaseException):
    """The process was asked to stop; an exception that neither typer nor a library takes for its own."""


def _handle_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _swallowed


_waited_since: float | None = None


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise an interruption, after an import that is under way: there libraries swallow it, or make another of it."""
    global _waited_since
    now = time.monotonic()
    _waited_since = now if _waited_since is None else _waited_since
    if hasattr(signal, "setitimer") and now < _waited_since + LONGEST_IMPORT and _imports(frame):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        return
    raise Interruption


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt again, a moment later, where the interruption met a finaliser: what that raises goes nowhere."""
    if unraisable.exc_type is Interruption:
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)


def _again() -> str:
    from valuesoup.store.team import whole_team

    alone = whole_team().alone  # else a launcher was given the command
    return f"`{shlex.join(['valuesoup', *sys.argv[1:]])}`" if alone else "the same command"


def _stop(text: str, code: int) -> NoReturn:
    from valuesoup.errors import RunError
    from valuesoup.store.team import speaks

    if speaks() or code == RunError.exit_code:  # any process of a team may fail; the rest all of them have in common
        print(text, file=sys.stderr)
    sys.exit(code)
