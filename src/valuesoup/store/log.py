"""The run's log: one JSON object per line, appended."""

import json
import os
import time
from pathlib import Path


class RunLog:
    """Appends events to ``log.jsonl``; safe to open again after an interruption."""

    def __init__(self, path: Path | None) -> None:
        """Open the log.

        Args:
            path: The file, created at the first event; None writes nowhere.
        """
        self.path = path

    def write(self, event: str, **fields: object) -> None:
        """Append one event with the time in seconds since the epoch; unknown types are written as text."""
        if self.path is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str)
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # the disk was full, or a process was killed, in the midst of a line
                    line = "\n" + line
            file.write((line + "\n").encode())
