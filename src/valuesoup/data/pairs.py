"""Preference pairs, which every other room reads: messages on Arrow, immutable, in the order of the source."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from valuesoup.data import spool
from valuesoup.data.spool import ROWS, Spool, batches, filtered, release
from valuesoup.errors import UserError, did_you_mean


class Message(TypedDict):
    """One turn of a conversation: who speaks (``system``, ``user``, ``assistant``, …) and the text."""

    role: str
    content: str


Messages = Sequence[Message]

# Text beyond 2 GiB in one column must not overflow, hence the large offsets.
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
_SOURCE = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "id": pa.string(),
    "prompt_id": pa.string(),
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "source": _SOURCE,
    "row": pa.int64(),
}
_CHOSEN, _REJECTED = "chosen_score/", "rejected_score/"
_DROPPED = b"valuesoup.dropped"
_ROW_GROUP = 1 << 20


@dataclass(frozen=True)
class Pair:
    """One preference: to ``prompt``, ``chosen`` was preferred over ``rejected``.

    ``id`` is the hash of all three, 16 hexadecimal digits; the same text has the same id everywhere.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


class Pairs:
    """An immutable, ordered set of preference pairs on an Arrow table.

    Columns of ``table``: ``id`` and ``prompt_id`` (16 hexadecimal digits), ``prompt``, ``chosen``,
    ``rejected`` (lists of role and content), ``source`` and ``row`` (where the pair was read, rows counted
    from 1), and per scored value two float64 columns ``chosen_score/<value>``, ``rejected_score/<value>``
    (NaN where a score is absent). Large tables lie in a temporary file and are read through a memory map, see
    ``valuesoup.data.spool``.

    Args:
        table: The columns above, e.g. from ``Pairs.from_columns`` or another ``Pairs``.
        dropped: Rows dropped on the way here, by reason.

    Raises:
        UserError: A column is missing or has another type.
    """

    def __init__(self, table: pa.Table, dropped: Mapping[str, int] | None = None) -> None:
        for name, kind in _COLUMNS.items():
            if name not in table.column_names:
                raise UserError(f"a table of pairs lacks the column '{name}'; load raw data with load_pairs")
            if table.schema.field(name).type != kind:
                found = table.schema.field(name).type
                raise UserError(f"a table of pairs has '{name}' as {found}, needed is {kind}")
        self.table = table
        self.dropped: dict[str, int] = dict(dropped or {})

    @classmethod
    def from_columns(
        cls,
        prompt: pa.Array,
        chosen: pa.Array,
        rejected: pa.Array,
        source: str | pa.Array,
        rows: NDArray[np.int64],
        scores: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> "Pairs":
        """Build pairs from columns of messages and give each its ids.

        Args:
            prompt: (N,) array of type ``MESSAGES``; so are ``chosen`` and ``rejected``.
            chosen: The preferred answers.
            rejected: The other answers.
            source: Name of the file or data set, or (N,) names.
            rows: (N,) row numbers in the source, counted from 1.
            scores: Per value the (N,) scores of the chosen and of the rejected answers.
            dropped: Rows already dropped, by reason.
        """
        names = pa.repeat(pa.scalar(source), len(prompt)) if isinstance(source, str) else source
        ids, prompt_ids = _ids(prompt, chosen, rejected)
        columns: dict[str, pa.Array] = {
            "id": pa.array(ids, pa.string()),
            "prompt_id": pa.array(prompt_ids, pa.string()),
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "source": names.dictionary_encode(),
            "row": pa.array(rows, pa.int64()),
        }
        for value, (of_chosen, of_rejected) in (scores or {}).items():
            columns[_CHOSEN + value] = pa.array(of_chosen, pa.float64())
            columns[_REJECTED + value] = pa.array(of_rejected, pa.float64())
        return cls(pa.table(columns), dropped)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object]], source: str = "memory") -> "Pairs":
        """Convert rows of any recognised format (see ``valuesoup.data.formats``), unchecked.

        ``load_pairs`` does the same and also drops unusable rows.

        Raises:
            UserError: The columns are of no known format, or a row is malformed (which one is said).
        """
        from valuesoup.data.blocks import Block
        from valuesoup.data.formats import convert

        return convert([Block.from_rows(source, rows)])

    @classmethod
    def concat(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """Join pairs end to end; scores absent from a part become NaN, dropped rows are added up.

        Raises:
            UserError: There is no part.
        """
        if not parts:
            raise UserError("no pairs to join: give at least one set of pairs")
        table = pa.concat_tables([part.table for part in parts], promote_options="default")
        scores = [name for name in table.column_names if name not in _COLUMNS]
        for name in scores:
            filled = pc.fill_null(table[name], float("nan"))
            table = table.set_column(table.column_names.index(name), name, filled)
        dropped: dict[str, int] = {}
        for part in parts:
            for reason, count in part.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        return cls(table.unify_dictionaries(), dropped)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Pair]:
        for batch in batches(self.table, ["id", "prompt", "chosen", "rejected"], 1024):
            for row in batch.to_pylist():
                yield _pair(row)

    def __getitem__(self, index: int) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        row = self.table.select(["id", "prompt", "chosen", "rejected"]).slice(index % len(self), 1)
        return _pair(row.to_pylist()[0])

    def __repr__(self) -> str:
        scored = f", scored: {', '.join(self.score_values)}" if self.score_values else ""
        return f"Pairs({len(self)} pairs{scored}, {sum(self.dropped.values())} rows dropped)"

    @property
    def ids(self) -> list[str]:
        """(N,) ids: the hash of prompt, chosen and rejected."""
        return list(self.table["id"].to_pylist())

    @property
    def prompt_ids(self) -> list[str]:
        """(N,) hashes of the prompt alone, the same for the same conversation in any data set."""
        return list(self.table["prompt_id"].to_pylist())

    @property
    def score_values(self) -> list[str]:
        """The values that the pairs carry scores of, in the order of the columns."""
        names = self.table.column_names
        return [name[len(_CHOSEN) :] for name in names if name.startswith(_CHOSEN)]

    def scores(self, value: str) -> NDArray[np.float64]:
        """Return the (N, 2) scores of the chosen and the rejected answers under ``value``; NaN where absent.

        Raises:
            UserError: The pairs carry no scores of that value.
        """
        if value not in self.score_values:
            known = did_you_mean(value, self.score_values) or "; the pairs carry no scores"
            raise UserError(f"the pairs have no score columns of the value '{value}'{known}")
        return np.column_stack([self.table[side + value].to_numpy() for side in (_CHOSEN, _REJECTED)])

    def filter(self, mask: NDArray[np.bool_]) -> "Pairs":
        """Keep the pairs where the (N,) mask is true.

        Raises:
            UserError: The mask is not boolean or not (N,).
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            shape = f"{mask.dtype} of shape {mask.shape}"
            raise UserError(f"a filter of {len(self)} pairs needs as many booleans, got {shape}")
        if mask.all():
            return self
        small = self.table.nbytes <= spool.IN_MEMORY
        return Pairs(self.table.filter(pa.array(mask)) if small else filtered(self.table, mask), self.dropped)

    def slice(self, start: int, count: int) -> "Pairs":
        """Return at most ``count`` consecutive pairs from ``start`` on, without a copy."""
        return Pairs(self.table.slice(start, count), self.dropped)

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> "Pairs":
        """Return the pairs at ``indices``, in that order; negative indices are refused.

        Raises:
            UserError: An index is outside 0 … N-1.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise UserError(f"pair {outside[0]} was asked for, there are {len(self)} (0 … {len(self) - 1})")
        return Pairs(self.table.take(pa.array(wanted)), self.dropped)

    def save(self, path: Path) -> None:
        """Write one Parquet file (zstd); ``Pairs.load`` gives the same pairs, scores and dropped counts."""
        table = self.table.replace_schema_metadata({_DROPPED: json.dumps(self.dropped).encode()})
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            for start in range(0, max(len(table), 1), _ROW_GROUP):
                writer.write_table(table.slice(start, _ROW_GROUP), _ROW_GROUP)
                release()

    @classmethod
    def load(cls, path: Path) -> "Pairs":
        """Read what ``save`` wrote.

        Raises:
            UserError: The file is absent, or is no file of pairs.
        """
        if not Path(path).is_file():
            raise UserError(f"no file of pairs at {path}")
        try:
            table = _read(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is not a readable Parquet file of pairs: {error}") from error
        metadata = table.schema.metadata or {}
        if _DROPPED not in metadata:
            raise UserError(f"{path} was not written by Pairs.save; open other files with load_pairs")
        return cls(table.replace_schema_metadata(None), json.loads(metadata[_DROPPED]))

    @staticmethod
    def load_ids(path: Path) -> pa.Array:
        """Return the (N,) ids of what ``save`` wrote, without reading the rest.

        Raises:
            UserError: The file is absent or no file of pairs.
        """
        try:
            return pq.read_table(path, columns=["id"])["id"].combine_chunks()
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise UserError(f"{path} is not a readable Parquet file of pairs: {error}") from error


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if sum(groups) <= spool.IN_MEMORY:
            return pq.read_table(path)
        parts = (pa.Table.from_batches([batch]) for batch in file.iter_batches(ROWS))
        return pa.concat_tables(Spool().extend(parts).tables()).unify_dictionaries()


def single_turns(texts: pa.Array, role: str) -> pa.Array:
    """Turn (N,) texts without nulls into (N,) conversations of one message each, spoken by ``role``."""
    count = len(texts)
    content = texts.cast(pa.large_string())
    struct = pa.StructArray.from_arrays(
        [pa.repeat(pa.scalar(role, pa.string()), count), content], fields=list(MESSAGES.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), struct, type=MESSAGES)


def encode(messages: pa.Array) -> pa.Array:
    """Write each conversation of an (N,) array of type ``MESSAGES`` as text that no other one has.

    Lengths stand before the strings (``1;4:user5:hello``), so no content can imitate another's turns.
    """
    turns = messages.flatten()
    role, content = turns.field("role").cast(pa.large_string()), turns.field("content")
    joined = pc.binary_join_element_wise(_length(role), role, _length(content), content, _text(""))
    lengths = pc.list_value_length(messages)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))]).astype(np.int32)
    whole = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), joined), _text(""))
    return pc.binary_join_element_wise(lengths.cast(pa.large_string()), whole, _text(";"))


def _length(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pc.binary_length(texts).cast(pa.large_string()), _text(""), _text(":"))


def _text(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _ids(prompt: pa.Array, chosen: pa.Array, rejected: pa.Array) -> tuple[list[str], list[str]]:
    ids: list[str] = []
    prompt_ids: list[str] = []
    for start in range(0, len(prompt), ROWS):  # bounds the memory of the encoded copies
        sides = [
            encode(side.slice(start, ROWS)).cast(pa.large_binary()).to_pylist() for side in (prompt, chosen, rejected)
        ]
        prompt_ids += [blake2b(text, digest_size=8).hexdigest() for text in sides[0]]
        ids += [blake2b(b"".join(texts), digest_size=8).hexdigest() for texts in zip(*sides, strict=True)]
    return ids, prompt_ids


def _pair(row: Any) -> Pair:
    return Pair(row["id"], tuple(row["prompt"]), tuple(row["chosen"]), tuple(row["rejected"]))
