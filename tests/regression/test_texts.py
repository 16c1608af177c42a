"""Held-out text from files, data sets, and from what a base was not pretrained on."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valuesoup.config import BaseConfig
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.pipeline.run import open_run
from valuesoup.regression.texts import Texts, held_out_texts, read_texts


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_documents_of_a_text_file_are_separated_by_blank_lines(tmp_path: Path, end: str) -> None:
    path = tmp_path / "held-out.txt"
    path.write_bytes(end.join(["", "one", "still one", "", " \t", "", "two – ", ""]).encode())
    assert read_texts(path) == Texts(str(path), ["one\nstill one", "two –"])


def test_rows_of_every_kind_of_file_have_their_text_in_one_column(tmp_path: Path) -> None:
    rows = [{"text": "one\n\nstill one"}, {"text": "two"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('text\n"one\n\nstill one"\ntwo\n')
    for path in (lines(tmp_path / "a.jsonl", *rows), tmp_path / "a.parquet", tmp_path / "a.csv"):
        found = read_texts(path)
        assert found.documents == ["one\n\nstill one", "two"]
        assert found.key == read_texts(tmp_path / "a.jsonl").key, "the content counts, not the file"


def test_empty_and_repeated_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read_texts(lines(tmp_path / "a.jsonl", *({"text": text} for text in ("a", "", "b", " \n", "a", "a"))))
    assert (found.documents, found.empty, found.repeated) == (["a", "b"], 2, 2)


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n\nb\n\nc")
    path = lines(tmp_path / "a.jsonl", *({"text": text} for text in "abc"))
    assert read_texts(path, limit=2).documents == read_texts(tmp_path / "a.txt", limit=2).documents == ["a", "b"]


def test_a_folder_gives_the_split_that_is_asked_for(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", {"text": "seen"})
    lines(tmp_path / "test.jsonl", {"text": "new"})
    assert read_texts(tmp_path).documents == ["new"]
    assert read_texts(tmp_path, split="train").documents == ["seen"]
    with pytest.raises(UserError, match="has no split 'trian'; did you mean 'train'"):
        read_texts(tmp_path, split="trian")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
        ("a.txt", b" \n\n\t\n", "a.txt holds no text"),
        ("a.jsonl", b'{"txt": "x"}\n', "row 1: no 'text'; did you mean 'txt'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "row 2: .*text"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.pdf", b"%PDF", "is of no known kind"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.jsonl", "nowhere"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        read_texts(tmp_path / name)


def test_the_default_is_a_dialogue_per_test_prompt_with_either_answer_by_turns(demo_run: tuple[Path, str]) -> None:
    finished = open_run(demo_run[0])
    split = finished.artifacts[finished.plan.split.key]
    texts = held_out_texts(finished)
    test = {value: load_part(split, value, "test") for value in finished.plan.config.values}
    prompts = {pair.prompt[0]["content"] for pairs in test.values() for pair in pairs}
    assert len(texts.documents) == len(prompts)
    for place, document in enumerate(texts.documents):
        assert document.startswith("<user> ") and document.endswith("<end>")
        prompt, answer = document.removeprefix("<user> ").removesuffix("<end>").split(" <assistant> ")
        answers = [
            pair.rejected if place % 2 else pair.chosen
            for pairs in test.values()
            for pair in pairs
            if pair.prompt[0]["content"] == prompt
        ]
        assert answer in [messages[0]["content"] for messages in answers]
        for value in test:
            assert all(pair.prompt[0]["content"] != prompt for pair in load_part(split, value, "train"))
    assert held_out_texts(finished, 3).documents == texts.documents[:3]


def test_a_base_from_elsewhere_needs_a_text(demo_run: tuple[Path, str]) -> None:
    finished = open_run(demo_run[0])
    elsewhere = BaseRef(config=BaseConfig(model="owner/name"), content=None)
    with pytest.raises(UserError, match=r"was trained elsewhere, .* give held-out text with --texts FILE"):
        held_out_texts(replace(finished, plan=replace(finished.plan, base=elsewhere)))
