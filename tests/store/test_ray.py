"""Stages on a Ray cluster of several nodes: order, errors, lost workers and lost nodes, and orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

import tiny_stages
from tiny_stages import add, endless, fail, meet, process
from valuesoup.errors import RunError, UserError
from valuesoup.store import Artifact, Cluster, Node, Progress, RunLog, Store, ray_workers, run_graph

pytest.importorskip("ray", reason="needs Ray: pip install 'valuesoup[ray]'")


class Said(Progress):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Start a head without CPUs and two nodes with one each."""
    from tiny_cluster import cluster

    with cluster(2) as started:
        yield started


def make(
    folder: Path, nodes: Any, *graph: Node, jobs: int | None = None, progress: Progress | None = None
) -> Mapping[str, Artifact]:
    store, log = Store(folder / "store"), RunLog(folder / "log.jsonl")
    return run_graph(graph, store, progress or Progress(), log, jobs, Cluster(nodes.address))


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def diamond() -> list[Node]:
    root = add("root", one=1, to=[])
    sides = [add(f"side {one}", one=one, to=[root]) for one in (2, 3, 4)]
    return [root, *sides, add("join", one=5, to=sides)]


def test_a_graph_made_on_a_cluster_is_the_one_made_here(tmp_path: Path, nodes: Any) -> None:
    graph, said = diamond(), Said()
    found = make(tmp_path, nodes, *graph, progress=said)
    assert [found[node.key].json("sum.json") for node in graph] == [1, 3, 4, 5, 17]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted(node.folder for node in graph)
    assert said.lines[0] == "Ray: 2 machines with 2 CPUs and 0 GPUs; up to 2 stages at a time, 1 CPUs each"
    assert "    side 3: a word of 3" in said.lines
    for node in graph:
        own = [event["event"] for event in events(tmp_path) if event["label"] == node.label]
        assert own == ["start", "noted", "done"]
    before = len(events(tmp_path))
    make(tmp_path, nodes, *graph)
    assert len(events(tmp_path)) == before


def test_stages_run_at_the_same_time_with_the_threads_of_their_cpus(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    place = str(tmp_path)
    node = process("one", of="one", with_torch=True)
    meeting = [meet("a", place=place, me="a", other="b"), meet("b", place=place, me="b", other="a")]
    about = make(tmp_path, nodes, *meeting, node)[node.key].json("process.json")
    assert about["pid"] != os.getpid()
    assert (about["asked"], about["threads"]) == ("1", 1)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [("odd", UserError, "3 rows are odd."), ("full", RunError, "fails: No space left on device")],
)
def test_an_error_of_a_stage_is_raised_as_it_was_and_stops_the_others(
    tmp_path: Path, nodes: Any, how: str, kind: type[Exception], text: str
) -> None:
    wrong = fail("fails", how=how, when=str(tmp_path / "endless"))
    other = endless("endless", place=str(tmp_path), how="sleeps")
    with pytest.raises(kind) as caught:
        make(tmp_path, nodes, wrong, other, jobs=2)
    assert text in str(caught.value)
    started = [event["label"] for event in events(tmp_path) if event["event"] == "start"]
    assert started.count("fails") == 1, "an error is not tried again"
    assert not list((tmp_path / "store").glob(".worker-*")), "both workers are gone"
    found = make(tmp_path, nodes, other)
    assert (found[other.key].path / "resumed").read_text() == "step 3"


def test_a_worker_that_dies_is_replaced_and_its_stage_resumes(tmp_path: Path, nodes: Any) -> None:
    import threading

    def kill() -> None:
        tiny_stages.await_file(tmp_path / "endless")
        os.kill(int((tmp_path / "endless").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    node, said = endless("endless", place=str(tmp_path), how="sleeps"), Said()
    found = make(tmp_path, nodes, node, *diamond(), progress=said)
    killer.join()
    assert (found[node.key].path / "resumed").read_text() == "step 3"
    (line,) = [line for line in said.lines if line.startswith("! ")]
    assert line.startswith("! endless: its worker on ")
    assert line.endswith("; trying again, 1 of 3")
    assert [event["losses"] for event in events(tmp_path) if event["event"] == "lost"] == [1]


def test_a_stage_that_kills_every_worker_ends_the_run_in_one_sentence(tmp_path: Path, nodes: Any) -> None:
    (tmp_path / "now").touch()
    with pytest.raises(
        RunError, match=r"^fails: its worker was lost 4 times, at last on .*finished stages stay"
    ) as caught:
        make(tmp_path, nodes, fail("fails", how="killed", when=str(tmp_path / "now")), *diamond())
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").glob(".worker-*"))


def test_a_lost_worker_that_may_still_write_is_not_run_beside(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "GONE_SECONDS", 0.2)
    store = Store(tmp_path / "store")
    workers = ray_workers.RayWorkers(Cluster(nodes.address), 1, store, Progress(), RunLog(None))
    with workers:
        workers.start(add("first", one=1, to=[]), {})
        workers._hand_out()
        (hired,) = workers._hired
        assert hired.lock is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with FileLock(hired.lock, timeout=0):
                    time.sleep(0.05)
            except Timeout:
                break  # the actor holds it
            time.sleep(0.05)
        monkeypatch.setattr("ray.kill", lambda _: None)  # as of a machine that the network has cut off
        with pytest.raises(RunError, match="that cannot be reached still holds"):
            workers._lost(hired, RuntimeError("gone"))


def test_a_machine_that_does_not_see_the_run_folder_is_named(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "touch", lambda *_, **__: None)  # what it wrote stays on its machine
    monkeypatch.setattr(ray_workers, "SEEN_SECONDS", 0.2)
    with pytest.raises(RunError, match=r"machine .* does not see .*store; put the run folder on a path that all"):
        make(tmp_path, nodes, *diamond())


def test_more_than_any_machine_has_is_refused(tmp_path: Path, nodes: Any) -> None:
    for cluster, text in (
        (Cluster(nodes.address, cpus=2), "no machine of the Ray cluster has the 2 CPUs and 0 GiB"),
        (Cluster(nodes.address, memory=10_000), "no machine of the Ray cluster has the 1 CPUs and 10000 GiB"),
    ):
        with pytest.raises(UserError, match=text):
            run_graph(diamond(), Store(tmp_path / "store"), Progress(), RunLog(None), None, cluster)


def test_a_stage_that_computes_on_a_gpu_gets_one_and_no_other_does(tmp_path: Path, nodes: Any) -> None:
    import ray

    more = nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 * 2**20)
    try:
        wanted = add("with a model", one=1, to=[])
        store = Store(tmp_path / "store")
        cluster = Cluster(nodes.address)
        workers = ray_workers.RayWorkers(cluster, 2, store, Progress(), RunLog(None), lambda node: node == wanted)
        with workers:
            workers.start(wanted, {})
            workers.start(add("tables alone", one=2, to=[]), {})
            assert not workers.free
            assert {workers.next_made()[0].label, workers.next_made()[0].label} == {"with a model", "tables alone"}
            assert not workers.busy
            assert sorted(one.kind.name for one in workers._hired) == ["CPU", "GPU"]
            deadline = time.monotonic() + 10
            while ray.available_resources().get("GPU") and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not ray.available_resources().get("GPU")
    finally:
        nodes.remove_node(more)


def test_a_cluster_that_is_not_there_is_refused(tmp_path: Path, nodes: Any) -> None:
    with pytest.raises(UserError, match="ray://"):
        Cluster("ray://somewhere:10001")
    with pytest.raises(UserError, match="cpus of a stage must be more than 0, not 0"):
        Cluster(cpus=0)


def test_ctrl_c_and_sigterm_keep_their_handlers(tmp_path: Path, nodes: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    make(tmp_path, nodes, add("first", one=1, to=[]))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


KILLED = """
import sys
from pathlib import Path
import tiny_stages
from valuesoup.store import Cluster, Progress, RunLog, Store, run_graph
home = Path(sys.argv[1])
graph = tiny_stages.graph(home, "computes")
run_graph(graph, Store(home / "store"), Progress(), RunLog(home / "log.jsonl"), 2, Cluster(sys.argv[2]))
"""


def test_a_killed_run_leaves_no_worker_and_the_next_one_resumes(tmp_path: Path, nodes: Any) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), nodes.address],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    tiny_stages.await_file(tmp_path / "endless")
    pid = int((tmp_path / "endless").read_text())
    run.kill()
    run.wait()
    found = run_graph(  # at once, and here
        tiny_stages.graph(tmp_path, "computes"), Store(tmp_path / "store"), Progress(), RunLog(tmp_path / "log.jsonl")
    )
    assert not Path(f"/proc/{pid}").exists()
    node = tiny_stages.graph(tmp_path, "computes")[1]
    assert (found[node.key].path / "resumed").read_text() == "step 3"
