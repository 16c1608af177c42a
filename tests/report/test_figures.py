from typing import Any

import numpy as np
import pytest
from synthetic_report import candidate, report_data, results

from valuesoup.report import figures as f
from valuesoup.report.figures.gaps import MOST_MARKS, MOST_POINTS, quadrant_shares
from valuesoup.report.look import BASE_COLOUR, METHOD_COLOURS, colour_of, method_scale
from valuesoup.report.model import CurvePoint, GapTable, ReportData


def gap_data(gaps: list[list[float]], consistency: list[float], values: tuple[str, ...] = ("a", "b")) -> ReportData:
    table = GapTable(np.array(gaps), np.array(consistency))
    return ReportData(results={"schema": 1, "values": values}, gaps={"set": table})


def test_quadrants_count_a_zero_gap_as_mixed() -> None:
    shares = quadrant_shares(np.array([1.0, 1.0, -1.0, 0.0]), np.array([1.0, -1.0, -1.0, 2.0]))
    assert shares == {"both better": 0.25, "mixed": 0.5, "both worse": 0.25}


def test_shares_of_no_pairs_are_zero() -> None:
    assert quadrant_shares(np.zeros(0), np.zeros(0)) == {"both better": 0, "mixed": 0, "both worse": 0}


def test_the_histogram_counts_every_defined_pair_once_ends_included() -> None:
    data = gap_data([[1, 1]] * 5, [-1.0, 0.0, 1.0, float("nan"), 0.99])
    rows = f.CONSISTENCY.table(data).rows
    assert sum(int(row["pairs"] or 0) for row in rows) == 4
    assert (rows[0]["from"], rows[0]["pairs"]) == (-1.0, 1)
    assert (rows[-1]["to"], rows[-1]["pairs"]) == (1.0, 2)


def test_retention_keeps_pairs_at_the_threshold_and_never_those_without_a_direction() -> None:
    data = gap_data([[1, 1]] * 4, [0.5, 0.2, -0.3, float("nan")])
    kept = {row["tau"]: (row["kept"], row["share"]) for row in f.RETENTION.table(data).rows}
    assert kept[-1.0] == (3, 0.75)
    assert kept[0.5] == (1, 0.25)
    assert kept[0.525] == (0, 0.0)


def test_the_conflict_matrix_gives_opposite_signs_and_correlation() -> None:
    data = gap_data([[1, -1], [2, -2], [-1, 1], [1, 1]], [0, 0, 0, 1])
    row = f.MATRIX.table(data).rows[0]
    assert (row["first"], row["second"], row["conflict"]) == ("a", "b", 0.75)
    expected = np.corrcoef([1, 2, -1, 1], [-1, -2, 1, 1])[0, 1]
    assert row["correlation"] == pytest.approx(expected, abs=1e-4)


def test_a_constant_gap_has_no_correlation() -> None:
    assert f.MATRIX.table(gap_data([[1, -1], [1, 1]], [0, 1])).rows[0]["correlation"] is None


@pytest.mark.parametrize("n", [2, 3, 5])
def test_large_sets_are_sampled_the_same_way_each_time_and_the_caption_says_so(n: int) -> None:
    gaps = np.random.default_rng(0).normal(size=(20_000, n))
    values = ("a", "b", "c", "d", "e")[:n]
    data = ReportData(results={"schema": 1, "values": values}, gaps={"set": GapTable(gaps, np.zeros(20_000))})
    table = f.SCATTER.table(data)
    panels = n * (n - 1) // 2
    assert len(table.rows) == min(MOST_POINTS, MOST_MARKS // panels)
    assert table == f.SCATTER.table(data)
    assert f"{len(table.rows):,} of 20,000 pairs" in f.SCATTER.caption(data, table)
    assert len({row["pair"] for row in table.rows}) == len(table.rows)


def test_beyond_two_values_a_data_set_shows_its_own_value_against_each_other() -> None:
    data = report_data(3)
    spec = f.SCATTER.chart(data, f.SCATTER.table(data)).to_dict()
    assert len(spec["concat"]) == 3 * 2


@pytest.mark.parametrize(("n", "panels"), [(3, 3), (5, 10)])
def test_more_than_two_values_give_a_projection_for_each_pair(n: int, panels: int) -> None:
    data = report_data(n)
    cells = f.FRONTIER.chart(data, f.FRONTIER.table(data)).to_dict()["concat"]
    assert len([cell for cell in cells if "layer" in cell]) == panels


def test_parallel_coordinates_run_from_worst_to_best_of_each_value() -> None:
    rows = f.PARALLEL.table(report_data(3)).rows
    for value in ("helpful", "harmless", "honest"):
        relative = [float(row["relative"] or 0) for row in rows if row["value"] == value]
        assert min(relative) == 0 and max(relative) == 1


def test_two_values_need_no_parallel_coordinates() -> None:
    assert f.PARALLEL.table(report_data(2)).rows == []


def scored(id: str, a: float, b: float, **changes: Any) -> dict[str, Any]:
    return candidate(id, "soup", {"a": a, "b": b}, {"a": a, "b": b}, **changes)


def test_a_methods_line_joins_its_non_dominated_points_and_points_without_test_scores_are_not_drawn() -> None:
    candidates = [scored("x", 1, 3), scored("y", 2, 2), scored("z", 1, 1), scored("only validation", 9, 9, test=None)]
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates})
    assert {row["id"]: row["joined"] for row in f.FRONTIER.table(data).rows} == {
        "x": True,
        "y": True,
        "z": False,
    }


def test_a_line_joins_only_the_frontier_of_a_method_whose_points_can_be_mixed() -> None:
    off = scored("off", 3, 1, on_frontier=False)
    alone = [candidate(f"d{j}", "dpo", {"a": 1 - j, "b": j}, {"a": 3 - j, "b": j}) for j in (0, 1)]
    results = {"schema": 1, "values": ["a", "b"], "candidates": [scored("x", 1, 3), scored("y", 2, 2), off, *alone]}
    joined = {row["id"]: row["joined"] for row in f.FRONTIER.table(ReportData(results=results)).rows}
    assert joined == {"x": True, "y": True, "off": False, "d0": False, "d1": False}


def test_low_fluency_is_marked_against_the_bound() -> None:
    quality = {"fluency": 0.5, "kl": None, "tokens": None}
    candidates = [scored("low", 1, 3, quality=quality), scored("unknown", 3, 1, quality=None)]
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates})
    table = f.FRONTIER.table(data)
    assert [row["low_fluency"] for row in table.rows] == [True, False]
    assert "1 with fluency below 0.80" in f.FRONTIER.caption(data, table)


def test_a_candidate_without_a_score_under_every_value_is_not_drawn() -> None:
    one = scored("half", 1, 2)
    del one["test"]["b"]
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": [one]})
    assert f.FRONTIER.table(data).rows == []


def test_the_hypervolume_is_sorted_best_first() -> None:
    assert [row["method"] for row in f.HYPERVOLUME.table(report_data(2)).rows] == ["vc-soup", "soup", "dpo", "base"]


def test_accuracy_carries_a_wilson_interval_where_the_held_out_pairs_are_known() -> None:
    models = {
        "a": {"validation_accuracy": 0.6, "validation_pairs": 100, "pairs": 900},
        "b": {"validation_accuracy": 0.7, "pairs": 900},
        "c": {"validation_accuracy": None, "pairs": None},
    }
    data = ReportData(results={"schema": 1, "values": ["a", "b", "c"], "reward_models": models})
    first, second = f.ACCURACY.table(data).rows
    # Wilson at 95 %, n = 100: (0.6 + 1.9207/100 ± 1.96·sqrt(0.24/100 + 0.9604/10000)) / 1.038415
    assert (first["low"], first["high"]) == (pytest.approx(0.5020, abs=1e-4), pytest.approx(0.6906, abs=1e-4))
    assert (second["low"], second["high"]) == (None, None)


def test_the_truth_is_set_beside_the_test_score_only_where_both_are_known() -> None:
    candidates = [scored("x", 1, 3, truth={"a": 0.5}), scored("y", 2, 2), scored("z", 1, 1, test=None, truth={"a": 1})]
    data = ReportData(results={"schema": 1, "values": ["a", "b"], "candidates": candidates})
    rows = f.TRUTH.table(data).rows
    assert [(row["id"], row["dataset"], row["reward"], row["truth"]) for row in rows] == [("x", "a", 1, 0.5)]


def test_geometry_is_grouped_by_the_block_in_the_name_and_leaves_the_overall_to_the_caption() -> None:
    data = report_data(2)
    table = f.GEOMETRY.table(data)
    assert {row["block"] for row in table.rows} == set(range(6))
    assert all(row["layer"] for row in table.rows)
    assert "Cosine over all layers: soup 0.00, vc-soup 0.45." in f.GEOMETRY.caption(data, table)


def test_long_curves_are_thinned_but_keep_every_validation_point() -> None:
    points = [CurvePoint(step, loss=1.0, eval_loss=0.5 if step % 777 == 0 else None) for step in range(7770)]
    rows = f.CURVES.table(ReportData(results=results(2), curves={"soup/helpful": points})).rows
    assert sum(row["kind"] == "training" for row in rows) == 300
    assert sum(row["kind"] == "validation" for row in rows) == 10


def test_curves_that_are_not_finite_are_left_out() -> None:
    points = [CurvePoint(0, loss=float("nan")), CurvePoint(1, loss=0.5)]
    rows = f.CURVES.table(ReportData(results=results(2), curves={"x": points})).rows
    assert [row["step"] for row in rows] == [1]


def test_trainings_wear_the_colour_of_their_method() -> None:
    data = report_data(2)
    text = str(f.CURVES.chart(data, f.CURVES.table(data)).to_dict())
    for method in ("dpo", "soup", "vc-soup"):
        assert colour_of(method, data.results) in text


def test_thresholds_that_belong_to_no_method_get_a_colour_too() -> None:
    table = GapTable(np.ones((3, 2)), np.ones(3), {"vc-soup": 0.7, "strict": 0.707, "positive": 0.0})
    data = ReportData(results=results(2), gaps={"helpful": table})
    layers = f.CONSISTENCY.chart(data, f.CONSISTENCY.table(data)).to_dict()["layer"]
    scale = layers[1]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["vc-soup", "strict", "positive"]
    assert scale["range"][0] == colour_of("vc-soup", data.results) and len(set(scale["range"])) == 3


def test_each_method_has_one_colour_and_the_base_is_grey() -> None:
    names, colours, _ = method_scale(results(2))  # type: ignore[arg-type]
    assert names == ["dpo", "soup", "vc-soup", "base"]
    assert colours == [*METHOD_COLOURS[:3], BASE_COLOUR]


def test_tables_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        GapTable(np.zeros((3, 2)), np.zeros(2))
