"""A study: one configuration under several seeds, a run folder for each, and their results combined."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from valuesoup.config import RunConfig
from valuesoup.errors import UserError
from valuesoup.evaluation.seeds import combine
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import (
    ARTIFACTS,
    CONFIG,
    LOG,
    STUDY,
    Finished,
    computes_on_gpu,
    has_file,
    keep_config,
    log_start,
    open_run,
    open_store,
    run,
)
from valuesoup.store import Cluster, Node, Progress, RunLog, run_graph, topological, write_atomic
from valuesoup.store.artifacts import lend, lock_run
from valuesoup.store.files import disk_errors, holds
from valuesoup.store.graph import substitute
from valuesoup.store.team import join, whole_team


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

    With several jobs or a cluster the stages of all seeds are made side by side, and what seeds share is made once.

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
    each = {seed: config.model_copy(update={"seed": seed, "seeds": ()}) for seed in config.seeds}
    together = (cluster is not None or (jobs or 1) > 1) and join().alone
    if together:
        _make_stages(each, out, progress, jobs, cluster, artifacts)
    runs = []
    for seed, of_seed in each.items():
        progress.say(f"seed {seed}")
        runs.append(run(of_seed, out / f"seed-{seed}", progress, jobs, cluster, artifacts))
    if together:
        shutil.rmtree(out / ARTIFACTS)
    return _combined(out, runs)


def _make_stages(
    each: Mapping[int, RunConfig],
    out: Path,
    progress: Progress,
    jobs: int | None,
    cluster: Cluster | None,
    artifacts: str | None,
) -> None:
    """Make the stages of all seeds side by side, what they share once, and put them into the seeds' run folders.

    Until the runs have finished everything also stands in the study's own store, which an interrupted study goes on
    from.
    """
    plans = {seed: make_plan(config.with_absolute_paths()) for seed, config in each.items()}
    graphs = {seed: topological(plan.targets()) for seed, plan in plans.items()}
    uses = Counter(node.key for nodes in graphs.values() for node in nodes)
    store = open_store(out, artifacts)
    homes = {seed: open_store(out / f"seed-{seed}") for seed in each}
    with ExitStack() as held:
        for folder in (out, *(home.root.parent for home in homes.values())):
            held.enter_context(lock_run(folder))
        held.enter_context(disk_errors(f"study folder {out}", out))
        log = RunLog(out / LOG)
        log_start(log, progress, list(each.values()), len(uses))
        for seed, nodes in graphs.items():
            keep_config(homes[seed].root.parent, plans[seed].config)
            for node in nodes:
                lend(node, homes[seed], store)
        named: dict[str, Node] = {}
        targets = [
            _named(node, f"seed {seed}: ", uses, named) for seed, plan in plans.items() for node in plan.targets()
        ]
        with progress.showing():
            run_graph(targets, store, progress, log, jobs, cluster, computes_on_gpu)
        for seed, nodes in graphs.items():
            for node in nodes:
                lend(node, store, homes[seed])


def _named(node: Node, seed: str, uses: Mapping[str, int], named: dict[str, Node]) -> Node:
    """Return a node whose label says of which seed it is, and those of its parents, where one seed alone uses it."""
    if node.key not in named:
        inputs = substitute(dict(node.inputs), lambda parent: _named(parent, seed, uses, named))
        label = node.label if uses[node.key] > 1 else seed + node.label
        named[node.key] = replace(node, label=label, inputs=inputs)
    return named[node.key]


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
    text = json.dumps(combined, indent=1, allow_nan=False)
    path = out / STUDY
    if whole_team().leads and not holds(path, text):
        with disk_errors(f"study folder {out}", out):
            write_atomic(path, text)
    return Study(out, runs, combined)
