"""Stages side by side from the command line: the results of one job, whatever stopped the run on its way."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import tiny_run
from valuesoup.pipeline.status import run_status

SETTINGS = tiny_run.overrides("helpful", "harmless")


def run_to(folder: Path, cache: Path, pattern: str, how: signal.Signals, *, whole_group: bool) -> tuple[int, str]:
    """Start the tiny demo with two jobs, stop it when an artifact of the pattern is there; its code and errors."""
    with subprocess.Popen(
        tiny_run.command(*tiny_run.demo_arguments(folder, SETTINGS, jobs=2)),
        env=tiny_run.environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not any((folder / "artifacts").glob(pattern)) and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.005)
        if whole_group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        _, errors = process.communicate(timeout=60)  # to the end of the workers too, which hold the same pipe
    return process.returncode, errors


def test_no_jobs_are_refused_by_name(tmp_path: Path) -> None:
    done = tiny_run.valuesoup(tmp_path / "cache", "run", "x.yaml", "--jobs", "0")
    assert done.returncode == 2
    assert "Invalid value for '--jobs'" in done.stderr


def test_two_jobs_give_the_results_of_one_though_interrupted_and_killed(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache"
    code, errors = run_to(folder, cache, ".partial-reward-*", signal.SIGINT, whole_group=True)  # Ctrl-C on a terminal
    assert (code, errors) == (130, tiny_run.interrupted(*tiny_run.demo_arguments(folder, SETTINGS, jobs=2)))
    assert not list((folder / "artifacts").glob(".worker-*"))
    code, errors = run_to(folder, cache, ".partial-train-*", signal.SIGKILL, whole_group=False)
    assert (code, errors) == (-signal.SIGKILL, "")
    done = sum(stage.done for stage in run_status(folder))
    last = tiny_run.valuesoup(cache, *tiny_run.demo_arguments(folder, SETTINGS, jobs=2))
    assert last.returncode == 0, last.stderr
    assert last.stderr == ""
    found = re.search(rf"(\d+) of {tiny_run.stages(folder)} stages are already done", last.stdout)
    assert found, last.stdout
    assert int(found[1]) >= done  # a worker whose run was killed may have finished its stage meanwhile
    assert tiny_run.figures(folder) == tiny_run.figures(demo_run[0])
    assert not list((folder / "artifacts").glob(".*"))
