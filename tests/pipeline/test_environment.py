"""What a start is logged with: enough to say later what made a figure, and nothing secret."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from valuesoup.pipeline.environment import PACKAGES, environment


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_and_machine_are_named() -> None:
    found = environment()
    assert set(found["packages"]) == set(PACKAGES)
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["machine"]["cpus"] >= 1
    assert found["machine"]["memory"] > 1e8
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_named_and_whether_files_were_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("one")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment()["git"] == {"commit": commit, "changed": False}
    (tmp_path / "a.txt").write_text("two")
    assert environment()["git"] == {"commit": commit, "changed": True}


def test_every_start_of_a_run_is_logged_with_it_and_with_no_variable_of_the_environment(
    demo_run: tuple[Path, str],
) -> None:
    text = (demo_run[0] / "log.jsonl").read_text(encoding="utf-8")
    first = json.loads(text.splitlines()[0])
    assert first["event"] == "run"
    assert first["seed"] == 0
    assert first["packages"]["transformers"]
    assert "VALUESOUP_CACHE" not in text
