"""Progress of long work: live bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from valuesoup.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

QUIET_SECONDS = 15.0
"""Off a terminal, the least time between two lines of one task."""


@dataclass
class Task:
    """One piece of work with a known number of steps."""

    progress: "Progress"
    label: str
    total: int
    unit: str
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    _shown: float = field(default_factory=time.perf_counter)
    _bar: int | None = None

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more as done."""
        self.update(self.done + steps)

    def update(self, done: int) -> None:
        """Set how many steps are done."""
        self.done = done
        self.progress._show(self)

    def __enter__(self) -> "Task":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress._close(self)

    def estimate(self) -> float | None:
        """Return the seconds left at the pace so far, or None before the first step."""
        if self.done == 0:
            return None
        return (time.perf_counter() - self.started) / self.done * max(self.total - self.done, 0)


class Progress:
    """Shows tasks and messages on one console."""

    def __init__(self, console: "Console | None" = None, *, live: bool | None = None) -> None:
        """Prepare the display.

        Args:
            console: A rich console; None shows nothing at all.
            live: Bars (True) or lines (False); by default bars where the console is a terminal.
        """
        self.console = console
        self.live = bool(console and console.is_terminal) if live is None else live
        self._rich: RichProgress | None = None

    @contextmanager
    def showing(self) -> Iterator["Progress"]:
        """Show live bars while the block runs."""
        if self.console is None or not self.live:
            yield self
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", style="progress.description", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True) as rich:
            self._rich = rich
            try:
                yield self
            finally:
                self._rich = None

    def say(self, text: str) -> None:
        """Print one line; names in it may be out of files that nobody trusts."""
        if self.console is not None:
            self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
            sys.stdout.flush()

    def task(self, label: str, total: int, unit: str = "") -> Task:
        """Start a task of ``total`` steps; use it as a context manager."""
        task = Task(self, label, total, unit)
        if self._rich is not None:
            task._bar = self._rich.add_task(printable(label), total=total)
        return task

    def _show(self, task: Task) -> None:
        if self._rich is not None and task._bar is not None:
            from rich.progress import TaskID

            self._rich.update(TaskID(task._bar), completed=task.done)
            return
        now = time.perf_counter()
        if self.console is None or now - task._shown < QUIET_SECONDS or task.done >= task.total:
            return
        task._shown = now
        left = task.estimate()
        rest = "" if left is None else f", about {duration(left)} left"
        self.say(f"    {task.label}: {task.done}/{task.total} {task.unit}".rstrip() + rest)

    def _close(self, task: Task) -> None:
        if self._rich is not None and task._bar is not None:
            from rich.progress import TaskID

            self._rich.remove_task(TaskID(task._bar))


def duration(seconds: float) -> str:
    """Write seconds for people: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
