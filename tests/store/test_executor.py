"""Stages side by side: order, errors, deaths of workers and of the run, and that nothing is lost by any of them."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tiny_stages
from tiny_stages import add, endless, fail, meet, process
from valuesoup.errors import RunError, UserError
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, Work, run_graph, stage, topological, workers
from valuesoup.store.executor import most_needed_first


def make(folder: Path, *nodes: Node, jobs: int = 2, progress: Progress | None = None) -> Mapping[str, Artifact]:
    return run_graph(nodes, Store(folder / "store"), progress or Progress(), RunLog(folder / "log.jsonl"), jobs=jobs)


def events(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [(event["event"], event["label"]) for event in map(json.loads, lines)]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def diamond() -> list[Node]:
    root = add("root", one=1, to=[])
    sides = [add(f"side {one}", one=one, to=[root]) for one in (2, 3, 4)]
    return [root, *sides, add("join", one=5, to=sides)]


def test_a_graph_made_side_by_side_is_the_one_made_in_order(tmp_path: Path) -> None:
    nodes = diamond()
    found = make(tmp_path, *nodes, jobs=3)
    assert [found[node.key].json("sum.json") for node in nodes] == [1, 3, 4, 5, 17]
    written = events(tmp_path)
    for node in nodes:
        began = written.index(("start", node.label))
        assert began < written.index(("noted", node.label)) < written.index(("done", node.label))
        assert all(written.index(("done", parent.label)) < began for parent in node.parents)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted(node.folder for node in nodes)
    before = len(written)
    make(tmp_path, *nodes, jobs=3)
    assert len(events(tmp_path)) == before


def test_what_workers_show_carries_their_stages_labels(tmp_path: Path) -> None:
    out = io.StringIO()
    make(tmp_path, *diamond(), progress=Progress(Console(file=out, width=200)))
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["[1/5] root", "    root: a word of 1"]
    assert "    side 3: a word of 3" in lines
    assert "[5/5] join" in lines


def test_a_terminal_shows_bars_of_stages_in_workers(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=80))
    with progress.showing():
        make(tmp_path, *diamond(), progress=progress)
        assert progress._rich is not None
        assert progress._rich.task_ids == []
    assert "0/2" in out.getvalue()


def test_stages_run_at_the_same_time_in_processes_that_share_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    place = str(tmp_path)
    make(tmp_path, meet("a", place=place, me="a", other="b"), meet("b", place=place, me="b", other="a"))
    nodes = [process("one", of="one", with_torch=True), meet("c", place=place, me="c", other="a")]
    about = make(tmp_path, *nodes)[nodes[0].key].json("process.json")
    assert about["pid"] != os.getpid()
    assert about["threads"] == max(1, workers.usable_cpus() // 2)
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    nodes = [process("two", of="two"), meet("d", place=place, me="d", other="a")]
    assert make(tmp_path, *nodes)[nodes[0].key].json("process.json")["asked"] == "3"


def test_one_job_runs_in_this_process(tmp_path: Path) -> None:
    node = process("one", of="one")
    assert make(tmp_path, node, add("two", one=2, to=[]), jobs=1)[node.key].json("process.json")["pid"] == os.getpid()


def test_jobs_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="jobs must be at least 1 stage at a time, not 0"):
        make(tmp_path, *diamond(), jobs=0)


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 8))):
        nodes.append(add(f"{number}", one=number, to=[node for node in nodes if draw(st.booleans())]))
    return topological(draw(st.permutations(nodes)))


@given(graphs())
def test_the_most_needed_come_first_and_parents_before_children(nodes: list[Node]) -> None:
    order = most_needed_first(nodes)
    assert sorted(node.key for node in order) == sorted(node.key for node in nodes)
    counts = [len([one for one in nodes if node.key in {n.key for n in topological([one])}]) for node in order]
    assert counts == sorted(counts, reverse=True)
    place = {node.key: position for position, node in enumerate(order)}
    assert all(place[parent.key] < place[node.key] for node in nodes for parent in node.parents)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("user", UserError, "the input is wrong."),
        ("odd", UserError, "3 rows are odd."),
        ("value", ValueError, "halfway"),
        ("full", RunError, "fails: No space left on device"),
        ("killed", RunError, "fails: its worker process died (SIGKILL); finished stages stay"),
    ],
)
def test_an_error_stops_the_others_and_is_raised_as_it_was(
    tmp_path: Path, how: str, kind: type[Exception], text: str
) -> None:
    first = add("first", one=1, to=[])
    wrong = fail("fails", how=how, when=str(tmp_path / "endless"))
    other = endless("endless", place=str(tmp_path), how="sleeps")
    with pytest.raises(kind) as caught:
        make(tmp_path, first, wrong, other, add("never", one=9, to=[wrong]))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    if how == "killed":
        assert "fewer --jobs" in str(caught.value)
    assert gone(int((tmp_path / "endless").read_text())), "the stage beside it was stopped"
    assert Store(tmp_path / "store").find(first) is not None, "finished stages stay"
    assert ("start", "never") not in events(tmp_path)
    assert not list((tmp_path / "store").glob(".worker-*"))
    found = make(tmp_path, other, add("second", one=2, to=[first]))
    assert (found[other.key].path / "resumed").read_text() == "step 3"


def test_the_traceback_in_the_worker_is_kept_as_a_note(tmp_path: Path) -> None:
    (tmp_path / "now").touch()
    with pytest.raises(ValueError, match="halfway") as caught:
        make(tmp_path, fail("fails", how="value", when=str(tmp_path / "now")), add("first", one=1, to=[]))
    assert "tiny_stages.py" in "".join(caught.value.__notes__)


def test_a_stage_that_no_worker_could_find_is_refused(tmp_path: Path) -> None:
    @stage("inner")
    def inner(work: Work) -> None:
        pass

    with pytest.raises(Exception, match="stage 'inner' is not the attribute"):
        make(tmp_path, inner("inner"), add("first", one=1, to=[]))


@pytest.mark.parametrize("how", ["sleeps", "computes"])
def test_a_killed_run_leaves_no_worker_and_the_next_one_resumes(tmp_path: Path, how: str) -> None:
    if how == "computes" and sys.platform != "linux":
        pytest.skip("only Linux ends a process that lets no thread run")
    run = subprocess.Popen(
        [sys.executable, tiny_stages.__file__, str(tmp_path), how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    tiny_stages.await_file(tmp_path / "endless")
    pid = int((tmp_path / "endless").read_text())
    run.kill()
    found = make(tmp_path, *tiny_stages.graph(tmp_path, how))  # at once
    assert gone(pid)
    run.wait()
    node = tiny_stages.graph(tmp_path, how)[1]
    assert (found[node.key].path / "resumed").read_text() == "step 3"


def test_a_run_waits_for_a_worker_of_an_earlier_one_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ORPHAN_SECONDS", 0.2)
    (tmp_path / "store").mkdir()
    lock = FileLock(tmp_path / "store" / ".worker-1.lock")
    with lock, pytest.raises(RunError, match=r"of an earlier run still holds .*worker-1\.lock; end it"):
        make(tmp_path, *diamond(), jobs=1)
    make(tmp_path, *diamond(), jobs=1)
    assert not list((tmp_path / "store").glob(".worker-*"))
