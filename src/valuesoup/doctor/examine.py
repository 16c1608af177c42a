"""The examination: everything that a run needs is looked at before anything long starts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from valuesoup.config import RunConfig
from valuesoup.configfile import load_config
from valuesoup.data import Pairs
from valuesoup.doctor.checks import check_all
from valuesoup.doctor.costs import Costs, Rates
from valuesoup.doctor.hub import Hub
from valuesoup.doctor.machine import look_at_machine
from valuesoup.doctor.measure import formula, measured, speed_of
from valuesoup.doctor.memory import disk_needs, memory_needs, shortages
from valuesoup.doctor.models import Models, find_models
from valuesoup.doctor.pairs import (
    SAMPLE,
    USUAL_PAIRS,
    Counts,
    count,
    find_source,
    find_sources,
    read_values,
    sample_tokens,
    told,
)
from valuesoup.doctor.report import Data, Duration, Machine, Need, Package, Problem, Report
from valuesoup.doctor.times import duration
from valuesoup.errors import UserError
from valuesoup.pipeline.inputs import device_of
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.run import default_folder, models_with_own_code, open_store
from valuesoup.store import topological


def examine(
    config: str | Path | RunConfig | None = None,
    overrides: Iterable[str] = (),
    *,
    out: str | Path | None = None,
    jobs: int = 1,
    measure: bool = True,
) -> Report:
    """Say what a configuration would need of this machine, and what is missing; nothing is downloaded or run.

    Args:
        config: A YAML file or a configuration; None looks at the machine alone.
        overrides: ``key.path=value`` texts, for a file.
        out: The run folder; what is done there counts as done. By default the one that ``valuesoup run`` takes.
        jobs: Stages side by side.
        measure: Time a few real steps on this machine, for up to half a minute; else estimate by usual speeds.

    Raises:
        UserError: The configuration does not read, or ``jobs`` is less than 1. What is missing raises nothing: it is
            in the report's problems.
    """
    if jobs < 1:
        raise UserError(f"jobs must be at least 1 stage at a time, not {jobs}.")
    if config is None:
        machine = look_at_machine()
        return Report(machine, tuple(_machine_problems(machine)))
    name = None if isinstance(config, RunConfig) else str(config)
    run = Path(out) if out is not None else default_folder(Path(name or "run"))
    read = config if isinstance(config, RunConfig) else load_config(config, overrides)
    return _Examination(read, name, run, jobs, measure).report()


class _Examination:
    def __init__(self, config: RunConfig, name: str | None, run: Path, jobs: int, measure: bool) -> None:
        self.config = config
        self.name = name
        self.run = run
        self.jobs = jobs
        self.measure = measure
        self.machine = look_at_machine(run)
        self.problems = _machine_problems(self.machine)
        self.notes: list[str] = []

    def report(self) -> Report:
        config, problems = self.config, self.problems
        if trusted := models_with_own_code(config):
            text = f"is set: code that comes with {', '.join(trusted)} is run, by the doctor too where it is here."
            problems.append(Problem("trust_remote_code", text, stops=False))
        hub = Hub(offline=self.machine.hub_offline)
        models = find_models(config, hub, problems)
        sources = find_sources(config, hub, problems)
        for place, source in enumerate(config.base.dialogues or ()):
            find_source(source, hub, f"base.dialogues.{place}", problems)
        check_all(config, self.machine, problems)
        pairs, split, reading = read_values(config, sources, problems)
        tokenizer = models.tokenizer or _tokenizer_to_be(config, pairs)
        samples = {value: sample_tokens(of, tokenizer) for value, of in pairs.items()} if tokenizer else {}
        counts = {
            value: count(value, config, pairs.get(value), split.get(value), samples.get(value), sources[value])
            for value in config.values
        }
        longest = min(config.training.max_length, models.base.positions if models.base else config.training.max_length)
        data = [told(value, pairs.get(value), split.get(value), samples.get(value), longest) for value in config.values]
        self._say_length(data, longest)
        if any(of.state != "local" for found in sources.values() for of in found):
            usual = f"{USUAL_PAIRS:,} pairs of {Counts(0, 0, 0, 0, 150, 80, None).pair:.0f} tokens are assumed"
            self.notes.append(f"data that are not here are not counted: where the hub does not tell, {usual}.")
        downloads = models.downloads + sum(of.download or 0 for found in sources.values() for of in found)
        plans = self._plans()
        memory: tuple[Need, ...] = ()
        disk: tuple[Need, ...] = ()
        spent: Duration | None = None
        if models.base is not None and self._device_is_here():
            rewards = models.rewards
            memory = tuple(memory_needs(config, models.base, rewards, counts, self.machine, self.jobs))
            trainings = [node for plan in plans for of in plan.recipes.values() for node in of.trainings.values()]
            disk = tuple(disk_needs(config, models.base, trainings, downloads, self.run))
            problems += shortages(memory, disk)
            if plans:
                rates = self._rates(models, list(pairs.values()))
                spent = self._duration(plans, Costs(config, counts, rates, models.base, rewards, reading), rates)
        elif models.base is None:
            self.notes.append("the size of the base is not known here, so neither memory nor time can be told.")
        ordered = sorted(problems, key=lambda problem: not problem.stops)
        return Report(
            self.machine,
            tuple(dict.fromkeys(ordered)),
            self.name or "the configuration",
            tuple(models.told),
            tuple(data),
            memory,
            disk,
            spent,
            tuple(self.notes),
        )

    def _device_is_here(self) -> bool:
        return not any(problem.where == "base.device" for problem in self.problems)

    def _plans(self) -> list[Plan]:
        """Return the plan of each seed, or none where something that it needs is missing."""
        seeds = self.config.seeds or (self.config.seed,)
        try:
            return [
                make_plan(
                    self.config.model_copy(update={"seed": seed, "seeds": ()}).with_absolute_paths(),
                )
                for seed in seeds
            ]
        except UserError as error:
            if not any(problem.stops for problem in self.problems):
                self.problems.append(Problem("methods", str(error)))
            self.notes.append("the stages cannot be planned before what is missing is there, so no time is told.")
            return []

    def _rates(self, models: Models, pairs: Sequence[Pairs]) -> Rates:
        base = models.base
        assert base is not None
        config = self.config
        dtype = base.dtype if config.base.dtype == "auto" else config.base.dtype
        speed = speed_of(device_of(config.base.device), dtype, self.jobs, measure=self.measure)
        by_formula = formula(config, base, speed)
        if not self.measure:
            self.notes.append("nothing was measured: the time follows from usual speeds of such a machine.")
            return by_formula
        if self.machine.load is not None and self.machine.load > 0.75 * self.machine.cpus:
            self.notes.append(
                f"other work is on the {self.machine.cpus} CPUs (load {self.machine.load:.1f}), and slows down what "
                "was measured; on an idle machine a run is faster."
            )
        try:
            found = measured(config, base, models.base_folder, pairs, by_formula, self.jobs)
        except Exception as error:  # an examination does not fail where a run may not
            self.notes.append(f"the measurement failed ({type(error).__name__}: {_first_line(error)}).")
            found = None
        if found is None:
            self.notes.append("the base is too large, or not here, to time its steps: operations were counted instead.")
        return found or by_formula

    def _duration(self, plans: Sequence[Plan], costs: Costs, rates: Rates) -> Duration:
        runs = []
        done_before: set[str] = set()
        for plan in plans:
            folder = self.run / f"seed-{plan.config.seed}" if self.config.seeds else self.run
            store = open_store(folder)
            nodes = topological(plan.targets())
            done = {node.key for node in nodes if store.is_done(node)}
            shared = {node.key for node in nodes if store.share is not None and store.share(node)}
            runs.append((nodes, done | (shared & done_before)))
            done_before |= shared
        self.notes.append(
            "assumed: answers as long as those of the data, at most 8 candidates of a method on test, and a filter "
            "that keeps what it would of unrelated rewards."
        )
        return duration(runs, costs.seconds, self.jobs, measured=rates.measured)

    def _say_length(self, data: Sequence[Data], longest: int) -> None:
        for of in data:
            if of.too_long:
                text = f"about {of.too_long:.1%} of the pairs of {of.value} are longer than {longest} tokens: left out."
                self.problems.append(Problem("training.max_length", text, stops=of.too_long == 1.0))


def _tokenizer_to_be(config: RunConfig, pairs: dict[str, Pairs]) -> Any:
    """Return a tokenizer like that of a base that is made here, trained on some of the pairs."""
    settings = config.base.pretrain
    if settings is None or not pairs:
        return None
    from valuesoup.training.pretrain import build_tokenizer

    texts = [
        [*pair.prompt, *side]
        for of in pairs.values()
        for pair in (of[place] for place in range(0, len(of), max(1, len(of) // SAMPLE)))
        for side in (pair.chosen, pair.rejected)
    ]
    return build_tokenizer(texts, settings)


def _machine_problems(machine: Machine) -> list[Problem]:
    return [_missing(package) for package in machine.packages if package.version is None and not package.purpose]


def _missing(package: Package) -> Problem:
    return Problem("machine", f"{package.name} is not installed: {package.install}.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
