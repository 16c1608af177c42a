"""What a worker tells its run while it makes a stage: lines, bars, log events, and errors that can travel."""

import json
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from valuesoup.errors import RunError, UserError, ValuesoupError
from valuesoup.store.artifacts import Artifact
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress, Task

Message = tuple[Any, ...]
SHOW_SECONDS = 0.1
"""The least time between two reports of one task's advance."""


@dataclass
class Listener:
    """The run's end of one worker: shows and logs what it tells."""

    progress: Progress
    log: RunLog
    tasks: dict[int, Task] = field(default_factory=dict)

    def take(self, message: Message) -> Artifact | None:
        """Show or log one message; return the artifact where it is one.

        Raises:
            Exception: What the stage raised, as it was.
        """
        match message:
            case "say", text:
                self.progress.say(text)
            case "log", event, fields:
                self.log.write(event, **fields)
            case "task", number, label, total, unit:
                self.tasks[number] = self.progress.task(label, total, unit)
            case "update", number, done:
                self.tasks[number].update(done)
            case "close", number:
                self.tasks.pop(number).__exit__()
            case "made", artifact:
                assert isinstance(artifact, Artifact)
                return artifact
            case "failed", error:
                raise error
        return None

    def forget(self) -> None:
        """Take away the bars of a worker that is gone."""
        while self.tasks:
            self.tasks.popitem()[1].__exit__()


class RelayedProgress(Progress):
    """Hands what is to be shown to the run, with the stage's label, for others speak at the same time."""

    def __init__(self, send: Callable[[Message], None], label: str) -> None:
        """Prepare for one stage.

        Args:
            send: Hands a message to the run.
            label: The stage's name for people.
        """
        super().__init__()
        self._send = send
        self._label = label

    def say(self, text: str) -> None:
        """Have one line printed."""
        self._send(("say", f"    {self._label}: {text.strip()}"))

    def task(self, label: str, total: int, unit: str = "") -> Task:
        """Have a task shown."""
        task = Task(self, label, total, unit)
        self._send(("task", id(task), label, total, unit))
        return task

    def _show(self, task: Task) -> None:
        now = time.perf_counter()
        if now - task._shown >= SHOW_SECONDS:
            task._shown = now
            self._send(("update", id(task), task.done))

    def _close(self, task: Task) -> None:
        self._send(("close", id(task)))


class RelayedLog(RunLog):
    """Hands events to the run."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        """Prepare; ``send`` hands a message to the run."""
        super().__init__(None)
        self._send = send

    def write(self, event: str, **fields: object) -> None:
        """Have one event appended to the run's log."""
        self._send(("log", event, json.loads(json.dumps(fields, default=str))))


def portable(error: Exception) -> Exception:
    """Return the error with its traceback as a note, or the plainest one of its text where it cannot travel."""
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever its own constructor says to a call that it does not expect
        pass
    plain = next((kind for kind in (UserError, RunError) if isinstance(error, kind)), RuntimeError)
    return plain(str(error) if isinstance(error, ValuesoupError) else f"{type(error).__name__}: {error}")
