"""Finished runs, or studies, side by side: one box for all, and differences between methods of the same name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.config import RunConfig
from valuesoup.configfile import load_config
from valuesoup.errors import UserError, did_you_mean
from valuesoup.evaluation.comparison import (
    Box,
    Difference,
    changed_settings,
    common_box,
    difference_over_seeds,
    same_rows,
    unpaired_difference,
)
from valuesoup.evaluation.frontier import normalised_hypervolume
from valuesoup.evaluation.seeds import balanced, combine, spread
from valuesoup.evaluation.statistics import Interval, hypervolume_difference, hypervolume_interval, resamples
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import CONFIG, RESULTS, STUDY, command, has_file, open_store, read_results
from valuesoup.pipeline.study import read_seeds, seed_folders
from valuesoup.store import Artifact, Node

SCHEMA = 1
ROUNDING = 1e-4
"""Of the box: how far scores of the same answers may lie apart, because they were computed in other batches."""
_COSTS = ("train_seconds", "expand_seconds", "evaluate_seconds")
Results = Mapping[str, Any]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """A run or a study that is compared; a run has the results of one seed, and a plan."""

    name: str
    folder: Path
    config: RunConfig
    results: Sequence[Results]
    plan: Plan | None = None

    @property
    def seeds(self) -> list[int]:
        return [of["seed"] for of in self.results]


def compare_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Compare finished runs, or finished studies, in the box of all their tested candidates.

    Of runs, intervals are percentile intervals of the bootstrap over test prompts, and a difference is paired by prompt
    where both answered the same ones. Of studies, they are Student intervals over seeds; a difference is paired by seed
    where both have the same seeds, else Welch's.

    Args:
        folders: At least two, of one kind and of the same values.

    Returns:
        A JSON value, documented in ``docs/compare.md``.

    Raises:
        UserError: A folder is missing, holds neither run nor study or one that is not finished, runs and studies are
            mixed, their values differ, or a run has no test scores.
    """
    places = [Path(folder) for folder in folders]
    studies = [_is_study(folder) for folder in places]
    if len(places) < 2:
        raise UserError("a comparison needs at least two runs, or two studies; name another folder.")
    if len({folder.resolve() for folder in places}) < len(places):
        raise UserError("the same folder is named twice; name each run once.")
    if len(set(studies)) > 1:
        run, study = places[studies.index(False)], places[studies.index(True)]
        raise UserError(
            f"{run} is a single run and {study} a study over seeds; compare runs with runs (a study's are its folders "
            "seed-N), or studies with studies."
        )
    values = _common_values(places)
    opened = _open_study if studies[0] else _open_run
    sides = [opened(name, folder) for name, folder in zip(_names(places), places, strict=True)]
    box = common_box([_pooled(side, values) for side in sides])
    corners = {
        "reference_point": dict(zip(values, box.reference.tolist(), strict=True)),
        "best_point": dict(zip(values, box.best.tolist(), strict=True)),
    }
    level = sides[0].config.evaluation.level
    compare = _compare_studies if studies[0] else _compare_runs
    return {
        "schema": SCHEMA,
        "kind": "studies" if studies[0] else "runs",
        "values": values,
        "level": level,
        **corners,
        "runs": [
            {"name": side.name, "folder": str(side.folder), "title": side.config.title, "seeds": side.seeds}
            for side in sides
        ],
        "titles": _titles(sides),
        **compare(sides, values, box, corners, level),
        "settings": changed_settings([_settings(side) for side in sides]),
        "rewards_differ": [value for value in values if len({_reward(side, value) for side in sides}) > 1],
    }


def _is_study(folder: Path) -> bool:
    """Return whether a folder is of a study, not of a run."""
    if has_file(folder, CONFIG):
        return False
    if has_file(folder, STUDY) or seed_folders(folder):
        return True
    if folder.is_dir():
        raise UserError(f"{folder} holds neither a run nor a study: it has no {CONFIG} and no {STUDY}.")
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    known = [one.name for one in beside if (one / CONFIG).is_file() or (one / STUDY).is_file()]
    raise UserError(f"{folder} does not exist{did_you_mean(folder.name, known) or '; name the folder of a run.'}")


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of the paths, as many as it takes to tell all of them apart."""
    parts = [folder.resolve().parts for folder in folders]
    count = next(
        count for count in range(1, 1 + max(map(len, parts))) if len({of[-count:] for of in parts}) == len(parts)
    )
    return ["/".join(of[-count:]) for of in parts]


def _open_run(name: str, folder: Path) -> _Side:
    """Read the results of a run; that it has the scores per prompt is found out where they are read."""
    config = load_config(folder / CONFIG)
    return _Side(name, folder, config, [read_results(folder)], make_plan(config))


def _open_study(name: str, folder: Path) -> _Side:
    """Read the results of a study; their means over prompts are all that is asked, so that no artifact is needed."""
    runs = [folder / f"seed-{seed}" for seed in read_seeds(folder)]
    return _Side(name, folder, load_config(runs[0] / CONFIG), [read_results(run) for run in runs])


def _common_values(folders: Sequence[Path]) -> list[str]:
    """Return the values of the first, which all must have; what is not finished is found out later."""
    found = []
    for folder in folders:
        run = folder if (folder / CONFIG).is_file() else next(iter(seed_folders(folder)), None)
        if run is None:
            raise UserError(f"{folder} has no run folder seed-N; run the configuration of this study again.")
        found.append(list(load_config(run / CONFIG).values))
        if set(found[-1]) != set(found[0]):
            raise UserError(
                f"{folder} has the values {', '.join(found[-1])}, {folders[0]} {', '.join(found[0])}; compare runs of "
                "the same values."
            )
    return found[0]


def _pooled(side: _Side, values: Sequence[str]) -> Scores:
    """Return the mean test scores of the candidates that make a box, (K, n): those whose text is not broken."""
    # Only of a candidate that was tested and whose text is sound the chance of being on the frontier is known.
    tested = [row for of in side.results for row in of["candidates"] if row["test"]]
    rows = [_means(row, values) for row in tested if row["frontier_probability"] is not None]
    if not rows:
        raise UserError(f"the candidates of {side.folder} have no test scores; run its configuration again.")
    return np.array(rows)


def _means(row: Mapping[str, Any], values: Sequence[str]) -> list[float]:
    return [row["test"][value]["mean"] for value in values]


def _compare_runs(
    sides: Sequence[_Side], values: Sequence[str], box: Box, corners: Mapping[str, Any], level: float
) -> dict[str, Any]:
    times = max(side.config.evaluation.resamples for side in sides)
    tested = [_test_scores(side, values) for side in sides]
    frontiers: list[dict[str, Scores]] = []
    methods: list[dict[str, Any]] = []
    for side, (scores, prompts) in zip(sides, tested, strict=True):
        (results,) = side.results
        draws = resamples(len(prompts), times)
        frontiers.append(own := {})
        for method, of in results["methods"].items():
            ids = [row["id"] for row in results["candidates"] if row["method"] == method and row["on_frontier"]]
            volume = Interval(0.0, 0.0, 0.0)  # no candidate above the fluency bound
            if ids:
                if strange := [identity for identity in ids if identity not in scores]:
                    raise UserError(
                        f"{side.folder / RESULTS} has a candidate '{strange[0]}' that its configuration does not have; "
                        "run the configuration again."
                    )
                own[method] = np.stack([scores[identity] for identity in ids])
                volume = hypervolume_interval(own[method], draws, *box, level)
            methods.append(
                {
                    **{"run": side.name, "method": method, "hypervolume": _ends(volume), "frontier_points": len(ids)},
                    "balanced": _point(balanced({**results, **corners}, method), values),
                    "trained_pairs": of["trained_pairs"],
                    "seconds": sum(of[part] for part in _COSTS),
                }
            )
    differences = []
    for method, one, other in _pairs(frontiers):
        first, second = frontiers[one][method], frontiers[other][method]
        rows = same_rows(tested[one][1], tested[other][1])
        identical = False
        if rows is None:
            found = unpaired_difference(first, second, box, times, level)
        else:
            second = second[:, rows]
            found = Difference(*hypervolume_difference(first, second, resamples(len(rows), times), *box, level))
            identical = _alike(first, second, box)
        paired = None if rows is None else "prompt"
        common = len(set(tested[one][1]) & set(tested[other][1]))
        differences.append(_difference(method, sides[one], sides[other], found, paired, common, identical))
    return {
        "methods": methods,
        "candidates": [
            {**_named(side, row), "on_frontier": row["on_frontier"], "scores": {v: row["test"][v] for v in values}}
            for side in sides
            for row in side.results[0]["candidates"]
            if row["test"]
        ],
        "differences": differences,
    }


def _test_scores(side: _Side, values: Sequence[str]) -> tuple[dict[str, Scores], list[tuple[str, ...]]]:
    """Return the (P, n) test scores of each tested candidate, and the ids of the prompts of each row, per value."""
    assert side.plan is not None
    plan, store = side.plan, open_store(side.folder)

    def find(node: Node) -> Artifact:
        # No other stage is asked for, so that a run of an older version can be compared as long as these are the same.
        found = store.look(node)
        if isinstance(found, str):
            raise UserError(f"the run in {side.folder} {found}; `{command(side.folder)}` makes it again.")
        return found

    own = plan.config.evaluation.prompts == "own"
    scores: dict[str, Scores] = {}
    for stack, evaluated in zip(plan.stacks, plan.evaluated, strict=True):
        tables = {value: find(evaluated.test.scores[value]) for value in values}
        by_place = answer_scores(tables, find(evaluated.test.prompts), own=own)
        for method, places in stack.methods.items():
            for place, candidate in zip(places, stack.offered[method], strict=True):
                if place in by_place:
                    scores[candidate_id(method, candidate)] = by_place[place]
    asked = load_prompts(find(plan.evaluated[0].test.prompts))
    ids = ([prompt["id"] for prompt in asked if not own or value in prompt["datasets"]] for value in values)
    return scores, list(zip(*ids, strict=False))  # the longer ones are cut, as in the scores


def _compare_studies(
    sides: Sequence[_Side], values: Sequence[str], box: Box, corners: Mapping[str, Any], level: float
) -> dict[str, Any]:
    combined = [combine(side.results, level) for side in sides]
    volumes: list[dict[str, dict[int, float]]] = []
    methods: list[dict[str, Any]] = []
    for side, of in zip(sides, combined, strict=True):
        volumes.append(own := {})
        for method in of["methods"]:
            own[method] = {run["seed"]: _volume(run, method, values, box) for run in side.results}
            rows = [balanced({**run, **corners}, method) for run in side.results]
            costs = [run["methods"][method] for run in side.results]
            methods.append(
                {
                    **{"run": side.name, "method": method},
                    "hypervolume": spread(own[method].values(), level)._asdict(),
                    "frontier_points": float(np.mean([cost["frontier_points"] for cost in costs])),
                    "balanced": _balanced_over(rows, values, level),
                    "trained_pairs": float(np.mean([cost["trained_pairs"] for cost in costs])),
                    "seconds": float(np.mean([sum(cost[part] for part in _COSTS) for cost in costs])),
                }
            )
    differences = []
    for method, one, other in _pairs(volumes):
        first, second = volumes[one][method], volumes[other][method]
        found = difference_over_seeds(first, second, level)
        paired, common = "seed" if set(first) == set(second) else None, len(set(first) & set(second))
        chosen = [
            {run["seed"]: _frontier_means(run, method, values) for run in sides[place].results}
            for place in (one, other)
        ]
        identical = bool(paired) and all(_alike(chosen[0][seed], chosen[1][seed], box) for seed in first)
        differences.append(_difference(method, sides[one], sides[other], found, paired, common, identical))
    return {
        "methods": methods,
        "candidates": [
            {**_named(side, row), "on_frontier": None, "scores": {v: _ends(row["validation"][v]) for v in values}}
            for side, of in zip(sides, combined, strict=True)
            for row in of["candidates"]
        ],
        "differences": differences,
    }


def _balanced_over(
    rows: Sequence[Mapping[str, Any] | None], values: Sequence[str], level: float
) -> dict[str, Any] | None:
    """Return the scores over seeds of a policy that is another one in each; None where a seed has none."""
    found = [_means(row, values) for row in rows if row is not None]
    if len(found) < len(rows):
        return None
    scores = {
        value: spread(means, level)._asdict() for value, means in zip(values, zip(*found, strict=True), strict=True)
    }
    return {"id": None, "weights": None, "scores": scores}


def _volume(run: Results, method: str, values: Sequence[str], box: Box) -> float:
    """Return the hypervolume of a method's validation frontier on test; 0 where it has none."""
    means = _frontier_means(run, method, values)
    return normalised_hypervolume(means, *box) if means else 0.0


def _frontier_means(run: Results, method: str, values: Sequence[str]) -> list[list[float]]:
    """Return the mean test scores of the candidates on a method's validation frontier, (K, n)."""
    rows = (row for row in run["candidates"] if row["method"] == method and row["on_frontier"])
    return [_means(row, values) for row in rows]


def _alike(first: ArrayLike, second: ArrayLike, box: Box) -> bool:
    """Return whether two frontiers have as many candidates, and all of them the same scores but for rounding."""
    one, other = np.asarray(first), np.asarray(second)
    return one.shape == other.shape and bool((np.abs(one - other) <= ROUNDING * (box.best - box.reference)).all())


def _pairs(sides: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Return every method with every two sides that have it."""
    names = list(dict.fromkeys(method for side in sides for method in side))
    return [
        (method, one, other)
        for method in names
        for one, other in combinations([place for place, side in enumerate(sides) if method in side], 2)
    ]


def _difference(
    method: str, first: _Side, second: _Side, found: Difference, paired: str | None, common: int, identical: bool
) -> dict[str, Any]:
    """Return a row of the differences; ``paired`` says by what, and is null where the two are independent."""
    named = {"method": method, "first": first.name, "second": second.name}
    return {**named, **found._asdict(), "paired": paired, "common": common, "identical": identical}


def _point(row: Mapping[str, Any] | None, values: Sequence[str]) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "id": row["id"],
        "weights": row["weights"],
        "scores": {value: _ends(row["test"][value]) for value in values},
    }


def _ends(figure: Interval | Mapping[str, Any]) -> dict[str, Any]:
    """Return a mean with the ends of its interval."""
    if isinstance(figure, Interval):
        return {"mean": figure.value, "low": figure.low, "high": figure.high}
    return {part: figure[part] for part in ("mean", "low", "high")}


def _named(side: _Side, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": side.name, **{part: row[part] for part in ("id", "method", "weights", "outside_simplex")}}


def _titles(sides: Sequence[_Side]) -> dict[str, str]:
    """Return what figures call each method: its title, or its name where two have one title."""
    titles: dict[str, str] = {}
    for side in sides:
        for name, of in side.results[0]["methods"].items():
            titles.setdefault(name, of["title"])
    shared = list(titles.values())
    return {name: title if shared.count(title) == 1 else name for name, title in titles.items()}


def _reward(side: _Side, value: str) -> str:
    """Return what tells the reward of a value from another one; a trained one depends on its data, base and seed."""
    if side.plan is not None and value in side.plan.rewards:
        return side.plan.rewards[value].key
    reward = side.config.values[value].reward
    text = reward.model_dump_json()
    if reward.train is None:
        return text
    base = side.config.base.model_dump_json(exclude={"device"})
    data = [source.model_dump_json() for source in side.config.values[value].data]
    return json.dumps([text, base, data, sorted(side.seeds)])


def _settings(side: _Side) -> dict[str, Any]:
    """Return the configuration with every method's choices by its name, and single sources without a list."""
    content = side.config.model_dump(mode="json", exclude={"methods", "seed", "seeds", "title"})
    for value in content["values"].values():
        if len(value["data"]) == 1:
            (value["data"],) = value["data"]
    methods = {entry.name: entry.method.model_dump(mode="json") for entry in side.config.methods}
    return {**content, "methods": methods, "seeds" if len(side.seeds) > 1 else "seed": side.seeds}
