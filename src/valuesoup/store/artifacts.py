"""Content-addressed artifacts: one folder per stage result, written aside, renamed, verified on reading."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from valuesoup.errors import RunError, UserError
from valuesoup.store.files import files_below, hash_file, write_atomic
from valuesoup.store.graph import Node

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A finished, verified stage result."""

    path: Path
    key: str
    seconds: float

    def json(self, name: str) -> Any:
        """Read one of its JSON files."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


class Store:
    """The artifacts of one run, with an optional second store shared between runs.

    Results of nodes whose stage is named in ``share`` are also kept in the shared store and taken from there: the
    reference log-probabilities of a base, say, serve every run on the same pairs.
    """

    def __init__(self, root: Path, shared: Path | None = None, share: frozenset[str] = frozenset()) -> None:
        """Open or create the store.

        Args:
            root: The folder of the run's artifacts.
            shared: The folder of the shared store, or None for none.
            share: Names of the stages that are shared.
        """
        self.root = root
        self.shared = shared
        self.share = share
        self._verified: dict[Path, Artifact] = {}

    def find(self, node: Node, complain: Callable[[str], None] = lambda _: None) -> Artifact | None:
        """Return the node's verified artifact, or None where it must be made.

        A damaged artifact is named through ``complain`` and removed, so that it is made again.
        """
        partial = self._partial(node)
        if (partial / MANIFEST).is_file() and self._fault(partial) is None:  # stopped just before its rename
            self._publish(node)
        for folder in self._folders(node):
            artifact = self._verified.get(folder)
            if artifact is not None:
                return artifact
            if not folder.is_dir():
                continue
            fault = self._fault(folder)
            if fault is None:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                artifact = Artifact(folder, node.key, float(manifest["seconds"]))
                self._verified[folder] = artifact
                return artifact
            complain(f"artifact {folder.name} is damaged ({fault}); it is made again")
            shutil.rmtree(folder)
        return None

    def is_done(self, node: Node) -> bool:
        """Say whether a result with a manifest stands there, without reading it."""
        return any((folder / MANIFEST).is_file() for folder in self._folders(node))

    @contextmanager
    def making(self, node: Node) -> Iterator[Path]:
        """Give the folder to write the node's result into; when the block ends well, it becomes the artifact.

        The folder keeps its name between attempts, so that a stage can resume from its own checkpoints. It must
        be used by one process at a time (see :func:`lock_run`).
        """
        partial = self._partial(node)
        partial.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        yield partial
        spent = time.perf_counter() - started
        files = [
            {
                "name": path.relative_to(partial).as_posix(),
                "bytes": path.stat().st_size,
                "sha256": hash_file(path),
            }
            for path in files_below(partial)
        ]
        manifest = {**node.identity, "key": node.key, "label": node.label, "seconds": spent, "files": files}
        write_atomic(partial / MANIFEST, json.dumps(manifest, indent=1))
        self._publish(node)

    def _publish(self, node: Node) -> None:
        partial, final = self._partial(node), self._target(node)
        for path in partial.iterdir():
            if path.name.startswith("."):  # checkpoints and the like, of no use any more
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if final.exists():  # another run published the same shared result meanwhile
            shutil.rmtree(partial)
        else:
            partial.rename(final)

    def _target(self, node: Node) -> Path:
        shared = self.shared is not None and node.stage.name in self.share
        return (self.shared if shared and self.shared else self.root) / node.folder

    def _partial(self, node: Node) -> Path:
        # In the target's own folder, so that the rename stays on one file system. The run's own store is locked by
        # one process; in the shared one, runs at work on the same result must not write into one folder.
        target = self._target(node)
        mark = "" if target.parent == self.root else f"-{os.getpid()}"
        return target.with_name(f".partial-{target.name}{mark}")

    def _folders(self, node: Node) -> list[Path]:
        target = self._target(node)
        own = self.root / node.folder
        return [target] if target == own else [own, target]

    @staticmethod
    def _fault(folder: Path) -> str | None:
        """Say what is wrong with an artifact folder, or None."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            listed = {str(entry["name"]): entry for entry in manifest["files"]}
            float(manifest["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"{MANIFEST} is missing or unreadable"
        present = {path.relative_to(folder).as_posix() for path in files_below(folder)} - {MANIFEST}
        if present != set(listed):
            odd = sorted(present ^ set(listed))[0]
            return f"{odd} is {'missing' if odd in listed else 'not in the manifest'}"
        for name, entry in listed.items():
            path = folder / name
            if path.stat().st_size != entry.get("bytes") or hash_file(path) != entry.get("sha256"):
                return f"{name} differs from its hash"
        return None


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process.

    Raises:
        UserError: Another process holds it.
        RunError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"run folder {folder} is in use by another process; wait for it, or choose another --out."
        ) from None
    except OSError as error:
        raise RunError(f"run folder {folder} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()
