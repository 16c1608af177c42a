"""The tiny demo on a Ray cluster of several nodes: the figures of one process, though a node is lost on the way."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from tiny_storage import SECRET

pytest.importorskip("ray", reason="needs Ray: pip install 'valuesoup[ray]'")

SETTINGS = [part for setting in tiny_run.overrides("helpful", "harmless") for part in ("--set", setting)]


def config(folder: Path) -> Path:
    from valuesoup.configfile import dump_config
    from valuesoup.pipeline.demo import demo_config

    path = folder / "demo.yaml"
    path.write_text(dump_config(demo_config(overrides=SETTINGS[1::2])), encoding="utf-8")
    return path


def events(folder: Path, event: str) -> list[dict[str, object]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == event]


def arguments(tmp_path: Path, *options: str | Path) -> list[str | Path]:
    return ["run", config(tmp_path), "--out", tmp_path / "run", "--executor", "ray", *options]


def start(tmp_path: Path, *options: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        tiny_run.command(*arguments(tmp_path, *options)),
        env=tiny_run.environment(tmp_path / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reach(tmp_path: Path, pattern: str, run: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run" / "artifacts").glob(pattern)) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)


def test_artifacts_behind_a_url_need_no_shared_folder(
    demo_run: tuple[Path, str], tmp_path: Path, nodes: Any, url: str
) -> None:
    run = start(tmp_path, *(options := ("--address", nodes.address, "--artifacts", url)))
    reach(tmp_path, "reward-*", run)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, tiny_run.interrupted(*arguments(tmp_path, *options)))
    (tmp_path / "run").rename(tmp_path / "first")  # another machine, with nothing of it, continues
    run = start(tmp_path, "--address", nodes.address, "--artifacts", url)
    said, errors = run.communicate(timeout=200)
    assert (run.returncode, errors) == (0, ""), said
    assert " stages are already done" in said
    assert not [event for event in events(tmp_path / "run", "start") if event["stage"] == "pretrain"]
    assert tiny_run.figures(tmp_path / "run") == tiny_run.figures(demo_run[0])
    assert SECRET not in said
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_a_node_killed_in_the_middle_changes_no_figure(demo_run: tuple[Path, str], tmp_path: Path, nodes: Any) -> None:
    run = start(tmp_path, "--address", nodes.address)
    reach(tmp_path, ".partial-train-*", run)
    nodes.remove_node(nodes.workers[1], allow_graceful=False)
    said, errors = run.communicate(timeout=200)
    assert (run.returncode, errors) == (0, ""), said
    lost = [line for line in said.splitlines() if line.startswith("! ")]
    assert lost, said
    assert all("was lost (" in line and line.endswith("trying again, 1 of 3") for line in lost), lost
    assert len(events(tmp_path / "run", "lost")) == len(lost)
    finished = [event["key"] for event in events(tmp_path / "run", "done")]
    assert len(finished) == len(set(finished)) == tiny_run.stages(tmp_path / "run"), "no stage was made twice"
    assert not list((tmp_path / "run" / "artifacts").glob(".*"))
    assert tiny_run.figures(tmp_path / "run") == tiny_run.figures(demo_run[0])


def test_options_of_a_cluster_without_one_are_refused(tmp_path: Path) -> None:
    done = tiny_run.valuesoup(tmp_path / "cache", "run", config(tmp_path), "--address", "auto")
    assert done.returncode == 2
    assert done.stderr == "error: --address belongs to a Ray cluster; add --executor ray, or leave it out.\n"


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    run = start(tmp_path, "--address", "127.0.0.1:1")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2
    assert errors.startswith("error: no Ray cluster answers at 127.0.0.1:1 (")
    assert "Traceback" not in errors
