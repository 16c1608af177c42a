"""What stages tell of themselves in ``results.json``: reward models, filters, expansions, geometry, and costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from valuesoup.pipeline.plan import Evaluated, Plan, Stack
from valuesoup.pipeline.recipes import Recipe
from valuesoup.store import Artifact, topological

Found = Mapping[str, Artifact]
"""Every artifact by its node's key."""
EXPANSION_STEPS = frozenset({"mining", "answers", "rated", "mined", "fusion", "expanded"})
"""Stages that prompt expansion takes beside what every method shares."""


def cost(
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


def composition_error(stack: Stack, found: Found) -> float | None:
    """Return the largest relative error that a cut of composed adapters made, None where nothing was composed."""
    composed = [found[node.key] for node in stack.vectors.values() if node.stage.name == "compose"]
    return max((artifact.json("summary.json")["relative_error"] for artifact in composed), default=None)


def reward_models(plan: Plan, found: Found) -> dict[str, dict[str, Any]]:
    """Return the held-out accuracy of each reward model that the run trained, and on how many pairs."""
    kept = ("validation_accuracy", "validation_pairs", "pairs")
    reports = {value: found[node.key].json("report.json") for value, node in plan.rewards.items()}
    return {value: {key: report[key] for key in kept} for value, report in reports.items()}


def filters(plan: Plan, found: Found) -> dict[str, dict[str, Any]]:
    """Return what the consistency filters kept, by method and data set."""
    kept = ("tau", "pairs", "kept", "flipped", "undefined")
    return {
        method: {
            dataset: {key: found[node.key].json("summary.json")[key] for key in kept}
            for dataset, node in recipe.filters.items()
        }
        for method, recipe in plan.recipes.items()
        if recipe.filters
    }


def trainings(plan: Plan, found: Found) -> dict[str, dict[str, Any]]:
    """Return the summary of every training, by method."""
    return {
        method: {name: found[node.key].json("summary.json") for name, node in recipe.trainings.items()}
        for method, recipe in plan.recipes.items()
    }


def expansions(plan: Plan, found: Found) -> dict[str, dict[str, Any]]:
    """Return the counts of every prompt expansion, by method and data set."""
    return {
        method: {name: _expansion(found[node.key]) for name, node in recipe.expansions.items()}
        for method, recipe in plan.recipes.items()
        if recipe.expansions
    }


def geometry(plan: Plan, found: Found) -> dict[str, dict[str, float | None]]:
    """Return how the value vectors of each method lie to each other."""
    return {name: _geometry(found[node.key]) for name, node in plan.geometry.items()}


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
