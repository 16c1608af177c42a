"""A stretch of raw rows from one file or data set, read as typed columns; errors name the file and the row."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuesoup.data.pairs import MESSAGES, Message
from valuesoup.errors import UserError, did_you_mean

Row = Mapping[str, object]
T = TypeVar("T")

_LARGEST = 2**53  # beyond it a float takes one whole number for another
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Block:
    """Consecutive raw rows of one source.

    Attributes:
        name: The file or data set, for messages.
        rows: (N,) row numbers in the source, counted from 1 (for JSON lines: the line).
        data: The rows, as an Arrow table or as mappings.
    """

    name: str
    rows: NDArray[np.int64]
    data: pa.Table | list[Row]

    @classmethod
    def from_rows(cls, name: str, rows: Iterable[Row], limit: int | None = None, first: int = 1) -> "Block":
        """Take rows (at most ``limit``) out of any iterable; the next one is row ``first`` of the source.

        Raises:
            UserError: A row is not a mapping of column names to values.
        """
        if not isinstance(rows, Iterable):
            raise UserError(f"{name}: needed are rows (mappings of columns), got {_shown(rows)}")
        taken = list(islice(rows, limit))
        for number, row in enumerate(taken, start=first):
            if not isinstance(row, Mapping):
                raise UserError(f"{name}, row {number}: needed is a mapping of columns, got {_shown(row)}")
        return cls(name, np.arange(first, first + len(taken)), taken)

    @classmethod
    def from_table(cls, name: str, table: pa.Table, first_row: int) -> "Block":
        """Wrap an Arrow table whose first row is row ``first_row`` of the source.

        Raises:
            UserError: The table is damaged or holds text that is not UTF-8.
        """
        try:
            table.validate(full=True)
        except pa.ArrowInvalid as error:
            last = first_row + table.num_rows - 1
            raise UserError(f"{name}, rows {first_row} to {last}: a column is damaged: {error}") from error
        twice = next((one for one in table.column_names if table.column_names.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"{name} has two columns named '{twice}'; which one counts cannot be told")
        return cls(name, np.arange(first_row, first_row + table.num_rows), table)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns; of mappings, those that any row has.

        Raises:
            UserError: A name is no text, or holds half a surrogate pair.
        """
        if isinstance(self.data, list):
            names = dict.fromkeys(key for row in self.data for key in row)
            for name in names:
                if not isinstance(name, str) or _is_broken(name):
                    raise UserError(f"{self.name} has a column named {name!r:.40}; a name is a text in valid Unicode")
            return list(names)
        return list(self.data.column_names)

    def where(self, index: int) -> str:
        """Name the file and the row of the ``index``-th row here."""
        return f"{self.name}, row {self.rows[index]}"

    def column(self, name: str) -> list[object]:
        """Return the (N,) Python values of a column.

        Raises:
            UserError: The column is absent, or absent from a row.
        """
        if not isinstance(self.data, list):
            return list(self._arrow(name).to_pylist())
        values: list[object] = []
        for index, row in enumerate(self.data):
            if name not in row:
                raise UserError(f"{self.where(index)}: no '{name}'{did_you_mean(name, row)}")
            values.append(row[name])
        return values

    def first(self, name: str) -> object:
        """Return the first value of a column that is not null, or None."""
        if isinstance(self.data, list):
            return next((row[name] for row in self.data if row.get(name) is not None), None)
        column = self._arrow(name)
        index = pc.index(pc.is_valid(column), True).as_py()
        return column[index].as_py() if index >= 0 else None

    def texts(self, name: str) -> pa.Array:
        """Return the (N,) texts of a column as large strings, without nulls.

        Raises:
            UserError: A value is not a text (the row is named) or holds half a surrogate pair.
        """
        if isinstance(self.data, list):
            return self._texts_of_rows(name)
        column = self._arrow(name)
        if not _is_text(column.type):
            raise UserError(f"{self.where(0)}: '{name}' must be a text, the column is of type {column.type}")
        if column.null_count:
            index = pc.index(pc.is_null(column), True).as_py()
            raise UserError(f"{self.where(index)}: '{name}' must be a text, got nothing (null)")
        return column.cast(pa.large_string())

    def numbers(self, name: str, *, truths: bool = True) -> NDArray[np.float64]:
        """Return the (N,) numbers of a column, NaN where a row has none.

        Args:
            name: Of the column.
            truths: Take booleans as 0 and 1; else they are refused.

        Raises:
            UserError: A value is neither a number nor a boolean, or is infinite or too large for a float (the row is
            named).
        """
        if isinstance(self.data, list):
            given = [row.get(name) for row in self.data]
            if not truths:
                self.each(given, partial(_no_truth, what=f"'{name}'"))
            return np.array(self.each(given, partial(number, what=f"'{name}'")))
        column = self._arrow(name)
        if not truths and pa.types.is_boolean(column.type):
            raise UserError(f"{self.where(0)}: '{name}' must be a number, the column is of type {column.type}")
        if _is_numeric(column.type):
            whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
            with suppress(pa.ArrowInvalid):  # whole numbers of more digits than a float has
                found = np.asarray(pc.fill_null(whole.cast(pa.float64()), float("nan")), dtype=np.float64)
                if not np.isinf(found).any():
                    return found
        return np.array(self.each(column.to_pylist(), partial(number, what=f"'{name}'")))

    def each(self, values: Iterable[object], convert: Callable[[object], T]) -> list[T]:
        """Apply ``convert`` to (N,) values of this block's rows, naming the row in any ``UserError``."""
        converted: list[T] = []
        for index, value in enumerate(values):
            try:
                converted.append(convert(value))
            except UserError as error:
                raise UserError(f"{self.where(index)}: {error}") from None
        return converted

    def conversations(self, turns: list[list[Message]]) -> pa.Array:
        """Turn (N,) lists of messages of this block's rows into one array of type ``MESSAGES``.

        Raises:
            UserError: A text is not valid Unicode (the row is named).
        """
        offsets = np.concatenate([[0], np.cumsum([len(messages) for messages in turns])]).astype(np.int32)
        try:
            roles = pa.array([m["role"] for messages in turns for m in messages], pa.string())
            contents = pa.array([m["content"] for messages in turns for m in messages], pa.large_string())
        except UnicodeEncodeError as error:
            index = next(i for i, ms in enumerate(turns) if any(_is_broken(m["content"]) for m in ms))
            raise UserError(f"{self.where(index)}: a message is not valid Unicode") from error
        struct = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGES.value_type))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=MESSAGES)

    def is_number(self, name: str) -> bool:
        """Say whether a column holds numbers or booleans, judged by its type or its first value."""
        if not isinstance(self.data, list):
            return _is_numeric(self._arrow(name).type)
        return isinstance(self.first(name), (bool, int, float))

    def _texts_of_rows(self, name: str) -> pa.Array:
        values = self.column(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise UserError(f"{self.where(index)}: '{name}' must be a text, got {_shown(value)}")
        try:
            return pa.array(values, pa.large_string())
        except UnicodeEncodeError as error:
            index = next(i for i, text in enumerate(values) if _is_broken(str(text)))
            raise UserError(f"{self.where(index)}: '{name}' holds text that is not valid Unicode") from error

    def _arrow(self, name: str) -> pa.Array:
        assert not isinstance(self.data, list)
        if name not in self.data.column_names:
            raise UserError(f"{self.name} has no column '{name}'{did_you_mean(name, self.columns)}")
        return self.data[name].combine_chunks()


def number(value: object, what: str) -> float:
    """Return a number or boolean as a float, None as NaN.

    Raises:
        UserError: It is something else, infinite, or a whole number of more digits than a float has.
    """
    if value is None:
        return float("nan")
    if (isinstance(value, int) and abs(value) > _LARGEST) or (isinstance(value, float) and math.isinf(value)):
        raise UserError(f"{what} must be a finite number, and a whole one at most 2^53 in size")
    if isinstance(value, (bool, int, float, Decimal)):
        return float(value)
    raise UserError(f"{what} must be a number, got {_shown(value)}")


def _no_truth(value: object, what: str) -> None:
    if isinstance(value, bool):
        raise UserError(f"{what} must be a number, not {str(value).lower()}")


def messages(value: object, what: str) -> list[Message]:
    """Return a list of messages, checked.

    Raises:
        UserError: It is no list of {role, content}, a content is no text, or a role is unknown.
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{what} must be a list of messages, got {_shown(value)}")
    return [_message(item, f"{what}, message {number}") for number, item in enumerate(value, start=1)]


def _message(item: object, what: str) -> Message:
    if not isinstance(item, Mapping):
        raise UserError(f"{what} must be a mapping of role and content, got {_shown(item)}")
    for key in ("role", "content"):
        if not isinstance(item.get(key), str):
            hint = did_you_mean(key, map(str, item)) if key not in item else f", got {_shown(item[key])}"
            raise UserError(f"{what} needs a text under '{key}'{hint}")
    if item["role"] not in _ROLES:
        raise UserError(f"{what} has the unknown role '{item['role']}'{did_you_mean(item['role'], _ROLES)}")
    return Message(role=item["role"], content=item["content"])


def _is_numeric(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds numbers or booleans."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: object) -> str:
    text = repr(value)
    return "nothing (null)" if value is None else f"{text[:40]}{'…' if len(text) > 40 else ''}"


def batches(name: str, tables: Iterable[pa.Table]) -> Iterator[Block]:
    """Wrap the consecutive tables of one source, counting rows from 1."""
    first = 1
    for table in tables:
        yield Block.from_table(name, table, first)
        first += table.num_rows
