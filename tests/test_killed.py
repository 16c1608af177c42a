"""A run killed at any moment, again and again, ends in the results of one that nothing stopped."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import tiny_run

KILLS = 25
SETTINGS = tiny_run.overrides("helpful", "harmless")


def events(folder: Path) -> list[dict[str, object]]:
    """Return what the log holds, without a line that is half written."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []
    return [json.loads(line) for line in lines]


def since_start(folder: Path) -> list[dict[str, object]]:
    """Return the events since the run was started the last time."""
    found: list[dict[str, object]] = []
    for event in events(folder):
        found = [] if event["event"] == "run" else [*found, event]
    return found


def kill(folder: Path, cache: Path, reached: set[object], delay: float) -> bool:
    """Start the run and kill it ``delay`` seconds after one of the stages began; False where it ended before."""
    seen = len(events(folder))
    with subprocess.Popen(
        tiny_run.command(*tiny_run.demo_arguments(folder, SETTINGS)),
        env=tiny_run.environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            if any(event["event"] == "start" and event["label"] in reached for event in events(folder)[seen:]):
                time.sleep(delay)
                break
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def test_a_run_killed_at_25_random_moments_ends_in_the_same_figures(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder, cache, draw = tmp_path / "run", tmp_path / "cache", random.Random(0)
    done = [event for event in events(demo_run[0]) if event["event"] == "done"]
    # The points are spread over the stages and, within a stage, over its time in the run that nothing stopped.
    points = sorted(draw.sample(range(len(done) - 3), KILLS))
    cut_short: set[object] = set()
    for point in points:
        later = {event["label"] for event in done[point:]}
        assert kill(folder, cache, later, draw.random() * float(str(done[point]["seconds"]))), "it came to its end"
        begun = {event["key"]: event["stage"] for event in since_start(folder) if event["event"] == "start"}
        ended = {event["key"] for event in since_start(folder) if event["event"] == "done"}
        cut_short.update(stage for key, stage in begun.items() if key not in ended)
        for result in (folder / "artifacts").glob("[!.]*"):
            assert (result / "manifest.json").is_file(), "a result stands only whole"
    assert len(cut_short) >= 5, cut_short
    last = tiny_run.valuesoup(cache, *tiny_run.demo_arguments(folder, SETTINGS))
    assert last.returncode == 0, last.stderr
    mine, uninterrupted = (json.dumps(tiny_run.figures(of)) for of in (folder, demo_run[0]))
    assert mine == uninterrupted
    assert not list((folder / "artifacts").glob(".*"))
