"""Artifacts: atomic, verified, made again when damaged, shared between runs, one process per run folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from valuesoup.errors import RunError, UserError
from valuesoup.store import Node, Progress, RunLog, Store, Work, run_graph, stage
from valuesoup.store import artifacts as room
from valuesoup.store.artifacts import MANIFEST, lock_run

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@stage("count")
def count(work: Work, *, to: int, fail: bool = False) -> None:
    CALLS.append(f"count {to}")
    (work.out / "deep").mkdir(exist_ok=True)
    (work.out / "deep" / "numbers.json").write_text(json.dumps(list(range(to))))
    (work.out / "note.txt").write_text("made")
    (work.out / ".scratch").mkdir(exist_ok=True)
    (work.out / ".scratch" / "checkpoint").write_text("half")
    if fail:
        raise ValueError("halfway")


@stage("sum")
def add(work: Work, *, of: room.Artifact) -> None:
    CALLS.append("sum")
    (work.out / "sum.json").write_text(json.dumps(sum(of.json("deep/numbers.json"))))


def make(store: Store, *nodes: Node) -> dict[str, room.Artifact]:
    return dict(run_graph(nodes, store, Progress(), RunLog(None)))


def test_a_graph_is_made_once_and_the_second_run_does_nothing(tmp_path: Path) -> None:
    node = add("add", of=count("count", to=4))
    found = make(Store(tmp_path), node)
    assert found[node.key].json("sum.json") == 6
    assert CALLS == ["count 4", "sum"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = make(Store(tmp_path), node)
    assert CALLS == ["count 4", "sum"]
    assert again[node.key].json("sum.json") == 6
    assert again[node.key].seconds == found[node.key].seconds
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_manifest_explains_the_key_and_lists_every_file_but_no_scratch(tmp_path: Path) -> None:
    node = count("count to four", to=4)
    artifact = make(Store(tmp_path), node)[node.key]
    manifest = artifact.json(MANIFEST)
    assert manifest["stage"] == "count"
    assert manifest["inputs"] == {"to": 4}
    assert manifest["key"] == node.key
    assert [entry["name"] for entry in manifest["files"]] == ["deep/numbers.json", "note.txt"]
    assert not (artifact.path / ".scratch").exists()
    assert [path.name for path in tmp_path.iterdir()] == [node.folder]


def test_an_exception_leaves_no_artifact_and_the_next_attempt_finds_what_was_written(tmp_path: Path) -> None:
    node, store = count("count", to=4, fail=True), Store(tmp_path)
    with pytest.raises(ValueError, match="halfway"):
        make(store, node)
    assert store.find(node) is None
    assert not store.is_done(node)
    with store.making(node) as out:
        assert (out / ".scratch" / "checkpoint").read_text() == "half"
        assert (out / "note.txt").read_text() == "made"
    assert store.find(node) is not None


def test_finished_stages_stay_when_a_later_one_fails(tmp_path: Path) -> None:
    parent = count("count", to=4)

    @stage("broken")
    def broken(work: Work, *, of: room.Artifact) -> None:
        raise UserError("no")

    with pytest.raises(UserError):
        make(Store(tmp_path), broken("broken", of=parent))
    make(Store(tmp_path), add("add", of=parent))
    assert CALLS == ["count 4", "sum"]


def test_a_result_interrupted_between_manifest_and_rename_is_adopted(tmp_path: Path) -> None:
    node = count("count", to=4)
    folder = make(Store(tmp_path), node)[node.key].path
    folder.rename(tmp_path / f".partial-{node.folder}")
    assert make(Store(tmp_path), node)[node.key].path == folder
    assert CALLS == ["count 4"]


def test_a_partial_result_with_a_wrong_manifest_is_not_adopted(tmp_path: Path) -> None:
    node = count("count", to=4)
    folder = make(Store(tmp_path), node)[node.key].path
    partial = folder.rename(tmp_path / f".partial-{node.folder}")
    (partial / "note.txt").write_text("mada")
    artifact = make(Store(tmp_path), node)[node.key]
    assert CALLS == ["count 4"] * 2
    assert (artifact.path / "note.txt").read_text() == "made"


def _change_a_byte(folder: Path) -> None:
    file = folder / "note.txt"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_change_a_byte, "note.txt differs from its hash"),
        (lambda folder: (folder / "deep" / "numbers.json").unlink(), "deep/numbers.json is missing"),
        (lambda folder: (folder / "more.txt").write_text("?"), "more.txt is not in the manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), f"{MANIFEST} is missing or unreadable"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), f"{MANIFEST} is missing or unreadable"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), f"{MANIFEST} is missing or unreadable"),
        (lambda folder: (folder / MANIFEST).unlink(), f"{MANIFEST} is missing or unreadable"),
    ],
)
def test_a_damaged_artifact_is_found_named_and_made_again(tmp_path: Path, damage: object, named: str) -> None:
    node, said = add("add", of=count("count", to=4)), []
    found = make(Store(tmp_path), node)
    (parent,) = node.parents
    damage(found[parent.key].path)  # type: ignore[operator]
    CALLS.clear()
    log = RunLog(tmp_path / "log.jsonl")

    class Said(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    again = run_graph([node], Store(tmp_path), Said(), log)
    assert CALLS == ["count 4"]  # the sum stands as it was
    assert again[parent.key].json("deep/numbers.json") == [0, 1, 2, 3]
    (complaint,) = [text for text in said if "damaged" in text]
    assert parent.folder in complaint
    assert named in complaint
    assert [json.loads(line)["event"] for line in log.path.read_text().splitlines()] == ["damaged", "start", "done"]  # type: ignore[union-attr]


def counted(node: Node) -> bool:
    return node.stage.name == "count"


def test_shared_stages_serve_other_runs_and_stand_in_every_run_folder(tmp_path: Path) -> None:
    node, cache = count("count", to=4), tmp_path / "cache"
    stores = [Store(tmp_path / name, cache, counted) for name in ("one", "two")]
    for store in stores:
        artifact = make(store, node)[node.key]
        assert artifact.path.parent == store.root
    assert CALLS == ["count 4"]
    assert [path.name for path in cache.iterdir()] == [node.folder]


def test_a_run_folder_does_not_need_the_shared_store_once_it_has_its_own_copy(tmp_path: Path) -> None:
    node = count("count", to=4)
    make(Store(tmp_path / "run", tmp_path / "cache", counted), node)
    assert Store(tmp_path / "run", tmp_path / "elsewhere", counted).find(node) is not None


def test_a_damaged_shared_result_is_not_taken(tmp_path: Path) -> None:
    node, said = count("count", to=4), []
    one = Store(tmp_path / "one", tmp_path / "cache", counted)
    make(one, node)
    _change_a_byte(tmp_path / "cache" / node.folder)
    two = Store(tmp_path / "two", tmp_path / "cache", counted)
    assert two.is_done(node)
    assert two.find(node, said.append) is None
    assert "note.txt differs" in said[0]


def test_a_shared_store_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path) -> None:
    node = count("count", to=4)
    (tmp_path / "cache").write_text("a file where the folder should be")
    make(Store(tmp_path / "run", tmp_path / "cache", counted), node)
    assert CALLS == ["count 4"]


def _into_full(work: Work) -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)


def _array_into_full(work: Work) -> None:
    with Path("/dev/full").open("wb") as file:
        np.save(file, np.zeros(100_000))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("write", [_into_full, _array_into_full])
def test_a_full_disk_gives_one_sentence_and_keeps_finished_stages(tmp_path: Path, write: object) -> None:
    @stage("full")
    def full(work: Work, *, of: room.Artifact) -> None:
        write(work)  # type: ignore[operator]

    parent = count("count", to=4)
    with pytest.raises(RunError) as caught:
        make(Store(tmp_path), full("fill the disk", of=parent))
    assert "fill the disk: No space left on device" in str(caught.value)
    assert "finished stages stay" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Store(tmp_path).find(parent) is not None


def test_other_errors_of_a_stage_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    @stage("lost")
    def lost(work: Work) -> None:
        Path(work.out / "nowhere" / "x").write_text("x")

    with pytest.raises(FileNotFoundError):
        make(Store(tmp_path), lost("lost"))


LOCKED = """
import sys
from pathlib import Path
from valuesoup.errors import UserError
from valuesoup.store.artifacts import lock_run
try:
    with lock_run(Path(sys.argv[1])):
        print("held")
except UserError as error:
    print(error)
"""


def test_a_run_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", LOCKED, str(folder)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with lock_run(folder):
        assert other() == f"run folder {folder} is in use by another process; wait for it, or choose another --out."
    assert other() == "held"


def test_a_run_folder_that_cannot_be_made_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"), lock_run(tmp_path / "file" / "run"):
        pass


def test_an_artifact_under_the_name_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    four, five = count("four", to=4), count("five", to=5)
    make(Store(tmp_path), four, five)
    shutil.rmtree(tmp_path / four.folder)
    shutil.copytree(tmp_path / five.folder, tmp_path / four.folder)
    assert Store(tmp_path).look(four) == f"holds a damaged {four.folder} ({MANIFEST} is that of another artifact)"
    assert not Store(tmp_path).is_done(four)
    assert make(Store(tmp_path), four)[four.key].json("deep/numbers.json") == [0, 1, 2, 3]
