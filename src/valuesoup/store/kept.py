"""What a worker that outlives its stages keeps for the next one, so that a model is loaded once and not per stage."""

from collections.abc import Callable
from typing import TypeVar

Thing = TypeVar("Thing")


class Kept:
    """One thing, kept between stages of one name; a stage of another name needs the memory for something else.

    Off, until :meth:`begin` is called first: a process that is not a worker keeps nothing.
    """

    def __init__(self) -> None:
        """Keep nothing."""
        self._stage: str | None = None
        self._held: tuple[object, object] | None = None

    def begin(self, stage: str) -> None:
        """Let go of what is kept, unless the last stage had this name too; stages follow one another."""
        if stage != self._stage:
            self._held = None
        self._stage = stage

    def get(self, key: object, make: Callable[[], Thing]) -> Thing:
        """Return what is kept under ``key``, or make it and keep it instead of what was."""
        if self._stage is None:
            return make()
        if self._held is None or self._held[0] != key:
            self._held = None  # before another is in memory beside it
            self._held = (key, make())
        return self._held[1]  # type: ignore[return-value]


KEPT = Kept()
"""Of this process."""
