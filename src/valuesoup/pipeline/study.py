"""A study: one configuration under several seeds, a run folder for each, and their results combined."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valuesoup.config import RunConfig
from valuesoup.evaluation.seeds import combine
from valuesoup.pipeline.run import Finished, run
from valuesoup.store import Progress, write_atomic

STUDY = "study.json"


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        folder: Of the study.
        runs: The run of each seed.
        combined: The content of ``study.json``.
    """

    folder: Path
    runs: Sequence[Finished]
    combined: dict[str, Any]


def run_study(config: RunConfig, folder: str | Path, progress: Progress | None = None, jobs: int = 1) -> Study:
    """Run a configuration once per seed, or continue there, and combine the results.

    Args:
        config: What to run; its ``seeds`` say how often.
        folder: The study's folder: ``seed-N`` in it is the run folder of seed N.
        progress: Where to show what goes on.
        jobs: The most stages to run at a time, see :func:`valuesoup.pipeline.run.run`.

    Raises:
        UserError: The input is wrong; finished stages stay.
        RunError: A stage failed; finished stages stay.
    """
    progress = progress or Progress()
    out = Path(folder)
    runs = []
    for seed in config.seeds:
        progress.say(f"seed {seed}")
        of_seed = config.model_copy(update={"seed": seed, "seeds": ()})
        runs.append(run(of_seed, out / f"seed-{seed}", progress, jobs))
    combined = combine([finished.results for finished in runs], config.evaluation.level)
    write_atomic(out / STUDY, json.dumps(combined, indent=1, allow_nan=False))
    return Study(out, runs, combined)
