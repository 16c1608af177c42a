"""Which policies of a run a judge compares: one per method, beside each baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valuesoup.errors import UserError, did_you_mean
from valuesoup.evaluation.seeds import balanced
from valuesoup.methods import Method, Single
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished


@dataclass(frozen=True)
class Policy:
    """A tested candidate.

    Attributes:
        name: The method, or the candidate's id, by which it was asked for.
        id: Of the candidate.
        method: Of the candidate.
        title: What figures call it.
        weights: Of the candidate, None where it has none.
        stack: Number of the stack that holds it.
        place: Its place there.
    """

    name: str
    id: str
    method: str
    title: str
    weights: Mapping[str, float] | None
    stack: int
    place: int


Comparison = tuple[Policy, Policy]
"""A policy and its baseline."""


def read_weights(text: str) -> dict[str, float]:
    """Read ``helpful=0.5,harmless=0.5``.

    Raises:
        UserError: It is written otherwise, or a value has two weights.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            weight = float(number)
        except ValueError:
            raise UserError(f"weights '{text}': write VALUE=WEIGHT,VALUE=WEIGHT, not '{part}'.") from None
        if name.strip() in found:
            raise UserError(f"weights '{text}': '{name.strip()}' has a weight already; give each value one.")
        found[name.strip()] = weight
    return found


def comparisons(
    finished: Finished, methods: Sequence[str], baselines: Sequence[str], weights: Mapping[str, float]
) -> tuple[list[Comparison], dict[str, str]]:
    """Choose the policies to compare; no two are compared twice.

    Args:
        finished: The run.
        methods: Methods or ids of candidates; none means every method of the run.
        baselines: Methods or ids; none means the base and every plain soup of the run.
        weights: Takes each method's candidate with these weights; none means its most balanced frontier candidate.

    Returns:
        The comparisons, and what a default choice had to leave out, with the reason.

    Raises:
        UserError: A name or weights are unknown, a named one has no answers, or nothing is left to compare.
    """
    left_out: dict[str, str] = {}

    def chosen(named: Sequence[str], default: Sequence[str]) -> list[Policy]:
        policies = []
        for name in dict.fromkeys(named or default):
            row = _row(finished, name, weights)
            if isinstance(row, Mapping):
                policies.append(_policy(finished, name, row))
            elif named:
                raise UserError(f"'{name}' of the run in {finished.folder} cannot be compared: {row}.")
            else:
                left_out[name] = row
        return policies

    found: list[Comparison] = []
    ones = chosen(methods, [entry.name for entry in finished.plan.config.methods])
    others = chosen(baselines, [BASE, *_plain_soups(finished)])
    for one in ones:
        for other in others:
            if one.id != other.id and (other, one) not in found:
                found.append((one, other))
    if not found:
        why = "".join(f"; {name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"the run in {finished.folder} has no two policies to compare{why}.")
    return found, left_out


def answers_key(finished: Finished, identity: str, method: str) -> str | None:
    """Return the key of a candidate's test answers as the run is now, None where it has no such candidate."""
    for stack, evaluated in zip(finished.plan.stacks, finished.plan.evaluated, strict=True):
        if any(candidate_id(method, candidate) == identity for candidate in stack.offered.get(method, ())):
            return evaluated.test.answers.key
    return None


def _row(finished: Finished, name: str, weights: Mapping[str, float]) -> Mapping[str, Any] | str:
    """Return the row of the results that a method, or a candidate's id, stands for, or why there is none."""
    results = finished.results
    rows = {row["id"]: row for row in results["candidates"]}
    if name not in results["methods"]:
        if name not in rows:
            known = list(rows) if "/" in name else list(results["methods"])
            raise UserError(f"the run in {finished.folder} has no method '{name}'{did_you_mean(name, known)}")
        return rows[name] if rows[name]["test"] else "it has not answered the test prompts"
    mine = [row for row in rows.values() if row["method"] == name]
    if weights and name != BASE and any(row["weights"] for row in mine):
        for value in weights:
            if value not in results["values"]:
                raise UserError(f"--weights: the run has no value '{value}'{did_you_mean(value, results['values'])}")
        for row in mine:
            if row["test"] and row["weights"] and _near(row["weights"], weights):
                return dict(row)
        return "it has no candidate with these weights that answered the test prompts"
    return balanced(results, name) or "no candidate on its frontier has answered the test prompts"


def _policy(finished: Finished, name: str, row: Mapping[str, Any]) -> Policy:
    method = row["method"]
    for number, stack in enumerate(finished.plan.stacks):
        for place, candidate in zip(stack.methods.get(method, ()), stack.offered.get(method, ()), strict=True):
            if candidate_id(method, candidate) == row["id"]:
                title = BASE if method == BASE else finished.results["methods"][method]["title"]
                title = title if name == method else f"{title} {candidate.label}"
                return Policy(name, row["id"], method, title, row["weights"], number, place)
    raise UserError(
        f"{finished.folder / 'results.json'} has a candidate '{row['id']}' that its configuration does not have; run "
        "the configuration again."
    )


def _plain_soups(finished: Finished) -> list[str]:
    """Return the methods that add nothing to a soup: every pair, independent vectors, a linear mixture."""
    plain = Method()
    return [
        entry.name
        for entry in finished.plan.config.methods
        if not isinstance(entry.method.weights, Single)
        and entry.method.model_copy(update={"weights": plain.weights}) == plain
    ]


def _near(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one.get(value, 0.0) - other.get(value, 0.0)) < 1e-9 for value in {*one, *other})
