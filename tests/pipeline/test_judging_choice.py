"""Which policies and prompts of a run are judged: by name, by weights, and what is left out and said."""

from pathlib import Path
from typing import Any

import pytest

from tiny_judged import NOBODY_THERE, world_run
from valuesoup.errors import UserError
from valuesoup.pipeline.compared import read_weights
from valuesoup.pipeline.judging import Case, JudgeSettings


def test_methods_baselines_and_candidates_are_chosen_by_name(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    middle = "soup/helpful=0.5,harmless=0.5"
    case = Case(finished, JudgeSettings(NOBODY_THERE, methods=[middle, "vc-soup"], baselines=["dpo", "base", middle]))
    assert [(one.name, other.name) for one, other in case.comparisons] == [
        *((middle, name) for name in ("dpo", "base")),
        *(("vc-soup", name) for name in ("dpo", "base", middle)),
    ]
    assert case.comparisons[0][0].title == "SOUP helpful=0.5,harmless=0.5"
    assert case.comparisons[0][1].title == "DPO"


def test_weights_choose_the_candidate_of_every_method_that_has_them(tmp_path: Path) -> None:
    case = Case(world_run(tmp_path), JudgeSettings(NOBODY_THERE, weights=read_weights("harmless=0.5, helpful=.5")))
    assert {policy.id for both in case.comparisons for policy in both} == {
        "base",
        "soup/helpful=0.5,harmless=0.5",
        "vc-soup/helpful=0.5,harmless=0.5",
    }
    assert case.left_out == {"dpo": "it has no candidate with these weights that answered the test prompts"}


def test_values_measured_on_their_own_prompts_are_judged_on_those(tmp_path: Path) -> None:
    finished = world_run(tmp_path, 2, "evaluation.prompts=own")
    case = Case(finished, JudgeSettings(NOBODY_THERE))
    assert case.prompts == {"helpful": list(range(6)), "harmless": list(range(6, 12))}
    assert {
        value: len(places) for value, places in Case(finished, JudgeSettings(NOBODY_THERE, limit=4)).prompts.items()
    } == {
        "helpful": 4,
        "harmless": 4,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ["vc-sop"]}, r"has no method 'vc-sop'; did you mean 'vc-soup'\?"),
        ({"baselines": ["bas"]}, r"has no method 'bas'; did you mean 'base'\?"),
        ({"methods": ["soup/helpful=0.5,harmless=0.6"]}, r"did you mean 'soup/helpful=0.5,harmless=0.5'\?"),
        ({"weights": {"helpfull": 1.0}}, r"--weights: the run has no value 'helpfull'; did you mean 'helpful'\?"),
        ({"methods": ["dpo"], "weights": {"helpful": 0.5, "harmless": 0.5}}, "'dpo' .* has no candidate with these"),
        ({"methods": ["base"], "baselines": ["base"]}, "has no two policies to compare"),
    ],
)
def test_a_name_that_the_run_does_not_have_is_told_with_the_nearest(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Case(world_run(tmp_path), JudgeSettings(NOBODY_THERE, **changes))


def test_a_run_without_test_scores_has_nothing_to_judge(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    for row in finished.results["candidates"]:
        row["test"] = None
    with pytest.raises(
        UserError, match=r"no two policies to compare; .*soup: no candidate .* answered the test prompts"
    ):
        Case(finished, JudgeSettings(NOBODY_THERE))
    with pytest.raises(UserError, match=r"'soup/helpful=1,harmless=0' .* has not answered the test prompts"):
        Case(finished, JudgeSettings(NOBODY_THERE, methods=["soup/helpful=1,harmless=0"]))


def test_a_method_off_its_frontier_is_left_out_and_said(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    for row in finished.results["candidates"]:
        row["on_frontier"] = row["method"] != "vc-soup"
    case = Case(finished, JudgeSettings(NOBODY_THERE))
    assert case.left_out == {"vc-soup": "no candidate on its frontier has answered the test prompts"}
    with pytest.raises(UserError, match=r"'vc-soup' .* cannot be compared"):
        Case(finished, JudgeSettings(NOBODY_THERE, methods=["vc-soup"]))


@pytest.mark.parametrize("text", ["helpful", "helpful=", "helpful=half", "helpful=0.5;harmless=0.5"])
def test_weights_written_otherwise_are_told(text: str) -> None:
    with pytest.raises(UserError, match="write VALUE=WEIGHT,VALUE=WEIGHT"):
        read_weights(text)


@pytest.mark.parametrize("text", ["helpful=1,helpful=0.2", "helpful=1,harmless=0, helpful =1"])
def test_a_value_with_two_weights_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="'helpful' has a weight already; give each value one"):
        read_weights(text)
