"""A stage that several processes of a Ray cluster do together, on two nodes: what they tell, and how they are lost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tiny_stages import add, share
from valuesoup.errors import UserError
from valuesoup.store import Artifact, Cluster, Node, Progress, Remote, RunLog, Store, run_graph

pytest.importorskip("ray", reason="needs Ray: pip install 'valuesoup[ray]'")


def make(
    folder: Path, nodes: Any, *graph: Node, processes: int = 2, remote: Remote | None = None
) -> Mapping[str, Artifact]:
    store, log = Store(folder / "store", remote=remote), RunLog(folder / "log.jsonl")
    return run_graph(graph, store, Progress(), log, None, Cluster(nodes.address, processes=processes))


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def test_all_do_their_share_and_the_first_alone_writes(tmp_path: Path, nodes: Any) -> None:
    before = add("before", one=4, to=[])  # whose actor holds a node's CPU, until the team needs it
    node = share("share", place=str(tmp_path), how="", of=before)
    found = make(tmp_path, nodes, node)
    assert found[node.key].json("share.json") == {"total": 33.0, "size": 2, "first": True, "of": 4}
    assert len(events(tmp_path, "shared")) == 1
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted([before.folder, node.folder])


def test_through_a_url_each_process_fetches_what_the_stage_reads(tmp_path: Path, nodes: Any, url: str) -> None:
    before = add("before", one=5, to=[])
    node = share("share", place=str(tmp_path), how="", of=before)
    found = make(tmp_path, nodes, node, remote=Remote(url))
    assert found[node.key].json("share.json") == {"total": 33.0, "size": 2, "first": True, "of": 5}
    assert found[node.key].path.parent == tmp_path / "store"


def test_a_team_that_lost_a_process_begins_anew_from_its_checkpoints(tmp_path: Path, nodes: Any) -> None:
    node = share("share", place=str(tmp_path), how="killed 1")
    found = make(tmp_path, nodes, node)
    assert (tmp_path / "killed").is_file()
    about = found[node.key].json("share.json")
    assert (about["total"], about["first"]) == (33.0, False)
    (lost,) = events(tmp_path, "lost")
    assert (lost["losses"], lost["reason"]) == (1, "process 2 of its team died")
    assert not list((tmp_path / "store").glob(".*"))


def test_an_error_in_any_process_is_raised_as_it_was(tmp_path: Path, nodes: Any) -> None:
    with pytest.raises(UserError, match=r"^1 processes are odd\."):
        make(tmp_path, nodes, share("share", place=str(tmp_path), how="fails 1"))
    assert not events(tmp_path, "lost"), "an error is not tried again"
    assert not list((tmp_path / "store").glob(".worker-*"))


def test_more_processes_than_the_cluster_has_places_for_are_refused(tmp_path: Path, nodes: Any) -> None:
    with pytest.raises(UserError, match="not 3 times 1 CPUs for the 3 processes of a training"):
        make(tmp_path, nodes, share("share", place=str(tmp_path), how=""), processes=3)
    with pytest.raises(UserError, match="must be at least 1, not 0"):
        Cluster(processes=0)
