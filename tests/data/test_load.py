import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valuesoup.data import load_function, load_pairs
from valuesoup.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROWS = [
    {"prompt": "p", "chosen": 'a, "b"\nc', "rejected": "é🦜", "chosen_score/x": 1.5, "rejected_score/x": -1},
    {"prompt": "12", "chosen": "3", "rejected": "4", "chosen_score/x": 2, "rejected_score/x": 0},
]


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.name.endswith(".csv"):
        with path.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(rows).encode()))
    elif path.name.endswith(".jsonl"):
        path.write_text(lines(rows))
    else:
        path.write_text(json.dumps(rows, indent=1))
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.gz", "a.csv", "a.parquet"])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    pairs = load_pairs(path)
    assert pairs.ids == load_pairs(ROWS).ids
    assert pairs.scores("x").tolist() == [[1.5, -1], [2, 0]]
    assert pairs.table["source"].to_pylist() == [str(path)] * 2
    assert load_pairs(str(path), limit=1).ids == pairs.ids[:1]


def test_json_lines_under_the_name_json_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + lines(ROWS[:1]) + "\n\n" + lines(ROWS[1:]))
    assert load_pairs(path).table["row"].to_pylist() == [1, 4]


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", ROWS[:1])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", ROWS[1:])
    write(tmp_path / "data" / "validation.jsonl", ROWS[:1])
    assert len(load_pairs(tmp_path, data_dir="data")) == 2
    assert len(load_pairs(tmp_path, data_dir="data", split="validation")) == 1
    with pytest.raises(UserError, match="data has no split 'tran'; did you mean 'train'"):
        load_pairs(tmp_path, data_dir="data", split="tran")


def test_files_that_name_no_split_are_train(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", ROWS[:1])
    write(tmp_path / "two.csv", ROWS[1:])
    assert len(load_pairs(tmp_path)) == 2


def test_saved_data_sets_are_read_without_torch(tmp_path: Path) -> None:
    import datasets

    train = datasets.Dataset.from_list(ROWS)
    train.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": train, "test": train.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert load_pairs(tmp_path / "one").ids == load_pairs(ROWS).ids
    assert len(load_pairs(tmp_path / "two", split="test")) == 1
    with pytest.raises(UserError, match="has no split 'validation'; known: test, train"):
        load_pairs(tmp_path / "two", split="validation")
    code = (
        "import sys, valuesoup.data as d; p = d.load_pairs(sys.argv[1]); d.split_pairs({'v': p}, 0, 1); "
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "one"], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_damaged_saved_data_sets_are_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read, it is damaged or not what its name says"):
        load_pairs(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (tmp_path / "data.arrow").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        load_pairs(tmp_path)


def test_hub_data_sets_are_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def hub(name: str, data_dir: str | None, split: str) -> datasets.Dataset:
        if (name, data_dir, split) != ("owner/name", "part", "test"):
            raise datasets.exceptions.DatasetNotFoundError(f"{name} does not exist\nmore")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    pairs = load_pairs("owner/name", data_dir="part", split="test")
    assert pairs.ids == load_pairs(ROWS).ids
    assert pairs.table["source"].to_pylist() == ["owner/name"] * 2
    with pytest.raises(
        UserError, match=r"'owner/nam' \(split 'train'\) is no local path .*: owner/nam does not exist$"
    ):
        load_pairs("owner/nam")


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path, nested: bool) -> None:
    broken = pa.array([b"\xff"], pa.binary()).view(pa.string())
    if nested:
        turns = pa.StructArray.from_arrays([pa.array(["user"]), broken], ["role", "content"])
        broken = pa.ListArray.from_arrays([0, 1], turns)
    plain = pa.array(["a"])
    pq.write_table(pa.table({"prompt": broken, "chosen": plain, "rejected": plain}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet, rows 1 to 1: a column is damaged: .*UTF8"):
        load_pairs(tmp_path / "a.parquet")


def test_a_function_yields_rows_with_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rows.py").write_text(
        "def rows(count, prompt='p'):\n"
        "    for i in range(count):\n"
        "        yield {'prompt': f'{prompt}{i}', 'chosen': 'a', 'rejected': 'b'}\n"
        "def nothing():\n    return 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pairs = load_pairs("my_rows:rows", arguments={"count": 3, "prompt": "q"})
    assert [pair.prompt[0]["content"] for pair in pairs] == ["q0", "q1", "q2"]
    assert len(load_pairs("my_rows:rows", arguments={"count": 10**9}, limit=2)) == 2
    with pytest.raises(UserError, match="no function 'row'; did you mean 'rows'"):
        load_pairs("my_rows:row")
    with pytest.raises(UserError, match="cannot be called with the given arguments: missing a required argument"):
        load_pairs("my_rows:rows")
    with pytest.raises(UserError, match=r"must yield rows .*, it returned int"):
        load_pairs("my_rows:nothing")
    with pytest.raises(UserError, match="the module 'my_row' cannot be imported"):
        load_function("my_row:rows")


def test_functions_are_also_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "its_rows.py").write_text(
        "class Made:\n    @staticmethod\n    def rows():\n        return []\nSIZE = 3\n"
    )
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert load_function("here.its_rows:Made.rows")() == []
    with pytest.raises(UserError, match=r"'here.its_rows:SIZE' is no function but of type int"):
        load_function("here.its_rows:SIZE")
    with pytest.raises(UserError, match="write module:function"):
        load_function("here.its_rows")


def test_a_missing_file_names_the_near_one(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(UserError, match=r"there is no file or folder .*pair.jsonl; did you mean 'pairs.jsonl'"):
        load_pairs(tmp_path / "pair.jsonl")
    with pytest.raises(UserError, match="is a file, so it has no sub-folder 'x'"):
        load_pairs(tmp_path / "pairs.jsonl", data_dir="x")
    with pytest.raises(UserError, match="limit must be at least 1 row, got 0"):
        load_pairs(ROWS, limit=0)


def test_what_is_neither_file_nor_folder_is_called_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "pairs.jsonl").symlink_to(tmp_path / "pair.jsonl")
    (tmp_path / "pair.jsonl").symlink_to(tmp_path / "pairs.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    for odd in ("/dev/null", str(tmp_path / "pipe.jsonl")):
        with pytest.raises(UserError, match=f"{odd} is neither a file nor a folder"):
            load_pairs(odd)
    for name in ("pair.jsonl", "gone.jsonl"):
        with pytest.raises(UserError, match=f"{name} is a link that leads nowhere"):
            load_pairs(tmp_path / name)


def test_an_address_is_no_source_and_not_repeated() -> None:
    with pytest.raises(UserError, match="not an address; download them first") as caught:
        load_pairs("https://me:hidden@host/pairs.jsonl")
    assert "hidden" not in str(caught.value)


ROW = '{"prompt": "p", "chosen": "a", "rejected": "b"}'
TWICE = '{"prompt": "p", "chosen": "a", "rejected": "b", "chosen": "c"}'
DEEP = '{"prompt": "p", "chosen": [{"role": "user", "content": "x", "content": "y"}], "rejected": "b"}'
LOST = '{"prompt": {"a": 1, "a": 2}, "prompt": "p", "chosen": "a", "rejected": "b"}'


@pytest.mark.parametrize(("row", "key"), [(TWICE, "chosen"), (DEEP, "content"), (LOST, "prompt|a")])
def test_a_key_given_twice_is_named_with_its_row(tmp_path: Path, row: str, key: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{ROW}\n{row}\n")
    with pytest.raises(UserError, match=f"a.jsonl, line 2: '({key})' is given twice; which one counts"):
        load_pairs(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text(f"[{ROW}, {row}, {ROW}]")
    with pytest.raises(UserError, match=f"a.json, row 2: '({key})' is given twice; which one counts"):
        load_pairs(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_true_and_false_are_no_scores_of_a_pair(tmp_path: Path, name: str) -> None:
    scores = {"chosen_score/k": True, "rejected_score/k": False}
    path = write(tmp_path / name, [row | scores for row in ROWS])
    with pytest.raises(UserError, match=rf"{name}, row 1: 'chosen_score/k' must be a number"):
        load_pairs(path)


def test_empty_folders_and_unknown_kinds_list_what_is_readable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no data; readable are .json, .jsonl"):
        load_pairs(tmp_path)
    (tmp_path / "pairs.txt").write_text("x")
    with pytest.raises(UserError, match=r"pairs.txt is of no known kind; readable are"):
        load_pairs(tmp_path / "pairs.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", lines(ROWS).encode() + b"{oops\n", "a.jsonl, line 3: not JSON"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl, line 1: needed is an object with one row"),
        ("a.jsonl", b"", "the source holds no rows"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "a.jsonl is not UTF-8 text"),
        ("a.json", b'[{"prompt": "x"},\n}]', "a.json, line 2: not JSON"),
        ("a.json", b"[3]", "a.json, row 1: needed is a mapping of columns, got 3"),
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz cannot be read, it is damaged"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS * 50).encode(), mtime=0)[:-20], "a.jsonl.gz cannot be read"),
        ("a.parquet", b"PAR1 damaged PAR1", "a.parquet cannot be read"),
        ("a.csv", b"prompt,chosen,rejected\np,a,b\np,a\n", r"a.csv cannot be read.*Row #3"),
        ("a.csv", b"", "a.csv cannot be read"),
        ("a.csv", b"prompt,chosen,rejected\n", "the source holds no rows"),
    ],
)
def test_damaged_files_name_the_file_and_where_it_is_known_the_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_pairs(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_bad_value_in_a_file_names_file_and_row(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [*ROWS, ROWS[0] | {"chosen": None}])
    with pytest.raises(UserError, match=f"{name}, row 3: 'chosen' must be a text, got nothing"):
        load_pairs(path)


def test_a_column_of_another_type_in_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [ROWS[0] | {"prompt": 5}])
    with pytest.raises(UserError, match=r"a.parquet, row 1: 'prompt' must be a text, the column is of type int64"):
        load_pairs(path)


def test_nested_rows_load_from_parquet_as_from_memory(tmp_path: Path) -> None:
    talk = [
        {
            "prompt": [{"role": "user", "content": "x"}],
            **{s: [{"content": s, "role": "assistant"}] for s in ("chosen", "rejected")},
        }
    ]
    rated = [
        {
            "instruction": "p",
            "completions": [{"response": f"{i}", "annotations": {"good": {"Rating": f"{i}"}}} for i in range(3)],
        }
    ]
    for rows in (talk, rated):
        assert load_pairs(write(tmp_path / "a.parquet", rows)).ids == load_pairs(rows).ids


def test_row_numbers_go_on_over_batches(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(66_000)]
    pairs = load_pairs(write(tmp_path / "a.parquet", rows), limit=65_900)
    assert (len(pairs), pairs.table["row"][-1].as_py()) == (65_900, 65_900)


@pytest.mark.parametrize(
    ("folder", "rows"),
    [("helpful-base", 2354), ("helpful-online", 1137), ("helpful-rejection-sampled", 2749), ("harmless-base", 2312)],
)
def test_hh_rlhf_loads_with_every_dropped_row_counted(folder: str, rows: int) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    pairs = load_pairs(SHARED / "hh-rlhf", data_dir=folder, split="test")
    assert len(pairs) + sum(pairs.dropped.values()) == rows
    assert sum(pairs.dropped.values()) < 50
    assert all(pair.prompt[-1]["role"] == "user" and pair.chosen[0]["role"] == "assistant" for pair in pairs)


@pytest.mark.parametrize("value", ["truthful", "informative"])
def test_truthfulqa_gives_a_pair_per_question_and_value(value: str) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    pairs = load_pairs(SHARED / "truthfulqa" / "answers.jsonl.gz", value=value)
    assert 800 < len(pairs) <= 817
    assert (pairs.scores(value) == [1, 0]).all()
