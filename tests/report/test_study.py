import csv
import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_report import expansion, profile
from synthetic_study import run_data, seed_results, study_data

from valuesoup.evaluation.seeds import combine
from valuesoup.methods import Consistent, Expanded, Method
from valuesoup.report.figures.base import Figure
from valuesoup.report.figures.study import study_figures
from valuesoup.report.model import LayerGeometry
from valuesoup.report.page import specified
from valuesoup.report.static import standing
from valuesoup.report.study import (
    UNFILTERED,
    StudyData,
    differences_table,
    families,
    methods_table,
    ordered_differences,
    points_table,
    titled,
    write_study,
)
from valuesoup.report.study_summary import summarise_study

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
"""The file of a figure that nobody looks at."""
HOSTILE = "</script><script>alert('x')</script>"
BETWEEN = {"weights", "geometry", "dependence", "gradient-conflict", "connectivity", "correlation"}
"""Figures that take two values."""
EVERY = {"seeds", "frontiers", "thresholds", "pass-at-n", "added-pairs", "optimism", "signs"} | BETWEEN


def figures(study: StudyData) -> dict[str, Figure]:
    return {figure.name: figure for of in study_figures(study).values() for figure in of}


def rows(study: StudyData, name: str) -> list[dict[str, Any]]:
    return figures(study)[name].table(study).rows


def caption(study: StudyData, name: str) -> str:
    figure = figures(study)[name]
    return figure.caption(study, figure.table(study))


def specs(path: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="specs">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found
    specified: dict[str, object] = json.loads(found.group(1))
    return specified


def visible(path: Path) -> str:
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", path.read_text("utf-8"), flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def spread(mean: float, half: float | None, each: list[float] | None = None) -> dict[str, Any]:
    ends = {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    return {"mean": mean, **ends, "each": each or [mean, mean]}


def with_volumes(study: StudyData, differences: list[tuple[str, str, float, float | None]]) -> StudyData:
    listed = [{"first": a, "second": b, **spread(mean, half)} for a, b, mean, half in differences]
    return replace(study, combined={**study.combined, "differences": listed})


@pytest.fixture(scope="module")
def study() -> StudyData:
    return study_data(2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(study_data(2), tmp_path_factory.mktemp("study"))


def test_the_page_has_every_figure_as_png_svg_and_csv(written: Path) -> None:
    assert set(specs(written)) == EVERY
    for name in EVERY:
        files = {suffix: written.parent / f"figures/{name}.{suffix}" for suffix in ("png", "svg", "csv")}
        assert files["png"].read_bytes().startswith(b"\x89PNG") and files["svg"].read_text("utf-8").count("<path") > 3
        assert len(files["csv"].read_text("utf-8").splitlines()) > 1


def test_the_page_links_to_each_seeds_report_to_its_own_files_and_nowhere_else(written: Path) -> None:
    links = re.findall(r'href="([^"]+)"', re.sub(r"<script.*?</script>", "", written.read_text("utf-8"), flags=re.S))
    assert [link for link in links if link.startswith("seed-")] == [f"seed-{seed}/report.html" for seed in range(3)]
    others = {link for link in links if not link.startswith("seed-")}
    assert others == {f"figures/{path.name}" for path in (written.parent / "figures").iterdir()}
    assert "seeds 0, 1, 2" in visible(written) and "seeds: [0, 1, 2]" in visible(written)


@pytest.mark.parametrize(("n", "seeds"), [(1, 1), (1, 2), (3, 2), (5, 1)])
def test_every_figure_that_has_data_is_drawn_for_n_values_and_any_number_of_seeds(n: int, seeds: int) -> None:
    study = study_data(n, seeds)
    drawn = set()
    for name, figure in figures(study).items():
        table = figure.table(study)
        if table.rows:
            drawn.add(name)
            assert standing(name, specified(figure, study, table), BLANK) and figure.caption(study, table)
    assert drawn == EVERY if n > 1 else drawn == EVERY - BETWEEN
    assert all("interval" in caption(study, name) for name in ("seeds", "frontiers"))
    assert ("one seed, which gives no interval" in caption(study, "seeds")) == (seeds == 1)


@pytest.mark.usefixtures("undrawn")
def test_one_value_and_one_seed_make_a_page(tmp_path: Path) -> None:
    path = write_study(study_data(1, 1, runs=[], families=[], expanding=[]), tmp_path)
    assert set(specs(path)) == {"seeds", "frontiers", "added-pairs", "optimism", "signs"}
    assert "one seed" in visible(path)


def test_a_study_without_filters_layers_or_expansions_shows_nothing_of_them() -> None:
    full = study_data(2, runs=[replace(run_data(2, 0), geometry={}, dependence={}, expansions={})] * 3, families=[])
    bare = replace(full, combined={**full.combined, "expansions": {}}, expanding=[])
    drawn = {name for name in figures(bare) if rows(bare, name)}
    assert drawn == EVERY - {"thresholds", "geometry", "dependence", "pass-at-n", "added-pairs"}
    assert not any("τ" in sentence for sentence in summarise_study(bare))


def test_names_are_text_on_the_page_whatever_they_hold(tmp_path: Path) -> None:
    results = [seed_results(2, seed) for seed in range(2)]
    for one in results:
        one["methods"]["merge"]["title"] = HOSTILE
    combined = titled(combine(results))
    study = study_data(2, 2, combined=combined, runs=[], families=[[HOSTILE, "Kept-7"]], title=HOSTILE)
    named = {"schema": 1, "values": combined["values"], "methods": {title: {} for title in combined["methods"]}}
    path = write_study(replace(study, results=named), tmp_path)
    assert path.read_text("utf-8").count("<script") == 4  # the page's own
    assert HOSTILE in visible(path) and specs(path)


def test_every_part_carries_the_methods_titles_but_the_base_keeps_its_name() -> None:
    combined = titled(combine([seed_results(2, seed) for seed in range(2)]))
    assert list(combined["methods"])[:2] == ["base", "Each"]
    for part in ("points", "candidates"):
        assert {row["method"] for row in combined[part]} <= set(combined["methods"])
    assert set(combined["geometry"]) == {"Merge", "Kept-0", "Kept-7"} and set(combined["filters"]) == {
        "Kept-0",
        "Kept-7",
    }
    assert {row["first"] for row in combined["differences"]} <= set(combined["methods"])


# Sentences


def test_the_summary_names_the_best_the_clear_differences_biggest_first_and_the_open_ones(study: StudyData) -> None:
    told = with_volumes(
        study,
        [
            ("Grown-20", "Grown-40", -0.02, 0.05),
            ("Grown-40", "Merge", 0.30, 0.10),
            ("Each", "Grown-40", -0.40, 0.10),
            ("Merge", "Kept-0", -0.05, 0.01),
            ("base", "Merge", -0.2, 0.1),
            ("base", "Each", -0.1, 0.3),
        ],
    )
    sentences = summarise_study(told)
    assert "Grown-40 has the largest mean hypervolume, Grown-20 the next." in sentences[0]
    assert "0.020 [−0.030, 0.070], which includes zero: 3 seeds do not tell them apart" in sentences[0]
    assert sentences[1].startswith("Hypervolume over 3 seeds, mean and 95% interval: Grown-40 0.9")
    assert sentences[2] == (
        "Grown-40 is ahead of Each by 0.400 [0.300, 0.500], Merge by 0.300 [0.200, 0.400], "
        "paired by seed and clear of zero."
    )
    assert sentences[3] == "Kept-0 is ahead of Merge by 0.050 [0.040, 0.060], paired by seed and clear of zero."
    assert "1 of 4 differences between methods; the biggest of them Grown-40 − Grown-20 0.020" in sentences[4]
    assert sentences[5] == "Clearly above the base model: 1 of 2 methods; not told apart from it: Each."


def test_one_seed_claims_no_difference() -> None:
    sentences = summarise_study(study_data(2, 1))
    assert "one seed does not tell whether that is more than chance" in sentences[0]
    assert any(sentence.startswith("One seed cannot tell a difference from chance") for sentence in sentences)
    assert not any("clear of zero" in sentence or "±" in sentence for sentence in sentences)


def test_the_summary_says_what_a_higher_threshold_does_to_the_vectors(study: StudyData) -> None:
    (sentence,) = (sentence for sentence in summarise_study(study) if sentence.startswith("As τ rises"))
    assert sentence.startswith("As τ rises from −1.00 (Merge) to 0.70 (Kept-7, 49% of the pairs kept): cosine of the ")
    assert "cosine of the vectors −0.09 ± 0.02 to 0.61 ± 0.02" in sentence  # 0, 0.01, 0.02 more: 4.30 · 0.01 / √3


def test_a_study_in_which_every_candidate_is_broken_names_no_best_method(study: StudyData) -> None:
    zero = {"mean": 0.0, "low": 0.0, "high": 0.0, "each": [0.0] * 3}
    methods = {name: {**of, "hypervolume": zero} for name, of in study.combined["methods"].items()}
    kept = [point for point in study.combined["points"] if point["method"] == "base"]
    said = summarise_study(replace(study, combined={**study.combined, "methods": methods, "points": kept}))
    assert said[0].startswith("Every hypervolume is 0")
    (absent,) = (sentence for sentence in said if sentence.startswith("Not in the first table"))
    assert all(name in absent for name in methods if name != "base")


def test_broken_text_is_a_caution(study: StudyData) -> None:
    points = [
        {**point, "fluency": spread(0.4, 0.1)} if point["method"] == "Cube" else point
        for point in study.combined["points"]
    ]
    assert not any(sentence.startswith("Caution") for sentence in summarise_study(study))
    told = summarise_study(replace(study, combined={**study.combined, "points": points}))
    (caution,) = (sentence for sentence in told if sentence.startswith("Caution"))
    assert "with a mean fluency below 0.80 (Cube 0.40)" in caution


def test_many_methods_make_a_short_summary() -> None:
    study = study_data(5, 2)
    assert len(summarise_study(study)) <= 10


# Tables


def test_the_policies_are_told_by_value_with_marks_for_filtering_and_merging(study: StudyData) -> None:
    table = points_table(study)
    assert list(table.headings[2:9]) == ["filtering", "kept", "τ", "merging", "helpful", "harmless", "average"]
    marks = {(row[0], row[1]): tuple(row[2:6]) for row in table.rows}
    assert marks["base", ""] == ("×", "–", "–", "×")
    assert marks["Each", "helpful"] == marks["Each", "harmless"] == ("×", "–", "–", "×")
    assert marks["Merge", "most balanced"] == ("×", "–", "–", "✓")
    assert marks["Kept-7", "most balanced"] == ("✓", "49%", "0.70", "✓")
    assert marks["Trained", "most balanced"] == ("×", "–", "–", "×")  # a training for every point
    row = next(row for row in table.rows if row[0] == "base")
    assert row[6:9] == ["−0.60 ± 0.00"] * 3
    seconds = [float(row[-1]) for row in table.rows]
    assert seconds == [13.0] * len(seconds)  # 10, 11, 12 of training and 2 of evaluation


def test_thresholds_that_differ_by_data_set_are_told_one_by_one(study: StudyData) -> None:
    mixed = {"helpful": {"tau": spread(-1, 0), "share": spread(1, 0)}}
    mixed["harmless"] = {"tau": spread(0.7, 0), "share": spread(0.3, 0)}
    changed = replace(study, combined={**study.combined, "filters": {"Kept-7": mixed}})
    row = next(row for row in points_table(changed).rows if row[0] == "Kept-7")
    assert row[3:5] == ["65%", "helpful −1.00, harmless 0.70"]


def test_one_value_needs_no_average_and_unknown_fluency_no_column() -> None:
    study = study_data(1, 2)
    points = [{**point, "fluency": None} for point in study.combined["points"]]
    headings = points_table(replace(study, combined={**study.combined, "points": points})).headings
    assert "average" not in headings and "fluency" not in headings


def test_differences_are_turned_to_be_positive_and_ordered_with_a_verdict(study: StudyData) -> None:
    told = with_volumes(study, [("Merge", "Each", -0.3, 0.1), ("Cube", "Each", 0.4, 0.5), ("Cube", "Merge", 0.1, None)])
    assert [row["mean"] for row in ordered_differences(told)] == [0.4, 0.3, 0.1]
    assert differences_table(told).rows == [
        ["Cube − Each", "0.400 [−0.100, 0.900]", "2 of 2", "includes zero"],
        ["Each − Merge", "0.300 [0.200, 0.400]", "2 of 2", "clear of zero"],
        ["Cube − Merge", "0.100", "2 of 2", "unknown: one seed"],
    ]


def test_the_methods_table_leaves_open_what_a_method_has_not(study: StudyData) -> None:
    table = {row[0]: row for row in methods_table(study).rows}
    assert table["Each"][3:6] == ["–", "–", "–"] and table["Kept-7"][3] == "0.61 ± 0.02"


# Families of methods


def methods(**given: Mapping[str, Any]) -> dict[str, Method]:
    return {name: Method.model_validate(choices) for name, choices in given.items()}


def test_families_hold_methods_that_differ_in_the_threshold_only() -> None:
    given = methods(
        plain={},
        other={"weights": {"kind": "simplex", "steps": 4}},
        low={"pairs": {"kind": "consistent", "tau": 0.0}},
        high={"pairs": {"kind": "consistent", "tau": "strict"}},
        share={"pairs": {"kind": "consistent", "keep": 0.3}},
        soft={"pairs": {"kind": "consistent", "soft": True}},
        likely={"pairs": {"kind": "consistent"}, "training": {"likelihood": 0.2}},
    )
    found = families(given, Consistent(), {"tau", "keep", "minimum_pairs"})
    assert found == [["plain", "low", "high", "share"], ["plain", "soft"]]


def test_families_of_expansions_differ_in_the_amount_only() -> None:
    given = methods(
        plain={"objective": {"kind": "mixed"}},
        few={"objective": {"kind": "mixed"}, "pairs": {"kind": "expanded", "most": 10}},
        many={"objective": {"kind": "mixed"}, "pairs": {"kind": "expanded"}},
        wide={"objective": {"kind": "mixed"}, "pairs": {"kind": "expanded", "rollouts": 4}},
        apart={"objective": {"kind": "sequential"}, "pairs": {"kind": "expanded"}},
    )
    assert families(given, Expanded(), {"prompts", "most"}) == [["plain", "few", "many"], ["plain", "wide"]]


def with_taus(study: StudyData, taus: dict[str, tuple[float, float]]) -> StudyData:
    filters = {
        method: {
            value: {"tau": spread(tau, 0.0), "share": spread(0.5, 0.0)}
            for value, tau in zip(study.values, of, strict=True)
        }
        for method, of in taus.items()
    }
    return replace(study, combined={**study.combined, "filters": filters})


def test_methods_of_one_family_are_ordered_by_their_threshold(study: StudyData) -> None:
    changed = with_taus(study, {"Kept-7": (0.0, 0.02), "Kept-0": (0.5, 0.5)})
    (series,) = changed.thresholds()
    assert series.name == "τ" and list(series.methods) == ["Merge", "Kept-7", "Kept-0"]
    assert series.methods == {"Merge": UNFILTERED, "Kept-7": pytest.approx(0.01), "Kept-0": 0.5}


def test_a_vector_that_stays_unfiltered_makes_a_series_of_the_other_ones_threshold(study: StudyData) -> None:
    changed = with_taus(study, {"Kept-7": (-1.0, 0.7), "Kept-0": (-1.0, 0.0)})
    (series,) = changed.thresholds()
    assert series.name == "τ of harmless"
    assert series.methods == {"Merge": UNFILTERED, "Kept-0": 0.0, "Kept-7": 0.7}
    assert {row["varied"] for row in rows(changed, "thresholds")} == {"τ of harmless"}


def test_methods_of_one_threshold_make_no_series(study: StudyData) -> None:
    assert replace(study, families=[["Kept-7", "Kept-7"]]).thresholds() == []


# Figures


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

    table = rows(study_data(2, 2, runs=[run(0.1, 0.3, 0.5, 0.5), run(0.3, 0.5, 0.5, 0.7)]), "geometry")
    cosine = [row for row in table if row["field"] == "cosine"]
    assert [(row["block"], row["y"]) for row in cosine] == [(0, pytest.approx(0.3)), (1, pytest.approx(0.55))]
    # Seeds 0.2 and 0.4: standard error 0.1; t(0.975, 1) = tan(0.475 π)
    assert cosine[0]["high"] == pytest.approx(0.3 + 0.1 * math.tan(0.475 * math.pi))


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
