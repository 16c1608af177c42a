"""From artifacts to ``results.json``: means with intervals, frontiers, hypervolumes, costs, geometry."""

from collections.abc import Callable, Mapping
from functools import partial
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
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.diagnosed import diagnosed
from valuesoup.pipeline.plan import BASE, Evaluated, Measured, Plan, Stack
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.recipes import Candidate, Recipe
from valuesoup.pipeline.searching import search_scores
from valuesoup.pipeline.serving import generator
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, topological

SCHEMA = 1
EXPANSION_STEPS = frozenset({"mining", "answers", "rated", "mined", "fusion", "expanded"})
"""Stages that prompt expansion takes beside what every method shares."""
Found = Mapping[str, Artifact]
Scores = dict[tuple[int, int], NDArray[np.float64]]
"""(prompts, n) scores by stack and place of the candidate.

NaN where a search did not ask it, and below the own prompts of a value that has fewer of them than others.
"""


def build_results(plan: Plan, found: Found) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Hypervolumes are those of each method's validation frontier on the test prompts, against one reference point for
    all methods: the worst pooled test score per value minus a tenth of the pooled range; 1 is the whole box from there
    to the best pooled scores.

    Args:
        plan: Of the run.
        found: Every artifact by its node's key.
    """
    config, level = plan.config, plan.config.evaluation.level
    names = list(config.values)
    validation = _scores(plan, found, "validation")
    test = _scores(plan, found, "test")
    draws = resamples(len(next(iter(test.values()))), config.evaluation.resamples, config.seed)
    searches = [_search(evaluated, found) for evaluated in plan.evaluated]
    # A candidate whose text is broken sets neither the box nor anyone's chance of being on the frontier.
    broken = _broken(plan, found)
    whole = {key: score for key, score in test.items() if key not in broken} or test
    pooled = np.array([score.mean(axis=0) for score in whole.values()])
    box = common_box([pooled])
    reference, best = box
    left = {(number, int(place)) for number, of in enumerate(searches) if of for place in of["left"]}
    comparable = _scores(plan, found, "validation", whole=True) if any(searches) else validation
    overall = _overall({key: score for key, score in comparable.items() if key not in broken | left})
    probability = dict(zip(whole, frontier_probability(np.stack(list(whole.values())), draws).tolist(), strict=True))
    estimates = {
        part: _estimates(scores, names, partial(resamples, times=config.evaluation.resamples, seed=config.seed), level)
        for part, scores in (("validation", validation), ("test", test))
    }
    truth = _truth(plan, found)

    rows: list[dict[str, Any]] = []
    methods: dict[str, Any] = {}
    frontiers: dict[str, NDArray[np.float64]] = {}
    for number, (stack, evaluated, searched) in enumerate(zip(plan.stacks, plan.evaluated, searches, strict=True)):
        chosen = found[evaluated.chosen.key].json("chosen.json")
        quality = found[evaluated.quality.key].json("quality.json")
        asked = len(load_prompts(found[evaluated.validation.prompts.key]))
        for method, places in stack.methods.items():
            own = set(chosen["frontier"][method])
            for place, candidate in zip(places, stack.offered[method], strict=True):
                key = (number, place)
                if key not in validation:
                    continue  # never measured
                rows.append(
                    {
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
                        **({} if searched is None else _searched(searched, stack, place, names, level)),
                    }
                )
            volume = Interval(0.0, 0.0, 0.0)  # no candidate above the fluency bound
            if own:
                frontiers[method] = np.stack([test[(number, place)] for place in sorted(own)])
                volume = hypervolume_interval(frontiers[method], draws, reference, best, level)
            methods[method] = {
                "title": _title(plan, method),
                "hypervolume": volume._asdict(),
                **_cost(plan, found, method, evaluated, len(places) / len(stack.candidates), searched),
                "frontier_points": len(own),
                "composition_error": _composition_error(stack, found),
                "optimism": _optimism(number, sorted(own), validation, test, searched, box, names, level),
                **({} if searched is None else {"search": searched["methods"][method]}),
            }
    difference = partial(hypervolume_difference, draws=draws, reference=reference, best=best, level=level)
    order = [BASE, *(entry.name for entry in config.methods)]
    rows.sort(key=lambda row: order.index(row["method"]))
    return {
        "schema": SCHEMA,
        "values": names,
        "seed": config.seed,
        **generator(plan, found),
        "reward_models": {value: _reward_model(plan, found, value) for value in plan.rewards},
        "filters": _filters(plan, found),
        "candidates": rows,
        "methods": {name: methods[name] for name in order},
        "trainings": {
            method: {name: found[node.key].json("summary.json") for name, node in recipe.trainings.items()}
            for method, recipe in plan.recipes.items()
        },
        "expansions": {
            method: {name: _expansion(found[node.key]) for name, node in recipe.expansions.items()}
            for method, recipe in plan.recipes.items()
            if recipe.expansions
        },
        "geometry": {name: _geometry(found[node.key]) for name, node in plan.geometry.items()},
        **diagnosed(plan, found),
        "differences": [
            {"first": first, "second": second, **difference(frontiers[first], frontiers[second])._asdict()}
            for first, second in combinations([name for name in order if name in frontiers], 2)
        ],
        "reference_point": dict(zip(names, reference.tolist(), strict=True)),
        "best_point": dict(zip(names, best.tolist(), strict=True)),
    }


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


def _broken(plan: Plan, found: Found) -> set[tuple[int, int]]:
    """Return the candidates whose validation fluency is below the bound."""
    return {
        (number, place)
        for number, evaluated in enumerate(plan.evaluated)
        for place in found[evaluated.chosen.key].json("chosen.json")["broken"]
    }


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


def _overall(scores: Scores) -> dict[tuple[int, int], bool]:
    """Return which candidates no other one dominates, by means over the prompts that all of them answered."""
    if not scores:
        return {}
    table = np.stack(list(scores.values()))
    means = [
        table[:, np.isfinite(table[:, :, value]).all(axis=0), value].mean(axis=1) for value in range(table.shape[2])
    ]
    return dict(zip(scores, pareto(np.stack(means, axis=1)).tolist(), strict=True))


def _estimates(
    scores: Scores, names: list[str], draw: Callable[[int], NDArray[np.int64]], level: float
) -> dict[tuple[int, int], dict[str, dict[str, float]]]:
    """Return the mean of each candidate and value with its interval, over the prompts that the candidate answered."""
    found: dict[tuple[int, int], dict[str, dict[str, float]]] = {key: {} for key in scores}
    for column, name in enumerate(names):
        alike: dict[bytes, list[tuple[int, int]]] = {}
        for key, score in scores.items():
            alike.setdefault(np.isfinite(score[:, column]).tobytes(), []).append(key)
        for keys in alike.values():
            table = np.stack([scores[key][:, column] for key in keys])
            asked = table[:, np.isfinite(table[0]), None]
            intervals = mean_intervals(asked, draw(asked.shape[1]), level)
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


def _optimism(
    number: int,
    places: list[int],
    validation: Scores,
    test: Scores,
    searched: Mapping[str, Any] | None,
    box: Box,
    names: list[str],
    level: float,
) -> dict[str, Any] | None:
    """Return how a frontier scores by the figures that chose it, which a search has smoothed, and on test."""
    if not places:
        return None
    tested = np.stack([test[(number, place)] for place in places])
    if searched is not None:
        smoothed = [searched["smoothed"][str(place)]["mean"] for place in places]
        return selection_optimism(smoothed, None, tested, box, names, level)
    measured = np.stack([validation[(number, place)] for place in places])
    return selection_optimism(measured.mean(axis=1), measured, tested, box, names, level)


def _title(plan: Plan, method: str) -> str:
    return next((entry.title for entry in plan.config.methods if entry.name == method), "Base model")


def _cost(
    plan: Plan, found: Found, method: str, evaluated: Evaluated, share: float, searched: Mapping[str, Any] | None
) -> dict[str, float | int]:
    """Return what a method takes on its own; of an evaluation shared with others, the share of its candidates."""
    recipe = plan.recipes.get(method, Recipe())
    trainings = {node.key: found[node.key] for node in recipe.trainings.values()}
    # Log-probabilities under trained policies, for references and margins, and other compositions than the linear one.
    prepared = [
        node
        for node in topological([*recipe.trainings.values(), *recipe.vectors.values()])
        if node.stage.name == "compose" or (node.stage.name == "reference" and node.inputs["policy"] is not None)
    ]
    # Rollouts, rewriting and scoring of prompt expansion; what every method shares is not counted.
    steps = [node for node in topological(recipe.expansions.values()) if node.stage.name in EXPANSION_STEPS]
    shares = {"validation": share, "test": share}
    if searched is not None:  # of a search, the share of the answers that it asked of the method's candidates
        shares["validation"] = searched["methods"][method]["answers"] / sum(searched["prompts"].values())
    evaluation = [
        (shares[part], node)
        for part, measured in (("validation", evaluated.validation), ("test", evaluated.test))
        for node in {node.key: node for node in (measured.answers, *measured.scores.values())}.values()
    ]
    return {
        "trainings": len(trainings),
        "trained_pairs": sum(artifact.json("summary.json")["pairs"] for artifact in trainings.values()),
        "train_seconds": sum(artifact.seconds for artifact in trainings.values())
        + sum(found[node.key].seconds for node in prepared),
        "expand_seconds": sum(found[node.key].seconds for node in steps),
        "evaluate_seconds": sum(part * found[node.key].seconds for part, node in evaluation),
    }


def _composition_error(stack: Stack, found: Found) -> float | None:
    """Return the largest relative error that a cut of composed adapters made, None where nothing was composed."""
    composed = [found[node.key] for node in stack.vectors.values() if node.stage.name == "compose"]
    return max((artifact.json("summary.json")["relative_error"] for artifact in composed), default=None)


def _reward_model(plan: Plan, found: Found, value: str) -> dict[str, Any]:
    report = found[plan.rewards[value].key].json("report.json")
    return {
        "validation_accuracy": report["validation_accuracy"],
        "validation_pairs": report["validation_pairs"],
        "pairs": report["pairs"],
    }


def _filters(plan: Plan, found: Found) -> dict[str, dict[str, Any]]:
    kept = ("tau", "pairs", "kept", "flipped", "undefined")
    return {
        method: {
            dataset: {key: found[node.key].json("summary.json")[key] for key in kept}
            for dataset, node in recipe.filters.items()
        }
        for method, recipe in plan.recipes.items()
        if recipe.filters
    }


def _expansion(expansion: Artifact) -> dict[str, float]:
    """Return the counts of each step, and the share of prompts that pass every value in N rollouts, by kind."""
    content = expansion.json("expansion.json")
    last = [row for row in content["profile"] if row["value"] == "joint" and row["n"] == content["rollouts"]]
    return {**content["counts"], **{f"joint pass@N, {row['prompts']}": row["pass"] for row in last}}


def _geometry(geometry: Artifact) -> dict[str, float | None]:
    """Return mean cosine and distance over the pairs of vectors, and the HSIC summed over layers and pairs."""
    rows = [row for row in geometry.json("geometry.json") if row["layer"] == ""]
    cosines = [row["cosine"] for row in rows if row["cosine"] is not None]
    dependence = [row["hsic"] for row in geometry.json("hsic.json")]
    return {
        "cosine": float(np.mean(cosines)) if cosines else None,
        "l2": float(np.mean([row["l2"] for row in rows])),
        "hsic": float(np.sum(dependence)) if dependence else None,
    }
