"""What runs on a machine of a Ray cluster, in a process of its own: makes one stage at a time for its run."""

import os
import pickle
import queue
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from valuesoup.errors import RunError
from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.graph import Node
from valuesoup.store.kept import KEPT
from valuesoup.store.relay import Message, RelayedLog, RelayedProgress, portable
from valuesoup.store.workers import make_node

SEEN_SECONDS = 60.0
"""How long a machine may take to see what another one wrote into the shared folder (NFS keeps old listings)."""


class Actor:
    """What runs on a machine of the cluster, in a process of its own."""

    def __init__(self, store: Store, lock: Path | None, threads: Mapping[str, str], paths: Sequence[str]) -> None:
        os.environ.update(threads)  # before a stage imports what reads them
        sys.path += [path for path in paths if path not in sys.path]  # where the run finds a user's own functions
        self._store = store
        self._lock = lock
        self._held: Any = None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        KEPT.begin()

    def greet(self, wanted: str, patience: float) -> tuple[str, str | None]:
        """Return this machine's name, and in one sentence why it cannot serve, or None."""
        host = socket.gethostname()
        if (here := version("valuesoup")) != wanted:
            return host, f"machine {host} has valuesoup {here}, and the run has {wanted}; install the same on both."
        if self._lock is None:
            self._own = tempfile.TemporaryDirectory(prefix="valuesoup-")
            self._store.root = Path(self._own.name)
            return host, None
        if not _seen(self._lock, patience):
            return host, (
                f"machine {host} does not see {self._store.root}; put the run folder on a path that all machines of "
                "the cluster share, or give --artifacts URL."
            )
        self._held = FileLock(self._lock, timeout=SEEN_SECONDS)
        self._held.acquire()  # until this process ends
        return host, None

    def make(self, sent: bytes, label: str) -> Iterator[Message]:
        """Make a stage, and yield what is to be shown and logged, then the artifact or the error."""
        told: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._make, args=(sent, label, told.put), daemon=True).start()
        while True:
            message = told.get()
            yield message
            if message[0] in ("made", "failed"):
                return

    def leave(self) -> None:
        """Remove what this actor alone has used."""
        if self._own is not None:
            self._own.cleanup()

    def _make(self, sent: bytes, label: str, send: Callable[[Message], None]) -> None:
        try:
            made = make_sent(sent, label, self._store, send)
        except Exception as error:
            send(("failed", portable(error)))
        except BaseException as error:  # in a thread it would end nothing but the messages
            send(("failed", portable(RuntimeError(f"{type(error).__name__}: {error}"))))
        else:
            send(("made", made))


def make_sent(sent: bytes, label: str, store: Store, send: Callable[[Message], None]) -> Artifact:
    """Make the stage that a run has sent, and tell it meanwhile what is to be shown and logged.

    Raises:
        RunError: As :func:`valuesoup.store.workers.make_node`, or an artifact that it needs is not to be had here.
    """
    node, found = _received(sent, store)
    made = store.find(node)  # a worker that was lost may have finished it
    return made or make_node(node, store, RelayedProgress(send, label), RelayedLog(send), found)


def _received(sent: bytes, store: Store) -> tuple[Node, Mapping[str, Artifact]]:
    """Return the call of a stage that a run has sent, and the artifacts of its parents as they are on this machine.

    Raises:
        RunError: One is not there.
    """
    node, found = pickle.loads(sent)  # from the run that started this actor
    assert isinstance(node, Node)
    found = found or {parent.key: fetched(store, parent) for parent in node.parents}
    for parent in found.values():
        if not _seen(parent.path):
            raise RunError(f"machine {socket.gethostname()} does not see {parent.path}; is it still shared?")
    return node, found


def fetched(store: Store, node: Node) -> Artifact:
    """Return an artifact that the run has, from the remote store where it is not here.

    Raises:
        RunError: It is not there any more.
    """
    artifact = store.find(node)
    if artifact is None:
        assert store.remote is not None
        raise RunError(f"{node.folder} is not whole in {store.remote.url}; run the same command again.")
    return artifact


def _seen(path: Path, patience: float = SEEN_SECONDS) -> bool:
    deadline = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
