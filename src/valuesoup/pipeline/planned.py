"""Whether results are those of their run's plan, as far as it is known without running: what it offers, in its order.

A file of the right shape may still be of another run, or changed by hand; figures drawn from it would be wrong.
"""

from collections.abc import Mapping
from typing import Any

from valuesoup.config import RunConfig
from valuesoup.pipeline.plan import BASE, Plan
from valuesoup.pipeline.results import candidate_id

ENOUGH, WIDE = 100, 0.8
"""Resamples and level from which an interval of the bootstrap holds its mean; few or narrow ones may miss it."""
ROUNDING = 1e-9


def plan_fault(results: Mapping[str, Any], plan: Plan) -> str | None:
    """Say in what results differ from what their plan makes: ``key: what``; None where in nothing.

    Args:
        results: The parsed ``results.json``, of the right shape (:func:`valuesoup.pipeline.schema.results_fault`).
        plan: Of the run.
    """
    config = plan.config
    same = {
        "values": results["values"] == list(config.values),
        "methods": list(results["methods"]) == [BASE, *(entry.name for entry in config.methods)],
        "seed": results["seed"] == config.seed,
    }
    for key, right in same.items():
        if not right:
            return f"{key}: other than the configuration's"
    for stack, evaluated in zip(plan.stacks, plan.evaluated, strict=True):
        for method, offered in stack.offered.items():
            planned = {candidate_id(method, candidate): candidate.weights for candidate in offered}
            found = {row["id"]: row["weights"] for row in results["candidates"] if row["method"] == method}
            # A search need not have measured all that it was offered.
            if not found or list(found) != [one for one in planned if one in found or not evaluated.searched]:
                return f"candidates: those of '{method}' are not what the configuration offers"
            for identity, weights in found.items():
                if weights != planned[identity]:
                    return f"candidates: '{identity}' has other weights than the configuration gives it"
    return _interval_fault(results, config)


def _interval_fault(results: Mapping[str, Any], config: RunConfig) -> str | None:
    if config.evaluation.resamples < ENOUGH or config.evaluation.level < WIDE:
        return None
    for row in results["candidates"]:
        for part in ("validation", "test", "smoothed"):
            for value, score in (row.get(part) or {}).items():
                slack = ROUNDING * max(1.0, abs(score["mean"]))
                if not score["low"] - slack <= score["mean"] <= score["high"] + slack:
                    return f"candidates: the mean {part} score of '{row['id']}' on '{value}' is outside its interval"
    return None
