"""Results over seeds combined: means with Student intervals, differences between methods paired by seed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from valuesoup.errors import UserError

Results = Mapping[str, Any]
"""The content of a ``results.json``."""
Over = Callable[[str, Iterable[float | None]], dict[str, Any] | None]
"""A figure, by its name, over seeds as a JSON value, None where a seed lacks it."""
SIGNS = ("kl", "perplexity", "repetition", "tokens", "truncated")
"""Signs of over-optimisation that are combined, of what ``quality`` holds in ``results.json``."""
COSTS = ("trainings", "trained_pairs", "train_seconds", "expand_seconds", "evaluate_seconds")
"""What a method took."""

RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("cosine", "ceiling", "correlation", "tau"), (-1.0, 1.0)),
    **dict.fromkeys(("share", "fluency", "repetition", "truncated"), (0.0, 1.0)),
    **dict.fromkeys(("hypervolume", "extent", "l2", "squared_distance", "kl", "tokens", *COSTS), (0.0, math.inf)),
    "perplexity": (1.0, math.inf),
}
"""What a figure can be; a Student interval knows nothing of it, so its ends are kept within."""


class Spread(NamedTuple):
    """A figure over seeds.

    Attributes:
        mean: Over the seeds.
        low: Lower end of the Student interval, None for fewer than two seeds.
        high: Upper end.
        each: The figure of each seed, in their order.
    """

    mean: float
    low: float | None
    high: float | None
    each: list[float]


def spread(figures: Iterable[float], level: float = 0.95, figure: str = "") -> Spread:
    """Return the mean over seeds with its two-sided Student interval.

    Args:
        figures: One per seed, at least one.
        level: Of the interval.
        figure: Its name; where ``RANGES`` knows what it can be, the interval ends there.
    """
    each = [float(figure) for figure in figures]
    mean = float(np.mean(each))
    if len(each) < 2:
        return Spread(mean, None, None, each)
    from scipy.stats import t

    half = float(t.ppf(0.5 + level / 2, len(each) - 1)) * float(np.std(each, ddof=1)) / math.sqrt(len(each))
    least, most = RANGES.get(figure, (-math.inf, math.inf))
    return Spread(mean, max(mean - half, least), min(mean + half, most), each)


def combine(runs: Sequence[Results], level: float = 0.95) -> dict[str, Any]:
    """Combine the results of one configuration under several seeds.

    Hypervolumes are those of each run, in its own box. A difference between two methods is taken within each run
    first. ``points`` holds, per method, its most balanced frontier candidate (that whose worst value, in the box of
    its run, is best), and each policy of a method without a dial. ``candidates`` holds every candidate that all runs
    have, by its validation scores. ``extent`` is how far a method's candidates reach, in units of the box. Diagnostics
    are combined where every run has them.

    Args:
        runs: The parsed ``results.json`` of each seed, at least one.
        level: Of the intervals.

    Returns:
        A JSON value, documented in ``docs/files.md``.

    Raises:
        UserError: There is no run, or they are not of one configuration: other values or other methods.
    """
    if not runs:
        raise UserError("there are no results to combine.")
    first = runs[0]
    values, methods = list(first["values"]), list(first["methods"])
    for run in runs:
        _refuse_other(run, first)

    def over(figure: str, each: Iterable[float | None]) -> dict[str, Any] | None:
        found = [one for one in each if one is not None]
        return spread(found, level, figure)._asdict() if len(found) == len(runs) else None

    return {
        "schema": 1,
        "seeds": [run["seed"] for run in runs],
        "values": values,
        "level": level,
        "methods": {name: _method(runs, name, over) for name in methods},
        "differences": [
            {"first": one, "second": other, **spread([_difference(run, one, other) for run in runs], level)._asdict()}
            for one, other in combinations(methods, 2)
        ],
        "geometry": {
            name: {
                figure: over(figure, (run["geometry"][name][figure] for run in runs))
                for figure in ("cosine", "l2", "hsic")
            }
            for name in first["geometry"]
        },
        "filters": {
            name: {
                dataset: {
                    "tau": over("tau", (run["filters"][name][dataset]["tau"] for run in runs)),
                    "share": over("share", (_share(run["filters"][name][dataset]) for run in runs)),
                }
                for dataset in of
            }
            for name, of in first["filters"].items()
        },
        "expansions": {
            name: {
                what: {
                    figure: over(figure, (run["expansions"][name][what].get(figure) for run in runs)) for figure in of
                }
                for what, of in expansions.items()
            }
            for name, expansions in first["expansions"].items()
        },
        "conflict": _between(runs, "conflict", "between", ("cosine", "ceiling"), over),
        "connectivity": _between(runs, "connectivity", "paths", tuple(_PATHS), over),
        "correlation": _correlation(runs, over),
        "points": _points(runs, values, over),
        "candidates": _candidates(runs, values, over),
    }


def _refuse_other(run: Results, first: Results) -> None:
    """Refuse results that are not of the first ones' configuration."""
    values, methods = list(first["values"]), list(first["methods"])
    if list(run["values"]) != values or list(run["methods"]) != methods:
        raise UserError(
            f"results of seed {run['seed']} have the values {', '.join(run['values'])} and the methods "
            f"{', '.join(run['methods'])}, those of seed {first['seed']} {', '.join(values)} and "
            f"{', '.join(methods)}; combine runs of one configuration."
        )
    for part in ("geometry", "filters", "expansions"):
        if _names(run[part]) != _names(first[part]):
            raise UserError(
                f"results of seed {run['seed']} have another {part} than those of seed {first['seed']}; combine "
                "runs of one configuration."
            )


def balanced(run: Results, method: str) -> Mapping[str, Any] | None:
    """Return the tested frontier candidate of a method whose worst value, in the box of the run, is best."""
    low, best = run["reference_point"], run["best_point"]

    def worst(row: Mapping[str, Any]) -> float:
        spans = {value: max(best[value] - low[value], 1e-12) for value in run["values"]}
        return float(min((row["test"][value]["mean"] - low[value]) / spans[value] for value in run["values"]))

    mine = [row for row in run["candidates"] if row["method"] == method and row["test"] and row["on_frontier"]]
    return max(mine, key=worst) if mine else None


def _names(part: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the keys of a mapping, and of the mappings in it those of mappings: not the figures."""
    return {name: [key for key, inner in of.items() if isinstance(inner, Mapping)] for name, of in part.items()}


def _method(runs: Sequence[Results], name: str, over: Over) -> dict[str, Any]:
    each = [run["methods"][name] for run in runs]
    return {
        "title": each[0]["title"],
        "hypervolume": over("hypervolume", (of["hypervolume"]["value"] for of in each)),
        "extent": over("extent", (_extent(run, name) for run in runs)),
        "optimism": _optimism([of.get("optimism") for of in each], list(runs[0]["values"]), over),
        **{cost: over(cost, (of[cost] for of in each)) for cost in COSTS},
    }


def _points(runs: Sequence[Results], values: Sequence[str], over: Over) -> list[dict[str, Any]]:
    points = []
    for name in runs[0]["methods"]:
        single = [
            row["id"]
            for row in runs[0]["candidates"]
            if row["method"] == name and all(_tested(run, row["id"]) for run in runs)
        ]
        mine = [row for row in runs[0]["candidates"] if row["method"] == name]
        if len(single) < len(mine) or any(weighed(row) for row in mine):
            single = []  # a method with a dial: only what is on its frontier was tested, and it has many points
        shown: dict[str, list[Any]] = {place: [_row(run, place) for run in runs] for place in single}
        if len(single) != 1:
            shown[f"{name}/balanced"] = [balanced(run, name) for run in runs]
        for place, rows in shown.items():
            if all(row is not None for row in rows):
                points.append(
                    {
                        "id": place,
                        "method": name,
                        "scores": {
                            value: over("score", (row["test"][value]["mean"] for row in rows)) for value in values
                        },
                        "average": over(
                            "score", (float(np.mean([row["test"][value]["mean"] for value in values])) for row in rows)
                        ),
                        "fluency": over("fluency", (_sign(row, "fluency") for row in rows)),
                        "signs": {sign: over(sign, (_sign(row, sign) for row in rows)) for sign in SIGNS},
                    }
                )
    return points


def _sign(row: Mapping[str, Any], sign: str) -> float | None:
    quality: Mapping[str, float | None] = row["quality"] or {}
    return quality.get(sign)


def _optimism(each: Sequence[Any], values: Sequence[str], over: Over) -> dict[str, Any] | None:
    """Combine what a method's frontier lost from validation to test; None where a seed has no frontier."""
    if not all(each):
        return None
    drops = {value: over("score", (one["drop"][value]["mean"] for one in each)) for value in values}
    volumes = {part: over("hypervolume", (one[part] for one in each)) for part in ("validation", "test")}
    return {"drop": drops, **volumes}


def _largest_gap(path: Mapping[str, Any]) -> float:
    """Return the merging gap between two vectors that is furthest from 0, with its sign."""
    return float(max((rung["gap"]["mean"] for rung in path["ladder"]), key=abs))


_PATHS: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "squared_distance": lambda path: path["squared_distance"],
    "curvature": lambda path: path["curvature"]["mean"],
    "largest_gap": _largest_gap,
}


def _between(
    runs: Sequence[Results], part: str, rows: str, figures: Sequence[str], over: Over
) -> dict[str, list[dict[str, Any]]]:
    """Combine figures between every two values, of what all seeds have."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, of in runs[0].get(part, {}).items():
        for row in of[rows]:
            pair = (row["first"], row["second"])
            same = [_pair(run.get(part, {}).get(name, {}).get(rows, ()), pair) for run in runs]
            if all(same):
                combined = {
                    figure: over(
                        figure, (_PATHS[figure](one) if figure in _PATHS else one[figure] for one in same if one)
                    )
                    for figure in figures
                }
                found.setdefault(name, []).append({"first": pair[0], "second": pair[1], **combined})
    return found


def _pair(rows: Iterable[Mapping[str, Any]], pair: tuple[str, str]) -> Mapping[str, Any] | None:
    return next((row for row in rows if (row["first"], row["second"]) == pair), None)


_WHICH = ("over", "dataset", "first", "second")


def _correlation(runs: Sequence[Results], over: Over) -> list[dict[str, Any]]:
    """Combine the correlations that every seed has."""
    each = [{tuple(row[name] for name in _WHICH): row["mean"] for row in run.get("correlation", ())} for run in runs]
    return [
        {**dict(zip(_WHICH, key, strict=True)), "correlation": over("correlation", (of[key] for of in each))}
        for key in each[0]
        if all(key in of for of in each)
    ]


def _candidates(runs: Sequence[Results], values: Sequence[str], over: Over) -> list[dict[str, Any]]:
    validation = [{row["id"]: row["validation"] for row in run["candidates"]} for run in runs]
    return [
        {
            **{name: row[name] for name in ("id", "method", "weights", "outside_simplex")},
            "validation": {
                value: over("score", (of[row["id"]][value]["mean"] for of in validation)) for value in values
            },
        }
        for row in runs[0]["candidates"]
        if all(row["id"] in of for of in validation)
    ]


def _row(run: Results, identity: str) -> Any:
    return next(row for row in run["candidates"] if row["id"] == identity)


def weighed(row: Mapping[str, Any]) -> bool:
    """Return whether a candidate is more than the base or one vector at weight 1: its method has a dial."""
    return [weight for weight in (row["weights"] or {}).values() if weight] not in ([], [1.0])


def _tested(run: Results, identity: str) -> bool:
    return any(row["id"] == identity and row["test"] for row in run["candidates"])


def _extent(run: Results, method: str) -> float:
    """Return the diagonal of the box around a method's candidates on validation, its sides in units of the run's.

    Those that left a race early are not counted: the noise of their few answers would widen the box. Where none stayed
    there is no box.
    """
    rows = [row["validation"] for row in run["candidates"] if row["method"] == method and row.get("left") is None]
    if not rows:
        return 0.0
    sides = []
    for value in run["values"]:
        means = [row[value]["mean"] for row in rows]
        sides.append((max(means) - min(means)) / max(run["best_point"][value] - run["reference_point"][value], 1e-12))
    return math.hypot(*sides)


def _difference(run: Results, first: str, second: str) -> float:
    """Return the hypervolume of one method minus that of another, both in the box of the run."""
    one, other = (float(run["methods"][name]["hypervolume"]["value"]) for name in (first, second))
    return one - other


def _share(kept: Mapping[str, Any]) -> float:
    return float(kept["kept"] / kept["pairs"])
