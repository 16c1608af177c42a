"""Opens data: local files and folders, saved data sets, hub ids, Python functions, rows in memory."""

import gzip
import hashlib
import importlib
import inspect
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from valuesoup.data.blocks import Block, Row, batches
from valuesoup.data.formats import TEXTS
from valuesoup.errors import UserError, did_you_mean
from valuesoup.limits import is_address

_BATCH = 1 << 16
_BUFFER = 1 << 20  # bytes of a Parquet column read at a time
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".parquet")
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FUNCTION_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""What ``module:function`` looks like."""


def open_source(
    source: str | Path | Iterable[Row],
    data_dir: str | None = None,
    split: str = "train",
    arguments: Mapping[str, object] | None = None,
    limit: int | None = None,
) -> Iterator[Block]:
    """Yield the raw rows of a source in blocks, in order.

    Args:
        source: A file (json, jsonl, also with .gz, csv, parquet), a folder of such files, a folder made by
            ``datasets.save_to_disk``, a hub id ``owner/name``, a function ``module:function`` that yields
            rows, or the rows themselves.
        data_dir: Sub-folder of a folder or hub data set.
        split: Which split of a folder or hub data set; a single file has none.
        arguments: Keyword arguments of the function.
        limit: At most this many rows.

    Raises:
        UserError: There is no such source, split or function, or a file cannot be read (file and line).
    """
    left = limit
    for block in _open(source, data_dir, split, arguments, limit):
        if left is not None and len(block) > left:
            block = Block(block.name, block.rows[:left], block.data[:left])
        yield block
        if left is not None:
            left -= len(block)
            if left <= 0:
                return


def odd_place(path: Path) -> str | None:
    """Return in words what stands at a path and is neither file nor folder; None where nothing stands, or one does."""
    if not _exists(path):
        return f"{path} is a link that leads nowhere; give the file or folder itself" if _is_link(path) else None
    if not path.is_file() and not path.is_dir():
        return f"{path} is neither a file nor a folder (a device, pipe or socket); write its rows to a file"
    return None


def load_function(name: str) -> Callable[..., object]:
    """Import ``"module:function"``; modules are also looked for in the working directory.

    Raises:
        UserError: The text names no function, the module cannot be imported, or it has no such function.
    """
    if not FUNCTION_NAME.fullmatch(name):
        raise UserError(f"'{name}' does not name a function; write module:function")
    module_name, _, path = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that a file there hides no installed module
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"'{name}': the module '{module_name}' cannot be imported: {error}") from error
    for part in path.split("."):
        owner, found = found, getattr(found, part, None)
        if found is None:
            known = [key for key, item in vars(owner).items() if callable(item) and not key.startswith("_")]
            raise UserError(f"'{name}': the module has no function '{part}'{did_you_mean(part, known)}")
    if not callable(found):
        raise UserError(f"'{name}' is no function but of type {type(found).__name__}")
    return found


def source_hash(function: Callable[..., object]) -> str:
    """Return a hash of a function's source, of its module's, and of the modules beside it where that is a package.

    What it captures, reads or imports from elsewhere is not seen: give it another name when that changes.
    """
    digest = hashlib.blake2b(digest_size=16)
    module = inspect.getmodule(function)
    for part in (function, module):
        with suppress(OSError, TypeError):  # what has no source (built in, typed at a prompt) counts by its name
            digest.update(inspect.getsource(part).encode())  # type: ignore[arg-type]
    file = getattr(module, "__file__", None)
    if file and getattr(module, "__package__", None):
        for path in sorted(Path(file).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _open(
    source: str | Path | Iterable[Row],
    data_dir: str | None,
    split: str,
    arguments: Mapping[str, object] | None,
    limit: int | None,
) -> Iterator[Block]:
    if isinstance(source, str) and not _exists(source):
        if FUNCTION_NAME.fullmatch(source):
            yield from _in_blocks(source, _call(source, arguments or {}), limit)
            return
        if _HUB_ID.fullmatch(source) and not source.endswith(_SUFFIXES):
            yield from _hub(source, data_dir, split)
            return
    if not isinstance(source, (str, Path)):
        yield from _in_blocks("memory", source, limit)
        return
    path = Path(source)
    if isinstance(source, str) and is_address(source):
        raise UserError("data are a file, a folder, a hub id or a function, not an address; download them first")
    if fault := odd_place(path):
        raise UserError(fault)
    if not _exists(path):
        raise UserError(f"there is no file or folder {path}{_near(path)}")
    if path.is_file():
        if data_dir is not None:
            raise UserError(f"{path} is a file, so it has no sub-folder '{data_dir}'")
        yield from _file(path)
        return
    folder = path / data_dir if data_dir else path
    if not folder.is_dir():
        raise UserError(f"there is no file or folder {folder}{_near(folder)}")
    yield from _folder(folder, split)


def _in_blocks(name: str, rows: Iterable[Row], limit: int | None) -> Iterator[Block]:
    """Yield rows as they come, so that more of them may come than memory holds."""
    waiting = islice(rows, limit) if isinstance(rows, Iterable) else rows  # what is no iterable `Block` refuses
    first = 1
    while len(block := Block.from_rows(name, waiting, _BATCH, first)):
        yield block
        first += len(block)


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, RuntimeError, ValueError):  # no name that a file can have, or a folder that may not be read
        return False


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def _near(path: Path) -> str:
    if not _exists(path.parent):
        return ""
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings)
    return hint if "did you mean" in hint else ""  # a whole folder's listing would bury the message


def _call(name: str, arguments: Mapping[str, object]) -> Iterable[Row]:
    function = load_function(name)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UserError(f"'{name}' cannot be called with the given arguments: {error}") from error
    rows = function(**arguments)
    if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
        raise UserError(f"'{name}' must yield rows (mappings of columns), it returned {type(rows).__name__}")
    return rows


def _hub(name: str, data_dir: str | None, split: str) -> Iterator[Block]:
    import datasets

    try:
        found = datasets.load_dataset(name, data_dir=data_dir, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        where = f"{name}/{data_dir}" if data_dir else name
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"'{where}' (split '{split}') is no local path and cannot be opened from the hub: {reason}"
        ) from error
    yield from batches(name, found.with_format("arrow").iter(batch_size=_BATCH))


def _folder(folder: Path, split: str) -> Iterator[Block]:
    with _reading(folder):
        if (folder / "dataset_dict.json").is_file():
            splits = _names(folder / "dataset_dict.json", lambda found: found["splits"])
            if split not in splits:
                raise UserError(f"{folder} has no split '{split}'{did_you_mean(split, splits)}")
            folder = folder / split
        if (folder / "state.json").is_file():
            names = _names(folder / "state.json", lambda found: [item["filename"] for item in found["_data_files"]])
            yield from batches(str(folder), _arrow_tables([folder / name for name in names]))
            return
    for path in _files_of_split(folder, split):
        yield from _file(path)


def _names(path: Path, take: Callable[[Any], Any]) -> list[str]:
    """Return names of what stands beside a file that a saved data set describes itself with."""
    try:
        names = take(json.loads(path.read_text(encoding="utf-8")))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read, it is damaged or not what its name says: {type(error).__name__}"
        ) from error
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not isinstance(names, list) or Path(name).name != name or name == "..":
            raise UserError(f"{path} must name what stands beside it, not {name!r:.60}")
    return list(names)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Choose files by the split that their names say; files that say none are ``train``."""
    files = sorted(item for item in folder.iterdir() if item.name.endswith(_SUFFIXES) and item.is_file())
    if not files:
        raise UserError(f"{folder} holds no data; readable are {', '.join(_SUFFIXES)} and saved data sets")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        words = re.split(r"[^a-z0-9]+", path.name.lower())
        says = [name for name, aliases in _SPLITS.items() if any(alias in words for alias in aliases)]
        own = split if split in words else says[0] if says else "train"
        by_split.setdefault(own, []).append(path)
    if split not in by_split:
        raise UserError(f"{folder} has no split '{split}'{did_you_mean(split, by_split)}")
    return by_split[split]


def _file(path: Path) -> Iterator[Block]:
    name = str(path)
    if not name.endswith(_SUFFIXES):
        raise UserError(f"{path} is of no known kind; readable are {', '.join(_SUFFIXES)}")
    with _reading(path):
        if name.endswith(".parquet"):
            yield from batches(name, _parquet_tables(path))
        elif name.endswith(".csv"):
            yield from batches(name, _csv_tables(path))
        else:
            yield from _json(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error
    except (OSError, EOFError, LookupError, RecursionError, ValueError, zlib.error, pa.ArrowException) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path} cannot be read, it is damaged or not what its name says: {reason}") from error


def _arrow_tables(paths: Iterable[Path]) -> Iterator[pa.Table]:
    for path in paths:
        # Read, not mapped: pages of a map that were read once would count as memory of this process.
        with pa.OSFile(str(path)) as stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])


def _parquet_tables(path: Path) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=_BUFFER) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield pa.Table.from_batches([batch])


def _csv_tables(path: Path) -> Iterator[pa.Table]:
    from pyarrow import csv

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),  # or errors do not name the row
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.large_string())),
    )
    yield from (table.slice(start, _BATCH) for start in range(0, table.num_rows, _BATCH))


def _json(path: Path) -> Iterator[Block]:
    opened: IO[str]
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig") as opened
    ):
        if path.name.endswith((".json", ".json.gz")):
            start = opened.read(1 << 10).lstrip()[:1]
            opened.seek(0)
            if start == "[":
                yield Block.from_rows(str(path), _json_array(path, opened.read()))
                return
        yield from _json_lines(path, opened)


def _json_array(path: Path, text: str) -> list[Row]:
    twice: list[tuple[Row, str]] = []

    def noting(items: list[tuple[str, object]]) -> Row:
        found = dict(items)
        if len(found) < len(items):
            twice.append((found, _twice(items)))
        return found

    try:
        rows: list[Row] = json.loads(text, object_pairs_hook=noting)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    if twice:
        inner, said = twice[-1]  # the last one read is in no value that another one of them lost
        number = next(number for number, row in enumerate(rows, start=1) if _holds(row, inner))
        raise UserError(f"{path}, row {number}: {said}")
    return rows


def _holds(value: object, wanted: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is wanted or any(_holds(item, wanted) for item in inner)


def _distinct(items: list[tuple[str, object]]) -> Row:
    found = dict(items)
    if len(found) < len(items):
        raise ValueError(_twice(items))
    return found


def _twice(items: list[tuple[str, object]]) -> str:
    """Say which key an object has twice, of which JSON's readers silently take the last."""
    names = [name for name, _ in items]
    return f"'{next(name for name in names if names.count(name) > 1)}' is given twice; which one counts cannot be told"


def _json_lines(path: Path, opened: IO[str]) -> Iterator[Block]:
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    lines = ((number, line) for number, line in enumerate(opened, start=1) if line.strip())
    while chunk := list(islice(lines, _BATCH)):
        rows: list[Row] = []
        for number, line in chunk:
            try:
                row = decoder.decode(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON: {error.msg} (column {error.colno})") from error
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
                raise UserError(f"{path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: needed is an object with one row, got {line[:40]!r}")
            rows.append(row)
        yield Block(str(path), np.array([number for number, _ in chunk]), rows)
