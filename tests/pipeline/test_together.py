"""Processes started by ``accelerate launch``, or by Ray Train, train what one process trains, with its losses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_run

SETTINGS = [
    *tiny_run.overrides("helpful", "harmless"),
    "training={rank: 4, epochs: 1, batch_size: 32, accumulate: 2, evaluations: 2, learning_rate: 1.0e-3, dropout: 0}",
    "methods=[{preset: soup, steps: 1}, {preset: mva, points: 2}]",
]
LAUNCH = [
    str(Path(sys.executable).parent / "accelerate"),
    *("launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0"),
]
KINDS = {"ddp": ["--multi_gpu"], "fsdp": ["--use_fsdp", "--fsdp_version", "2"]}


def launched(kind: str, *arguments: str) -> list[str]:
    return [*LAUNCH, *KINDS[kind], "-m", "valuesoup", *arguments]


def curves(run: Path) -> dict[str, list[dict[str, float]]]:
    found = sorted((run / "artifacts").glob("train*/curves.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alone")
    done = tiny_run.valuesoup(root / "cache", *tiny_run.demo_arguments(root / "run", SETTINGS))
    assert done.returncode == 0, done.stderr
    return root / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one(alone: Path, tmp_path: Path, kind: str) -> None:
    command = launched(kind, *tiny_run.demo_arguments(tmp_path / "run", SETTINGS))
    environment = tiny_run.environment(tmp_path / "cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report: ") == 1, "only one process speaks"
    wanted, found = curves(alone), curves(tmp_path / "run")
    assert wanted.keys() == found.keys() and wanted
    for name, rows in wanted.items():
        assert [row.keys() for row in rows] == [row.keys() for row in found[name]]
        for one, two in zip(rows, found[name], strict=True):
            assert two == pytest.approx(one, rel=2e-4, abs=2e-5), name
    assert not list((tmp_path / "run" / "artifacts").glob("*/.checkpoints"))


def test_killed_in_the_middle_it_ends_in_the_same_losses(alone: Path, tmp_path: Path) -> None:
    command = launched("ddp", *tiny_run.demo_arguments(tmp_path / "run", SETTINGS))
    environment = tiny_run.environment(tmp_path / "cache")
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob("artifacts/.partial-train-*/.checkpoints/process-1/*/checkpoint-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, rows in curves(alone).items():
        for one, two in zip(rows, curves(tmp_path / "run")[name], strict=True):
            assert two == pytest.approx(one, rel=2e-4, abs=2e-5), name


def test_a_training_on_two_nodes_of_a_ray_cluster_has_the_losses_of_one_process(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'valuesoup[ray]'")
    from tiny_cluster import cluster

    run = tmp_path / "run"
    shutil.copytree(alone, run)
    wanted = curves(alone)
    missing = next(iter(wanted))
    shutil.rmtree(run / "artifacts" / missing)
    with cluster(2) as nodes:
        ray = ("--executor", "ray", "--address", nodes.address, "--processes", "2")
        done = tiny_run.valuesoup(tmp_path / "cache", "run", str(run / "config.yaml"), *ray)
    assert (done.returncode, done.stderr) == (0, "")
    for one, two in zip(wanted[missing], curves(run)[missing], strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=2e-5)
    before, after = ((folder / "log.jsonl").read_text().count('"event": "start"') for folder in (alone, run))
    assert after == before + 1
    assert not list((run / "artifacts").glob(".*"))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--set", "training.batch_size=3"], "cannot share out a step's 3 pairs"),
        (["--jobs", "2"], "leave --jobs and --executor out"),
    ],
)
def test_what_processes_cannot_do_together_is_said_once(tmp_path: Path, extra: list[str], told: str) -> None:
    settings = [*SETTINGS, "training.accumulate=1"]
    command = launched("ddp", *tiny_run.demo_arguments(tmp_path / "run", settings), *extra)
    environment = tiny_run.environment(tmp_path / "cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("error: ") - done.stderr.count("error: process") == 1, done.stderr[-3000:]
    assert told in done.stderr
