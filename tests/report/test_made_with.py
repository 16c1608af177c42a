import json
from pathlib import Path
from typing import Any

from valuesoup.pipeline.environment import environment
from valuesoup.report.made_with import made_with
from valuesoup.store import RunLog

START: dict[str, Any] = {
    "time": 0.0,
    "event": "run",
    "python": "3.11.9",
    "packages": {"valuesoup": "0.1.0", "torch": "2.13.0", "trl": None},
    "git": {"commit": "abc123", "changed": True},
    "machine": {"system": "Linux-6", "processor": "Fast", "cpus": 2, "memory": 8 * 2**30, "gpus": ["H200", "H200"]},
}


def log(path: Path, *events: dict[str, Any], cut: str = "") -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + cut)
    return path


def test_the_last_start_is_told_even_where_an_interruption_cut_the_log(tmp_path: Path) -> None:
    older = {**START, "python": "3.10.0"}
    path = log(tmp_path / "log.jsonl", older, {"event": "done"}, START, {"event": "start"}, cut='{"event": "ru')
    found = made_with({"run": path})
    assert list(found) == ["last start", "versions", "git commit", "machine"]
    assert found["last start"].startswith(("1970-01-01", "1969-12-31"))
    assert found["versions"] == "Python 3.11.9, valuesoup 0.1.0, torch 2.13.0"
    assert found["git commit"] == "abc123, with changes that are not committed"
    assert found["machine"] == "Linux-6, Fast, 2 CPUs, 8 GiB of memory, 2 × H200"


def test_what_is_not_there_is_said_or_left_out(tmp_path: Path) -> None:
    bare = {**START, "git": None, "machine": {**START["machine"], "processor": "", "memory": None, "gpus": []}}
    found = made_with({"run": log(tmp_path / "log.jsonl", bare)})
    assert (found["git commit"], found["machine"]) == ("no repository found", "Linux-6, 2 CPUs, no GPU")
    assert made_with({"run": log(tmp_path / "old.jsonl", {"time": 0.0, "event": "run", "seed": 0})}) == {}
    assert made_with({"run": tmp_path / "missing.jsonl"}) == {}


def test_the_seeds_of_a_study_are_told_apart_only_where_they_differ(tmp_path: Path) -> None:
    other = {**START, "git": {"commit": "def456", "changed": False}}
    found = made_with({"seed-0": log(tmp_path / "0", START), "seed-1": log(tmp_path / "1", other)})
    assert found["git commit"] == "seed-0: abc123, with changes that are not committed; seed-1: def456"
    assert found["versions"] == "Python 3.11.9, valuesoup 0.1.0, torch 2.13.0"


def test_what_a_run_logs_is_told(tmp_path: Path) -> None:
    RunLog(tmp_path / "log.jsonl").write("run", seed=0, **environment())
    found = made_with({"run": tmp_path / "log.jsonl"})
    assert "valuesoup" in found["versions"] and "CPU" in found["machine"]
