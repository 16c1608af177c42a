"""Atomic writes and content hashes of files and folders."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valuesoup.errors import RunError, UserError, ValuesoupError

NO_ROOM = 64 * 1024
"""Bytes; with less free than this a disk counts as full."""
FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Faults of a disk, whoever meets them."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EFBIG)
"""Faults of a disk where Python meets them: in the words of another library they may be of something else."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: The file to write; its folder must exist.
        content: The whole of it; text is written as UTF-8.

    Raises:
        OSError: The disk is full or the folder is read-only, with ``path`` as its file; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a write that fails names no file, and a person does not know the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def holds(path: Path, text: str) -> bool:
    """Say whether a file already has this content, whatever else it may hold: it may be damaged."""
    return path.is_file() and path.read_bytes() == text.encode()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """Return one hash of a file, or of every file of a folder with its relative name.

    Hidden files and folders do not count: they are caches and editors' leftovers.

    Raises:
        UserError: There is nothing at ``path``.
    """
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give an existing file or folder.")
    digest = hashlib.sha256()
    for file in files_below(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the regular, not hidden files below ``folder``, sorted by relative path."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found)


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn a full, broken or read-only disk, met inside the block, into one sentence.

    Args:
        what: Was being done.
        folder: Where it was being written.

    Raises:
        RunError: The disk is full, over quota, broken, or cannot be written. Other exceptions pass.
    """
    try:
        yield
    except ValuesoupError:
        raise
    except Exception as error:
        reason = _disk_fault(error, folder)
        if reason is None:
            raise
        raise RunError(
            f"{what}: {reason}; finished stages stay, run the same command again once there is room to write."
        ) from error


def file_error(error: OSError) -> ValuesoupError | None:
    """Return one sentence for a fault of the disk or of a path that a person gave; None where it is neither."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL_OR_BROKEN:
        return RunError(f"{where}{error.strerror}; run the same command again once there is room to write.")
    if error.errno in (*REFUSED, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return UserError(f"{where}{error.strerror}; give another file or folder.")
    return None


def _disk_fault(error: Exception, folder: Path) -> str | None:
    """Say what of the disk made a write fail, or None where it was something else."""
    if isinstance(error, OSError) and error.errno in FULL_OR_BROKEN + REFUSED:
        return f"{error.strerror} ({error.filename or folder})"
    while not folder.exists():
        folder = folder.parent
    # numpy, torch and the Rust libraries report a fault of the disk in words of their own, or in none.
    said = next((words for words in map(os.strerror, FULL_OR_BROKEN) if words in str(error)), None)
    if said is None and shutil.disk_usage(folder).free < NO_ROOM:
        said = os.strerror(errno.ENOSPC)
    return f"{said} ({folder})" if said else None
