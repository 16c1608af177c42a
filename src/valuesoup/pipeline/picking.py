"""Picking a candidate of a finished run: from wishes in words of its values to one id, with the reasons."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from valuesoup.errors import UserError, did_you_mean
from valuesoup.evaluation.picking import Constraint, bounds, from_box, knee, shortfalls, to_box, weighted
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.run import CONFIG, RESULTS, Finished, has_file, read_results
from valuesoup.pipeline.study import seed_folders

Part = Literal["validation", "test"]
Unit = Literal["reward", "box"]
RUNNERS_UP = 3


class Score(NamedTuple):
    """A mean score with the ends of its interval, in the unit of the reward."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Picked:
    """A candidate with what speaks for it.

    Attributes:
        id: Of the candidate.
        method: Its method.
        weights: By value, None where the policy has none.
        validation: Its scores by value, on which it was chosen unless ``on`` is test.
        test: Its scores on test, None where it was not scored there.
        on: Which of the two chose it.
        merit: What was maximised, in the unit that ``why`` names.
        why: In a sentence.
        runners_up: The next best candidates that meet the constraints, best first.
        considered: How many candidates were compared.
        feasible: How many of them meet the constraints.
        command: The command that exports it.
    """

    id: str
    method: str
    weights: Mapping[str, float] | None
    validation: Mapping[str, Score]
    test: Mapping[str, Score] | None
    on: Part
    merit: float
    why: str
    runners_up: tuple["Picked", ...]
    considered: int
    feasible: int
    command: str


def pick(
    run: str | Path | Finished,
    *,
    minimum: Mapping[str, float] | None = None,
    maximum: Mapping[str, float] | None = None,
    maximise: str | None = None,
    weights: Mapping[str, float] | None = None,
    method: str | None = None,
    on: Part = "validation",
    unit: Unit = "reward",
    sure: bool = False,
) -> Picked:
    """Choose a candidate among those on their method's validation frontier.

    What is maximised is one value's score, or the weighted sum of the scores in box units, or, where neither is given,
    how far the candidate bulges out of the plane through the frontier's extremes
    (:func:`valuesoup.evaluation.picking.knee`). The base is not among the candidates.

    Args:
        run: Folder of a finished run, or the run.
        minimum: Least score by value.
        maximum: Greatest score by value.
        maximise: The value to maximise.
        weights: How much each value counts, instead.
        method: Only this method's candidates; by default all.
        on: Whose figures choose. The test prompts are there to report what was chosen, so validation by default.
        unit: Of ``minimum`` and ``maximum``: the reward's own, or the run's box, from 0 (worst) to 1 (best).
        sure: Demand that the interval keeps to the bounds, not the mean alone.

    Raises:
        UserError: An unknown value or method, wishes that exclude each other, no finished run, or no candidate that
            meets the constraints (names the nearest and how far it is).
    """
    results, folder = _results(run)
    values: list[str] = results["values"]
    minimum, maximum = dict(minimum or {}), dict(maximum or {})
    _check(results, folder, values, minimum, maximum, maximise, weights, method, on, unit)
    rows = _pool(results, folder, method, on)
    box = [[results[corner][value] for value in values] for corner in ("reference_point", "best_point")]
    means, low, high = (_table(rows, values, on, end) for end in ("mean", "low", "high"))
    rules = [*bounds(minimum, values, at_least=True), *bounds(maximum, values, at_least=False)]
    if unit == "box":
        rules = [_in_rewards(rule, box) for rule in rules]
    scaled = [rule._replace(bound=_scaled(rule, rule.bound, box)) for rule in rules]
    ends = (low, high) if sure else (means, means)
    missing = shortfalls(to_box(ends[0], *box), to_box(ends[1], *box), scaled)
    fits = np.flatnonzero(missing <= 1e-12)
    wanted = _wanted(rules, values, sure)
    if not len(fits):
        _refuse(rows, values, rules, ends, int(missing.argmin()), wanted, on, sure)
    merit = _merit(to_box(means, *box), means, values, maximise, weights)
    order = sorted(fits.tolist(), key=lambda place: (*merit.rank(place), rows[place]["id"]))
    rivals = f"that have {wanted}" if wanted else "on a frontier"
    why = f"of the {len(fits)} candidates {rivals} it {merit.says(order[0])}"
    if len(fits) == 1:
        why = f"no other candidate has {wanted}" if wanted else "there is no other candidate"

    def picked(place: int, runners_up: tuple[Picked, ...]) -> Picked:
        row = rows[place]
        return Picked(
            id=row["id"],
            method=row["method"],
            weights=row["weights"],
            validation=_scores(row, values, "validation"),
            test=_scores(row, values, "test") if row["test"] else None,
            on=on,
            merit=float(merit.scores[place]),
            why=f"{why} (on the {on} prompts)",
            runners_up=runners_up,
            considered=len(rows),
            feasible=len(fits),
            command=export_command(folder, row["id"]),
        )

    return picked(order[0], tuple(picked(place, ()) for place in order[1 : RUNNERS_UP + 1]))


def export_command(folder: Path, identity: str) -> str:
    """Return the command that exports a candidate."""
    name = Path("exports") / identity.replace("/", "-").replace("=", "-").replace(",", "-").replace(">", "-")
    return (
        f"valuesoup export {shlex.quote(str(folder))} --candidate {shlex.quote(identity)} --to {shlex.quote(str(name))}"
    )


def _results(run: str | Path | Finished) -> tuple[dict[str, Any], Path]:
    if isinstance(run, Finished):
        return run.results, run.folder
    folder = Path(run)
    if not has_file(folder, RESULTS):
        if not folder.is_dir():
            raise UserError(f"there is no run folder {folder}.")
        if seeds := seed_folders(folder):
            raise UserError(f"{folder} holds a study over seeds; pick from one of its runs, such as {seeds[0]}.")
        if not has_file(folder, CONFIG):
            raise UserError(f"{folder} is not a run folder: it has no {CONFIG}.")
    return read_results(folder), folder


def _check(
    results: Mapping[str, Any],
    folder: Path,
    values: Sequence[str],
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    maximise: str | None,
    weights: Mapping[str, float] | None,
    method: str | None,
    on: str,
    unit: str,
) -> None:
    for what, names in (
        ("minimum", minimum),
        ("maximum", maximum),
        ("maximise", [maximise] if maximise is not None else []),
        ("weights", weights or {}),
    ):
        for name in names:
            if name not in values:
                raise UserError(f"{what}: the run has no value '{name}'{did_you_mean(name, values)}")
    for what, given in (("minimum", minimum), ("maximum", maximum)):
        for name, bound in given.items():
            if not math.isfinite(bound):
                raise UserError(f"the {what} of '{name}' must be a finite number, not {bound}.")
    for name in minimum.keys() & maximum.keys():
        if minimum[name] > maximum[name]:
            raise UserError(f"'{name}' cannot be at least {minimum[name]:g} and at most {maximum[name]:g}.")
    if maximise is not None and weights is not None:
        raise UserError("maximise one value or give preference weights, not both.")
    if weights is not None and not weights:
        raise UserError(f"the preference weights are empty; give VALUE=WEIGHT for some of {', '.join(values)}.")
    if method is not None and (method not in results["methods"] or method == BASE):
        known = [name for name in results["methods"] if name != BASE]
        raise UserError(f"the run in {folder} has no method '{method}' to pick from{did_you_mean(method, known)}")
    for name, choices in ((on, get_args(Part)), (unit, get_args(Unit))):
        if name not in choices:
            raise UserError(f"'{name}' is none of {', '.join(choices)}{did_you_mean(name, choices)}")


def _pool(results: Mapping[str, Any], folder: Path, method: str | None, on: Part) -> list[Mapping[str, Any]]:
    """Return the candidates to choose from: those whose text is sound and that their method's frontier kept."""
    rows = [
        row
        for row in results["candidates"]
        if row["on_frontier"] and row["method"] != BASE and method in (None, row["method"]) and row[on]
    ]
    if not rows:
        whose = f"method '{method}'" if method else "any method"
        raise UserError(
            f"the run in {folder} has no candidate of {whose} on a frontier: the text of all was below the fluency "
            "bound; look at its report."
        )
    return rows


def _figures(row: Mapping[str, Any], part: Part) -> Mapping[str, Mapping[str, float]]:
    """Return the figures that a frontier was taken on: on validation those that a search has smoothed, if one has."""
    found: Mapping[str, Mapping[str, float]] = (part == "validation" and row.get("smoothed")) or row[part]
    return found


def _table(rows: Sequence[Mapping[str, Any]], values: Sequence[str], part: Part, end: str) -> NDArray[np.float64]:
    return np.array([[_figures(row, part)[value][end] for value in values] for row in rows], dtype=np.float64)


def _scores(row: Mapping[str, Any], values: Sequence[str], part: Part) -> dict[str, Score]:
    figures = _figures(row, part)
    return {value: Score(*(figures[value][end] for end in Score._fields)) for value in values}


def _in_rewards(rule: Constraint, box: Sequence[Sequence[float]]) -> Constraint:
    low, high = (corner[rule.value] for corner in box)
    return rule._replace(bound=float(from_box([rule.bound], [low], [high])[0]))


def _scaled(rule: Constraint, bound: float, box: Sequence[Sequence[float]]) -> float:
    low, high = (corner[rule.value] for corner in box)
    return float(to_box([bound], [low], [high])[0])


@dataclass(frozen=True)
class _Merit:
    """What is maximised.

    Attributes:
        scores: (K,) the more, the better.
        sums: (K,) scores summed in box units, which decide between equals.
        reason: How a sentence says that a candidate has the most of it.
        between: (K,) for the knee: candidates between the extremes, which go first.
    """

    scores: NDArray[np.float64]
    sums: NDArray[np.float64]
    reason: str
    between: NDArray[np.bool_] | None = None

    def rank(self, place: int) -> tuple[bool, float, float]:
        last = self.between is not None and not bool(self.between[place])
        return last, -float(self.scores[place]), -float(self.sums[place])

    def says(self, place: int) -> str:
        if self.between is None or (self.between[place] and self.scores[place] > 0):
            return self.reason
        return (
            "comes nearest to a knee: none of them is in front of the plane through the best candidates of each value"
        )


def _merit(
    units: NDArray[np.float64],
    means: NDArray[np.float64],
    values: Sequence[str],
    maximise: str | None,
    weights: Mapping[str, float] | None,
) -> _Merit:
    sums = units.sum(axis=1)
    if maximise is not None:
        return _Merit(means[:, list(values).index(maximise)], sums, f"scores highest on {maximise}")
    if weights is not None:
        listed = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        merit = weighted(units, [weights.get(value, 0.0) for value in values])
        return _Merit(merit, sums, f"has the largest weighted score ({listed}, in units of the run's box)")
    if len(values) == 1:
        return _Merit(sums, sums, f"scores highest on {values[0]}")
    found = knee(units)
    reason = "is the knee: it is furthest in front of the plane through the best candidates of each value"
    return _Merit(found.distance, sums, reason, found.between)


def _wanted(rules: Sequence[Constraint], values: Sequence[str], sure: bool) -> str:
    said = [f"{values[rule.value]} {'≥' if rule.at_least else '≤'} {rule.bound:.4g}" for rule in rules]
    return f"{' and '.join(said)}{' for sure' if sure else ''}" if said else ""


def _refuse(
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[str],
    rules: Sequence[Constraint],
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    place: int,
    wanted: str,
    on: Part,
    sure: bool,
) -> None:
    short = []
    for rule in rules:
        found = float(ends[0 if rule.at_least else 1][place, rule.value])
        miss = rule.bound - found if rule.at_least else found - rule.bound
        if miss > 0:
            end = f"perhaps as {'low' if rule.at_least else 'high'} as" if sure else "at"
            by = f"{'short' if rule.at_least else 'over'} by {miss:.3g}"
            short.append(f"{values[rule.value]} {end} {found:.4g}, {by}")
    raise UserError(
        f"no candidate has {wanted} on the {on} prompts; the nearest is {rows[place]['id']} with {' and '.join(short)}."
    )
