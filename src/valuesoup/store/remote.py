"""Finished artifacts behind a URL (s3://…, or whatever fsspec opens), for machines that share no folder.

Below the URL each artifact has a folder: its files under the SHA-256 of their bytes, and, written last, the manifest
that names them. So a half upload has no manifest, two machines that write the same artifact cannot mix it up, and
what arrives is checked against the manifest before it is taken.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from valuesoup.errors import RunError, UserError, ValuesoupError
from valuesoup.store.artifacts import MANIFEST, fault

HASH = re.compile(r"[0-9a-f]{64}")
BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
"""Storages without folders, where making one would make a bucket."""
FOLDERS = frozenset({"file", "local", "memory"})
"""Storages on this machine, whose URLs name no host."""
MARK = "valuesoup.txt"


@dataclass(frozen=True)
class Remote:
    """The folder behind a URL.

    What is needed to reach it (keys, an endpoint) comes from where the storage's own library takes it: the
    environment, its configuration files, the machine's role. It is never part of the URL.
    """

    url: str

    def check(self) -> None:
        """Write a line to the URL, so that a run does not learn at its first result that it may not.

        Raises:
            UserError: It holds a password, names no storage that is installed, or cannot be reached or written.
        """
        # A URL that may hold a key is not repeated: a slash in the key moves the @ anywhere.
        if any(mark in self.url for mark in "@?#"):
            raise UserError(
                "--artifacts: keep keys and options (@, ?, #) out of the URL, which is shown and logged; set them in "
                "the environment, such as AWS_ACCESS_KEY_ID."
            )
        try:
            parts = urlsplit(self.url)
            known = parts.port is None or parts.netloc
        except ValueError:  # no port, such as a key behind a colon
            known = ""
        if not known or not parts.scheme or not self.url.startswith(f"{parts.scheme}://"):
            raise UserError("--artifacts is no URL; write one such as s3://bucket/folder or file:///folder.")
        if not parts.netloc and parts.scheme not in FOLDERS:
            raise UserError(f"--artifacts {parts.scheme}:// names no bucket or host; write s3://bucket/folder.")
        try:
            _ = self._files
        except ImportError as error:
            extra = "; pip install 'valuesoup[s3]'" if parts.scheme == "s3" else ""
            raise UserError(f"--artifacts {self.url} needs a library that is not installed: {error}{extra}.") from None
        except ValueError as error:
            raise UserError(f"--artifacts {self.url}: {_one_line(error)}") from None
        with self._failing("cannot be written", UserError):
            self._make_folder()
            self._files.pipe_file(self._at(MARK), b"artifacts of valuesoup\n")

    def has(self, folder: str) -> bool:
        """Say whether the manifest of an artifact stands there, without reading the artifact.

        Raises:
            RunError: The storage cannot be reached.
        """
        with self._failing("cannot be read"):
            return bool(self._files.isfile(self._at(folder, MANIFEST)))

    def put(self, artifact: Path) -> None:
        """Upload a finished artifact, its manifest last; what a broken upload left there is written anew.

        Raises:
            RunError: The storage cannot be written.
        """
        manifest = (artifact / MANIFEST).read_bytes()
        with self._failing(f"did not take {artifact.name}"):
            self._make_folder(artifact.name)
            for entry in json.loads(manifest)["files"]:
                self._files.put_file(str(artifact / entry["name"]), self._at(artifact.name, entry["sha256"]))
            self._files.pipe_file(self._at(artifact.name, MANIFEST), manifest)

    def fetch(self, to: Path, complain: Callable[[str], None]) -> bool:
        """Download the artifact that is named as the folder ``to``, and say whether it stands there now, whole.

        A damaged one is named through ``complain`` and not taken.

        Raises:
            RunError: The storage cannot be reached.
        """
        name = to.name
        with self._failing(f"did not give {name}"):
            try:
                manifest = self._files.cat_file(self._at(name, MANIFEST))
            except FileNotFoundError:
                return False
            to.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=to.parent, prefix=".copy-") as scratch:
                copy = Path(scratch) / name
                copy.mkdir()
                (copy / MANIFEST).write_bytes(manifest)
                wrong = self._fetch_files(copy) or fault(copy)
                if wrong is not None:
                    complain(f"artifact {name} in {self.url} is damaged ({wrong}); it is made again")
                    return False
                try:
                    copy.rename(to)
                except OSError:
                    if not to.is_dir():  # else another process fetched the same one meanwhile
                        raise
        return True

    def _fetch_files(self, copy: Path) -> str | None:
        """Download what the manifest in ``copy`` names; return what is wrong, or None."""
        try:
            manifest = json.loads((copy / MANIFEST).read_bytes())
            listed = [(str(entry["name"]), str(entry["sha256"])) for entry in manifest["files"]]
            if not copy.name.endswith(f"-{manifest['key']}"):
                return f"{MANIFEST} is that of another artifact"
        except (ValueError, KeyError, TypeError):
            return f"{MANIFEST} is unreadable"
        for name, digest in listed:
            if not _inside(name) or not HASH.fullmatch(digest):
                return f"{MANIFEST} names no file {name!r} of an artifact"
        for name, digest in listed:
            path = copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._files.get_file(self._at(copy.name, digest), str(path))
            except FileNotFoundError:
                return f"{name} is missing"
        return None

    @cached_property
    def _files(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)[0]

    def _make_folder(self, *parts: str) -> None:
        if urlsplit(self.url).scheme not in BUCKETS:
            self._files.makedirs(self._at(*parts), exist_ok=True)

    def _at(self, *parts: str) -> str:
        return "/".join([self._files._strip_protocol(self.url).rstrip("/"), *parts])

    @contextmanager
    def _failing(self, how: str, kind: type[ValuesoupError] = RunError) -> Iterator[None]:
        """Turn whatever the storage's library raises into one sentence, of ``kind``."""
        try:
            yield
        except ValuesoupError:
            raise
        except Exception as error:  # each library has errors of its own
            raise kind(
                f"{self.url} {how} ({type(error).__name__}: {_one_line(error)}); finished stages stay, run the same "
                "command again once it can be reached."
            ) from error

    def __getstate__(self) -> dict[str, str]:
        """Travel without the open connection, which belongs to one process."""
        return {"url": self.url}


def _inside(name: str) -> bool:
    """Say whether a name in a manifest stays below the artifact's folder."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)  # ".." among them
    return bool(path.parts) and not path.is_absolute() and not hidden and "\\" not in name and ":" not in name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
