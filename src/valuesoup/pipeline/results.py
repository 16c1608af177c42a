"""From artifacts to ``results.json``: means with intervals, frontiers, hypervolumes, costs, geometry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuesoup.evaluation.comparison import Box, common_box
from valuesoup.evaluation.frontier import pareto
from valuesoup.evaluation.optimism import selection_optimism
from valuesoup.evaluation.statistics import (
    Interval,
    frontier_probability,
    hypervolume_difference,
    hypervolume_interval,
    mean_intervals,
    resamples,
)
from valuesoup.pipeline import accounts
from valuesoup.pipeline.accounts import Found
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.diagnosed import diagnosed
from valuesoup.pipeline.plan import BASE, Evaluated, Measured, Plan, Stack
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.recipes import Candidate
from valuesoup.pipeline.searching import search_scores
from valuesoup.pipeline.serving import generator
from valuesoup.rewards import RewardTable

SCHEMA = 1
Scores = dict[tuple[int, int], NDArray[np.float64]]
"""(prompts, n) scores by stack and place of the candidate.

NaN where a search did not ask it, and below the own prompts of a value that has fewer of them than others.
"""


@dataclass(frozen=True)
class _Ground:
    """What every candidate and method is measured by: the scores, one box, the same resamples of the test prompts."""

    plan: Plan
    found: Found
    values: list[str]
    validation: Scores
    test: Scores
    draws: NDArray[np.int64]
    box: Box
    chosen: list[dict[str, Any]]
    broken: set[tuple[int, int]]
    searches: list[dict[str, Any] | None]

    @classmethod
    def of(cls, plan: Plan, found: Found) -> "_Ground":
        config = plan.config
        test = _scores(plan, found, "test")
        chosen = [found[evaluated.chosen.key].json("chosen.json") for evaluated in plan.evaluated]
        broken = {(number, place) for number, of in enumerate(chosen) for place in of["broken"]}
        return cls(
            plan,
            found,
            values=list(config.values),
            validation=_scores(plan, found, "validation"),
            test=test,
            draws=resamples(len(next(iter(test.values()))), config.evaluation.resamples, config.seed),
            box=common_box([np.array([score.mean(axis=0) for score in _sound(test, broken).values()])]),
            chosen=chosen,
            broken=broken,
            searches=[_search(evaluated, found) for evaluated in plan.evaluated],
        )

    @property
    def level(self) -> float:
        return self.plan.config.evaluation.level

    def stacks(self) -> Iterator[tuple[int, Stack, Evaluated, dict[str, Any] | None]]:
        """Go through the stacks, each with its number, evaluation and search."""
        return zip(range(len(self.searches)), self.plan.stacks, self.plan.evaluated, self.searches, strict=True)

    def frontier(self, number: int, method: str) -> list[int]:
        """Return the places of a method's validation frontier, in order."""
        return sorted(set(self.chosen[number]["frontier"][method]))


def build_results(plan: Plan, found: Found) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Hypervolumes are those of each method's validation frontier on the test prompts, against one reference point for
    all methods: the worst pooled test score per value minus a tenth of the pooled range; 1 is the whole box from there
    to the best pooled scores.

    Args:
        plan: Of the run.
        found: Every artifact by its node's key.
    """
    ground = _Ground.of(plan, found)
    order = [BASE, *(entry.name for entry in plan.config.methods)]
    frontiers = _frontiers(ground)
    methods = _methods(ground, frontiers)
    return {
        "schema": SCHEMA,
        "values": ground.values,
        "seed": plan.config.seed,
        **generator(plan, found),
        "reward_models": accounts.reward_models(plan, found),
        "filters": accounts.filters(plan, found),
        "candidates": sorted(_candidates(ground), key=lambda row: order.index(row["method"])),
        "methods": {name: methods[name] for name in order},
        "trainings": accounts.trainings(plan, found),
        "expansions": accounts.expansions(plan, found),
        "geometry": accounts.geometry(plan, found),
        **diagnosed(plan, found),
        "differences": _differences(ground, {name: frontiers[name] for name in order if name in frontiers}),
        "reference_point": dict(zip(ground.values, ground.box.reference.tolist(), strict=True)),
        "best_point": dict(zip(ground.values, ground.box.best.tolist(), strict=True)),
    }


def _candidates(ground: _Ground) -> Iterator[dict[str, Any]]:
    """Yield a row for every candidate that was measured, in the order of the stacks."""
    estimates = {part: _estimates(ground, part) for part in ("validation", "test")}
    truth, overall, probability = _truth(ground.plan, ground.found), _overall(ground), _probability(ground)
    for number, stack, evaluated, searched in ground.stacks():
        quality = ground.found[evaluated.quality.key].json("quality.json")
        asked = len(load_prompts(ground.found[evaluated.validation.prompts.key]))
        for method, places in stack.methods.items():
            own = ground.frontier(number, method)
            for place, candidate in zip(places, stack.offered[method], strict=True):
                key = (number, place)
                if key not in ground.validation:
                    continue  # never measured
                yield {
                    "id": candidate_id(method, candidate),
                    "method": method,
                    "weights": candidate.weights,
                    "outside_simplex": _outside(candidate),
                    "validation": estimates["validation"][key],
                    "test": estimates["test"].get(key),
                    "truth": truth.get(key),
                    "quality": quality.get(str(place)),
                    "on_frontier": place in own,
                    "on_overall_frontier": overall.get(key, False),
                    "frontier_probability": probability.get(key),
                    "prompts": asked if searched is None else searched["prompts"][str(place)],
                    **({} if searched is None else _searched(searched, stack, place, ground.values, ground.level)),
                }


def _frontiers(ground: _Ground) -> dict[str, NDArray[np.float64]]:
    """Return the (K, P, n) test scores of each method's frontier, without methods that have none."""
    return {
        method: np.stack([ground.test[(number, place)] for place in own])
        for number, stack, _, _ in ground.stacks()
        for method in stack.methods
        if (own := ground.frontier(number, method))
    }


def _methods(ground: _Ground, frontiers: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return what each method reached and what it cost."""
    titles = {entry.name: entry.title for entry in ground.plan.config.methods}
    methods: dict[str, Any] = {}
    for number, stack, evaluated, searched in ground.stacks():
        for method, places in stack.methods.items():
            own = ground.frontier(number, method)
            volume = Interval(0.0, 0.0, 0.0)  # no candidate above the fluency bound
            if own:
                volume = hypervolume_interval(frontiers[method], ground.draws, *ground.box, ground.level)
            share = len(places) / len(stack.candidates)
            methods[method] = {
                "title": titles.get(method, "Base model"),
                "hypervolume": volume._asdict(),
                **accounts.cost(ground.plan, ground.found, method, evaluated, share, searched),
                "frontier_points": len(own),
                "composition_error": accounts.composition_error(stack, ground.found),
                "optimism": _optimism(ground, number, own),
                **({} if searched is None else {"search": searched["methods"][method]}),
            }
    return methods


def _differences(ground: _Ground, frontiers: Mapping[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Return the difference in hypervolume of every two methods, averaged over the same resamples."""
    found = {
        (first, second): hypervolume_difference(
            frontiers[first], frontiers[second], ground.draws, *ground.box, ground.level
        )
        for first, second in combinations(frontiers, 2)
    }
    return [{"first": first, "second": second, **of._asdict()} for (first, second), of in found.items()]


def candidate_id(method: str, candidate: Candidate) -> str:
    """Return a candidate's name, e.g. ``vc-soup/helpful=0.6,harmless=0.4``."""
    return BASE if method == BASE else f"{method}/{candidate.label}"


def _outside(candidate: Candidate) -> bool:
    """Return whether the weights leave the simplex: their sum is not 1, or one is negative; the base is inside."""
    weights = list((candidate.weights or {}).values())
    return any(weights) and (min(weights) < 0 or abs(sum(weights) - 1) > 1e-9)


def _scores(plan: Plan, found: Found, part: str, *, whole: bool = False) -> Scores:
    """Return the scores of a part; `answer_scores` says what ``whole`` does, and a search's are never cut."""
    own = plan.config.evaluation.prompts == "own"
    scores: Scores = {}
    for number, evaluated in enumerate(plan.evaluated):
        measured: Measured = getattr(evaluated, part)
        prompts = found[measured.prompts.key]
        if part == "validation" and evaluated.searched:
            tables = search_scores(found[measured.answers.key], prompts, list(plan.config.values), own=own)
        else:
            given = {value: found[node.key] for value, node in measured.scores.items()}
            tables = answer_scores(given, prompts, own=own, whole=whole)
        scores.update({(number, place): table for place, table in tables.items()})
    return scores


def _search(evaluated: Evaluated, found: Found) -> dict[str, Any] | None:
    """Return what the search of a stack wrote, None where there was none."""
    return found[evaluated.chosen.key].json("search.json") if evaluated.searched else None


def _searched(searched: Mapping[str, Any], stack: Stack, place: int, names: list[str], level: float) -> dict[str, Any]:
    """Return what a search adds to a candidate: whether it left, and its smoothed means with normal intervals."""
    smoothed, left = searched["smoothed"].get(str(place)), None
    if str(place) in searched["left"]:
        by = searched["left"][str(place)]
        left = {"dominated_by": None if by is None else _name(stack, by)}
    if smoothed is not None:
        half = NormalDist().inv_cdf((1 + level) / 2)
        smoothed = {
            name: {"mean": mean, "low": mean - half * deviation, "high": mean + half * deviation}
            for name, mean, deviation in zip(names, smoothed["mean"], smoothed["deviation"], strict=True)
        }
    return {"smoothed": smoothed, "left": left}


def _name(stack: Stack, place: int) -> str:
    """Return the name of a candidate, as the first method that has it calls it."""
    method, at = next((method, places.index(place)) for method, places in stack.methods.items() if place in places)
    return candidate_id(method, stack.offered[method][at])


def _sound(test: Scores, broken: set[tuple[int, int]]) -> Scores:
    """Return the scores without candidates whose text is broken, which set neither the box nor anyone's chance."""
    return {key: score for key, score in test.items() if key not in broken} or test


def _probability(ground: _Ground) -> dict[tuple[int, int], float]:
    """Return each sound candidate's chance of being on the frontier of all of them."""
    sound = _sound(ground.test, ground.broken)
    return dict(zip(sound, frontier_probability(np.stack(list(sound.values())), ground.draws).tolist(), strict=True))


def _overall(ground: _Ground) -> dict[tuple[int, int], bool]:
    """Return which candidates no other one dominates, by means over the validation prompts that all of them answered.

    Neither broken ones are among them nor those that a search left.
    """
    left = {(number, int(place)) for number, of in enumerate(ground.searches) if of for place in of["left"]}
    scores = ground.validation
    if any(ground.searches):
        scores = _scores(ground.plan, ground.found, "validation", whole=True)
    scores = {key: score for key, score in scores.items() if key not in ground.broken | left}
    if not scores:
        return {}
    table = np.stack(list(scores.values()))
    means = [
        table[:, np.isfinite(table[:, :, value]).all(axis=0), value].mean(axis=1) for value in range(table.shape[2])
    ]
    return dict(zip(scores, pareto(np.stack(means, axis=1)).tolist(), strict=True))


def _estimates(ground: _Ground, part: str) -> dict[tuple[int, int], dict[str, dict[str, float]]]:
    """Return the mean of each candidate and value with its interval, over the prompts that the candidate answered."""
    scores: Scores = getattr(ground, part)
    config = ground.plan.config
    found: dict[tuple[int, int], dict[str, dict[str, float]]] = {key: {} for key in scores}
    for column, name in enumerate(ground.values):
        alike: dict[bytes, list[tuple[int, int]]] = {}
        for key, score in scores.items():
            alike.setdefault(np.isfinite(score[:, column]).tobytes(), []).append(key)
        for keys in alike.values():
            table = np.stack([scores[key][:, column] for key in keys])
            asked = table[:, np.isfinite(table[0]), None]
            draws = resamples(asked.shape[1], config.evaluation.resamples, config.seed)
            intervals = mean_intervals(asked, draws, ground.level)
            for row, key in enumerate(keys):
                found[key][name] = {
                    part: float(of[row, 0])
                    for part, of in (("mean", intervals.mean), ("low", intervals.low), ("high", intervals.high))
                }
    return found


def _truth(plan: Plan, found: Found) -> dict[tuple[int, int], dict[str, float]]:
    """Return mean true rewards on the test answers, for the values whose truth is known."""
    means: dict[tuple[int, int], dict[str, float]] = {}
    for number, evaluated in enumerate(plan.evaluated):
        for value, node in evaluated.truth.items():
            table = RewardTable.load(found[node.key].path / "scores.parquet")
            for side, mean in zip(table.sides, table.scores[:, :, 0].mean(axis=0), strict=True):
                means.setdefault((number, int(side)), {})[value] = float(mean)
    return means


def _optimism(ground: _Ground, number: int, places: list[int]) -> dict[str, Any] | None:
    """Return how a frontier scores by the figures that chose it, which a search has smoothed, and on test."""
    if not places:
        return None
    tested = np.stack([ground.test[(number, place)] for place in places])
    searched = ground.searches[number]
    if searched is not None:
        smoothed = [searched["smoothed"][str(place)]["mean"] for place in places]
        return selection_optimism(smoothed, None, tested, ground.box, ground.values, ground.level)
    measured = np.stack([ground.validation[(number, place)] for place in places])
    return selection_optimism(measured.mean(axis=1), measured, tested, ground.box, ground.values, ground.level)
