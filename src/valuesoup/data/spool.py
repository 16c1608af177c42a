"""Keeps large tables out of memory: Arrow streams in a temporary file that are read through a memory map."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO
from weakref import WeakSet

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuesoup.errors import RunError

IN_MEMORY = 256 << 20
"""Bytes of a table up to which it stays in memory."""

ROWS = 1 << 16
"""Rows of a table handled at a time."""

_HELD = 64 << 20
_MAPS: "WeakSet[mmap.mmap]" = WeakSet()


def release() -> None:
    """Give back the memory that mapped tables take up; whoever reads them again reads them from their files."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_MAPS):
            mapped.madvise(mmap.MADV_DONTNEED)


def batches(table: pa.Table, columns: Sequence[str] | None = None, size: int = ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in order, at most ``size`` at a time; of a mapped one little is in memory at once."""
    read = 0
    for batch in (table if columns is None else table.select(list(columns))).to_batches(max_chunksize=size):
        yield batch
        read += batch.nbytes
        if read > _HELD:
            release()
            read = 0
    release()


def filtered(table: pa.Table, keep: NDArray[np.bool_]) -> pa.Table:
    """Return the rows where the (N,) mask is true, a large table on disk again."""
    spool = Spool()
    start = 0
    for batch in batches(table):
        spool.add(pa.Table.from_batches([batch.filter(pa.array(keep[start : start + len(batch)]))]))
        start += len(batch)
    return pa.concat_tables([table.slice(0, 0), *spool.tables()])


class Spool:
    """Collects tables end to end: in memory while they are small together, else in a file that has no name.

    The file lies where Python keeps temporary files (``TMPDIR``) and is gone with the last table that is read from it.
    """

    def __init__(self) -> None:
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._schema: pa.Schema | None = None
        self._starts: list[int] = []

    def add(self, table: pa.Table) -> None:
        """Append a table; its columns may differ from those of the others.

        Raises:
            RunError: The disk of temporary files is full or cannot be written.
        """
        self._held.append(table)
        self._bytes += table.nbytes
        if self._bytes > IN_MEMORY:
            self._write()

    def extend(self, tables: Iterable[pa.Table]) -> "Spool":
        """Append tables, one after the other; return this spool."""
        for table in tables:
            self.add(table)
        return self

    def tables(self) -> list[pa.Table]:
        """Return all that was added, in order, as one table or more; nothing can be added after that."""
        if self._file is None:
            return self._held
        self._write()
        with _writing(), self._file as file:
            if self._writer is not None:
                self._writer.close()
            ends = [*self._starts[1:], file.tell()]
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _MAPS.add(mapped)
        whole = pa.py_buffer(mapped)
        spans = zip(self._starts, ends, strict=True)
        return [pa.ipc.open_stream(whole.slice(start, end - start)).read_all() for start, end in spans]

    def _write(self) -> None:
        with _writing():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="valuesoup-")  # noqa: SIM115
            for table in self._held:
                # A stream has one set of columns; where they change, the next stream begins.
                if self._writer is None or self._schema != table.schema:
                    if self._writer is not None:
                        self._writer.close()
                    self._starts.append(self._file.tell())
                    self._schema = table.schema
                    self._writer = pa.ipc.new_stream(self._file, table.schema)
                self._writer.write_table(table, ROWS)
        self._held = []
        release()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Data that are too large for memory cannot be kept in {tempfile.gettempdir()}: "
            f"{error.strerror or error}; make room there, or set TMPDIR to a folder on a disk that has room."
        ) from error
