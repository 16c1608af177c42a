"""Runs command lines in forks of one process with a mount namespace of its own, and lets them meet faults.

What a test reads and writes on its file systems it reaches through `Machine.at`. Usage of the process: machine.py.
"""

import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_run

BALLAST = ".ballast"
"""The file that fills a disk."""
YEAR = 365.0 * 24 * 3600


@dataclass(frozen=True)
class Ended:
    """A command line that has ended."""

    code: int
    out: str
    errors: str

    def told(self, code: int) -> str:
        """Return the one sentence of a command that had to fail with this exit code."""
        assert self.code == code, (self.code, self.out, self.errors)
        assert "Traceback" not in self.out + self.errors, self.errors
        (line,) = self.errors.strip().splitlines()
        assert line.startswith("error: "), line
        return line.removeprefix("error: ")

    def well(self) -> str:
        """Return what a command printed that had to succeed."""
        assert (self.code, self.errors) == (0, ""), (self.out, self.errors)
        return self.out


class Machine:
    """The test's end of the process."""

    def __init__(self, unshare: list[str]) -> None:
        """Start it.

        Args:
            unshare: What it is started by, to have a mount namespace of its own; empty: it has none.
        """
        self.mounts = bool(unshare)
        self._process = subprocess.Popen(
            [*unshare, sys.executable, str(Path(__file__))],
            env=tiny_run.environment(Path("unused")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def valuesoup(
        self,
        cache: Path,
        *arguments: str | Path,
        at: tuple[str, str] | None = None,
        fill: "Disk | None" = None,
        clock: tuple[float, float] = (0.0, 1.0),
    ) -> Ended:
        """Run a command line to its end.

        Args:
            cache: The folder shared between runs.
            arguments: Behind ``valuesoup``.
            at: An audit event and a pattern of its first argument: the moment at which a fault comes.
            fill: The disk that is full from that moment on; None: the process is killed.
            clock: Seconds by which the clock of the command is ahead, and how fast it goes.
        """
        asked = {"arguments": list(map(str, arguments)), "fault": _fault(at, fill), "clock": clock}
        return Ended(*self._ask(cache=str(cache), **asked))

    def completes(self, cache: Path, run: Path, at: tuple[str, str] | None = None, fill: "Disk | None" = None) -> str:
        """Continue a run from Python, which writes no report and so takes seconds less; return what it shows."""
        return Ended(*self._ask(run=str(run), cache=str(cache), fault=_fault(at, fill))).well()

    def shell(self, *command: str | Path) -> None:
        """Run a command of the system in the namespace, which must succeed."""
        code, out, errors = self._ask(system=list(map(str, command)))
        assert code == 0, (command, out, errors)

    def at(self, path: Path) -> Path:
        """Return where a path of the namespace is found from here."""
        return Path(f"/proc/{self._process.pid}/root{path}") if self.mounts else path

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, **request: Any) -> tuple[int, str, str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code, out, errors = json.loads(self._process.stdout.readline())
        return code, out, errors


@dataclass(frozen=True)
class Disk:
    """A small file system of the machine, at ``path`` there."""

    machine: Machine
    path: Path

    @property
    def here(self) -> Path:
        """Where this process finds it."""
        return self.machine.at(self.path)

    def holds(self, run: Path) -> tuple[Path, Path]:
        """Copy a run there; return its path on the machine, and where this process finds it."""
        return self.path / "run", shutil.copytree(run, self.here / "run")

    def fill(self) -> None:
        """Take every free block."""
        fill(self.here)

    @property
    def is_full(self) -> bool:
        """Whether it was filled, and not cleared since."""
        return (self.here / BALLAST).is_file()

    def clear(self) -> None:
        """Make room again; the disk must have been full."""
        (self.here / BALLAST).unlink()

    def protect(self) -> None:
        """Let nothing be written any more."""
        self.machine.shell("mount", "-o", "remount,ro", self.path)

    def release(self) -> None:
        """Let it be written again."""
        self.machine.shell("mount", "-o", "remount,rw", self.path)


def _fault(at: tuple[str, str] | None, disk: Disk | None) -> list[str | None] | None:
    return None if at is None else [*at, None if disk is None else str(disk.path)]


def fill(disk: Path) -> None:
    """Take every free block of a file system."""
    file = os.open(disk / BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(file, bytes(size))
        except OSError:  # full, for blocks of this size
            continue
    os.close(file)


def kinds(run: Path) -> dict[str, list[Path]]:
    """Return the folders of a run's artifacts by the stage that made them, each once, in the order of a run."""
    found: dict[str, list[Path]] = {}
    for event in events(run):
        if event["event"] == "done":
            folder = run / "artifacts" / f"{event['stage']}-{event['key']}"
            assert folder.is_dir(), folder
            found.setdefault(str(event["stage"]), []).append(folder)
    return found


def events(run: Path) -> list[dict[str, Any]]:
    """Return the log of a run, every line of which must be whole."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def _serve() -> None:
    import valuesoup.cli  # noqa: F401  # first, since it quietens the others

    import peft  # noqa: F401  # isort: skip
    import torch  # noqa: F401
    import transformers  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _run(request)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, errors):
                file.seek(0)
                texts.append(file.read().decode())
        print(json.dumps([code, *texts]), flush=True)


def _run(request: Mapping[str, Any]) -> None:
    """Be the command; never returns."""
    if "system" in request:
        os.execvp(request["system"][0], request["system"])
    code = 1
    try:
        os.environ["VALUESOUP_CACHE"] = request["cache"]
        if request["fault"]:
            _wait_for(*request["fault"])
        if "run" in request:
            _complete(Path(request["run"]))
        else:
            _command(**request)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _complete(folder: Path) -> None:
    from valuesoup.cli.app import console
    from valuesoup.configfile import load_config
    from valuesoup.pipeline.run import run
    from valuesoup.store import Progress

    run(load_config(folder / "config.yaml"), folder, Progress(console()))


def _command(arguments: list[str], clock: tuple[float, float], **_: Any) -> None:
    from valuesoup.cli import main

    true, start, (ahead, pace) = time.time, time.time(), clock
    time.time = lambda: start + ahead + pace * (true() - start)
    sys.argv = ["valuesoup", *arguments]
    main()


def _wait_for(event: str, pattern: str, disk: str | None) -> None:
    """Fill the disk, or die, as soon as something happens."""
    waiting = True

    def hear(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal waiting
        if waiting and name == event and fnmatch.fnmatch(str(arguments[0]), pattern):
            waiting = False
            if disk is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                fill(Path(disk))

    sys.addaudithook(hear)


if __name__ == "__main__":
    _serve()
