"""A clock that was ahead, or goes back: the same figures, no time below zero, no page of other results."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from faults.machine import YEAR, Machine, events, kinds


def age(folder: Path, seconds: float) -> None:
    """Shift the times of every file and folder."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            found = path.stat()
            os.utime(path, (found.st_atime + seconds, found.st_mtime + seconds))


def times(value: Any) -> list[float]:
    """Return every duration in a JSON value."""
    if isinstance(value, dict):
        here = [item for key, item in value.items() if key.endswith("seconds") and item is not None]
        return here + [time for item in value.values() for time in times(item)]
    return [time for item in value for time in times(item)] if isinstance(value, list) else []


@pytest.fixture
def run(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(demo_run[0], tmp_path / "run")


def test_a_training_begun_with_the_clock_a_year_ahead_goes_on_with_one_that_runs_backwards(
    run: Path, demo_run: tuple[Path, str], machine: Machine, tmp_path: Path
) -> None:
    cache, logged = tmp_path / "cache", len(events(run))
    reference, folder = kinds(run)["reference"][0], kinds(run)["train"][0]
    steps = json.loads((folder / "summary.json").read_text())["steps"]
    for made in (reference, folder):
        shutil.rmtree(made)
    arguments = (cache, "run", run / "config.yaml", "--set", "title=A later title")
    last = ("os.mkdir", f"*/.checkpoints/checkpoint-{steps}")
    assert machine.valuesoup(*arguments, at=last, clock=(YEAR, 1.0)).code == -9
    partial = folder.with_name(f".partial-{folder.name}")
    assert list(partial.glob(".checkpoints/checkpoint-*/trainer_state.json")), "in the midst of the training"
    age(run, YEAR)
    age(reference, -2 * YEAR)
    # The page takes seconds, so all is let be done but its figures.
    ended = machine.valuesoup(*arguments, at=("open", "*/figures/*"), clock=(0.0, -1.0))
    assert (ended.code, ended.errors) == (-9, "")
    assert ended.out.endswith("writing the report …\n")
    assert not (run / "report.html").exists(), "a page that is newer than the clock is not kept for other results"
    assert not re.search(r"[-−]\d+(\.\d)? (s|min|h)\b", ended.out), "no time below zero"
    assert tiny_run.figures(run) == tiny_run.figures(demo_run[0])
    since = events(run)[logged:]
    assert since[0]["time"] > since[-1]["time"] + 0.9 * YEAR, "the log tells what the clock said"
    assert all(time >= 0 for time in times([since, json.loads((run / "results.json").read_text())]))
    done = [event["stage"] for event in since if event["event"] == "done"]
    assert done == ["reference", "train"], "what is older or newer than it can be is not made again"
    count = tiny_run.stages(run) + 1
    assert machine.valuesoup(cache, "status", run, clock=(0.0, -1.0)).well().endswith(f"{count} of {count} done\n")
    assert "[1/" not in machine.completes(cache, run)
