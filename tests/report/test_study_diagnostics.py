"""What the page of a study shows of diagnostics: optimism, signs, conflict, merging, correlation."""

import re
from dataclasses import replace
from typing import Any

import pytest
from synthetic_study import caption, rows, study_data

from valuesoup.report.study import StudyData
from valuesoup.report.study_summary import summarise_study


def test_optimism_is_drawn_per_value_with_the_base_beside_it(study: StudyData) -> None:
    table = rows(study, "optimism")
    assert {row["dataset"] for row in table} == set(study.values)
    assert {row["method"] for row in table} == set(study.combined["methods"])
    (each,) = [row for row in table if row["method"] == "Each" and row["dataset"] == study.values[0]]
    assert each["mean"] == pytest.approx(0.11) and each["low"] < 0.11 < each["high"]
    assert "Merge 0.500 to 0.400" in caption(study, "optimism")
    broken = {**study.combined["methods"], "Merge": {**study.combined["methods"]["Merge"], "optimism": None}}
    without = replace(study, combined={**study.combined, "methods": broken})
    assert "Merge" not in {row["method"] for row in rows(without, "optimism")}


def test_signs_are_those_of_the_policies_of_the_first_table(study: StudyData) -> None:
    table = rows(study, "signs")
    labels = [row["label"] for row in table if str(row["dataset"]).startswith("KL")]
    assert len(labels) == len(set(labels)) == len(study.combined["points"])
    assert "Merge most balanced" in labels and "base" in labels
    (kl,) = [row for row in table if row["label"] == "Merge most balanced" and str(row["dataset"]).startswith("KL")]
    assert kl["mean"] == pytest.approx(2.0)


def test_conflict_names_what_it_was_measured_on_and_its_ceiling(study: StudyData) -> None:
    assert [(row["label"], row["method"], row["ceiling"]) for row in rows(study, "gradient-conflict")] == [
        ("all pairs", "base", pytest.approx(0.9)),
        ("Kept-7", "Kept-7", pytest.approx(0.9)),
    ]


def test_methods_that_share_vectors_share_a_line_and_costly_gaps_are_told(study: StudyData) -> None:
    table = rows(study, "connectivity")
    gaps = {row["label"]: row["mean"] for row in table if str(row["dataset"]).startswith("merging")}
    assert gaps == pytest.approx({"Merge and Each": 0.29, "Kept-7": -0.41})
    assert "Highest gap of each: Merge and Each 0.29 [" in caption(study, "connectivity")
    small = study_data(2).combined["connectivity"]
    for paths in small.values():
        for path in paths:
            path["largest_gap"] = {"mean": -0.0000123, "low": -0.00004, "high": 0.00001, "each": []}
    tiny = replace(study, combined={**study.combined, "connectivity": small})
    assert "−1.2e−05 [−4e−05, 1e−05]" in caption(tiny, "connectivity"), "not rounded to nothing"


def test_correlations_are_told_by_what_they_are_over() -> None:
    table = rows(study_data(3, 2), "correlation")
    assert len(table) == 2 * 3
    assert {row["label"] for row in table} == {"gaps of helpful", "answers"}
    assert len({row["dataset"] for row in table}) == 3


def test_a_study_without_diagnostics_shows_none_of_them() -> None:
    bare = study_data(2)
    parts: dict[str, Any] = {"conflict": {}, "connectivity": {}, "correlation": []}
    bare = replace(bare, combined={**bare.combined, **parts})
    assert all(not rows(bare, name) for name in ("gradient-conflict", "connectivity", "correlation"))
    said = " ".join(summarise_study(bare))
    assert "At the base, the gradients" not in said


def test_the_summary_tells_the_conflict_and_the_frontier_that_lost_most(study: StudyData) -> None:
    said = " ".join(summarise_study(study))
    assert "the gradients of helpful and harmless have a cosine of −0.19 ± 0.02 on all pairs, 0.71 ± 0.02 on" in said
    assert "on those that Kept-7 keeps." in said
    ends = r"0\.500 ± 0\.000 to 0\.400 ± 0\.000: by 0\.100 \[0\.100, 0\.100\], clear of zero\."
    assert re.search(rf"to test, the mean hypervolume of \w+ falls most, {ends}", said)
    study = study_data(2)
    for name, of in study.combined["methods"].items():
        if of["optimism"] and name != "base":
            of["optimism"]["test"] = {"mean": 0.4, "low": 0.0, "high": 0.8, "each": [0.7, 0.1, 0.4]}
    assert re.search(r"by 0\.100 \[−0\.645, 0\.845\], includes zero\.", " ".join(summarise_study(study)))
