"""The figures of a study: what each draws and joins, its intervals, and what its caption says."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_report import expansion, profile
from synthetic_study import caption, rows, run_data, study_data

from valuesoup.report.model import LayerGeometry
from valuesoup.report.study import StudyData


def test_the_hypervolumes_show_every_seed_and_the_mean_best_method_first(written: Path, study: StudyData) -> None:
    with (written.parent / "figures/seeds.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    volume = study.combined["methods"]["Merge"]["hypervolume"]
    own = [row for row in listed if row["method"] == "Merge"]
    assert [float(row["hypervolume"]) for row in own] == [volume["mean"], *volume["each"]]
    assert [row["seed"] for row in own] == ["", "0", "1", "2"] and float(own[0]["low"]) == volume["low"]
    assert listed[0]["method"] == "Grown-40" and listed[-1]["method"] == "base"


def test_frontiers_show_the_validation_means_and_join_mixtures_in_the_order_of_their_weights(study: StudyData) -> None:
    table = rows(study, "frontiers")
    candidates = {row["id"]: row for row in study.combined["candidates"]}
    assert len(table) == len(candidates)
    for row in table:
        for j, value in enumerate(study.values):
            assert row[f"s{j}"] == candidates[row["id"]]["validation"][value]["mean"]
    lines = {method: {row["line"] for row in table if row["method"] == method} for method in ("Merge", "Each", "Cube")}
    assert len(lines["Merge"]) == 1 and lines["Each"] == {None}
    assert lines["Cube"] == {None, "Cube"}  # weights fill an area: only its frontier is joined
    assert all(row["frontier"] for row in table if row["line"] == "Cube")
    assert [row["outside"] for row in table if row["method"] == "Cube"] == [True] * 9
    assert {row["separate"] for row in table if row["method"] == "Trained"} == {True}
    assert "The 9 open points" in caption(study, "frontiers")


def test_sums_of_the_weights_are_lines_of_their_own(study: StudyData) -> None:
    longer = [
        {**row, "id": f"{row['id']}+", "weights": {value: 1.5 * weight for value, weight in row["weights"].items()}}
        for row in study.combined["candidates"]
        if row["method"] == "Merge"
    ]
    changed = replace(study, combined={**study.combined, "candidates": [*study.combined["candidates"], *longer]})
    lines = [row["line"] for row in rows(changed, "frontiers") if row["method"] == "Merge"]
    assert {line: lines.count(line) for line in lines} == {"Merge 1": 7, "Merge 1.5": 7}


def test_two_values_are_drawn_against_the_weight_of_the_first(study: StudyData) -> None:
    table = rows(study, "weights")
    assert {row["weighed"] for row in table} == {"helpful"} and {row["scored"] for row in table} == {
        "helpful",
        "harmless",
    }
    own = [row for row in table if row["method"] == "Merge" and row["scored"] == "harmless"]
    assert sorted(row["weight"] for row in own) == pytest.approx([k / 6 for k in range(7)])
    assert {row["method"] for row in table} == {"Merge", "Kept-0", "Kept-7", "Trained"}  # no cube, no single policies
    assert "Merge +0.8" in caption(study, "weights")


def test_more_values_go_with_equal_rest_where_the_grid_allows_and_along_the_edges_elsewhere() -> None:
    three = [row for row in rows(study_data(3, 2), "weights") if row["method"] == "Merge"]
    assert {row["path"] for row in three} == {"equal rest"}
    own = [row for row in three if (row["weighed"], row["scored"]) == ("honest", "helpful")]
    assert sorted(row["weight"] for row in own) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    five = [row for row in rows(study_data(5, 1), "weights") if (row["method"], row["scored"]) == ("Merge", "kind")]
    own = [row for row in five if row["weighed"] == "kind"]
    assert {row["path"] for row in own} == {
        f"between kind and {v}" for v in ("helpful", "harmless", "honest", "concise")
    }
    assert sorted(row["weight"] for row in own) == [0.0] * 4 + [0.5] * 4 + [1.0] * 4


def test_the_threshold_figure_shows_the_unfiltered_method_at_minus_one_with_all_pairs_kept(study: StudyData) -> None:
    table = rows(study, "thresholds")
    kept = [(row["method"], row["tau"], row["y"]) for row in table if row["measure"] == "kept"]
    assert kept == [("Merge", -1.0, 1.0), ("Kept-0", 0.0, 0.49), ("Kept-7", pytest.approx(0.7), 0.49)]
    cosine = [row["y"] for row in table if row["measure"] == "cosine"]
    assert cosine == pytest.approx([-0.09, 0.31, 0.61])
    assert "Merge filters nothing, drawn at τ = −1." in caption(study, "thresholds")


def test_layers_are_means_over_matrices_and_pairs_with_an_interval_over_seeds() -> None:
    def run(*cosines: float) -> Any:
        layers = [f"model.layers.{k}.{m}" for k in (0, 1) for m in "qv"]
        own = [LayerGeometry(layer, "a", "b", x, 1.0) for layer, x in zip(layers, cosines, strict=True)]
        return replace(run_data(2, 0), geometry={"Merge": [LayerGeometry(None, "a", "b", 9.0, 9.0), *own]})

    table = rows(study_data(2, 2, runs=[run(0.19, 0.39, 0.5, 0.5), run(0.21, 0.41, 0.5, 0.7)]), "geometry")
    cosine = [row for row in table if row["field"] == "cosine"]
    assert [(row["block"], row["y"]) for row in cosine] == [(0, pytest.approx(0.3)), (1, pytest.approx(0.55))]
    # Seeds 0.29 and 0.31: standard error 0.01; t(0.975, 1) = tan(0.475 π)
    assert cosine[0]["high"] == pytest.approx(0.3 + 0.01 * math.tan(0.475 * math.pi))
    assert cosine[1]["high"] == 1.0, "0.55 + 0.64 is no cosine"


def test_methods_with_the_same_vectors_are_drawn_once_and_named(study: StudyData) -> None:
    table = rows(study, "geometry")
    assert {(row["method"], row["drawn_as"]) for row in table} == {
        ("Merge", "Merge"),
        ("Each", "Merge"),
        ("Kept-7", "Kept-7"),
    }
    assert caption(study, "geometry").endswith("Each has the vectors of Merge.")


def test_dependence_shows_its_start_for_penalised_methods_only(study: StudyData) -> None:
    table = rows(study, "dependence")
    assert {row["method"] for row in table if row["field"] == "before"} == {"Kept-7"}
    # 0.014, 0.034, 0.054 after and 0.04 before: −15 %
    assert "Kept-7 −15%" in caption(study, "dependence")


def test_a_method_that_one_seed_lacks_is_not_drawn_per_layer() -> None:
    runs = [run_data(2, 0), replace(run_data(2, 1), geometry={"Merge": run_data(2, 1).geometry["Merge"]})]
    assert {row["method"] for row in rows(study_data(2, 2, runs=runs), "geometry")} == {"Merge"}


def test_pass_rates_are_averaged_over_seeds_shared_expansions_shown_once_and_shares_stay_shares() -> None:
    chances = (0.2, 0.9)
    runs = [
        replace(
            run_data(2, seed),
            expansions={
                name: {"policy": expansion(2, profile=profile({"fused": chance}, ["helpful", "harmless"], rollouts=2))}
                for name in ("Grown-20", "Grown-40")
            },
        )
        for seed, chance in enumerate(chances)
    ]
    study = study_data(2, 2, runs=runs)
    table = rows(study, "pass-at-n")
    assert {row["expansion"] for row in table} == {"Grown-20, Grown-40: policy"}
    first = next(row for row in table if (row["value"], row["n"]) == ("helpful", 1))
    assert first["share"] == pytest.approx(0.55) and (first["low"], first["high"]) == (0.0, 1.0)
    second = next(row for row in table if (row["value"], row["n"]) == ("helpful", 2))
    assert second["share"] == pytest.approx((1 - 0.8**2 + 1 - 0.1**2) / 2)
    assert "every value at once at N = 2" in caption(study, "pass-at-n")


def test_the_effect_of_the_added_pairs_begins_with_the_method_that_adds_none(study: StudyData) -> None:
    table = [row for row in rows(study, "added-pairs") if row["dataset"] == "hypervolume"]
    assert [(row["method"], row["pairs"]) for row in table] == [("Each", 0.0), ("Grown-20", 20.0), ("Grown-40", 40.0)]
    assert len({row["group"] for row in table}) == 1
    assert {row["dataset"] for row in rows(study, "added-pairs")} == {"hypervolume", "helpful", "harmless"}
    assert "Each adds none." in caption(study, "added-pairs")


def test_expansions_of_one_size_have_no_effect_to_show(study: StudyData) -> None:
    combined = {**study.combined, "expansions": {"Grown-20": study.combined["expansions"]["Grown-20"]}}
    assert rows(replace(study, combined=combined, expanding=[]), "added-pairs") == []
