from typing import Any

import numpy as np
import pytest
from synthetic_report import candidate, expansion, report_data

from valuesoup.report.model import GapTable, ReportData
from valuesoup.report.summary import selection, summarise, summarise_gaps


def volumes(**methods: tuple[float, float | None, float | None]) -> dict[str, Any]:
    return {
        "schema": 1,
        "values": ["a", "b"],
        "methods": {
            name: {"hypervolume": {"value": value, "low": low, "high": high}}
            for name, (value, low, high) in methods.items()
        },
    }


def first(results: dict[str, Any]) -> str:
    return summarise(ReportData(results=results))[0]  # type: ignore[arg-type]


def test_a_clear_winner_is_named_with_both_intervals() -> None:
    assert first(volumes(soup=(0.4, 0.35, 0.45), vc=(0.6, 0.55, 0.65))) == (
        "vc has the largest hypervolume, 0.600 [0.550, 0.650], and its interval does not overlap that of the next, "
        "soup, 0.400 [0.350, 0.450]."
    )


def test_overlap_is_said_and_nobody_wins() -> None:
    assert first(volumes(soup=(0.5, 0.4, 0.58), vc=(0.6, 0.55, 0.65))) == (
        "vc has the largest hypervolume, 0.600 [0.550, 0.650], but its interval overlaps that of soup, "
        "0.500 [0.400, 0.580]: this run does not tell them apart."
    )


def test_overlap_with_a_method_further_down_counts_too() -> None:
    text = first(volumes(vc=(0.6, 0.55, 0.65), soup=(0.5, 0.49, 0.51), wide=(0.45, 0.2, 0.7)))
    assert "overlaps that of wide, 0.450 [0.200, 0.700]" in text and "soup" not in text


def test_several_overlaps_are_counted() -> None:
    text = first(volumes(vc=(0.6, 0.5, 0.7), soup=(0.58, 0.5, 0.6), dpo=(0.55, 0.5, 0.6)))
    assert "overlaps that of soup, 0.580 [0.500, 0.600] (and 1 more)" in text


def test_without_intervals_nothing_is_claimed_about_certainty() -> None:
    assert "how sure that is remains open" in first(volumes(soup=(0.4, None, None), vc=(0.6, None, None)))


def test_one_method_has_nothing_to_be_compared_with() -> None:
    assert "no other method" in first(volumes(vc=(0.6, 0.5, 0.7)))


def test_no_hypervolume_ranks_nobody() -> None:
    assert first(volumes()) == "No hypervolume was computed, so the methods are not ranked."


def frontier(fluencies: list[float | None], test: bool = True) -> ReportData:
    candidates = [
        candidate(
            f"c{k}",
            "soup",
            {"a": 0.5, "b": 0.5},
            {"a": float(k), "b": 1.0},
            quality=None if fluency is None else {"fluency": fluency, "kl": None, "tokens": None},
            **({} if test else {"test": None}),
        )
        for k, fluency in enumerate(fluencies)
    ]
    candidates.append(candidate("base", "base", {"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5}))
    return ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates})


def test_low_fluency_is_a_caution_with_the_worst_named() -> None:
    assert (
        "Caution: 2 of 3 frontier candidates have fluency below 0.80 (lowest 0.30, soup a 0.5 · b 0.5); "
        "their rewards are partly from broken text."
    ) in summarise(frontier([0.9, 0.3, 0.5]))


def test_good_fluency_is_said() -> None:
    assert "Every measured frontier candidate keeps a fluency of at least 0.80." in summarise(frontier([0.9, None]))


def test_one_broken_candidate_is_one_and_those_that_left_the_frontiers_are_counted() -> None:
    (caution,) = [text for text in summarise(frontier([0.9, 0.3])) if text.startswith("Caution")]
    assert "1 of 2 frontier candidates has fluency below 0.80" in caution and "its reward is partly" in caution
    data = frontier([0.9, 0.3, 0.95])
    for left in data.results["candidates"][1:3]:
        left["on_frontier"] = False
    assert (
        "Every measured frontier candidate keeps a fluency of at least 0.80; 1 of 2 measured off the frontiers do not."
    ) in summarise(data)


def test_unmeasured_fluency_is_said() -> None:
    assert any("Fluency was not measured" in sentence for sentence in summarise(frontier([None])))


def test_candidates_are_counted_against_the_base() -> None:
    assert "2 of 3 frontier candidates have higher mean scores than the base model on every value." in summarise(
        frontier([1, 1, 1])
    )


def test_validation_scores_are_called_a_little_too_good() -> None:
    assert any("look a little better than they are" in text for text in summarise(frontier([1], test=False)))
    assert not any("look a little better than they are" in text for text in summarise(frontier([1])))


def test_weak_reward_models_are_named() -> None:
    models = {"a": {"validation_accuracy": 0.7, "pairs": 9}, "b": {"validation_accuracy": 0.52, "pairs": 9}}
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "reward_models": models})
    assert "The reward models rank held-out pairs as labelled: 70% (a), 52% (b); b is hardly better than chance." in (
        summarise(data)
    )
    models["a"]["validation_accuracy"] = 0.5
    assert any("; a and b are hardly better than chance." in text for text in summarise(data))


def test_filtering_is_counted_over_the_data_sets() -> None:
    assert "Filtering: vc-soup keeps 2,200 of 6,000 pairs (37%)." in summarise(report_data(2))


def test_the_dearest_and_the_cheapest_frontier_point_are_named_with_their_trainings() -> None:
    results = volumes(grid=(0.5, 0.4, 0.6), soup=(0.6, 0.5, 0.7), idle=(0.1, 0.0, 0.2))
    costs = {"grid": (11, 110.0, 10), "soup": (2, 20.0, 10), "idle": (0, 0.0, 1)}
    for name, (trainings, seconds, points) in costs.items():
        results["methods"][name] |= {"trainings": trainings, "train_seconds": seconds, "frontier_points": points}
        results["methods"][name] |= {"evaluate_seconds": 5.0}
    assert (
        "A frontier point costs least with soup: 2.0 s of training (2 trainings for 10 points, 2.5 s with evaluation), "
        "and most with grid: 11.0 s of training (11 trainings for 10 points, 11.5 s with evaluation)."
    ) in summarise(ReportData(results=results))  # type: ignore[arg-type]


def test_frontier_points_outside_the_simplex_are_counted_per_method() -> None:
    def cube(k: int, outside: bool, on_frontier: bool = True) -> dict[str, Any]:
        weights = {"a": 0.9, "b": 0.9}
        return candidate(f"c{k}", "cube", weights, weights, outside_simplex=outside, on_frontier=on_frontier)

    candidates = [cube(0, True), cube(1, True), cube(2, False), cube(3, True, on_frontier=False)]
    candidates.append(candidate("s", "soup", {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0}))
    text = summarise(ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates}))
    assert "Weights outside the simplex: 2 of the 3 frontier points of cube." in text


def test_an_expansion_is_summed_up() -> None:
    text = summarise(report_data(2, expansions={"mora": {"policy": expansion(2, 40)}}))
    assert (
        "Prompt expansion: mora mined 200 prompts, found 120 single-reward ones (good under one value only), and "
        "gained 40 pairs from them."
    ) in text
    both = {"policy": expansion(2, 40), "policy again": expansion(2, 30)}
    text = summarise(report_data(2, expansions={"mora": both, "other": both}))
    assert (
        "Prompt expansion: mora and other mined 400 prompts in 2 expansions, found 240 single-reward ones (good under "
        "one value only), and gained 70 pairs from them."
    ) in text


def test_an_audit_is_summed_up_from_the_gaps() -> None:
    gaps = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -2.0], [0.0, 0.0]])
    table = GapTable(gaps, np.array([1.0, 0.0, -0.95, np.nan]))
    data = ReportData(results={"schema": 1, "values": ["a", "b"]}, gaps={"a": table})
    assert summarise_gaps(data) == [
        "On 25% of 4 pairs the values disagree about which response is better.",
        "a: on 25% of 4 pairs every value prefers the chosen response, on 25% every value prefers the rejected one; "
        "1 without a direction.",
    ]


def test_intervals_of_no_width_are_a_caution() -> None:
    data = report_data(2)
    assert not any("has a width" in sentence for sentence in summarise(data))
    for row in data.results["candidates"]:
        for score in (row.get("test") or {}).values():
            score["low"] = score["high"] = score["mean"]
    (caution,) = (sentence for sentence in summarise(data) if "has a width" in sentence)
    assert caution.startswith("Caution: no interval of a test score has a width, as one prompt gives it")


def test_a_paired_difference_decides_where_there_is_one() -> None:
    results = volumes(soup=(0.5, 0.4, 0.58), vc=(0.6, 0.55, 0.65))
    results["differences"] = [{"first": "soup", "second": "vc", "value": -0.1, "low": -0.16, "high": -0.04}]
    assert first(results) == (
        "vc has the largest hypervolume, 0.600 [0.550, 0.650]; next is soup, 0.500 [0.400, 0.580]. "
        "The paired difference is 0.100 [0.040, 0.160], clear of zero."
    )
    results["differences"][0]["high"] = 0.02
    assert "which includes zero: this run does not tell them apart" in first(results)
    results["differences"][0] |= {"low": -0.1, "high": -0.1}  # of a single prompt
    assert "no width, as one prompt gives it: this run does not tell them apart" in first(results)
    assert "clear of zero" not in first(results)


def test_every_hypervolume_at_zero_ranks_nobody() -> None:
    assert first(volumes(soup=(0.0, 0.0, 0.0), vc=(0.0, 0.0, 0.0))).startswith("Every hypervolume is 0")


def duel(**methods: list[list[float]]) -> ReportData:
    """Frontiers of the given points; the first method has the largest hypervolume."""
    values = ["a", "b", "c", "d", "e"][: len(next(iter(methods.values()))[0])]
    results = volumes(**{name: (1.0 - 0.1 * k, None, None) for k, name in enumerate(methods)})
    rows = [
        candidate(f"{name}{k}", name, None, dict(zip(values, point, strict=True)))
        for name, points in methods.items()
        for k, point in enumerate(points)
    ]
    return ReportData(results={**results, "values": values, "candidates": rows})  # type: ignore[typeddict-item]


def domination(data: ReportData) -> list[str]:
    return [text for text in summarise(data) if "dominate" in text]


BY = "is dominated by a point of vc that is at least as good on every value and better on one"


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_method_that_is_beaten_at_every_point_is_named(n: int) -> None:
    low, high = [0.1] * n, [0.2] * n
    assert domination(duel(vc=[high], soup=[low])) == [f"Every frontier point of soup {BY}."]
    assert domination(duel(vc=[high], soup=[low], dpo=[low])) == [f"Every frontier point of both other methods {BY}."]


def test_a_method_that_keeps_one_point_is_not_dominated() -> None:
    data = duel(vc=[[0.5, 0.1], [0.1, 0.5]], soup=[[0.4, 0.1], [0.3, 0.3]], dpo=[[0.0, 0.0]])
    assert domination(data) == [f"Every frontier point of dpo {BY}; not so of soup."]
    assert domination(duel(vc=[[0.5, 0.1]], soup=[[0.1, 0.5]], dpo=[[0.2, 0.4]])) == [
        "vc dominates no other method: each has a frontier point which no point of vc beats."
    ]
    assert domination(duel(vc=[[0.5, 0.1]], soup=[[0.5, 0.1]])) == [  # equal is not better
        "vc does not dominate soup: that has a frontier point which no point of vc beats."
    ]


def test_one_value_or_one_method_has_nobody_to_dominate() -> None:
    assert domination(duel(vc=[[0.5]], soup=[[0.1]])) == []
    assert domination(duel(vc=[[0.5, 0.5]])) == []


def moved(base: dict[str, float] | None, **methods: dict[str, float]) -> str:
    """The sentence on selection, from the drops of each method (positive: lower on test)."""
    all_ = {**({"base": base} if base else {}), **methods}
    results = volumes(**dict.fromkeys(all_, (0.5, None, None)))
    results["values"] = list(next(iter(methods.values())))
    for name, drops in all_.items():
        drop = {value: {"mean": mean, "low": None, "high": None} for value, mean in drops.items()}
        results["methods"][name]["optimism"] = {"drop": drop, "validation": 0.6, "test": 0.6 - max(drops.values())}
    return selection(ReportData(results=results))  # type: ignore[arg-type]


def test_what_the_choice_promised_too_much_is_told_beside_the_base() -> None:
    assert moved({"a": 0.02, "b": -0.1}, vc={"a": 0.12, "b": -0.1}, soup={"a": 0.02, "b": -0.1}) == (
        "From validation, where they were chosen, to test, frontiers change on average by −0.07 on a, +0.10 on b (1 is "
        "about the range of all scores); the base, which nothing chose, by −0.02 on a, +0.10 on b. Against the base "
        "they lose 0.05 on a: luck of the choice, or chance. The hypervolume of vc falls most: from 0.600 to 0.480."
    )


def test_a_rise_is_no_luck_and_one_method_is_named() -> None:
    assert moved({"a": -0.1}, vc={"a": -0.2}) == (
        "From validation, where they were chosen, to test, the frontier of vc changes by +0.20 on a (1 is about the "
        "range of all scores); the base, which nothing chose, by +0.10 on a. Against the base they lose nothing: the "
        "choice shows no luck."
    )


def test_without_the_base_nothing_is_said_of_luck() -> None:
    assert "Against the base" not in moved(None, vc={"a": 0.2, "b": 0.0})
    assert selection(ReportData(results=volumes(vc=(0.5, 0.4, 0.6)))) == ""  # type: ignore[arg-type]
