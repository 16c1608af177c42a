"""The documented example of a method in another package: installed as its README says, found, shown and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "own-method"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(place), str(EXAMPLE)], check=True, capture_output=True)
    return place


def valuesoup(site: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "valuesoup", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_methods_command_shows_its_paper_formula_and_defaults(installed: Path) -> None:
    shown = valuesoup(installed, "methods", "half-soup")
    assert "Half soup, this example" in shown
    assert "the most consistent half of D_i" in shown
    assert "keep: 0.5, alpha: 10.0, steps: 10" in shown


def test_it_runs_beside_the_built_in_methods(installed: Path, tmp_path: Path) -> None:
    small = [
        "methods=[soup, {preset: half-soup, steps: 2}]",
        "base.pretrain.steps=5",
        "base.pretrain.hidden=32",
        "training.epochs=0.1",
        "training.rank=2",
        "evaluation.test_prompts=4",
        "evaluation.validation_prompts=4",
        "evaluation.fluency_bound=0",
        *(
            f"values.{value}.reward={{function: 'valuesoup.worlds.errands:{value}'}}"
            for value in ("helpful", "harmless")
        ),
        *(f"values.{value}.data.arguments.size=400" for value in ("helpful", "harmless")),
        "base.dialogues.arguments.size=500",
    ]
    flags = [flag for setting in small for flag in ("--set", setting)]
    valuesoup(installed, "demo", "--jobs", "1", "--out", str(tmp_path / "run"), *flags)
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["methods"]["half-soup"]["title"] == "Half soup"
    assert sum(row["method"] == "half-soup" for row in results["candidates"]) == 6  # three weights, at two sums
