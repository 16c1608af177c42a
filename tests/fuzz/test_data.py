"""Malformed data: a sentence with file and row, or pairs that say what the file says."""

import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz.oracle as oracle
from fuzz.cases import CASES
from valuesoup.data import load_pairs
from valuesoup.data.pairs import Pairs


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "texts": [
        {
            "prompt": f"ask {i}",
            "chosen": f"yes {i}",
            "rejected": "no",
            "chosen_score/kind": 0.5,
            "rejected_score/kind": i,
        }
        for i in range(4)
    ],
    "transcripts": [
        {"chosen": f"\n\nHuman: ask {i}\n\nAssistant: yes", "rejected": f"\n\nHuman: ask {i}\n\nAssistant: no"}
        for i in range(4)
    ],
    "messages": [
        {
            "prompt": [turn("user", f"ask {i}")],
            "chosen": [turn("assistant", "yes")],
            "rejected": [turn("assistant", "no")],
            "kind_chosen": 1.5,
            "kind_rejected": -2,
        }
        for i in range(4)
    ],
    "labels": [
        {"prompt": f"ask {i}", "response_0": "yes", "response_1": "no", "better_response_id": i % 2} for i in range(4)
    ],
    "scored": [
        {"prompt": f"ask {i // 2}", "response": f"answer {i}", "helpfulness": i, "verbosity": 2} for i in range(4)
    ],
    "completions": [
        {
            "instruction": f"ask {i}",
            "completions": [
                {"response": f"a{j}", "annotations": {"honesty": {"Rating": str(j)}, "truth": {"Rating": "N/A"}}}
                for j in range(3)
            ],
        }
        for i in range(3)
    ],
}
BY = {"labels": "better", "scored": "helpfulness", "completions": "honesty"}


def texts_of(value: Any) -> str:
    """Return every text in a JSON value."""
    if isinstance(value, str):
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\0".join(map(texts_of, items))


def numbers_of(value: Any) -> set[float]:
    """Return every number that stands in a JSON value, also as a text."""
    if isinstance(value, bool | int | float | str):
        try:
            return {float(value)}
        except (ValueError, OverflowError):
            return set()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(numbers_of, items)) if items else set()


def check(pairs: Pairs | None, rows: Any, folder: Path) -> None:
    """Hold that pairs are whole, and that no text and no score is in them that the rows do not have."""
    if pairs is None:
        return
    said = texts_of(rows).replace("\r\n", "\n") if rows is not None else None
    for pair in pairs:
        assert pair.prompt[-1]["role"] == "user"
        assert pair.chosen != pair.rejected
        for message in (*pair.prompt, *pair.chosen, *pair.rejected):
            message["content"].encode()
            if said is not None and "\n\n" not in message["content"]:  # joined turns
                assert message["content"] in said
    known = numbers_of(rows) | {0.0, 1.0} if rows is not None else None
    for value in pairs.score_values:
        scores = pairs.scores(value)
        assert scores.dtype == np.float64
        if known is not None:
            assert {float(one) for one in scores[~np.isnan(scores)].ravel()} <= known
    if len(pairs):
        pairs.save(folder / "kept.parquet")
        again = Pairs.load(folder / "kept.parquet")
        assert again.ids == pairs.ids
        assert list(again) == list(pairs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_with_anything_changed_are_refused_in_words_or_read_as_written(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for seed in range(CASES["rows"] // len(LAYOUTS)):
        random = Random(seed)
        rows = oracle.mutated(LAYOUTS[layout], random)
        whole = isinstance(rows, list) and random.random() < 0.8
        text = "\n".join(map(json.dumps, rows)) if whole else json.dumps(rows)
        path = tmp_path / ("rows.jsonl" if whole else "rows.json")
        path.write_text(text)
        value = BY.get(layout) if random.random() < 0.9 else random.choice(["", "no", "kind", "\ud800"])
        check(oracle.answer(lambda path=path, value=value: load_pairs(path, value=value)), rows, tmp_path)
        check(oracle.answer(lambda rows=rows, value=value: load_pairs(rows, value=value)), rows, tmp_path)


def test_json_that_is_cut_or_damaged_is_refused_in_words(tmp_path: Path) -> None:
    for seed in range(CASES["damaged JSON"]):
        random = Random(seed)
        layout = random.choice(list(LAYOUTS))
        lines = "\n".join(map(json.dumps, LAYOUTS[layout])).encode()
        data = random.choice((lines, json.dumps(LAYOUTS[layout]).encode()))
        zipped = random.random() < 0.3
        name = random.choice(("a.jsonl", "a.json")) + (".gz" if zipped else "")
        if zipped:
            data = gzip.compress(data, mtime=0)
        data = oracle.damaged(data, random)
        if random.random() < 0.1:
            data = data.decode("latin-1").encode(random.choice(("utf-16", "utf-32", "utf-8-sig")))
        (tmp_path / name).write_bytes(data)
        by = BY.get(layout)
        check(oracle.answer(lambda name=name, by=by: load_pairs(tmp_path / name, value=by)), None, tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow"])
def test_tables_that_are_cut_or_damaged_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(LAYOUTS["messages" if kind == "parquet" else "texts"])
    path = tmp_path / ("data-00000.arrow" if kind == "arrow" else f"rows.{kind}")
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
    whole = path.read_bytes()
    source = tmp_path if kind == "arrow" else path
    assert len(load_pairs(source)) == 4
    for seed in range(CASES["damaged tables"] // 3):
        path.write_bytes(oracle.damaged(whole, Random(seed)))
        check(oracle.answer(lambda: load_pairs(source)), None, tmp_path.parent)


@pytest.mark.parametrize(
    ("dataset_dict", "state"),
    [
        ("{", None),
        ("[]", None),
        ("{}", None),
        ('{"splits": 3}', None),
        ('{"splits": ["../../etc"]}', None),
        (None, "{"),
        (None, "[]"),
        (None, "{}"),
        (None, '{"_data_files": 3}'),
        (None, '{"_data_files": [3]}'),
        (None, '{"_data_files": [{}]}'),
        (None, '{"_data_files": [{"filename": 3}]}'),
        (None, '{"_data_files": [{"filename": "none.arrow"}]}'),
        (None, '{"_data_files": [{"filename": "../outside.arrow"}]}'),
        (None, '{"_data_files": [{"filename": "/etc/passwd"}]}'),
        (None, '{"_data_files": []}'),
    ],
)
def test_a_saved_data_set_of_another_shape_is_refused_in_words(
    dataset_dict: str | None, state: str | None, tmp_path: Path
) -> None:
    table = pa.Table.from_pylist(LAYOUTS["texts"])
    folder = tmp_path / "set"
    folder.mkdir()
    with pa.OSFile(str(tmp_path / "outside.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    if dataset_dict is not None:
        (folder / "dataset_dict.json").write_text(dataset_dict)
    if state is not None:
        (folder / "state.json").write_text(state)
    assert oracle.answer(lambda: load_pairs(folder)) is None


TABLES = [
    pa.table({}),
    pa.table({"chosen": pa.array([], pa.string()), "rejected": pa.array([], pa.string())}),
    pa.table({"chosen": [1, 2], "rejected": [3, 4]}),
    pa.table({"chosen": [None, None], "rejected": ["a", "b"]}),
    pa.table({"chosen": [b"a"], "rejected": [b"b"]}),
    pa.table({"chosen": [b"\xff"], "rejected": [b"b"]}),
    pa.table({"prompt": [[1]], "chosen": [["a"]], "rejected": [["b"]]}),
    pa.table({"prompt": [{"a": 1}], "chosen": ["a"], "rejected": ["b"]}),
    pa.table({"prompt": ["a"], "chosen": [[{"role": "assistant"}]], "rejected": [[{"role": "assistant"}]]}),
    pa.table({"prompt": ["a"], "chosen": [[{"role": 1, "content": 2}]], "rejected": [[]]}),
    pa.table({"prompt": ["a"], "response": ["b"], "score": [10**18]}),
    pa.table({"prompt": ["a"], "response_0": ["b"], "response_1": ["c"], "better_response_id": [2]}),
    pa.table({"prompt": ["a"], "response_0": ["b"], "response_1": ["c"], "better_response_id": ["0"]}),
    pa.table({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "chosen_score/x": ["1"], "rejected_score/x": [2]}),
    pa.table({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "chosen_score/x": [1]}),
    pa.table([["a"], ["b"], ["c"], ["d"]], names=["prompt", "chosen", "rejected", "chosen"]),
    pa.table([["a"], ["b"], ["c"], ["d"]], names=["prompt", "chosen", "rejected", "prompt"]),
]


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_a_table_of_another_shape_is_refused_in_words(number: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLES[number], path)
    found = oracle.answer(lambda: load_pairs(path))
    assert found is None or not len(found)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[(name, b"") for name in ("a.json", "a.jsonl", "a.csv", "a.parquet", "a.json.gz", "a.jsonl.gz")],
        *[(name, b"\x00" * 64) for name in ("a.json", "a.jsonl", "a.csv", "a.parquet", "a.json.gz", "a.jsonl.gz")],
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b"[" * 100_000),
        ("a.jsonl", b'{"a":' * 50_000),
        ("a.jsonl", b'{"chosen": ' + b"9" * 6000 + b', "rejected": "a"}'),
        ("a.jsonl", b'{"chosen": "\\ud800", "rejected": "a", "prompt": "b"}'),
        ("a.jsonl", b'{"chosen": "a", "rejected": "a\\udc00", "prompt": [{"role": "user", "content": "\\udfff"}]}'),
        ("a.jsonl", b'{"\\ud800": 1}'),
        ("a.jsonl", b'{"chosen_\\ud800": 1, "rejected_\\ud800": 2, "chosen": "a", "rejected": "b", "prompt": "c"}'),
        ("a.jsonl", '{"chosen": "a"}'.encode("utf-16")),
        ("a.jsonl", b"\xff\xfe\x00"),
        ("a.jsonl", b"NaN\n"),
        (
            "a.jsonl",
            b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score/x": 1e999, "rejected_score/x": {}}',
        ),
        ("a.jsonl", b"\n" * 5000),
        ("a.csv", b"prompt,chosen,rejected\n" + b'"' * 999),
        ("a.csv", b"prompt,chosen,rejected\na,b\n"),
        ("a.csv", b"prompt,prompt,chosen,rejected\na,b,c,d\n"),
        ("a.csv", b"," * 3000),
        ("a.csv", b"prompt;chosen;rejected\na;b;c\n"),
        ("a.csv", b"prompt,chosen,rejected\n\xff,\xfe,\xfd\n"),
        ("a.parquet", b"PAR1" + b"\xff" * 40 + b"PAR1"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-4]),
        ("a.json.gz", gzip.compress(b"\x00" * 20_000_000, mtime=0)),
        ("a.pkl", b"\x80\x04."),
        ("a.zip", b"PK\x03\x04"),
        ("a.json", b"pickle"),
    ],
)
def test_known_traps_of_data_are_refused_in_words(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert oracle.answer(lambda: load_pairs(tmp_path / name)) is None
    oracle.answer(lambda: load_pairs(tmp_path))


@pytest.mark.parametrize(
    "source", ["", ".", "/", "a\0b", "x" * 5000, "no/such.jsonl", "os:system", "os:", "no:no", "\ud800"]
)
def test_what_is_no_source_is_refused_in_words(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert oracle.answer(lambda: load_pairs(source)) is None


CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "\ud800", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "response", "annotations", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
COLUMNS = st.sampled_from(
    [
        "prompt",
        "chosen",
        "rejected",
        "response_0",
        "response_1",
        "a_response_id",
        "completions",
        "response",
        "score",
        "instruction",
        "chosen_score/a",
        "rejected_score/a",
        "a_chosen",
        "a_rejected",
    ]
)


@settings(max_examples=CASES["shapes of rows"], database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.dictionaries(COLUMNS, CELLS, max_size=5) | CELLS, max_size=4), by=st.none() | st.just("a"))
def test_rows_of_any_shape_are_refused_in_words(rows: list[Any], by: str | None, tmp_path_factory: Any) -> None:
    check(oracle.answer(lambda: load_pairs(rows, value=by)), rows, tmp_path_factory.getbasetemp())
