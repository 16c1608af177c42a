"""``valuesoup audit`` of a million scored pairs in a Parquet file: seconds and peak memory of the whole command."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.timing import command, median_cost

VALUES = ("helpful", "harmless", "honest")


def figures(repeats: int, pairs: int = 1_000_000) -> list[str]:
    """Return the figures as lines of text."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        write_pairs(file, pairs)
        size = file.stat().st_size / 2**20
        cost = median_cost([command(["audit", str(file), "--out", f"{folder}/audit"]) for _ in range(repeats)])
    return [f"valuesoup audit, {pairs:,} pairs x {len(VALUES)} values, Parquet of {size:.0f} MiB: {cost} (goal 20 s)"]


def write_pairs(file: Path, pairs: int) -> None:
    """Write TRL's standard preference rows, 20 words of prompt and 40 of each response, with scores."""
    rng = np.random.default_rng(0)
    words = pa.array([f"word{number}" for number in range(5000)])
    columns = {}
    for name, length in (("prompt", 20), ("chosen", 40), ("rejected", 40)):
        drawn = words.take(pa.array(rng.integers(0, len(words), pairs * length, dtype=np.int32)))
        lists = pa.ListArray.from_arrays(pa.array(np.arange(0, pairs * length + 1, length, dtype=np.int32)), drawn)
        columns[name] = pc.binary_join(lists, " ")
    for value in VALUES:
        for side in ("chosen", "rejected"):
            columns[f"{side}_score/{value}"] = pa.array(rng.normal(size=pairs))
    pq.write_table(pa.table(columns), file)
