"""A run: one folder, one configuration, everything made that is missing, results at the end."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.config import BaseConfig, RewardConfig, RunConfig
from valuesoup.configfile import dump_config, load_config
from valuesoup.errors import UserError, did_you_mean
from valuesoup.pipeline.environment import environment
from valuesoup.pipeline.inputs import RewardRef
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.schema import results_fault
from valuesoup.store import (
    Artifact,
    Cluster,
    Node,
    Progress,
    Remote,
    RunLog,
    Store,
    run_graph,
    topological,
    write_atomic,
)
from valuesoup.store.artifacts import lock_run
from valuesoup.store.files import disk_errors, holds
from valuesoup.store.team import join

if TYPE_CHECKING:
    from valuesoup.soup import Soup

CONFIG, RESULTS, LOG, ARTIFACTS = "config.yaml", "results.json", "log.jsonl", "artifacts"
PAGE = "report.html"
"""Of the results as they are; it goes when they change."""
STUDY = "study.json"
"""In the folder of a study, which holds a run folder for each seed."""
SHARED_STAGES = frozenset({"reference", "scores", "rated"})
"""Kept in the user's cache as well, because other runs on the same base, pairs and rewards need the same numbers."""


def shared_between_runs(node: Node) -> bool:
    """Return whether a result may serve other runs.

    What a Python function scores may depend on more than its source, so it stays in its run.
    """
    rewards = node.inputs.get("rewards", {}).values()
    functions = any(isinstance(of, str) or (isinstance(of, RewardRef) and of.config.function) for of in rewards)
    return node.stage.name in SHARED_STAGES and not functions


def computes_on_gpu(node: Node) -> bool:
    """Return whether a stage computes with a model, on a GPU where there is one."""
    return str(node.inputs.get("device", "cpu")) != "cpu"


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: The run folder.
        plan: What was run.
        artifacts: Every artifact by its node's key.
        results: The content of ``results.json``.
    """

    folder: Path
    plan: Plan
    artifacts: Mapping[str, Artifact]
    results: dict[str, Any]

    def soup(self, method: str) -> "Soup":
        """Load the base with the vectors of a method, to generate at any weights or to write an adapter.

        A method of finished policies has one vector for each of its candidates, ``policy-1``, ``policy-2``, …, in
        their order in the results; weight 1 is that policy.

        Raises:
            UserError: The run has no such method.
        """
        from valuesoup.pipeline.answering import open_soup

        if method not in self.plan.recipes:
            raise UserError(
                f"the run in {self.folder} has no method '{method}'{did_you_mean(method, self.plan.recipes)}"
            )
        vectors = {name: self.artifacts[node.key] for name, node in self.plan.recipes[method].vectors.items()}
        base = self.plan.base
        opened = self.artifacts[base.key] if isinstance(base, Node) else base
        return open_soup(opened, vectors, self.plan.config.base.device)


def run(
    config: RunConfig,
    folder: str | Path,
    progress: Progress | None = None,
    jobs: int | None = None,
    cluster: Cluster | None = None,
    artifacts: str | None = None,
) -> Finished:
    """Run a configuration in a folder, or continue it there; what is done is not done again.

    Called by every process that ``accelerate launch`` or ``torchrun`` started, these train together.

    Args:
        config: What to run.
        folder: The run folder, made if need be.
        progress: Where to show what goes on; nowhere by default.
        jobs: The most stages to run at a time, by default 1, or on a cluster as many as fit. More than 1 run each in
            a process of its own, with its share of the CPUs; a script that asks for it must start its work below
            ``if __name__ == "__main__":``, as always with processes that Python spawns.
        cluster: Run the stages there, by Ray, instead of on this machine.
        artifacts: URL (s3://…) of a folder in which finished stages are kept as well, and from which whichever
            machine runs or continues this configuration takes them.

    Raises:
        UserError: The input is wrong; finished stages stay.
        RunError: A stage failed; finished stages stay.
    """
    progress = progress or Progress()
    out = Path(folder)
    if has_file(out, STUDY):
        raise UserError(f"{out} holds a study over seeds; give the run another folder (--out).")
    config = config.with_absolute_paths()
    plan = make_plan(config)
    processes = join()
    if not processes.alone and (cluster is not None or (jobs or 1) > 1):
        raise UserError(
            f"{processes.size} processes were started to train together, one stage after the other; leave --jobs and "
            "--executor out, or start one process."
        )
    if not processes.leads:
        processes.follow()
        return open_run(out)
    store = open_store(out, artifacts)
    with lock_run(out), disk_errors(f"run folder {out}", out):
        keep_config(out, config)
        log = RunLog(out / LOG)
        log_start(log, progress, [config], len(topological(plan.targets())))
        with progress.showing():
            made = run_graph(plan.targets(), store, progress, log, jobs, cluster, computes_on_gpu)
            finished = _finish(out, plan, made)
        log.write("finished")
    processes.dismiss()
    return finished


def keep_config(folder: Path, config: RunConfig) -> None:
    """Write a run folder's configuration, and remove results of another one."""
    text = dump_config(config)
    path = folder / CONFIG
    if not holds(path, text):
        (folder / RESULTS).unlink(missing_ok=True)
        write_atomic(path, text)


def log_start(log: RunLog, progress: Progress, configs: Sequence[RunConfig], stages: int) -> None:
    """Log what begins, on which machine and software, and say whose own code it runs."""
    of = {"seed": configs[0].seed} if len(configs) == 1 else {"seeds": [config.seed for config in configs]}
    log.write("run", **of, stages=stages, **environment())
    trusted = models_with_own_code(configs[0])
    if trusted:
        log.write("trust_remote_code", models=trusted)
    say_own_code(trusted, progress)


def models_with_own_code(config: RunConfig) -> list[str]:
    """Return the models whose own code the configuration lets run (``trust_remote_code``)."""
    asked: list[BaseConfig | RewardConfig] = [config.base, *(value.reward for value in config.values.values())]
    return list(dict.fromkeys(one.model for one in asked if one.trust_remote_code and one.model))


def say_own_code(models: Sequence[str], progress: Progress) -> None:
    """Tell, before it is run, that code comes with these models; nothing where there are none."""
    if models:
        progress.say(f"trust_remote_code is set: code that comes with {', '.join(models)} is run.")


def has_file(folder: Path, name: str) -> bool:
    """Say whether a folder that somebody named holds this file.

    Raises:
        UserError: There can be no such folder, or it may not be looked into.
    """
    try:
        return (folder / name).is_file()
    except OSError as error:
        raise UserError(f"folder {folder} cannot be opened: {error.strerror or error}.") from None


def default_folder(config: Path) -> Path:
    """Return where a configuration file is run that does not say where: in its own run folder, or in ``runs/``."""
    in_run = config.name == CONFIG and has_file(config.parent, LOG)  # else it is a person's own file
    return config.parent if in_run else Path("runs") / config.stem


def command(folder: Path) -> str:
    """Return what to type to continue the run in a folder, or to make again what it lacks."""
    return shlex.join(["valuesoup", "run", str(folder / CONFIG), "--out", str(folder)])


def open_store(folder: Path, artifacts: str | None = None) -> Store:
    """Return the store of a run folder; reference log-probabilities and scores are shared between runs.

    Args:
        folder: The run folder.
        artifacts: URL of a folder that machines share.

    Raises:
        UserError: The URL cannot be used.
    """
    remote = None if artifacts is None else Remote(artifacts)
    if remote is not None:
        remote.check()
    return Store(folder / ARTIFACTS, cache_folder(), shared_between_runs, remote)


def cache_folder() -> Path:
    """Return the folder shared between runs: $VALUESOUP_CACHE, or valuesoup in the user's cache."""
    if given := os.environ.get("VALUESOUP_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "valuesoup"


def open_run(folder: str | Path) -> Finished:
    """Open a finished run.

    Raises:
        UserError: The folder holds no run, or one that has not finished or is damaged (with the command that mends
            it; nothing is changed here), or whose results are not what its configuration makes.
    """
    from valuesoup.pipeline.planned import plan_fault

    out = Path(folder)
    if not has_file(out, CONFIG):
        raise UserError(f"{out} is not a run folder: it has no {CONFIG}.")
    plan = make_plan(load_config(out / CONFIG))
    if not (out / RESULTS).is_file():
        raise UserError(f"the run in {out} has not finished; continue it with `{command(out)}`.")
    store = open_store(out)
    artifacts = {}
    for node in topological(plan.targets()):
        found = store.look(node)
        if isinstance(found, str):
            raise UserError(f"the run in {out} {found}; `{command(out)}` makes it again.")
        artifacts[node.key] = found
    results = read_results(out)
    if fault := plan_fault(results, plan):
        raise _damaged(out / RESULTS, fault)
    return Finished(out, plan, artifacts, results)


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(f"{path} is damaged ({fault}); run the configuration again, it makes the file anew.")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")  # NaN and Infinity, which Python would read


def read_results(folder: Path) -> dict[str, Any]:
    """Read ``results.json`` of a run folder.

    Raises:
        UserError: It is missing, damaged, or of another schema.
    """
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise UserError(f"{folder} has no {RESULTS}; the run has not finished.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON; run the configuration again, it makes the file anew.") from None
    if not isinstance(results, dict) or results.get("schema") != 1:
        raise UserError(f"{path} is not a results file of schema 1.")
    if fault := results_fault(results):
        raise _damaged(path, fault)
    return results


def _finish(out: Path, plan: Plan, artifacts: Mapping[str, Artifact]) -> Finished:
    from valuesoup.pipeline.results import build_results

    results = build_results(plan, artifacts)
    text = json.dumps(results, indent=1, allow_nan=False)
    path = out / RESULTS
    if not holds(path, text):
        (out / PAGE).unlink(missing_ok=True)
        write_atomic(path, text)
    return Finished(out, plan, artifacts, results)
