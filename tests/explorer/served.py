"""The command as a process of its own, for tests that look at what it serves."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny_run


class Served:
    """A running ``valuesoup explore``."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, printed: str) -> None:
        self.process, self.url, self.printed = process, url, printed

    def interrupt(self) -> str:
        """Press ctrl-C; return all that was printed."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=30)
        return self.printed + rest


@contextmanager
def serve(run: Path, cache: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    command = tiny_run.command("explore", run, "--port", "0", *arguments)
    process = subprocess.Popen(
        command,
        env={**tiny_run.environment(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed, url = "", None
        while url is None:
            line = process.stdout.readline()
            assert line, f"it ended before it served: {printed}"
            printed += line
            if line.startswith("explorer: "):
                url = line.removeprefix("explorer: ").strip()
        yield Served(process, url, printed)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
