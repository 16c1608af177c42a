"""Who is checked: the base and some candidates of a run, each known by what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuesoup.pipeline.answering import open_soup
from valuesoup.pipeline.compared import Policy, comparisons
from valuesoup.pipeline.plan import BASE, Plan
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished
from valuesoup.store import Artifact, Node, fingerprint

if TYPE_CHECKING:
    from valuesoup.soup import Soup


@dataclass(frozen=True)
class Subject:
    """A policy to check.

    Attributes:
        policy: Of the run.
        method_title: What figures call its method.
        key: 16 hex digits of what it is made of: two policies of one key are the same model.
        vectors: Weight of each vector, by its node's key; none for the base.
    """

    policy: Policy
    method_title: str
    key: str
    vectors: Mapping[str, float]


def subjects_of(
    finished: Finished, methods: Sequence[str], weights: Mapping[str, float]
) -> tuple[list[Subject], dict[str, str]]:
    """Choose the base and, per method, its most balanced frontier candidate.

    Args:
        finished: The run.
        methods: Methods, or ids of candidates; none means every method of the run.
        weights: Takes each method's candidate with these weights instead.

    Returns:
        The policies, the base first, and what a default choice had to leave out, with the reason.

    Raises:
        UserError: A name or weights are unknown, or nothing is left.
    """
    pairs, left_out = comparisons(finished, methods, [BASE], weights)
    policies = {policy.id: policy for policy in (pairs[0][1], *(one for one, _ in pairs))}
    found = []
    for policy in policies.values():
        vectors = _vectors(finished.plan, policy.stack, policy.place)
        title = BASE if policy.method == BASE else finished.results["methods"][policy.method]["title"]
        found.append(Subject(policy, title, _key(finished.plan, vectors), vectors))
    return found, left_out


def current_keys(plan: Plan) -> dict[str, str]:
    """Return the key of every candidate of a run as its configuration is now, by id."""
    return {
        candidate_id(method, candidate): _key(plan, _vectors(plan, number, place))
        for number, stack in enumerate(plan.stacks)
        for method, places in stack.methods.items()
        for place, candidate in zip(places, stack.offered[method], strict=True)
    }


def open_subjects(
    finished: Finished, subjects: Sequence[Subject], device: str
) -> tuple["Soup", NDArray[np.float32], list[str]]:
    """Load one soup of every vector that some policies need.

    Returns:
        The soup, the weights of each policy in it, (policies, n), and the names of its vectors.
    """
    names: dict[str, str] = {}
    for subject in subjects:
        for key in subject.vectors:
            names.setdefault(key, f"vector-{len(names) + 1}")
    vectors: dict[str, Artifact] = {name: finished.artifacts[key] for key, name in names.items()}
    base = finished.plan.base
    soup = open_soup(finished.artifacts[base.key] if isinstance(base, Node) else base, vectors, device)
    rows = [[subject.vectors.get(key, 0.0) for key in names] for subject in subjects]
    return soup, np.array(rows, np.float32).reshape(len(subjects), len(names)), list(vectors)


def _vectors(plan: Plan, stack: int, place: int) -> dict[str, float]:
    nodes = plan.stacks[stack].vectors.values()
    row = plan.stacks[stack].candidates[place]
    return {node.key: float(weight) for node, weight in zip(nodes, row, strict=True) if weight}


def _key(plan: Plan, vectors: Mapping[str, float]) -> str:
    return fingerprint({"base": plan.base, "vectors": sorted(vectors.items())})
