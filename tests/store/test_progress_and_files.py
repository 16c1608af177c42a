"""Plain progress lines, durations for people, the log, hashes of paths, atomic writes."""

import errno
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from valuesoup.errors import RunError, UserError
from valuesoup.store import Progress, RunLog, hash_path, progress, write_atomic
from valuesoup.store.files import disk_errors
from valuesoup.store.progress import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _plain() -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, width=60)), out


def test_off_a_terminal_progress_is_plain_lines_without_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    shown, out = _plain()
    with shown.showing(), shown.task("training", 4, "steps") as task:
        for _ in range(4):
            task.advance()
        shown.say("[bold]not markup[/bold] " + "long " * 30)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()
    assert lines[0].startswith("    training: 1/4 steps, about ")
    assert lines[0].endswith(" left")
    assert len(lines) == 4  # the last step says nothing: its stage's own line follows
    assert lines[3] == "[bold]not markup[/bold] " + "long " * 30


def test_off_a_terminal_a_quick_task_says_nothing() -> None:
    shown, out = _plain()
    with shown.showing(), shown.task("training", 1000) as task:
        for _ in range(1000):
            task.advance()
    assert out.getvalue() == ""


def test_without_a_console_nothing_is_shown() -> None:
    silent = Progress()
    with silent.showing(), silent.task("x", 2) as task:
        task.update(1)
        silent.say("nothing")
    assert task.done == 1


def test_a_terminal_gets_bars_that_go_when_their_task_ends() -> None:
    out = io.StringIO()
    shown = Progress(Console(file=out, force_terminal=True, width=80))
    assert shown.live
    with shown.showing():
        with shown.task("training", 2, "steps") as task:
            task.advance()
        shown.say("done")
    assert "training" in out.getvalue()
    assert "done" in out.getvalue()


def test_an_estimate_needs_a_first_step_and_ends_at_zero() -> None:
    task = Progress().task("x", 2)
    assert task.estimate() is None
    task.update(1)
    left = task.estimate()
    assert left is not None
    assert left >= 0
    task.update(2)
    assert task.estimate() == 0


def test_every_line_of_the_log_is_json_whatever_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    RunLog(path).write("start", label='two\nlines ✓ "quoted"', where=tmp_path, of={"a": [1, 2.5, None]})
    RunLog(path).write("done", seconds=1.5)
    RunLog(None).write("nowhere")
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first["event"] == "start"
    assert first["label"] == 'two\nlines ✓ "quoted"'
    assert first["where"] == str(tmp_path)
    assert second["time"] >= first["time"]


@pytest.mark.parametrize("torn", ['{"time": 1, "eve', "x"])
def test_an_event_after_a_torn_line_stands_on_its_own(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(torn)
    RunLog(path).write("run")
    RunLog(path).write("done")
    first, *others = path.read_text().splitlines()
    assert first == torn
    assert [json.loads(line)["event"] for line in others] == ["run", "done"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EPERM])
def test_a_disk_that_does_not_take_the_bytes_is_one_sentence_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_atomic(tmp_path / "x.json", "old")

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError) as caught, disk_errors("the results", tmp_path):
        write_atomic(tmp_path / "x.json", "new")
    assert str(caught.value).startswith(f"the results: {os.strerror(number)} (")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "x.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_folders_hash_follows_names_and_bytes_and_not_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("one")
    first = hash_path(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    assert hash_path(folder) == first
    (folder / "inner" / "a.txt").rename(folder / "inner" / "b.txt")
    renamed = hash_path(folder)
    assert renamed != first
    (folder / "inner" / "b.txt").write_text("two")
    assert hash_path(folder) not in (first, renamed)
    assert len(hash_path(folder / "inner" / "b.txt")) == 64
    with pytest.raises(UserError, match="nowhere does not exist"):
        hash_path(tmp_path / "nowhere")


def test_an_atomic_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, "old ✓")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half \ud800")
    assert path.read_text(encoding="utf-8") == "old ✓"
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]
