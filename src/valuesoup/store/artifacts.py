"""Content-addressed artifacts: one folder per stage result, written aside, renamed, verified on reading."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from valuesoup.errors import RunError, UserError
from valuesoup.store.files import files_below, hash_file, write_atomic
from valuesoup.store.graph import Node

if TYPE_CHECKING:
    from valuesoup.store.remote import Remote

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

    def at(self, root: Path) -> "Artifact":
        """Return it as it is called below another name of its store's folder."""
        return replace(self, path=root / self.path.name)


class Store:
    """The artifacts of one run, with an optional second store shared between runs, and one shared between machines.

    Results of nodes that ``share`` accepts are also kept in the shared store and taken from there: the
    reference log-probabilities of a base, say, serve every run on the same pairs. All results are also kept in the
    remote store, and taken from there by whichever machine needs them.
    """

    def __init__(
        self,
        root: Path,
        shared: Path | None = None,
        share: Callable[[Node], bool] | None = None,
        remote: "Remote | None" = None,
    ) -> None:
        """Open or create the store.

        Args:
            root: The folder of the run's artifacts.
            shared: The folder of the shared store, or None for none.
            share: Says whether a node's result is shared; by default every one is.
            remote: The store between machines, or None for none.
        """
        self.remote = remote
        self.root = root
        self.shared = shared
        self.share = share
        self._verified: dict[Path, Artifact] = {}

    def find(self, node: Node, complain: Callable[[str], None] = lambda _: None) -> Artifact | None:
        """Return the node's verified artifact, or None where it must be made.

        A damaged artifact is named through ``complain`` and removed, so that it is made again.
        """
        final = self.root / node.folder
        if final in self._verified:
            return self._verified[final]
        partial = self._partial(node)
        if (partial / MANIFEST).is_file() and fault(partial) is None:  # stopped just before its rename
            self._publish(node)
        if not self._sound(final, complain):
            kept = self._shared(node)
            if kept is not None and _usable(kept, complain):
                _copy(kept, final)
            elif self.remote is None or not self.remote.fetch(final, complain):
                return None
        return self._opened(node)

    def look(self, node: Node) -> Artifact | str:
        """Return the node's verified artifact, or the words for what is wrong with it, and change nothing.

        The words go on from the name of the run: ``lacks …`` or ``holds a damaged …``.
        """
        final = self.root / node.folder
        if final in self._verified:
            return self._verified[final]
        try:
            if not os.path.lexists(final):
                return f"lacks {node.folder}"
            wrong = fault(final)
            if wrong is None:
                return self._opened(node)
        except OSError as error:
            wrong = f"it cannot be read: {error.strerror or error}"
        return f"holds a damaged {node.folder} ({wrong})"

    def is_done(self, node: Node) -> bool:
        """Say whether a result stands there with all of its files, as far as can be said without reading these."""
        return any(
            folder is not None and _stands(folder) and _outline_fault(folder) is None
            for folder in (self.root / node.folder, self._shared(node))
        )

    @contextmanager
    def making(self, node: Node) -> Iterator[Path]:
        """Give the folder to write the node's result into; when the block ends well, it becomes the artifact.

        The folder keeps its name between attempts, so that a stage can resume from its own checkpoints. It must
        be used by one process at a time (see :func:`lock_run`).
        """
        partial = self._partial(node)
        partial.mkdir(parents=True, exist_ok=True)
        (partial / MANIFEST).unlink(missing_ok=True)  # of an attempt whose files did not match it
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
        manifest["sha256"] = _digest(json.loads(json.dumps(manifest)))
        write_atomic(partial / MANIFEST, json.dumps(manifest, indent=1))
        self._publish(node)
        if self.remote is not None:
            self.remote.put(self.root / node.folder)
        self.keep_shared(node)

    def keep_shared(self, node: Node) -> None:
        """Keep a finished result for other runs on this machine, where it is of use to them."""
        shared = self._shared(node)
        with suppress(OSError):  # other runs would have saved time; this one has its result
            if shared is not None and not shared.is_dir():
                _copy(self.root / node.folder, shared)

    def offer(self, node: Node) -> None:
        """Upload a finished result that the remote store lacks, because it was made before there was one.

        Raises:
            RunError: The remote store cannot be reached or written.
        """
        if self.remote is not None and not self.remote.has(node.folder):
            self.remote.put(self.root / node.folder)

    def _opened(self, node: Node) -> Artifact:
        """Return the node's artifact, which stands there whole."""
        final = self.root / node.folder
        manifest = json.loads((final / MANIFEST).read_text(encoding="utf-8"))
        self._verified[final] = Artifact(final, node.key, float(manifest["seconds"]))
        return self._verified[final]

    def _publish(self, node: Node) -> None:
        partial = self._partial(node)
        for path in partial.iterdir():
            if path.name.startswith("."):  # checkpoints and the like, of no use any more
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        partial.rename(self.root / node.folder)

    def _partial(self, node: Node) -> Path:
        return self.root / f".partial-{node.folder}"

    def _shared(self, node: Node) -> Path | None:
        return (
            self.shared / node.folder if self.shared is not None and (self.share is None or self.share(node)) else None
        )

    def _sound(self, folder: Path, complain: Callable[[str], None]) -> bool:
        """Say whether an artifact stands there whole; a damaged one is removed."""
        if not os.path.lexists(folder):
            return False
        wrong = fault(folder)
        if wrong is not None:
            complain(f"artifact {folder.name} is damaged ({wrong}); it is made again")
            # Of a link, that somebody put there for the sake of room, what it leads to is theirs.
            shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
        return wrong is None


def fault(folder: Path) -> str | None:
    """Say what is wrong with an artifact folder, or None.

    Raises:
        OSError: A file of it cannot be read.
    """
    if (wrong := _outline_fault(folder)) is not None:
        return wrong
    for entry in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]:
        if hash_file(folder / str(entry["name"])) != entry.get("sha256"):
            return f"{entry['name']} differs from its hash"
    return None


def _outline_fault(folder: Path) -> str | None:
    """Say what is wrong with an artifact's manifest, or with which files are there and how long they are."""
    if not folder.is_dir():
        return "it is no folder"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {str(entry["name"]): entry for entry in manifest["files"]}
        float(manifest["seconds"])
        if not folder.name.endswith(f"-{manifest['key']}"):
            return f"{MANIFEST} is that of another artifact"
        if manifest.get("sha256", _digest(manifest)) != _digest(manifest):  # early ones have none
            return f"{MANIFEST} differs from its hash"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{MANIFEST} is missing or unreadable"
    present = {path.relative_to(folder).as_posix() for path in files_below(folder)} - {MANIFEST}
    if present != set(listed):
        odd = sorted(present ^ set(listed))[0]
        return f"{odd} is {'missing' if odd in listed else 'not in the manifest'}"
    for name, entry in listed.items():
        if (folder / name).stat().st_size != entry.get("bytes"):
            return f"{name} differs from its hash"
    return None


def _digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest but for what it says that to be, as 64 hex digits."""
    content = {name: of for name, of in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stands(folder: Path) -> bool:
    """Say whether there is such a folder, as far as one may look."""
    try:
        return folder.is_dir()
    except OSError:
        return False


def _usable(shared: Path, complain: Callable[[str], None]) -> bool:
    """Say whether a shared artifact stands there whole; a damaged one is removed where that is possible.

    What cannot be read or removed there stops no run: it only saves no time.
    """
    try:
        wrong = fault(shared) if shared.is_dir() else None
        if wrong is None:
            return shared.is_dir()
    except OSError:
        return False
    complain(f"shared artifact {shared} is damaged ({wrong}); it is not used")
    shutil.rmtree(shared, ignore_errors=True)
    return False


def lend(node: Node, of: Store, to: Store) -> None:
    """Let a finished result stand in another store too, where it is not there; on one disk it takes no more room."""
    if (of.root / node.folder / MANIFEST).is_file() and not (to.root / node.folder).exists():
        _copy(of.root / node.folder, to.root / node.folder, _link)


def _link(file: str, to: str) -> None:
    try:
        os.link(file, to)
    except OSError:  # another disk, or one without links
        shutil.copy2(file, to)


def _copy(artifact: Path, to: Path, each: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy a finished artifact so that it stands there whole or not at all, whoever else does the same."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".copy-") as scratch:
        copy = shutil.copytree(artifact, Path(scratch) / to.name, copy_function=each)
        try:
            copy.rename(to)
        except OSError:
            if not to.is_dir():  # else another run published the same result meanwhile
                raise


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
