"""Worker processes that make stages side by side and never outlive the run that started them.

A worker is a spawned process with a pipe to its run. It gets one stage call at a time and hands back what is to be
shown and logged, and at last the artifact or the error. Three things keep an orphan from writing into a folder that
a later run uses: a thread of it waits for the run's end; on Linux the kernel kills it with its run, even where no
thread gets its turn; and while it lives it holds a lock file in the store, for which the next run waits before it
reads anything.
"""

import ctypes
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path

from filelock import FileLock, Timeout

from valuesoup.errors import RunError
from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.files import disk_errors
from valuesoup.store.graph import Node, Work, substitute
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress
from valuesoup.store.relay import Listener, RelayedLog, RelayedProgress, portable
from valuesoup.store.team import whole_team

THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
"""Limit the threads of torch, numpy and Arrow; of tokenizers; of polars. Read when these are first imported."""
LOCKS = ".worker-*.lock"
ORPHAN_SECONDS = 10.0
"""How long a run waits for workers of a killed run; the kernel ends them at once, save in the midst of a write."""
END_SECONDS = 10.0
"""How long an idle worker may take to leave at the end of a run."""


def make_node(node: Node, store: Store, progress: Progress, log: RunLog, found: Mapping[str, Artifact]) -> Artifact:
    """Run one stage in this process and return its artifact.

    Args:
        node: The stage call.
        store: Where artifacts live.
        progress: Shows what goes on.
        log: Receives the stage's events.
        found: The artifacts of the node's parents by their keys.

    Raises:
        RunError: The disk is full or cannot be written. What the stage itself raises passes.
    """
    inputs = substitute(dict(node.inputs), lambda parent: found[parent.key])

    def note(event: str, **fields: object) -> None:
        log.write(event, label=node.label, key=node.key, **fields)

    with disk_errors(node.label, store.root):
        note("start", stage=node.stage.name)
        with store.making(node) as out, whole_team().together(node, out, found):
            node.stage.function(Work(out, progress, node.label, note), **inputs)
        artifact = store.find(node)
        if artifact is None:
            raise RunError(f"{node.label}: its result could not be read back from {store.root}.")
        note("done", stage=node.stage.name, seconds=round(artifact.seconds, 3))
    return artifact


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def await_orphans(store: Store) -> None:
    """Wait until no worker of a killed run is left that could still write into the store.

    Raises:
        RunError: One is left after ``ORPHAN_SECONDS``.
    """
    for path in store.root.glob(LOCKS):
        try:
            with FileLock(path, timeout=ORPHAN_SECONDS):
                path.unlink(missing_ok=True)
        except Timeout:
            raise RunError(
                f"a worker process of an earlier run still holds {path}; end it, then run the same command again."
            ) from None


@dataclass
class _Worker:
    """The run's end of one worker process."""

    process: SpawnProcess
    connection: Connection
    lock: Path
    listener: Listener
    node: Node | None = None


class Workers:
    """Up to ``jobs`` worker processes, started when first needed; a context manager that leaves none behind.

    The CPUs are shared out among them: each computes with ``max(1, CPUs // jobs)`` threads, unless the environment
    says otherwise (OMP_NUM_THREADS and its like), because threads of several processes on one CPU slow each other
    down manifold.
    """

    def __init__(self, jobs: int, store: Store, progress: Progress, log: RunLog) -> None:
        """Prepare; nothing starts yet.

        Args:
            jobs: The most stages to run at a time.
            store: Where artifacts live.
            progress: Shows what goes on in the workers.
            log: Receives the stages' events.
        """
        self.jobs = jobs
        self.store = store
        self.progress = progress
        self.log = log
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Workers":
        self.store.root.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # all are idle, and leave when their pipe closes
            for worker in self._workers:
                worker.connection.close()
            for worker in self._workers:
                worker.process.join(END_SECONDS)
        # A stage may be killed at any moment: its partial folder stays, and it resumes from its checkpoints.
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.lock.unlink(missing_ok=True)

    @property
    def busy(self) -> bool:
        """Whether any stage is running."""
        return any(worker.node is not None for worker in self._workers)

    @property
    def free(self) -> bool:
        """Whether one more stage may start."""
        return sum(worker.node is not None for worker in self._workers) < self.jobs

    def start(self, node: Node, found: Mapping[str, Artifact]) -> None:
        """Start a stage in a free worker; arguments as for :func:`make_node`.

        Raises:
            RunError: The worker has died.
        """
        worker = next((worker for worker in self._workers if worker.node is None), None) or self._hire()
        worker.node = node
        try:
            worker.connection.send((node, {parent.key: found[parent.key] for parent in node.parents}))
        except OSError:
            raise _died(worker, node) from None

    def next_made(self) -> tuple[Node, Artifact]:
        """Show and log what the workers report until one has made its artifact, and return that.

        Raises:
            RunError: A worker died. An error of a stage is raised as it was.
        """
        while True:
            ready = wait([worker.connection for worker in self._workers if worker.node is not None])
            for worker in self._workers:
                node = worker.node
                if node is None or worker.connection not in ready:
                    continue
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    raise _died(worker, node) from None
                artifact = worker.listener.take(message)
                if artifact is not None:
                    worker.node = None
                    return node, artifact

    def _hire(self) -> _Worker:
        spawn, number = get_context("spawn"), len(self._workers) + 1
        lock = self.store.root / LOCKS.replace("*", str(number))
        ours, theirs = spawn.Pipe()
        with theirs, _born_with(max(1, usable_cpus() // self.jobs)):
            process = spawn.Process(target=_serve, args=(theirs, self.store, lock), name=f"valuesoup worker {number}")
            process.start()
            self._workers.append(_Worker(process, ours, lock, Listener(self.progress, self.log)))
        return self._workers[-1]


@contextmanager
def _born_with(threads: int) -> Iterator[None]:
    """Let a process that starts in the block inherit its number of threads, and signals that cannot come yet."""
    limits = {name: str(threads) for name in THREADS if name not in os.environ}
    os.environ.update(limits)
    with ExitStack() as after:
        after.callback(lambda: [os.environ.pop(name) for name in limits])
        if sys.platform != "win32":  # Ctrl-C would end it with a traceback before it can say otherwise
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _stopping())
            after.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        yield


def _stopping() -> set[signal.Signals]:
    """Return the signals that may interrupt a run: the last is that of an interruption which waited for an import."""
    return {signal.SIGINT, signal.SIGTERM, signal.SIGALRM}


def _died(worker: _Worker, node: Node) -> RunError:
    worker.process.join(END_SECONDS)
    code = worker.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return RunError(
        f"{node.label}: its worker process died ({how}); finished stages stay, run the same command again, "
        "with fewer --jobs if memory ran out."
    )


def _serve(connection: Connection, store: Store, lock: Path) -> None:
    """Make stages as they come, until the run closes its end of the pipe or is gone."""
    run = parent_process()
    assert run is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run as well, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the main module, imported here again, has set
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _stopping())
    if sys.platform == "linux":  # a thread would wait for a stage that holds the interpreter's lock
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    with FileLock(lock, timeout=ORPHAN_SECONDS):
        # A run that died before the lock was held did not leave it to its successor to see: then touch nothing.
        while run.is_alive():
            try:
                call = connection.recv_bytes()
            except (EOFError, OSError):
                return
            try:
                node, found = pickle.loads(call)  # from the run that started this process, over their own pipe
                progress = RelayedProgress(connection.send, node.label)
                artifact = make_node(node, store, progress, RelayedLog(connection.send), found)
            except Exception as error:
                connection.send(("failed", portable(error)))
            else:
                connection.send(("made", artifact))


def _end_with(run: BaseProcess) -> None:
    run.join()
    os._exit(1)
