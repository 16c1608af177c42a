"""Families of a study's methods: those that differ in one setting are a series, in the order of that setting."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from synthetic_study import rows, spread

from valuesoup.methods import Consistent, Expanded, Method
from valuesoup.report.study import UNFILTERED, StudyData, families


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
