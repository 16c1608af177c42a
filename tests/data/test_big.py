"""Large tables lie on disk: memory does not grow with the text of the pairs, and results are those of small tables."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valuesoup.data import Pairs, load_pairs, sources, split_pairs, spool
from valuesoup.data.spool import Spool
from valuesoup.errors import RunError, UserError

FEW, MANY = 20_000, 120_000
BYTES_PER_PAIR = 1_100
"""Measured are 700, some of them of libraries that warm up; 2,500 where tables stay in memory, 1,800 where pairs are
all scored at once."""

ROWS = [
    {
        "prompt": f"question {row // 3}",
        "chosen": f"answer {row}",
        "rejected": "none" if row % 50 else f"answer {row}",
        "chosen_score/kind": float(row),
        "rejected_score/kind": 0.5,
    }
    for row in range(3_000)
]

MEASURE = """
import sys
from pathlib import Path

from valuesoup.consistency import consistent, value_consistency
from valuesoup.data import Pairs, load_pairs, pairs, sources, split_pairs, spool
from valuesoup.rewards import RewardTable, score, table
from valuesoup.rewards import sources as reward_sources

# All that is held at a time is a hundredth of what it is by default, so that what grows shows in few pairs.
spool.IN_MEMORY = spool._HELD = 4 << 20
pairs.ROWS = sources._BATCH = pairs._ROW_GROUP = table._ROW_GROUP = reward_sources.TOGETHER = 4096
folder, count = Path(sys.argv[1]), int(sys.argv[2])


def rows():
    for row in range(count):
        words = " ".join(f"{row * 7 + place:x}" for place in range(36))
        yield {"prompt": f"{row} " + "asks " * 40, "chosen": words, "rejected": "no " * 60 + words[:8]}


def long(_, answers):
    return [len(answer) for answer in answers]


def digits(_, answers):
    return [sum(map(answer.count, "0123")) for answer in answers]


load_pairs(rows()).save(folder / "pairs.parquet")
split_pairs({"value": Pairs.load(folder / "pairs.parquet")}, 20, 5)["value"].train.save(folder / "train.parquet")
train = Pairs.load(folder / "train.parquet")
score(train, {"long": long, "digits": digits}).save(folder / "scores.parquet")
kept = consistent(value_consistency(RewardTable.load(folder / "scores.parquet")), 0.5)
train.filter(kept).save(folder / "kept.parquet")
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(int(peak) * 1024, len(kept), int(kept.sum()))
"""


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table count as a large one, and blocks of rows be short."""
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    monkeypatch.setattr(sources, "_BATCH", 700)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_memory_hardly_grows_with_the_number_of_pairs(tmp_path: Path) -> None:
    peaks = []
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-c", MEASURE, str(folder), str(count)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peak, scored, kept = map(int, done.stdout.split())
        assert scored == count - 25
        assert 0 < kept < scored
        peaks.append(peak)
    assert (peaks[1] - peaks[0]) / (MANY - FEW) < BYTES_PER_PAIR


def results(folder: Path) -> dict[str, object]:
    """Read, split, save and load again; return all that it gives."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    pairs = load_pairs(folder / "rows.jsonl")
    parts = split_pairs({"kind": pairs, "half": pairs.filter(np.arange(len(pairs)) % 2 == 0)}, 20, 5, seed=3)
    found: dict[str, object] = {"dropped": pairs.dropped}
    for value, split in parts.items():
        for name in ("train", "validation", "test"):
            path = folder / f"{value}-{name}.parquet"
            getattr(split, name).save(path)
            loaded = Pairs.load(path)
            assert Pairs.load_ids(path).to_pylist() == loaded.ids
            found[f"{value} {name}"] = (list(loaded), loaded.table["row"].to_pylist(), loaded.scores("kind").tolist())
            found[f"{value} {name} dropped"] = loaded.dropped
    return found


def test_pairs_on_disk_give_what_pairs_in_memory_give(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    expected = results(tmp_path / "memory")
    request.getfixturevalue("on_disk")
    found = results(tmp_path / "disk")
    assert {name: part for name, part in found.items() if part != expected[name]} == {}
    assert expected["dropped"] == {"equal sides": 60}


def test_rows_of_a_function_are_read_as_they_come(on_disk: None) -> None:
    pairs = load_pairs(iter(ROWS))
    assert pairs.table["row"][-1].as_py() == len(ROWS)
    with pytest.raises(UserError, match=r"memory, row 2001: needed is a mapping"):
        load_pairs(row if number != 2_000 else 7 for number, row in enumerate(ROWS))  # type: ignore[misc]
    assert len(load_pairs(iter(ROWS), limit=1_001)) == 1_001 - 21


def test_blocks_with_other_columns_are_joined_on_disk(on_disk: None) -> None:
    plain = [{key: text for key, text in row.items() if "score" not in key} for row in ROWS[:1_400]]
    pairs = load_pairs([*plain, *ROWS[1_400:]])
    scores = pairs.scores("kind")
    assert np.isnan(scores[pairs.table["row"].to_numpy() <= 1_400]).all()
    assert not np.isnan(scores[pairs.table["row"].to_numpy() > 1_400]).any()


def test_a_spool_takes_nothing_back_and_forgets_nothing(on_disk: None) -> None:
    parts = [pa.table({"a": [1, 2]}), pa.table({"b": ["x"]}), pa.table({"b": ["y", None]}), pa.table({"a": [3]})]
    found = Spool().extend(parts).tables()
    assert [table.to_pydict() for table in found] == [{"a": [1, 2]}, {"b": ["x", "y", None]}, {"a": [3]}]
    spool.release()
    assert found[1].to_pydict() == {"b": ["x", "y", None]}, "what was let go is read again"
    assert Spool().tables() == []


def test_no_room_for_large_tables_is_said(on_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"cannot be kept in .*gone: No such file.*set TMPDIR"):
        load_pairs(ROWS)


def test_a_file_of_pairs_is_the_one_that_arrow_writes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = load_pairs(ROWS)
    monkeypatch.setattr("valuesoup.data.pairs._ROW_GROUP", 1_000)
    pairs.save(tmp_path / "parts.parquet")
    table = pairs.table.replace_schema_metadata({"valuesoup.dropped": json.dumps(pairs.dropped)})
    pq.write_table(table, tmp_path / "whole.parquet", compression="zstd", row_group_size=1_000)
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
