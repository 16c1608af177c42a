"""Win rates: what a judge is asked about the test answers of a run's policies, its cost, and ``judge.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from pydantic import ValidationError

from valuesoup.configfile import load_config
from valuesoup.data import Messages
from valuesoup.endpoint import Endpoint
from valuesoup.errors import UserError, first_fault
from valuesoup.evaluation.judge import MAX_TOKENS, Cost, Judge, Opinion, read_templates, write_templates
from valuesoup.evaluation.verdicts import Heard, Tally, combine_judged, tally
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.compared import Policy, answers_key, comparisons
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.judged_schema import is_judged
from valuesoup.pipeline.run import CONFIG, Finished, has_file, open_run
from valuesoup.pipeline.study import Study, open_study, seed_folders
from valuesoup.rewards import RewardTable
from valuesoup.store import Progress, write_atomic
from valuesoup.store.artifacts import lock_run
from valuesoup.store.files import disk_errors

JUDGED = "judge.json"
FOLDER, ANSWERS, VERDICTS = "judge", "answers.jsonl", "verdicts.jsonl"
SCHEMA = 1
TIMEOUT = 120.0
"""Seconds after which an attempt is given up: a large model on one machine is slow with many requests at a time."""


@dataclass(frozen=True)
class JudgeSettings:
    """What to judge, and by whom.

    Attributes:
        endpoint: The judge.
        methods: Methods, or ids of candidates, to compare; by default every method of the run.
        baselines: Methods or ids to compare them with; by default the base and every plain soup of the run.
        weights: Takes each method's candidate with these weights; by default its most balanced frontier candidate.
        limit: The most test prompts per value; by default all.
        templates: Folder of the user's own templates.
    """

    endpoint: Endpoint
    methods: Sequence[str] = ()
    baselines: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    limit: int | None = None
    templates: Path | None = None


def judge_endpoint(url: str, model: str, key_env: str, concurrency: int, timeout: float = TIMEOUT) -> Endpoint:
    """Return the judge's endpoint.

    Args:
        url: Address up to ``/v1``.
        model: Its name there.
        key_env: Environment variable of the key.
        concurrency: Requests under way at a time.
        timeout: Seconds after which an attempt is given up.

    Raises:
        UserError: Something of it is wrong.
    """
    try:
        return Endpoint(
            url=url,
            model=model,
            key_env=key_env,
            concurrency=concurrency,
            timeout=timeout,
            max_tokens=MAX_TOKENS,
        )
    except ValidationError as error:
        key, what = first_fault(error)
        raise UserError(f"the judge's {key} is wrong: {what}.") from None


def write_judge_templates(folder: str | Path, out: Path) -> list[Path]:
    """Write a template for each value of a run, or of a study, to ``out/<value>.txt``, to edit.

    Raises:
        UserError: The folder holds no run, or a file exists already.
    """
    runs = [Path(folder)] if has_file(Path(folder), CONFIG) else seed_folders(folder)
    if not runs:
        raise UserError(f"{folder} is not a run folder: it has no {CONFIG}.")
    return write_templates(list(load_config(runs[0] / CONFIG).values), out)


class Case:
    """The questions about one run.

    Attributes:
        finished: The run.
        comparisons: Pairs of a policy and a baseline.
        left_out: Methods that are not compared, with the reason.
        prompts: Places of the judged test prompts, per value.
        judge: Who is asked.
    """

    def __init__(self, finished: Finished, settings: JudgeSettings) -> None:
        """Choose policies and prompts.

        Raises:
            UserError: A method, weights or templates are wrong, or nothing is left to compare.
        """
        self.finished = finished
        self.settings = settings
        values = list(finished.plan.config.values)
        self.templates = read_templates(values, settings.templates)
        self.comparisons, self.left_out = comparisons(finished, settings.methods, settings.baselines, settings.weights)
        self._asked = _test_prompts(finished)
        self.prompts = {value: self._sample(value) for value in values}
        self.judge = Judge(settings.endpoint, finished.folder / FOLDER / ANSWERS)

    def cost(self) -> Cost:
        """Estimate what it takes to ask what is not answered yet."""
        return self.judge.cost(list(self._questions))

    def decide(self, progress: Progress) -> dict[str, Any]:
        """Ask, count, and write ``judge.json`` and every verdict in ``judge/verdicts.jsonl``.

        Returns:
            The content of ``judge.json``, documented in ``docs/judge.md``.

        Raises:
            UserError: The endpoint refuses, or another process holds the run folder.
            RunError: The endpoint fails, or the disk does; what was answered stays.
        """
        folder = self.finished.folder
        with lock_run(folder), disk_errors(f"judging {folder}", folder):
            (folder / FOLDER).mkdir(exist_ok=True)
            with progress.task("judging", len(self._questions), "questions") as task:
                opinions = self.judge.ask(list(self._questions), task.advance, progress.say)
            heard = self._heard(dict(zip(self._questions, opinions, strict=True)))
            found = self._results(heard)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows(heard)]
            write_atomic(folder / FOLDER / VERDICTS, "".join(lines))
            write_atomic(folder / JUDGED, json.dumps(found, indent=1, allow_nan=False))
        return found

    def _sample(self, value: str) -> list[int]:
        """Return the places of the prompts judged under a value; a higher limit only adds to those of a lower one."""
        config = self.finished.plan.config
        order = np.random.default_rng(config.seed).permutation(len(self._asked)).tolist()
        if config.evaluation.prompts == "own":
            order = [place for place in order if value in self._asked[place]["datasets"]]
        return sorted(order[: self.settings.limit])

    @cached_property
    def _answers(self) -> dict[str, dict[int, tuple[str, dict[str, float]]]]:
        """Text and reward under each value of each policy's answers, by the prompt's place."""
        found = {}
        for policy in {policy.id: policy for both in self.comparisons for policy in both}.values():
            test = self.finished.plan.evaluated[policy.stack].test
            table = load_answers(self.finished.artifacts[test.answers.key])
            mine = table.filter(pc.equal(table["candidate"], policy.place))
            scores = {}
            for value, node in test.scores.items():
                scored = RewardTable.load(self.finished.artifacts[node.key].path / "scores.parquet")
                scores[value] = scored.scores[:, scored.sides.index(str(policy.place)), scored.value_index(value)]
            texts = zip(mine["prompt"].to_pylist(), mine["text"].to_pylist(), strict=True)
            found[policy.id] = {
                place: (text, {value: float(of[place]) for value, of in scores.items()}) for place, text in texts
            }
        return found

    def _pairs(self) -> Iterator[tuple[str, Policy, Policy, int]]:
        for value, places in self.prompts.items():
            for one, other in self.comparisons:
                for place in places:
                    yield value, one, other, place

    def _both(self, value: str, one: Policy, other: Policy, place: int) -> tuple[str, str] | None:
        """Return the questions in both orders, None for identical answers."""
        first, second = self._answers[one.id][place][0], self._answers[other.id][place][0]
        if first == second:
            return None
        prompt: Messages = self._asked[place]["messages"]
        ask = self.templates[value].question
        return ask(prompt, first, second), ask(prompt, second, first)

    @cached_property
    def _questions(self) -> dict[str, None]:
        """Every question once, in order."""
        return dict.fromkeys(question for pair in self._pairs() for question in self._both(*pair) or ())

    def _heard(self, opinions: Mapping[str, Opinion]) -> list[Heard]:
        heard = []
        for value, one, other, place in self._pairs():
            both = self._both(value, one, other, place)
            reward = self._answers[one.id][place][1][value] - self._answers[other.id][place][1][value]
            forward, backward = (None, None) if both is None else (opinions[question] for question in both)
            heard.append(Heard(forward, backward, reward))
        return heard

    def _results(self, heard: Sequence[Heard]) -> dict[str, Any]:
        level = self.finished.plan.config.evaluation.level
        totals = dict.fromkeys(self.prompts, Tally())
        rows, start = [], 0
        for value, places in self.prompts.items():
            for one, other in self.comparisons:
                counts = tally(heard[start : start + len(places)])
                start += len(places)
                totals[value] += counts
                row = {"value": value, "method": one.name, "baseline": other.name}
                titles = {"policy_title": one.title, "baseline_title": other.title}
                rows.append({**row, **titles, **counts.summary(level)})
        endpoint = self.settings.endpoint
        policies = {policy.name: policy for both in self.comparisons for policy in both}
        return {
            "schema": SCHEMA,
            "values": list(self.prompts),
            "judge": {"url": endpoint.url, "model": endpoint.model},
            "level": level,
            "limit": self.settings.limit,
            "templates": {value: template.text for value, template in self.templates.items()},
            "prompts": {value: len(places) for value, places in self.prompts.items()},
            "policies": {
                name: {"id": of.id, "method": of.method, "weights": of.weights, "answers": self._key(of.stack)}
                for name, of in policies.items()
            },
            "comparisons": rows,
            "judges": {value: total.summary(level) for value, total in totals.items()},
            "left_out": self.left_out,
        }

    def _key(self, stack: int) -> str:
        return self.finished.plan.evaluated[stack].test.answers.key

    def _rows(self, heard: Sequence[Heard]) -> Iterator[dict[str, Any]]:
        for (value, one, other, place), pair in zip(self._pairs(), heard, strict=True):
            opinions = {
                name: opinion and asdict(opinion)
                for name, opinion in (("forward", pair.forward), ("backward", pair.backward))
            }
            row = {"value": value, "method": one.name, "baseline": other.name, "prompt": self._asked[place]["id"]}
            yield {**row, "outcome": pair.outcome(), "reward_difference": pair.reward, **opinions}


@dataclass(frozen=True)
class Docket:
    """All that is to be judged: one run, or every run of a study.

    Attributes:
        cases: One per run.
        study: The study, None for a single run.
    """

    cases: Sequence[Case]
    study: Study | None = None

    def cost(self) -> Cost:
        """Estimate what it takes to ask what is not answered yet."""
        return sum((case.cost() for case in self.cases), Cost(0, 0, 0))

    def decide(self, progress: Progress) -> dict[str, Any]:
        """Judge every run, combine a study's, and return the content of ``judge.json``; see `Case.decide`."""
        found = [case.decide(progress) for case in self.cases]
        if self.study is None:
            return found[0]
        combined = combine_judged(found, self.study.combined["seeds"])
        write_atomic(self.study.folder / JUDGED, json.dumps(combined, indent=1, allow_nan=False))
        return combined


def open_docket(folder: str | Path, settings: JudgeSettings) -> Docket:
    """Open a finished run or study to be judged.

    Raises:
        UserError: It is none, or as `Case`.
    """
    if settings.limit is not None and settings.limit < 1:
        raise UserError(f"--limit is {settings.limit}; judge at least one prompt.")
    if has_file(Path(folder), CONFIG) or not seed_folders(folder):
        return Docket([Case(open_run(folder), settings)])
    study = open_study(folder)
    return Docket([Case(finished, settings) for finished in study.runs], study)


def judged_run(finished: Finished) -> dict[str, Any] | None:
    """Return the content of a run's ``judge.json``, None where it was not judged.

    Where the run has changed since, only ``missing`` is there: a sentence that says so.

    Raises:
        UserError: The file is damaged.
    """
    path = finished.folder / JUDGED
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not is_judged(found):
            raise ValueError
        policies = found["policies"].items()
        stale = [name for name, of in policies if answers_key(finished, of["id"], of["method"]) != of["answers"]]
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged; remove it, or judge the run again.") from None
    if stale:
        return {"missing": f"The answers of {', '.join(stale)} have changed since they were judged; judge them again."}
    return found


def judged_study(study: Study) -> dict[str, Any] | None:
    """Return what was judged of every run of a study, combined; None where no run was judged.

    Where not all were judged alike, only ``missing`` is there: a sentence that says so.

    Raises:
        UserError: A file is damaged.
    """
    runs = [judged_run(finished) for finished in study.runs]
    if not any(runs):
        return None
    whole = [run for run in runs if run is not None and "missing" not in run]
    alike = {json.dumps([run[name] for name in ("values", "judge", "templates", "limit")]) for run in whole}
    if len(whole) < len(runs) or len(alike) != 1:
        return {"missing": "Not every run of the study was judged, as it is now and by the same questions; judge it."}
    return combine_judged(whole, study.combined["seeds"])


def _test_prompts(finished: Finished) -> list[HeldOutPrompt]:
    return load_prompts(finished.artifacts[finished.plan.evaluated[0].test.prompts.key])
