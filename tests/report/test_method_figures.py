from typing import Any

import pytest
from synthetic_report import MANY, NAMES, candidate, curve, expansion, many_methods, profile, report_data, results

from valuesoup.report import figures as f
from valuesoup.report.figures.base import Table, blocks, depth_axis
from valuesoup.report.figures.training import MOST_NAMED
from valuesoup.report.look import glyph_of, method_scale
from valuesoup.report.model import LayerDependence, ReportData
from valuesoup.report.page import specified
from valuesoup.report.static import standing

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
"""The file of a figure that nobody looks at."""


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize(
    "figure", [f.FRONTIER, f.PARALLEL, f.COST, f.DEPENDENCE, f.PASS_AT_N, f.REWARDS, f.ADDED_PAIRS, f.CURVES]
)
def test_every_figure_holds_twelve_methods(figure: f.Figure, n: int) -> None:
    data = many_methods(n)
    table = figure.table(data)
    if figure is f.PARALLEL and n == 2:
        return
    assert table.rows and figure.caption(data, table)
    assert standing(figure.name, specified(figure, data, table), BLANK)


def test_no_two_of_twelve_methods_share_colour_and_shape() -> None:
    names, colours, shapes = method_scale(many_methods(2).results)
    assert len(names) == len(MANY) + 1
    assert len(set(zip(colours, shapes, strict=True))) == len(names)
    assert len({glyph_of(name, many_methods(2).results) for name in names}) == len(names)


def priced(**changes: Any) -> dict[str, Any]:
    whole = {"hypervolume": {"value": 0.5, "low": 0.4, "high": 0.6}, "trainings": 4, "frontier_points": 5}
    return {**whole, "train_seconds": 20.0, "expand_seconds": 10.0, "evaluate_seconds": 5.0, **changes}


def cost_data(**methods: dict[str, Any]) -> ReportData:
    return ReportData(results={"schema": 1, "values": ["a", "b"], "methods": methods})  # type: ignore[typeddict-item]


def test_the_cost_is_summed_and_shared_among_the_frontier_points() -> None:
    data = cost_data(base=priced(), x=priced(), y=priced(expand_seconds=0.0))
    table = f.COST.table(data)
    assert [row["method"] for row in table.rows] == ["x", "y"]  # the base trains nothing
    first = table.rows[0]
    assert (first["seconds"], first["training_per_point"], first["per_point"]) == (35.0, 4.0, 7.0)
    assert "Seconds per frontier point: 5.0 (y) to 7.0 (x)." in f.COST.caption(data, table)


def test_a_method_of_unknown_cost_is_counted_in_the_caption_of_the_cost() -> None:
    data = cost_data(x=priced(), y=priced(train_seconds=None), z=priced(frontier_points=0, hypervolume=None))
    table = f.COST.table(data)
    assert [row["method"] for row in table.rows] == ["x"]
    assert "2 methods are not drawn" in f.COST.caption(data, table)


def test_the_dependence_gives_sums_before_and_after_for_what_was_penalised() -> None:
    entries = [
        LayerDependence(f"layers.{k}.q", "a", "b", after, before) for k, after, before in ((0, 0.1, 0.3), (1, 0.2, 0.9))
    ]
    free = [LayerDependence("layers.0.q", "a", "b", 0.5)]
    data = ReportData(results={"schema": 1, "values": ["a", "b"]}, dependence={"held": entries, "free": free})
    table = f.DEPENDENCE.table(data)
    assert [(row["block"], row["after"], row["before"]) for row in table.rows] == [
        (0, 0.1, 0.3),
        (1, 0.2, 0.9),
        (0, 0.5, None),
    ]
    caption = f.DEPENDENCE.caption(data, table)
    assert "Summed over layers: held 0.3, free 0.5." in caption
    assert "The penalty took held from 1.2 to 0.3 (−75%)." in caption


def test_without_a_penalty_the_dependence_is_one_panel() -> None:
    data = ReportData(
        results={"schema": 1, "values": ["a", "b"]}, dependence={"x": [LayerDependence("l", "a", "b", 0.0)]}
    )
    assert "concat" not in f.DEPENDENCE.chart(data, f.DEPENDENCE.table(data)).to_dict()


def test_a_layer_is_placed_by_the_number_in_its_name_or_by_its_order() -> None:
    assert blocks(["model.layers.11.q", "transformer.h.3", "7.up"]) == [11, 3, 7]
    assert blocks(["enc", "mid2", "enc", "dec"]) == [0, 1, 0, 2]


def test_layers_are_counted_in_whole_numbers_and_at_most_a_dozen() -> None:
    few = depth_axis(Table([{"block": block} for block in (2, 0, 2)])).to_dict()
    assert (few["values"], few["format"]) == ([0, 2], "d")
    assert depth_axis(Table([{"block": block} for block in range(32)])).to_dict()["values"] == list(range(0, 32, 3))


def test_points_outside_the_simplex_are_marked_and_counted() -> None:
    weights = {"a": 0.9, "b": 0.9}
    candidates = [
        candidate("x", "cube", weights, {"a": 1.0, "b": 0.0}, outside_simplex=True),
        candidate("y", "cube", {"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 1.0}, outside_simplex=False),
        candidate("z", "soup", {"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 1.0}),
    ]
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates})
    table = f.FRONTIER.table(data)
    assert [row["outside"] for row in table.rows] == [True, False, False]
    assert "The 1 open points have weights outside the simplex." in f.FRONTIER.caption(data, table)
    assert "outside the simplex" in str(f.FRONTIER.chart(data, table).to_dict())


def test_the_line_of_a_method_that_trains_each_point_is_told_apart() -> None:
    table = f.FRONTIER.table(many_methods(2, 8))
    assert {row["method"] for row in table.rows if row["joined"] and row["separate"]} == {"DPO-LW", "MODPO"}
    assert {row["method"] for row in table.rows if row["joined"] and not row["separate"]} == {"SOUP", "VC-soup", "MVA"}


def test_a_method_of_many_points_carries_bars_on_its_line_only() -> None:
    rows = [row for row in f.FRONTIER.table(many_methods(2, 8)).rows if row["frontier"]]
    assert all(row["barred"] == row["joined"] for row in rows if row["method"] == "MVA")
    assert all(row["barred"] for row in rows if row["method"] != "MVA")


def test_of_many_candidates_the_parallel_lines_are_strong_on_the_overall_frontier_only() -> None:
    data = many_methods(3)
    strong = {row["id"] for row in f.PARALLEL.table(data).rows if row["frontier"]}
    own = {row["id"] for row in f.FRONTIER.table(data).rows if row["frontier"]}
    assert 0 < len(strong) < len(own)
    assert "of all methods together" in f.PARALLEL.caption(data, f.PARALLEL.table(data))


def test_pass_at_n_keeps_the_numbers_and_says_the_joint_ones_at_the_last_n() -> None:
    data = report_data(2, expansions={"mora": {"policy": expansion(2)}})
    table = f.PASS_AT_N.table(data)
    kinds = ["helpful", "harmless", "single-reward", "fused"]
    assert list(dict.fromkeys(row["prompts"] for row in table.rows)) == kinds
    assert {row["value"] for row in table.rows} == {"helpful", "harmless", "every value at once"}
    row = next(row for row in table.rows if (row["prompts"], row["value"], row["n"]) == ("fused", "helpful", 2))
    assert row["share"] == pytest.approx(0.75)
    # joint chances of one rollout: 0.2/3 and 0.5/3; 1 − (1 − p)⁸ = 42 % and 77 %
    assert "42% of single-reward, 77% of fused prompts." in f.PASS_AT_N.caption(data, table)


def test_expansions_of_the_same_prompts_share_their_panels() -> None:
    shared = report_data(2, expansions={"a": {"policy": expansion(2, 40)}, "b": {"policy": expansion(2, 80)}})
    assert len({row["dataset"] for row in f.PASS_AT_N.table(shared).rows}) == 4
    assert {row["dataset"] for row in f.REWARDS.table(shared).rows} == {"helpful", "harmless"}
    apart = report_data(
        2, expansions={"a": {"policy": expansion(2)}, "b": {"policy": expansion(2, rollouts=9, profile=[])}}
    )
    assert len({row["dataset"] for row in f.PASS_AT_N.table(apart).rows}) == 4


def test_many_expansions_are_drawn_in_part_and_the_captions_span_all() -> None:
    many = {f"after {k}": expansion(2, k, profile=profile({"fused": 0.1 + 0.02 * k}, ["helpful"])) for k in range(9)}
    data = report_data(2, expansions={"mora": many})
    table = f.PASS_AT_N.table(data)
    assert len({row["dataset"] for row in table.rows}) == 6
    # joint chances of one rollout from 0.1/2 to 0.26/2; 1 − (1 − p)⁸ = 34 % and 67 %
    assert "34% to 67% of fused prompts. Drawn are 6 of 9 expansions." in f.PASS_AT_N.caption(data, table)


def test_rewards_give_their_means_before_and_after_fusion() -> None:
    bins = [
        ("single-reward", -1.0, 0.0, 1.0),
        ("single-reward", 0.0, 1.0, 0.0),
        ("fused", -1.0, 0.0, 0.25),
        ("fused", 0.0, 1.0, 0.75),
    ]
    rows: list[Any] = [
        {"prompts": kind, "value": "helpful", "low": low, "high": high, "share": share}
        for kind, low, high, share in bins
    ]
    data = report_data(2, expansions={"mora": {"policy": expansion(2, distribution=rows)}})
    assert "helpful −0.50 → 0.25." in f.REWARDS.caption(data, f.REWARDS.table(data))


def test_added_pairs_need_two_methods_that_added_different_numbers() -> None:
    one, two = expansion(2, 40), expansion(2, 80)
    for expansions in ({"soup": {"policy": one}}, {"soup": {"policy": one}, "vc-soup": {"policy": one}}):
        assert f.ADDED_PAIRS.table(report_data(2, expansions=expansions)).rows == []
    rows = f.ADDED_PAIRS.table(report_data(2, expansions={"soup": {"p": one, "q": one}, "vc-soup": {"p": one}})).rows
    assert {(row["method"], row["pairs"]) for row in rows} == {("soup", 80), ("vc-soup", 40)}
    assert two.counts["pairs"] == 80


def test_added_pairs_show_the_best_and_the_most_balanced_point() -> None:
    def scored(id: str, method: str, a: float, b: float) -> dict[str, Any]:
        return candidate(id, method, {"a": a, "b": b}, {"a": a, "b": b})

    candidates = [scored("1", "x", 10, 0), scored("2", "x", 6, 3), scored("3", "x", 0, 4), scored("4", "y", 1, 1)]
    data = ReportData(
        results={"schema": 1, "values": ["a", "b"], "candidates": candidates},
        expansions={"x": {"p": expansion(2, 10)}, "y": {"p": expansion(2, 20)}},
    )
    rows = {(r["method"], r["dataset"], r["kind"]): r["score"] for r in f.ADDED_PAIRS.table(data).rows}
    assert (rows["x", "a", "best"], rows["x", "b", "best"]) == (10, 4)
    assert (rows["x", "a", "most balanced"], rows["x", "b", "most balanced"]) == (6, 3)


def test_many_trainings_share_the_legend_entry_of_their_method() -> None:
    few = {f"soup/{v}": curve(j)[:3] for j, v in enumerate(NAMES)}
    rows = f.CURVES.table(ReportData(results=results(2), curves=few)).rows
    assert {row["line"] for row in rows} == set(few)
    many = {f"soup/{k}": curve(k)[:3] for k in range(MOST_NAMED)} | {"vc-soup/a": curve(0)[:3]}
    data = ReportData(results=results(2), curves=many)
    table = f.CURVES.table(data)
    assert {row["line"] for row in table.rows} == {"soup", "vc-soup"}
    assert {row["training"] for row in table.rows} == set(many)
    assert f"{len(many)} trainings in the colours of their methods." in f.CURVES.caption(data, table)
