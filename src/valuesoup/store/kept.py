"""What a worker that outlives its stages keeps for the next one, so that a model is loaded once and not per stage."""

from collections.abc import Callable
from typing import TypeVar

Thing = TypeVar("Thing")


class Kept:
    """One thing, kept until another one is asked for: there is no memory for two.

    Off, until :meth:`begin` is called: a process that is not a worker keeps nothing.
    """

    def __init__(self) -> None:
        """Keep nothing."""
        self._on = False
        self._held: tuple[object, object] | None = None

    def begin(self) -> None:
        """Keep from now on what is asked for."""
        self._on = True

    def let_go(self) -> None:
        """Drop what is kept, because a stage that does not ask here needs the memory."""
        self._held = None

    def get(self, key: object, make: Callable[[], Thing]) -> Thing:
        """Return what is kept under ``key``, or make it and keep it instead of what was."""
        if not self._on:
            return make()
        if self._held is None or self._held[0] != key:
            self.let_go()  # before another is in memory beside it
            self._held = (key, make())
        return self._held[1]  # type: ignore[return-value]


KEPT = Kept()
"""Of this process."""
