"""From artifacts to ``results.json``: means with intervals, frontiers, hypervolumes, costs, geometry."""

from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuesoup.evaluation.frontier import pareto, reference_point
from valuesoup.evaluation.statistics import (
    Interval,
    frontier_probability,
    hypervolume_difference,
    hypervolume_interval,
    mean_intervals,
    resamples,
)
from valuesoup.pipeline.plan import BASE, Measured, Plan, Stack
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.recipes import Candidate, Recipe
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, topological

SCHEMA = 1
EXPANSION_STEPS = frozenset({"mining", "answers", "rated", "mined", "fusion", "expanded"})
"""Stages that prompt expansion takes beside what every method shares."""
Found = Mapping[str, Artifact]
Scores = dict[tuple[int, int], NDArray[np.float64]]
"""(prompts, n) scores by stack and place of the candidate."""


def build_results(plan: Plan, found: Found) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Hypervolumes are those of each method's validation frontier on the test prompts, against one reference point for
    all methods: the worst pooled test score per value minus a tenth of the pooled range; 1 is the whole box from there
    to the best pooled scores.

    Args:
        plan: Of the run.
        found: Every artifact by its node's key.
    """
    config = plan.config
    names = list(config.values)
    validation = _scores(plan, found, "validation")
    test = _scores(plan, found, "test")
    draws = {
        part: resamples(len(next(iter(scores.values()))), config.evaluation.resamples, config.seed)
        for part, scores in (("validation", validation), ("test", test))
    }
    means = {key: score.mean(axis=0) for key, score in validation.items()}
    # A candidate whose text is broken sets neither the box nor anyone's chance of being on the frontier.
    broken = _broken(plan, found)
    whole = {key: score for key, score in test.items() if key not in broken} or test
    pooled = np.array([score.mean(axis=0) for score in whole.values()])
    reference, best = reference_point(pooled), pooled.max(axis=0)
    sound = [key for key in means if key not in broken]
    overall = dict(zip(sound, pareto(np.array([means[key] for key in sound])).tolist(), strict=True)) if sound else {}
    probability = dict(
        zip(whole, frontier_probability(np.stack(list(whole.values())), draws["test"]).tolist(), strict=True)
    )
    estimates = {
        part: _estimates(scores, draws[part], names, config.evaluation.level)
        for part, scores in (("validation", validation), ("test", test))
    }
    truth = _truth(plan, found)

    rows: list[dict[str, Any]] = []
    methods: dict[str, Any] = {}
    frontiers: dict[str, NDArray[np.float64]] = {}
    for number, (stack, evaluated) in enumerate(zip(plan.stacks, plan.evaluated, strict=True)):
        chosen = found[evaluated.chosen.key].json("chosen.json")
        quality = found[evaluated.quality.key].json("quality.json")
        for method, places in stack.methods.items():
            own = set(chosen["frontier"][method])
            for place, candidate in zip(places, stack.offered[method], strict=True):
                key = (number, place)
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
                    }
                )
            volume = Interval(0.0, 0.0, 0.0)  # no candidate above the fluency bound
            if own:
                frontiers[method] = np.stack([test[(number, place)] for place in sorted(own)])
                volume = hypervolume_interval(
                    frontiers[method], draws["test"], reference, best, config.evaluation.level
                )
            methods[method] = {
                "title": _title(plan, method),
                "hypervolume": volume._asdict(),
                **_cost(
                    plan, found, method, [evaluated.validation, evaluated.test], len(places) / len(stack.candidates)
                ),
                "frontier_points": len(own),
                "composition_error": _composition_error(stack, found),
            }
    difference = partial(
        hypervolume_difference, draws=draws["test"], reference=reference, best=best, level=config.evaluation.level
    )
    order = [BASE, *(entry.name for entry in config.methods)]
    rows.sort(key=lambda row: order.index(row["method"]))
    return {
        "schema": SCHEMA,
        "values": names,
        "seed": config.seed,
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


def _scores(plan: Plan, found: Found, part: str) -> Scores:
    own = plan.config.evaluation.prompts == "own"
    scores: Scores = {}
    for number, evaluated in enumerate(plan.evaluated):
        measured: Measured = getattr(evaluated, part)
        tables = {value: found[node.key] for value, node in measured.scores.items()}
        for place, table in answer_scores(tables, found[measured.prompts.key], own=own).items():
            scores[number, place] = table
    return scores


def _broken(plan: Plan, found: Found) -> set[tuple[int, int]]:
    """Return the candidates whose validation fluency is below the bound."""
    return {
        (number, place)
        for number, evaluated in enumerate(plan.evaluated)
        for place in found[evaluated.chosen.key].json("chosen.json")["broken"]
    }


def _estimates(
    scores: Scores, draws: NDArray[np.int64], names: list[str], level: float
) -> dict[tuple[int, int], dict[str, dict[str, float]]]:
    intervals = mean_intervals(np.stack(list(scores.values())), draws, level)
    return {
        key: {
            name: {
                "mean": float(intervals.mean[row, column]),
                "low": float(intervals.low[row, column]),
                "high": float(intervals.high[row, column]),
            }
            for column, name in enumerate(names)
        }
        for row, key in enumerate(scores)
    }


def _truth(plan: Plan, found: Found) -> dict[tuple[int, int], dict[str, float]]:
    """Return mean true rewards on the test answers, for the values whose truth is known."""
    means: dict[tuple[int, int], dict[str, float]] = {}
    for number, evaluated in enumerate(plan.evaluated):
        for value, node in evaluated.truth.items():
            table = RewardTable.load(found[node.key].path / "scores.parquet")
            for side, mean in zip(table.sides, table.scores[:, :, 0].mean(axis=0), strict=True):
                means.setdefault((number, int(side)), {})[value] = float(mean)
    return means


def _title(plan: Plan, method: str) -> str:
    return next((entry.title for entry in plan.config.methods if entry.name == method), "Base model")


def _cost(plan: Plan, found: Found, method: str, measured: list[Measured], share: float) -> dict[str, float | int]:
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
    evaluation = [node for part in measured for node in (part.answers, *part.scores.values())]
    return {
        "trainings": len(trainings),
        "trained_pairs": sum(artifact.json("summary.json")["pairs"] for artifact in trainings.values()),
        "train_seconds": sum(artifact.seconds for artifact in trainings.values())
        + sum(found[node.key].seconds for node in prepared),
        "expand_seconds": sum(found[node.key].seconds for node in steps),
        "evaluate_seconds": share * sum(found[node.key].seconds for node in evaluation),
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
