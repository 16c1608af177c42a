"""The folder of an export: written aside and renamed at the end, so that it stands there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valuesoup.errors import UserError
from valuesoup.store.files import disk_errors, files_below


@contextmanager
def fresh_folder(to: Path) -> Iterator[Path]:
    """Give a folder beside ``to`` to write into; when the block ends well it becomes ``to``, else it is removed.

    A process that is killed outright leaves a hidden folder ``.NAME.partial-…`` beside ``to``, and no ``to``.

    Raises:
        UserError: ``to`` is a file, or a folder that is not empty.
        RunError: The disk is full or cannot be written.
    """
    refuse_occupied(to)
    with disk_errors(f"export {to}", to.parent):
        to.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}.partial-"))
        try:
            inner = aside / to.name  # the temporary folder itself is readable by its owner alone
            inner.mkdir()
            yield inner
            readable = inner.stat().st_mode & 0o444
            for path in files_below(inner):  # safetensors writes files that nobody else may read
                path.chmod(path.stat().st_mode | readable)
            refuse_occupied(to)
            if to.is_dir():
                to.rmdir()
            inner.rename(to)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def refuse_occupied(to: Path) -> None:
    """Refuse a target that holds something already.

    Raises:
        UserError: ``to`` is a file, or a folder that is not empty.
    """
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise UserError(f"export folder {to} is a file or a link; give a folder that is new or empty.")
    if to.is_dir() and any(to.iterdir()):
        raise UserError(f"export folder {to} is not empty; give one that is new or empty.")
