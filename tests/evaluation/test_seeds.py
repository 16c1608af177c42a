import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.evaluation.seeds import balanced, combine, spread

VALUES = ("a", "b", "c", "d", "e")


def row(method: str, name: str, scores: list[float], weights: Any = None, **changes: Any) -> dict[str, Any]:
    estimates = {value: {"mean": score} for value, score in zip(VALUES, scores, strict=False)}
    parts = {
        **{"id": name if method == "base" else f"{method}/{name}", "method": method, "weights": weights},
        **{"outside_simplex": False, "validation": estimates, "test": estimates, "on_frontier": True},
    }
    return {**parts, "quality": {"fluency": 0.9}, **changes}


def weights(*shares: float) -> dict[str, float]:
    return dict(zip(VALUES, shares, strict=False))


def run(
    volumes: dict[str, float], rows: list[dict[str, Any]], n: int = 2, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    parts = {
        **{"schema": 1, "values": list(VALUES[:n]), "seed": seed, "candidates": rows},
        "methods": {
            name: {
                "title": name.upper(),
                "hypervolume": {"value": volume, "low": 0.0, "high": 1.0},
                **{"trainings": n, "trained_pairs": 100, "train_seconds": 10.0 + seed},
                **{"expand_seconds": 0.0, "evaluate_seconds": 2.0},
            }
            for name, volume in volumes.items()
        },
        **{"filters": {}, "geometry": {}, "expansions": {}},
        "reference_point": dict.fromkeys(VALUES[:n], 0.0),
        "best_point": dict.fromkeys(VALUES[:n], 2.0),
    }
    return {**parts, **changes}


def simple(volumes: dict[str, float], seed: int = 0, n: int = 2, **changes: Any) -> dict[str, Any]:
    return run(volumes, [row(name, "x", [1.0 + seed] * n) for name in volumes], n, seed, **changes)


def test_two_seeds_give_the_interval_of_one_degree_of_freedom_worked_by_hand() -> None:
    # mean 2, s = √2, standard error 1, t(0.975, 1) = tan(0.475 π) = 12.7062
    found = spread([1.0, 3.0])
    assert found.mean == 2.0 and found.each == [1.0, 3.0]
    assert found.low == pytest.approx(2 - math.tan(0.475 * math.pi)) and found.high == pytest.approx(14.7062, abs=1e-4)


def test_five_seeds_give_the_interval_of_the_table_of_student() -> None:
    # mean 3, s² = 10 / 4, standard error √(2.5 / 5), t(0.975, 4) = 2.776445, t(0.95, 4) = 2.131847
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.high == pytest.approx(3 + 2.776445 * math.sqrt(0.5), abs=1e-6)
    assert found.low == pytest.approx(3 - 2.776445 * math.sqrt(0.5), abs=1e-6)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0], 0.9).high == pytest.approx(3 + 2.131847 * math.sqrt(0.5), abs=1e-6)


def test_an_interval_ends_where_its_figure_can_go_no_further() -> None:
    assert spread([0.8, 1.0], figure="cosine").high == 1.0
    assert spread([-0.9, -1.0], figure="correlation").low == -1.0
    assert spread([0.0, 0.1], figure="share").low == 0.0
    assert spread([1.0, 3.0], figure="score") == spread([1.0, 3.0]), "a reward can be anything"


def test_one_seed_gives_no_interval() -> None:
    assert spread([4]) == (4.0, None, None, [4.0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-100, 100))
def test_the_interval_holds_the_mean_and_moves_with_the_figures(figures: list[float], shift: float) -> None:
    found, moved = spread(figures), spread([figure + shift for figure in figures])
    assert found.low is not None and found.high is not None and moved.low is not None
    assert found.low <= found.mean <= found.high
    assert moved.low == pytest.approx(found.low + shift, rel=1e-6, abs=1e-6 * (1 + max(map(abs, figures))))


def test_differences_are_taken_within_each_seed() -> None:
    # Each method swings by 0.4 over the seeds, their difference by 0.02 only: 0.10, 0.11, 0.12.
    runs = [simple({"p": p, "q": q}, seed) for seed, (p, q) in enumerate([(0.30, 0.20), (0.51, 0.40), (0.72, 0.60)])]
    combined = combine(runs)
    (difference,) = combined["differences"]
    assert (difference["first"], difference["second"]) == ("p", "q")
    assert difference["each"] == pytest.approx([0.10, 0.11, 0.12])
    # s = 0.01, standard error 0.01 / √3, t(0.975, 2) = 4.302653
    assert difference["low"] == pytest.approx(0.11 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)
    assert difference["low"] > 0 > combined["methods"]["p"]["hypervolume"]["low"] - 0.1
    alone = combined["methods"]["q"]["hypervolume"]
    assert alone["low"] < combined["methods"]["p"]["hypervolume"]["mean"] < alone["high"]


def test_every_pair_of_methods_has_its_difference_even_where_one_has_an_empty_frontier() -> None:
    combined = combine([simple({"base": 0.1, "p": 0.0, "q": 0.3}, seed) for seed in range(2)])
    assert [(d["first"], d["second"], d["mean"]) for d in combined["differences"]] == [
        ("base", "p", pytest.approx(0.1)),
        ("base", "q", pytest.approx(-0.2)),
        ("p", "q", pytest.approx(-0.3)),
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_scores_averages_and_costs_are_combined_for_n_values_and_any_number_of_seeds(n: int, seeds: int) -> None:
    combined = combine([simple({"base": 0.1, "p": 0.5}, seed, n) for seed in range(seeds)])
    assert combined["seeds"] == list(range(seeds)) and combined["values"] == list(VALUES[:n])
    point = next(point for point in combined["points"] if point["method"] == "p")
    mean = 1 + (seeds - 1) / 2
    assert [point["scores"][value]["mean"] for value in VALUES[:n]] == [mean] * n
    assert point["average"]["mean"] == pytest.approx(mean) and point["fluency"]["mean"] == pytest.approx(0.9)
    assert combined["methods"]["p"]["train_seconds"]["each"] == [10.0 + seed for seed in range(seeds)]
    ends = [combined["methods"]["p"]["train_seconds"][end] for end in ("low", "high")]
    assert all(end is None for end in ends) if seeds == 1 else ends[0] < 10 + (seeds - 1) / 2 < ends[1]
    assert set(combined["candidates"][0]["validation"]) == set(VALUES[:n])


def test_other_values_or_methods_are_refused_with_the_seed_named() -> None:
    with pytest.raises(UserError, match=r"seed 7 have the values a, b, c .* those of seed 0 a, b"):
        combine([simple({"p": 0.1}), simple({"p": 0.1}, seed=7, n=3)])
    with pytest.raises(UserError, match=r"seed 3 .* methods q, those of seed 0 .* and p; combine runs of one conf"):
        combine([simple({"p": 0.1}), simple({"q": 0.1}, seed=3)])
    with pytest.raises(UserError, match="no results"):
        combine([])


def test_a_figure_that_one_seed_lacks_is_null() -> None:
    def geometry(cosine: float | None) -> dict[str, Any]:
        return {"p": {"cosine": cosine, "l2": 1.0, "hsic": None}}

    runs = [
        simple(
            {"p": 0.1}, 0, geometry=geometry(0.5), expansions={"p": {"x": {"pairs": 4, "joint pass@N, fused": 1.0}}}
        ),
        simple({"p": 0.1}, 1, geometry=geometry(None), expansions={"p": {"x": {"pairs": 0}}}),  # nothing was fused
    ]
    runs[1]["candidates"][0]["quality"] = None
    combined = combine(runs)
    assert combined["geometry"]["p"]["cosine"] is None and combined["geometry"]["p"]["hsic"] is None
    assert combined["geometry"]["p"]["l2"]["mean"] == 1.0
    assert combined["expansions"]["p"]["x"]["joint pass@N, fused"] is None
    assert combined["expansions"]["p"]["x"]["pairs"]["each"] == [4.0, 0.0]
    assert combined["points"][0]["fluency"] is None


def test_the_share_that_a_filter_keeps_is_combined_by_data_set() -> None:
    def filters(kept: int, tau: float) -> dict[str, Any]:
        return {"p": {"a": {"tau": tau, "pairs": 200, "kept": kept, "undefined": 0}}}

    combined = combine([simple({"p": 0.1}, k, filters=filters(kept, 0.5)) for k, kept in enumerate((50, 70))])
    assert combined["filters"]["p"]["a"]["share"]["each"] == [0.25, 0.35]
    assert combined["filters"]["p"]["a"]["tau"]["mean"] == 0.5


def test_only_candidates_of_every_seed_are_combined() -> None:
    first = run({"p": 0.1}, [row("p", "one", [1, 1]), row("p", "two", [2, 2])])
    second = run({"p": 0.1}, [row("p", "two", [4, 4]), row("p", "three", [3, 3])], seed=1)
    (both,) = combine([first, second])["candidates"]
    assert both["id"] == "p/two" and both["validation"]["a"]["each"] == [2.0, 4.0]


def test_the_balanced_candidate_is_that_whose_worst_value_in_the_box_is_best() -> None:
    rows = [row("p", "steep", [1.9, 0.2]), row("p", "even", [0.9, 0.8]), row("p", "off", [1, 1], on_frontier=False)]
    results = run({"p": 0.1}, [*rows, row("p", "untested", [2, 2], test=None)])
    found = balanced(results, "p")
    assert found is not None and found["id"] == "p/even"
    # In a box of 20 by 0.2 the small spread along b fills it, so that a decides.
    moved = {**results, "reference_point": {"a": 0.0, "b": 0.1}, "best_point": {"a": 20.0, "b": 0.3}}
    found = balanced(moved, "p")
    assert found is not None and found["id"] == "p/steep"
    assert balanced(run({"p": 0.1}, [row("p", "x", [1, 1], on_frontier=False)]), "p") is None


def test_a_method_with_a_dial_is_one_point_and_one_without_a_point_per_policy() -> None:
    dial = [row("dial", f"{k}", [1, 1], weights(k / 2, 1 - k / 2)) for k in range(3)]  # every one on the frontier
    each = [row("each", "a", [2, 0], weights(1.0, 0.0)), row("each", "b", [0, 2], weights(0.0, 1.0))]
    alone = [row("alone", "a>b", [1, 0])]
    runs = [run({"dial": 0.1, "each": 0.1, "alone": 0.1}, [*dial, *each, *alone], seed=seed) for seed in range(2)]
    points = combine(runs)["points"]
    assert [point["id"] for point in points] == [
        *("dial/balanced", "each/a", "each/b", "each/balanced"),
        "alone/a>b",
    ]


def test_weights_that_stretch_one_vector_are_a_dial_of_one_value() -> None:
    rows = [row("p", f"{k}", [k], weights(k)) for k in (0.5, 1.0, 1.5)]
    assert [point["id"] for point in combine([run({"p": 0.1}, rows, 1)])["points"]] == ["p/balanced"]


def test_a_policy_without_a_frontier_in_one_seed_has_no_balanced_point() -> None:
    rows = [row("p", f"{k}", [1, 1], weights(k / 2, 1 - k / 2)) for k in range(3)]
    broken = [{**one, "on_frontier": False} for one in rows]
    assert combine([run({"p": 0.1}, rows), run({"p": 0.0}, broken, seed=1)])["points"] == []


def test_the_extent_is_the_diagonal_of_the_candidates_in_units_of_the_box() -> None:
    rows = [row("p", "x", [0.0, 0.0]), row("p", "y", [0.6, 0.8]), row("p", "z", [0.3, 0.1])]
    assert combine([run({"p": 0.1}, rows)])["methods"]["p"]["extent"]["mean"] == pytest.approx(0.5)  # 1.0 / 2


def test_those_that_left_a_race_do_not_widen_the_extent() -> None:
    rows = [row("p", "x", [0.0, 0.0]), row("p", "y", [0.6, 0.8]), {**row("p", "z", [9.0, -9.0]), "left": {"by": "y"}}]
    extent = combine([run({"p": 0.1}, rows)])["methods"]["p"]["extent"]
    assert extent["mean"] == pytest.approx(0.5)
    gone = [{**of, "left": {"by": None}} for of in rows]
    assert combine([run({"p": 0.1}, gone)])["methods"]["p"]["extent"]["mean"] == 0.0


def test_combined_results_are_json_without_nan() -> None:
    combined = combine([simple({"base": 0.1, "p": float(np.float64(0.2))}, seed) for seed in range(3)])
    assert json.loads(json.dumps(combined, allow_nan=False)) == combined


def optimism(drop: float) -> dict[str, Any]:
    return {"drop": {value: {"mean": drop, "low": None, "high": 1.0} for value in "ab"}, "validation": 0.5, "test": 0.4}


def test_optimism_is_combined_where_every_seed_has_a_frontier() -> None:
    runs = [simple({"p": 0.1, "q": 0.2}, seed) for seed in range(2)]
    for seed, one in enumerate(runs):
        one["methods"]["p"]["optimism"] = optimism(0.1 + 0.2 * seed)
        one["methods"]["q"]["optimism"] = optimism(0.1) if seed else None
    methods = combine(runs)["methods"]
    assert methods["p"]["optimism"]["drop"]["a"]["mean"] == pytest.approx(0.2)
    assert methods["p"]["optimism"]["drop"]["b"]["each"] == pytest.approx([0.1, 0.3])
    assert methods["p"]["optimism"]["test"]["mean"] == pytest.approx(0.4)
    assert methods["q"]["optimism"] is None


def test_signs_of_over_optimisation_belong_to_the_balanced_candidate_of_each_seed() -> None:
    def quality(kl: float, perplexity: float | None) -> dict[str, Any]:
        return {"fluency": 0.9, "kl": kl, "perplexity": perplexity, "repetition": 0.2}

    runs = []
    for seed in range(2):
        rows = [row("p", "even", [1, 1], weights(0.5, 0.5), quality=quality(2.0 + seed, None if seed else 3.0))]
        rows.append(row("p", "steep", [2, 0], weights(0.9, 0.1), quality=quality(9.0, 9.0)))
        runs.append(run({"p": 0.1}, rows, seed=seed))
    (point,) = combine(runs)["points"]
    assert point["signs"]["kl"]["each"] == [2.0, 3.0]
    assert point["signs"]["repetition"]["mean"] == pytest.approx(0.2)
    assert point["signs"]["perplexity"] is None, "one seed has none"


def test_conflict_and_connectivity_are_combined_per_pair_of_values_where_every_seed_has_them() -> None:
    def found(cosine: float | None, gaps: list[float], *more: str) -> dict[str, Any]:
        between = [{"first": "a", "second": "b", "cosine": cosine, "ceiling": 0.9}]
        ladder = [{"weight": k, "gap": {"mean": gap}} for k, gap in enumerate(gaps)]
        path = {"first": "a", "second": "b", "squared_distance": 4.0, "curvature": {"mean": 2.0}, "ladder": ladder}
        return {
            "conflict": {"all pairs": {"pairs": {}, "between": between}, **{name: {"between": []} for name in more}},
            "connectivity": {"p": {"pairs": {}, "paths": [path]}},
        }

    runs = [
        simple({"p": 0.1}, 0, **found(0.1, [0.0, 0.2, -0.3, 0.0], "p")),
        simple({"p": 0.1}, 1, **found(0.3, [0.0, 0.5, -0.3, 0.0])),
    ]
    combined = combine(runs)
    assert list(combined["conflict"]) == ["all pairs"]
    assert combined["conflict"]["all pairs"][0]["cosine"]["each"] == [0.1, 0.3]
    (path,) = combined["connectivity"]["p"]
    assert (path["first"], path["second"]) == ("a", "b")
    assert path["largest_gap"]["each"] == [-0.3, 0.5], "the gap furthest from zero, with its sign"
    assert path["curvature"]["mean"] == 2.0 and path["squared_distance"]["mean"] == 4.0
    undefined = [runs[0], simple({"p": 0.1}, 1, **found(None, [0.0, 0.1]))]
    assert combine(undefined)["conflict"]["all pairs"][0]["cosine"] is None


def test_correlations_that_every_seed_has_are_combined() -> None:
    def rows(*parts: tuple[str, str | None, float]) -> list[dict[str, Any]]:
        return [
            {"over": over, "dataset": dataset, "first": "a", "second": "b", "count": 9, "mean": mean}
            for over, dataset, mean in parts
        ]

    first = simple({"p": 0.1}, 0, correlation=rows(("gaps", "a", 0.2), ("answers", None, -0.5)))
    second = simple({"p": 0.1}, 1, correlation=rows(("answers", None, -0.7)))
    (found,) = combine([first, second])["correlation"]
    assert (found["over"], found["dataset"]) == ("answers", None)
    assert found["correlation"]["each"] == [-0.5, -0.7]


def test_runs_without_diagnostics_are_combined_without_them() -> None:
    combined = combine([simple({"p": 0.1}, seed) for seed in range(2)])
    assert (combined["conflict"], combined["connectivity"], combined["correlation"]) == ({}, {}, [])
