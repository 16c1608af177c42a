"""A study: one configuration under several seeds, a run folder for each, and their results combined."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valuesoup.config import RunConfig
from valuesoup.errors import UserError
from valuesoup.evaluation.seeds import combine
from valuesoup.pipeline.run import CONFIG, STUDY, Finished, has_file, open_run, run
from valuesoup.store import Cluster, Progress, write_atomic
from valuesoup.store.team import whole_team


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


def run_study(
    config: RunConfig,
    folder: str | Path,
    progress: Progress | None = None,
    jobs: int | None = None,
    cluster: Cluster | None = None,
    artifacts: str | None = None,
) -> Study:
    """Run a configuration once per seed, or continue there, and combine the results.

    Args:
        config: What to run; its ``seeds`` say how often.
        folder: The study's folder: ``seed-N`` in it is the run folder of seed N.
        progress: Where to show what goes on.
        jobs: The most stages to run at a time.
        cluster: Where stages run.
        artifacts: Where they are kept as well; all three as for :func:`valuesoup.pipeline.run.run`.

    Raises:
        UserError: The input is wrong; finished stages stay.
        RunError: A stage failed; finished stages stay.
    """
    progress = progress or Progress()
    out = Path(folder)
    if has_file(out, CONFIG):
        raise UserError(f"{out} is the folder of a single run; give the study another one (--out).")
    runs = []
    for seed in config.seeds:
        progress.say(f"seed {seed}")
        of_seed = config.model_copy(update={"seed": seed, "seeds": ()})
        runs.append(run(of_seed, out / f"seed-{seed}", progress, jobs, cluster, artifacts))
    return _combined(out, runs)


def seed_folders(folder: str | Path) -> list[Path]:
    """Return the run folders of a study that have been begun, by seed; none where the folder is no study's.

    Raises:
        UserError: There can be no such folder, or it may not be looked into.
    """
    if has_file(Path(folder), CONFIG):  # a run's
        return []
    found = [one.parent for one in Path(folder).glob(f"seed-*/{CONFIG}") if one.parent.name[5:].isdecimal()]
    return sorted(found, key=lambda one: int(one.name[5:]))


def open_study(folder: str | Path) -> Study:
    """Open a finished study; its runs are combined anew, as they are now.

    Raises:
        UserError: The folder holds no study, or one that has not finished, or a run of it is not whole.
    """
    out = Path(folder)
    seeds = read_seeds(out)
    return _combined(out, [open_run(out / f"seed-{seed}") for seed in seeds])


def read_seeds(folder: Path) -> list[int]:
    """Return the seeds of a finished study.

    Raises:
        UserError: The folder holds no finished study, or its file is damaged.
    """
    has_file(folder, STUDY)
    try:
        seeds = json.loads((folder / STUDY).read_text(encoding="utf-8"))["seeds"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} holds no finished study: it has no {STUDY}; run its configuration again with --out {folder}."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        seeds = None
    right = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not right or len(set(seeds)) != len(seeds):
        raise UserError(f"{folder / STUDY} is damaged; run the configuration again, it makes the file anew.")
    return list(seeds)


def _combined(out: Path, runs: Sequence[Finished]) -> Study:
    level = runs[0].plan.config.evaluation.level
    combined = combine([finished.results for finished in runs], level)
    if whole_team().leads:
        write_atomic(out / STUDY, json.dumps(combined, indent=1, allow_nan=False))
    return Study(out, runs, combined)
