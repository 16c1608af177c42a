"""The reward table: the raw score of every response under every value, kept once and read many times."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError, did_you_mean

PAIR_SIDES = ("chosen", "rejected")
_COLUMNS = ("item", "side", "value", "score")
_NAME = pa.dictionary(pa.int32(), pa.string())
# Responses handled at a time: the temporaries of one chunk stay in the processor's cache.
_CHUNK = 16_384
# Responses laid side by side in one long row: sums over rows then run over contiguous memory, without a copy.
_FOLD = 64
# Rows of a Parquet file written or read at a time.
_ROW_GROUP = 1 << 20


class Names(Sequence[str]):
    """An unchangeable list of texts that takes a quarter of a list's memory; ``pyarrow.array`` takes it as it is."""

    def __init__(self, names: "Sequence[str] | pa.Array") -> None:
        """Hold an Arrow array of strings, or make one."""
        self.array: pa.Array = names if isinstance(names, pa.Array) else pa.array(names, pa.string())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Names": ...
    def __getitem__(self, place: int | slice) -> "str | Names":
        found = self.array[place]
        return Names(found) if isinstance(place, slice) else str(found.as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.array.slice(start, _CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return bool(self.array.equals(other.array))
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({self.array[:3].to_pylist()}{' …' if len(self) > 3 else ''}, {len(self)} in all)"

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        """Be an Arrow array."""
        return self.array if type is None else self.array.cast(type)


@dataclass(frozen=True, eq=False)
class RewardTable:
    """Scores of responses under every value, in raw units; higher is better.

    The scores are checked when the table is made, so that whatever holds a table holds finite numbers.

    Attributes:
        items: Pair ids (or prompt ids, for generated answers), in the order of the data; they are kept as `Names`.
        sides: ``("chosen", "rejected")`` for pairs, candidate ids for generated answers.
        values: Names of the values.
        scores: (items, sides, values) float64.
        dataset: Name of the data set for messages; ``""`` where there is none.

    Raises:
        UserError: The shape does not match the names, a name of a side or value occurs twice, there is no
            item, or a score is NaN or infinite (names the item, the side and the value).
    """

    items: Sequence[str]
    sides: tuple[str, ...]
    values: tuple[str, ...]
    scores: NDArray[np.float64]
    dataset: str = ""

    def __post_init__(self) -> None:
        scores = np.ascontiguousarray(self.scores, dtype=np.float64)
        expected = (len(self.items), len(self.sides), len(self.values))
        if scores.shape != expected:
            raise UserError(
                f"The scores{self._where()} have shape {scores.shape}; {expected[0]} items, "
                f"{expected[1]} sides and {expected[2]} values need {expected}."
            )
        for kind, names in (("side", self.sides), ("value", self.values)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise UserError(f"The {kind} '{twice}' occurs twice in one reward table; names must differ.")
        if not scores.size:
            raise UserError(f"A reward table{self._where()} needs at least one item, one side and one value.")
        finite = np.isfinite(scores)
        if not finite.all():
            item, side, value = (int(index) for index in np.argwhere(~finite)[0])
            raise UserError(
                f"The score of value '{self.values[value]}' for the {self.sides[side]} response of item "
                f"'{self.items[item]}' (row {item}){self._where()} is {scores[item, side, value]}; "
                f"every score must be finite, and {int((~finite).sum())} are not."
            )
        object.__setattr__(self, "items", Names(self.items))
        object.__setattr__(self, "sides", tuple(self.sides))
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.items)

    def _where(self) -> str:
        return f" of data set '{self.dataset}'" if self.dataset else ""

    def value_index(self, value: str) -> int:
        """Return the position of ``value`` on the last axis of ``scores``.

        Raises:
            UserError: The table has no such value; names the nearest one.
        """
        if value not in self.values:
            raise UserError(f"The reward table{self._where()} has no value '{value}'{did_you_mean(value, self.values)}")
        return self.values.index(value)

    def sigma(self) -> NDArray[np.float64]:
        """Return the spread of each value, (n,): the population standard deviation (ddof 0).

        Over all responses of the table, items and sides together (VC-Soup, arXiv:2603.18113, Eq. 10).

        Raises:
            UserError: A reward gives every response the same score (names the value and the data set).
        """
        flat = self.scores.reshape(-1, len(self.values))
        quick = _spread_in_one_pass(flat)
        if quick is not None:
            return quick
        blocks = [flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK)]
        # Values on the first axis: every operation below then runs over contiguous memory.
        found = [(v.sum(axis=1), v.min(axis=1), v.max(axis=1)) for v in map(_by_value, blocks)]
        total, low, high = (np.array(each) for each in zip(*found, strict=True))
        mean, least, most = total.sum(axis=0) / len(flat), low.min(axis=0), high.max(axis=0)
        constant = np.flatnonzero(most == least)
        if constant.size:
            raise UserError(
                f"The reward of value '{self.values[constant[0]]}' gives all {len(flat)} responses"
                f"{self._where()} the same score, {flat[0, constant[0]]:g}; "
                "it cannot be normalised, and a reward must tell responses apart."
            )
        # Deviations are scaled by the largest one, so that squaring neither overflows nor underflows.
        largest = np.maximum(most - mean, mean - least)
        squares = np.zeros(len(self.values))
        for block in map(_by_value, blocks):
            block -= mean[:, None]
            block /= largest[:, None]
            squares += np.square(block, out=block).sum(axis=1)
        return np.asarray(largest * np.sqrt(squares / len(flat)), dtype=np.float64)

    def gaps(self, normalise: bool = True, sigma: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the reward gaps chosen - rejected, (N, n).

        Args:
            normalise: Divide by the spread of each value (in units of its standard deviation); False gives
                raw units.
            sigma: (n,) spreads to divide by; the table's own when absent. A mean cancels in a gap.

        Raises:
            UserError: The table is not one of pairs, a reward has no spread, or ``sigma`` is not n positive
                finite numbers.
        """
        gaps = np.empty((len(self.values), len(self)))
        for _ in self.gap_blocks(normalise, sigma, gaps):
            pass
        return gaps.T

    def gap_blocks(
        self, normalise: bool = True, sigma: ArrayLike | None = None, into: NDArray[np.float64] | None = None
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the reward gaps block by block, each (n, rows) and contiguous, for whoever needs them only once.

        Args:
            normalise: As in :meth:`gaps`, and so are ``sigma`` and the errors.
            sigma: (n,) spreads to divide by.
            into: (n, N), to hold the gaps of all blocks; without it a block is overwritten by the next.
        """
        if set(self.sides) != set(PAIR_SIDES):
            raise UserError(
                f"Reward gaps need the sides 'chosen' and 'rejected'; this table has {', '.join(self.sides)}."
            )
        chosen, rejected = (self.sides.index(side) for side in PAIR_SIDES)
        spread = np.ones(len(self.values))
        if normalise:
            spread = self.sigma() if sigma is None else self._checked(sigma)
        reused = np.empty((len(self.values), min(len(self), _CHUNK)))
        # One value after the other, chunk by chunk: what is written is contiguous, what is read comes from the cache.
        for start in range(0, len(self), _CHUNK):
            scores = self.scores[start : start + _CHUNK]
            block = reused[:, : len(scores)] if into is None else into[:, start : start + _CHUNK]
            for value, out in enumerate(block):
                np.subtract(scores[:, chosen, value], scores[:, rejected, value], out=out)
                out /= spread[value]
            yield block

    def _checked(self, sigma: ArrayLike) -> NDArray[np.float64]:
        spreads = np.asarray(sigma, dtype=np.float64)
        if spreads.shape != (len(self.values),):
            raise UserError(
                f"sigma has shape {spreads.shape}; the {len(self.values)} values {', '.join(self.values)} "
                f"need one number each."
            )
        for value, spread in zip(self.values, spreads, strict=True):
            if not (np.isfinite(spread) and spread > 0):
                raise UserError(f"sigma of value '{value}' is {spread}; it must be a positive finite number.")
        return spreads

    def save(self, path: str | Path) -> None:
        """Write Parquet in long form: one row per response and value (item, side, value, score)."""
        count, sides, values = self.scores.shape
        schema = pa.schema([(name, _NAME) for name in _COLUMNS[:3]] + [(_COLUMNS[3], pa.float64())])
        schema = schema.with_metadata({"valuesoup": json.dumps({"dataset": self.dataset})})
        together = max(_ROW_GROUP // (sides * values), 1)
        with pq.ParquetWriter(Path(path), schema, compression="zstd") as writer:
            for start in range(0, count, together):
                scores = self.scores[start : start + together].reshape(-1)
                rows = np.arange(len(scores), dtype=np.int32)
                columns = (
                    _dictionary(rows // (sides * values), self.items[start : start + together]),
                    _dictionary(rows // values % sides, self.sides),
                    _dictionary(rows % values, self.values),
                    pa.array(scores),
                )
                writer.write_table(pa.table(columns, schema), _ROW_GROUP)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a table that `save` wrote.

        Raises:
            UserError: The file is missing, is not Parquet, or is not a complete reward table in the order
                that `save` writes.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"There is no reward table at {path}.")
        try:
            with pq.ParquetFile(path) as file:
                return cls._read(file, path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is not a Parquet file that can be read ({error}).") from error

    @classmethod
    def _read(cls, file: pq.ParquetFile, path: Path) -> Self:
        """Read block by block: the long form of all of them is many times the table."""
        if tuple(file.schema_arrow.names) != _COLUMNS:
            raise UserError(
                f"{path} is not a reward table: its columns are {', '.join(file.schema_arrow.names)}, not "
                f"{', '.join(_COLUMNS)}."
            )
        sides, values = _distinct(file, "side"), _distinct(file, "value")
        block = max(len(sides) * len(values), 1)
        complete, start, last = file.metadata.num_rows % block == 0, 0, pa.scalar("", pa.string())
        scores = np.empty(file.metadata.num_rows)
        names = [pa.array([], pa.string())]
        for batch in file.iter_batches(_ROW_GROUP):
            rows = np.arange(start, start + len(batch))
            side, value = (_codes(batch[name], known) for name, known in (("side", sides), ("value", values)))
            begins = rows % block == 0
            item = batch["item"].cast(pa.string())
            # Each row is of the item of the one before it, but where an item begins.
            same = pc.equal(item, pa.concat_arrays([pa.array([last.as_py()], pa.string()), item[:-1]])).fill_null(False)
            complete = complete and bool(
                (value == rows % len(values)).all()
                and (side == rows // len(values) % len(sides)).all()
                and (same.to_numpy(zero_copy_only=False) | begins).all()
            )
            scores[start : start + len(batch)] = batch["score"].to_numpy(zero_copy_only=False)
            names.append(item.filter(pa.array(begins)))
            start, last = start + len(batch), item[-1]
        if not complete:
            raise UserError(
                f"{path} is not a complete reward table: every item needs one row per side "
                f"({', '.join(sides)}) and value ({', '.join(values)}), in that order."
            )
        dataset = json.loads((file.schema_arrow.metadata or {}).get(b"valuesoup", b"{}")).get("dataset", "")
        shaped = scores.reshape(-1, len(sides), len(values))
        return cls(Names(pa.concat_arrays(names)), tuple(sides), tuple(values), shaped, dataset)


def _spread_in_one_pass(flat: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the standard deviation of each column of (responses, values), or None where one pass cannot tell it.

    It is √(E[x²] − E[x]²), which loses digits where the spread is small against the mean, and has none where the
    squares leave the range of a float.
    """
    count, values = flat.shape
    total, squares = np.zeros(values), np.zeros(values)
    whole = count // _FOLD * _FOLD
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for rows in (flat[:whole].reshape(-1, _FOLD * values), flat[whole:]):
            for start in range(0, len(rows), 4 * _FOLD):
                block = rows[start : start + 4 * _FOLD]
                total += block.sum(axis=0).reshape(-1, values).sum(axis=0)
                squares += np.einsum("ij,ij->j", block, block).reshape(-1, values).sum(axis=0)
        mean = total / count
        variance = squares / count - mean**2
        safe = np.isfinite(squares) & (squares > 1e-200) & (variance > 1e-4 * mean**2)
    return np.sqrt(variance) if safe.all() else None


def _by_value(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a contiguous copy of (responses, values) scores with the values on the first axis."""
    return np.array(scores.T, order="C")


def _dictionary(codes: NDArray[np.int32], names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), Names(names).array)


def _distinct(file: pq.ParquetFile, column: str) -> list[str]:
    """Return the distinct texts of a column in order of appearance."""
    found: dict[str, None] = {}
    for batch in file.iter_batches(_ROW_GROUP, columns=[column]):
        found.update(dict.fromkeys(batch[column].cast(pa.string()).unique().to_pylist()))
    return list(found)


def _codes(column: pa.Array, known: list[str]) -> NDArray[np.int32]:
    """Return each row's position among the names."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(known, pa.string())).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)
