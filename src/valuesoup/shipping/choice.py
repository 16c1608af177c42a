"""What of a run is exported: weights on a method's dial, or candidates by their id."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from valuesoup.configfile import load_config
from valuesoup.errors import UserError, did_you_mean
from valuesoup.methods import Single
from valuesoup.pipeline.plan import BASE, make_plan
from valuesoup.pipeline.recipes import weights_label
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import CONFIG, RESULTS, Finished, command, has_file, open_run, open_store
from valuesoup.pipeline.serving import candidate_names
from valuesoup.pipeline.serving import plain_name as plain_name
from valuesoup.pipeline.study import seed_folders
from valuesoup.store import Artifact, hash_path, topological

SAME = 1e-9
"""Weights that differ by less are the same."""


@dataclass(frozen=True)
class Choice:
    """One policy of a run.

    Attributes:
        name: For folders and servers: letters, digits, ``.``, ``_`` and ``-`` alone.
        label: For people: a candidate's id, or what it would be.
        method: That trained its vectors.
        weights: By value; None where the policy has none.
        row: Weights by the names of the method's vectors in the run.
        measured: The candidate of ``results.json`` that it is, None where it was never measured.
        nearest: Where it was not, the measured candidate of the method with the nearest weights, if there is one.
    """

    name: str
    label: str
    method: str
    weights: Mapping[str, float] | None
    row: Mapping[str, float]
    measured: Mapping[str, Any] | None
    nearest: Mapping[str, Any] | None


def open_for_export(run: str | Path | Finished) -> Finished:
    """Open a finished run; a base that has changed since, or is gone, is named as the cause.

    Raises:
        UserError: No run, an unfinished or damaged one, or one whose base changed.
    """
    if isinstance(run, Finished):
        return run
    folder = Path(run)
    if not has_file(folder, CONFIG) and (seeds := seed_folders(folder)):
        raise UserError(f"{folder} holds a study over seeds; export from one of its runs, such as {seeds[0]}.")
    try:
        return open_run(folder)
    except UserError:
        _refuse_changed_base(folder)
        raise


def open_trained(run: str | Path | Finished) -> Finished:
    """Open a run whose policies are trained, evaluated or not: of one that is not finished the results are empty.

    Raises:
        UserError: No run, one that has not trained all of its policies yet, or one whose base changed.
    """
    folder = run.folder if isinstance(run, Finished) else Path(run)
    if isinstance(run, Finished) or not has_file(folder, CONFIG) or has_file(folder, RESULTS):
        return open_for_export(run)
    _refuse_changed_base(folder)
    plan = make_plan(load_config(folder / CONFIG))
    store = open_store(folder)
    found = {node.key: store.look(node) for node in topological(plan.targets())}
    artifacts = {key: artifact for key, artifact in found.items() if isinstance(artifact, Artifact)}
    needed = [node for stack in plan.stacks for node in stack.vectors.values()]
    missing = [node for node in (plan.split, *needed) if node.key not in artifacts]
    if missing:
        raise UserError(f"the run in {folder} still has to {missing[0].label}; `{command(folder)}` goes on.")
    results: dict[str, Any] = {"values": list(plan.config.values), "candidates": [], "reward_models": {}}
    return Finished(folder, plan, artifacts, results)


def choose(
    finished: Finished,
    method: str | None = None,
    weights: Mapping[str, float] | None = None,
    candidates: Sequence[str] = (),
) -> list[Choice]:
    """Find what is meant, each policy once: the weights first, then the candidates.

    Args:
        finished: The run.
        method: Whose dial is set to ``weights``; by default the only one that has a dial.
        weights: By value; a value left out weighs 0.
        candidates: Ids as in ``results.json``.

    Raises:
        UserError: Nothing or something unknown is named, weights are negative, empty or zero, or there is no dial.
    """
    if method is not None and weights is None:
        raise UserError(f"method '{method}' is named without weights; add them, or name a candidate alone by its id.")
    if weights is None and not candidates:
        raise UserError(
            "say what to export: weights (--weights VALUE=WEIGHT,…) or a candidate's id (--candidate ID); "
            "`valuesoup pick` proposes one."
        )
    found = [] if weights is None else [_at(finished, weights, method)]
    found += [_candidate(finished, identity) for identity in candidates]
    distinct = {choice.label: choice for choice in found}
    names: dict[str, Choice] = {}
    for choice in distinct.values():
        name, count = choice.name, 1
        while name in names:
            count += 1
            name = f"{choice.name}-{count}"
        names[name] = Choice(**{**vars(choice), "name": name})
    return list(names.values())


def dials(finished: Finished) -> list[str]:
    """Return the methods that offer mixtures of value vectors, in the run's order."""
    return [
        entry.name
        for entry in finished.plan.config.methods
        if _has_vectors(finished, entry.name) and not isinstance(entry.method.weights, Single)
    ]


def every(finished: Finished) -> list[Choice]:
    """Return every candidate of a run, each policy once, under the names that an evaluation by a server asks for."""
    found = []
    measured = {row["id"]: row for row in finished.results["candidates"]}
    for stack, names in zip(finished.plan.stacks, candidate_names(finished.plan.stacks), strict=True):
        offers = {
            place: (method, candidate)
            for method, places in reversed(stack.methods.items())  # the first method that has it names it
            for place, candidate in zip(places, stack.offered[method], strict=True)
        }
        for place, (row, name) in enumerate(zip(stack.candidates, names, strict=True)):
            if any(row):
                method, candidate = offers[place]
                label = candidate_id(method, candidate)
                of = dict(zip(stack.vectors, row, strict=True))
                found.append(Choice(name, label, method, candidate.weights, of, measured.get(label), None))
    return found


def _at(finished: Finished, weights: Mapping[str, float], method: str | None) -> Choice:
    values = list(finished.plan.config.values)
    _check_weights(weights, values)
    method = _dial(finished) if method is None else method
    if method not in finished.plan.recipes:
        raise UserError(
            f"the run in {finished.folder} has no method '{method}'{did_you_mean(method, finished.plan.recipes)}"
        )
    if not _has_vectors(finished, method):
        raise UserError(
            f"method '{method}' has no dial: each of its policies was trained for itself; "
            f"export one of them by its id: {_offers(finished, [method])}."
        )
    full = {value: float(weights.get(value, 0.0)) for value in values}
    rows = [row for row in finished.results["candidates"] if row["method"] == method and row["weights"]]
    rows.sort(key=lambda row: _distance(row["weights"], full))
    measured = rows[0] if rows and _distance(rows[0]["weights"], full) < SAME else None
    label = measured["id"] if measured else f"{method}/{weights_label(full)}"
    return Choice(plain_name(label), label, method, full, full, measured, None if measured or not rows else rows[0])


def _candidate(finished: Finished, identity: str) -> Choice:
    if identity == BASE:
        raise UserError("candidate 'base' is the base model itself: there is nothing to export.")
    known = []
    for method, recipe in finished.plan.recipes.items():
        for candidate in recipe.candidates:
            name = candidate_id(method, candidate)
            known.append(name)
            if name != identity:
                continue
            if not any(candidate.row):
                raise UserError(f"candidate '{identity}' weighs nothing: it is the base model itself.")
            measured = next((row for row in finished.results["candidates"] if row["id"] == identity), None)
            row = dict(zip(recipe.vectors, candidate.row, strict=True))
            return Choice(plain_name(name), name, method, candidate.weights, row, measured, None)
    raise UserError(f"the run in {finished.folder} has no candidate '{identity}'{_near(identity, known)}")


def _near(identity: str, known: Sequence[str]) -> str:
    """Return the nearest candidate's id, or where the ids stand: a run may have hundreds."""
    near = get_close_matches(identity, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; an id is such as {known[0]}, and results.json lists them."


def _check_weights(weights: Mapping[str, float], values: Sequence[str]) -> None:
    if not weights:
        raise UserError(f"the weights are empty; give VALUE=WEIGHT for one or more of {', '.join(values)}.")
    for value, weight in weights.items():
        if value not in values:
            raise UserError(f"weights: the run has no value '{value}'{did_you_mean(value, values)}")
        if not math.isfinite(weight):
            raise UserError(f"the weight of '{value}' must be a finite number, not {weight}.")
        if weight < 0:
            raise UserError(f"the weight of '{value}' is {weight:g}; weights to export are 0 or more.")
    if not any(weights.values()):
        raise UserError("every weight is zero: that is the base model itself, there is nothing to export.")


def _dial(finished: Finished) -> str:
    found = dials(finished)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} methods of the run have a dial; name one with --method: {', '.join(found)}.")
    raise UserError(
        f"no method of the run in {finished.folder} has a dial, so weights mean nothing; export one of its policies "
        f"by its id (--candidate): {_offers(finished, list(finished.plan.recipes))}."
    )


def _has_vectors(finished: Finished, method: str) -> bool:
    return set(finished.plan.recipes[method].vectors) == set(finished.plan.config.values)


def _offers(finished: Finished, methods: Sequence[str]) -> str:
    return ", ".join(
        candidate_id(method, candidate) for method in methods for candidate in finished.plan.recipes[method].candidates
    )


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return math.dist([one.get(value, 0.0) for value in other], list(other.values()))


def _refuse_changed_base(folder: Path) -> None:
    """Say so where the base's folder is gone, or no longer what the run's artifacts were made on."""
    if not (folder / CONFIG).is_file():
        return
    model = load_config(folder / CONFIG).base.model
    if model is None or not Path(model).is_absolute():
        return
    if not Path(model).exists():
        raise UserError(f"the base of the run in {folder}, {model}, is gone; put it back where it was.")
    used = set()
    for manifest in (folder / "artifacts").glob("*/manifest.json"):
        with suppress(OSError, ValueError, KeyError, AttributeError):  # a damaged one says nothing
            used.add(json.loads(manifest.read_text(encoding="utf-8"))["inputs"].get("base", {}).get("content"))
    used.discard(None)
    if used and hash_path(Path(model)) not in used:
        raise UserError(
            f"the base of the run in {folder}, {model}, has changed since its vectors were trained; put the old files "
            "back, or run the configuration again."
        )
