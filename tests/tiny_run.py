"""The demo made tiny: the main job from nothing in seconds, for tests."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REWARD = "{epochs: 0.5, batch_size: 16, learning_rate: 1.0e-3}"


def overrides(*values: str) -> list[str]:
    """Return the settings that make the demo with these values tiny."""
    each = [f"values.{value}.data.arguments.size=300" for value in values]
    each += [f"values.{value}.reward.train={REWARD}" for value in values]
    return [
        *each,
        "base.pretrain={tokenizer: words, vocabulary: 256, hidden: 32, layers: 1, heads: 2, context: 64, "
        "batch_size: 16, steps: 60}",
        "base.dialogues.arguments.size=600",
        "training={rank: 4, epochs: 1, batch_size: 32, evaluations: 2, learning_rate: 1.0e-3}",
        "generation.max_new_tokens=12",
        "evaluation.test_prompts=12",
        "evaluation.validation_prompts=8",
        "evaluation.resamples=50",
        "evaluation.samples=2",
        "evaluation.fluency_bound=0",  # so tiny a model writes no sound sentence
        "methods=[dpo, {preset: soup, steps: 2}, {preset: vc-soup, tau: 0, steps: 2}]",
    ]


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of a command: one thread, so that every run has the same sums, and its own cache."""
    here = Path(__file__).parent
    paths = [str(here.parent / "src"), str(here)]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VALUESOUP_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join(paths),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "valuesoup", *map(str, arguments)]


def interrupted(*arguments: str | Path) -> str:
    """Return what a command says that was interrupted."""
    return f"interrupted; `{shlex.join(['valuesoup', *map(str, arguments)])}` continues where it stopped.\n"


def valuesoup(cache: Path, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        command(*arguments), env=environment(cache), cwd=cwd, capture_output=True, text=True, check=False
    )


def demo_arguments(out: Path, settings: Sequence[str], jobs: int = 1) -> list[str]:
    given = [part for setting in settings for part in ("--set", setting)]
    return ["demo", "--out", str(out), "--jobs", str(jobs), *given]


def figures(folder: Path) -> Any:
    """Return the content of results.json without the times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if not key.endswith("seconds")}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def stages(folder: Path) -> int:
    """Return how many stages a run has, as it wrote itself."""
    first = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return int(json.loads(first)["stages"])
