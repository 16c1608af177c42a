"""Picking from the results of a run: by constraints, preference or knee, on the right figures, with clear refusals."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from valuesoup.errors import UserError
from valuesoup.pipeline.picking import pick

NAMES = ("kind", "short", "true", "calm", "clear")


def scores(means: Sequence[float], half: float) -> dict[str, Any]:
    return {
        name: {"mean": mean, "low": mean - half, "high": mean + half} for name, mean in zip(NAMES, means, strict=False)
    }


def candidate(identity: str, means: Sequence[float], **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "method": identity.partition("/")[0],
        "weights": None if ">" in identity else dict.fromkeys(NAMES[: len(means)], 0.5),
        "validation": scores(means, 0.2),
        "test": scores([mean + 1 for mean in means], 0.1),
        "on_frontier": True,
        "outside_simplex": False,
        "quality": None,
        **more,
    }


def method(name: str) -> dict[str, Any]:
    costs = {"trainings": 1, "trained_pairs": 9, "train_seconds": 1.0, "expand_seconds": 0, "evaluate_seconds": 1.0}
    return {"title": name, "hypervolume": {"value": 0.5, "low": 0.4, "high": 0.6}, "frontier_points": 1, **costs}


def run(folder: Path, rows: Sequence[Mapping[str, Any]], n: int = 2) -> Path:
    names = NAMES[:n]
    base = candidate("base", [9.0] * n)
    results = {
        "schema": 1,
        "values": list(names),
        "candidates": [base, *rows],
        **{"seed": 0, "filters": {}, "geometry": {}, "expansions": {}},
        "methods": {name: method(name) for name in dict.fromkeys(["base", *(row["method"] for row in rows)])},
        "reference_point": dict.fromkeys(names, 0.0),
        "best_point": dict(zip(names, [10.0, 1.0, 1.0, 1.0, 1.0], strict=False)),
    }
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> Path:
    rows = [
        candidate("mix/a", [0.0, 1.0]),
        candidate("mix/b", [6.0, 0.9]),
        candidate("mix/c", [9.0, 0.5]),
        candidate("order/x>y", [10.0, 0.0]),
        candidate("mix/broken", [10.0, 1.0], on_frontier=False),
    ]
    return run(tmp_path / "my run", rows)


def test_a_constraint_and_a_value_to_maximise(two: Path) -> None:
    found = pick(two, minimum={"short": 0.5}, maximise="kind")
    assert (found.id, found.feasible, found.considered) == ("mix/c", 3, 4)
    assert [other.id for other in found.runners_up] == ["mix/b", "mix/a"]
    assert found.why == (
        "of the 3 candidates that have short ≥ 0.5 it scores highest on kind (on the validation prompts)"
    )
    assert found.validation["kind"] == (9.0, 8.8, 9.2)
    assert found.test is not None
    assert found.test["kind"].mean == 10.0


def test_being_sure_asks_the_end_of_the_interval(two: Path) -> None:
    assert pick(two, minimum={"short": 0.5}, maximise="kind", sure=True).id == "mix/b"
    assert pick(two, maximum={"kind": 9.1}, maximise="kind").id == "mix/c"
    assert pick(two, maximum={"kind": 9.1}, maximise="kind", sure=True).id == "mix/b"


def test_bounds_in_box_units_are_shares_of_the_way_to_the_best(two: Path) -> None:
    found = pick(two, minimum={"kind": 0.6}, maximise="short", unit="box")
    assert found.id == "mix/b"
    assert "kind ≥ 6" in found.why


def test_the_knee_is_the_default_and_keeps_to_the_constraints(two: Path) -> None:
    found = pick(two)
    assert found.id == "mix/b"
    assert "is the knee" in found.why
    assert pick(two, minimum={"kind": 7}).id == "mix/c"


def test_preference_weights_count_in_box_units_not_in_the_rewards_own(two: Path) -> None:
    assert pick(two, weights={"kind": 1, "short": 1}).id == "mix/b"  # 0.75, against 0.70 of mix/c
    assert pick(two, weights={"kind": 3, "short": 1}).id == "mix/c"
    assert pick(two, weights={"short": 1}).id == "mix/a"
    assert pick(two, weights={"kind": 1}, method="mix").id == "mix/c"


def test_a_candidate_without_a_dial_is_picked_and_exported_by_its_id(two: Path) -> None:
    found = pick(two, maximise="kind")
    assert (found.id, found.weights) == ("order/x>y", None)
    words = shlex.split(found.command)
    assert words[:2] == ["valuesoup", "export"]
    assert words[2:5] == [str(two), "--candidate", "order/x>y"]
    assert words[5:] == ["--to", "exports/order-x-y"]


def test_validation_chooses_unless_test_is_asked_for(tmp_path: Path) -> None:
    rows = [
        candidate("mix/a", [1.0, 0.5], test=scores([0.0, 0.0], 0.1)),
        candidate("mix/b", [0.0, 0.0], test=scores([1.0, 0.5], 0.1)),
    ]
    folder = run(tmp_path / "run", rows)
    assert pick(folder, maximise="kind").id == "mix/a"
    assert pick(folder, maximise="kind", on="test").id == "mix/b"


def test_a_search_that_smoothed_its_figures_is_picked_from_by_those(tmp_path: Path) -> None:
    rows = [candidate("mix/a", [5.0, 0.5], smoothed=scores([1.0, 0.5], 0.1)), candidate("mix/b", [4.0, 0.5])]
    assert pick(run(tmp_path / "run", rows), maximise="kind").id == "mix/b"


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_any_number_of_values(n: int, tmp_path: Path) -> None:
    corners = [candidate(f"mix/{place}", [float(place == other) for other in range(n)]) for place in range(n)]
    folder = run(tmp_path / "run", [*corners, candidate("mix/all", [0.9] * n)], n)
    assert pick(folder).id == ("mix/0" if n == 1 else "mix/all")
    assert pick(folder, maximise=NAMES[n - 1]).id == f"mix/{n - 1}"
    assert pick(folder, minimum=dict.fromkeys(NAMES[:n], 0.5), maximise="kind").feasible == (2 if n == 1 else 1)


def test_what_no_candidate_meets_is_answered_with_the_nearest_and_how_far_it_is(two: Path) -> None:
    with pytest.raises(UserError) as refused:
        pick(two, minimum={"short": 0.8, "kind": 8})
    assert str(refused.value) == (
        "no candidate has short ≥ 0.8 and kind ≥ 8 on the validation prompts; the nearest is mix/b with kind at 6, "
        "short by 2."
    )
    with pytest.raises(
        UserError, match=r"short ≥ 0\.95 for sure .* nearest is mix/a with short perhaps as low as 0\.8, short by 0\.15"
    ):
        pick(two, minimum={"short": 0.95}, sure=True)


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"minimum": {"shrot": 1}}, "minimum: the run has no value 'shrot'; did you mean 'short'?"),
        ({"maximise": "knid"}, "maximise: the run has no value 'knid'; did you mean 'kind'?"),
        ({"weights": {"true": 1}}, "weights: the run has no value 'true'"),
        ({"weights": {}}, "the preference weights are empty"),
        ({"weights": {"kind": -1}}, "preference weights must be 0 or more"),
        ({"weights": {"kind": 1}, "maximise": "kind"}, "not both"),
        ({"minimum": {"kind": float("nan")}}, "the minimum of 'kind' must be a finite number"),
        ({"minimum": {"kind": 2}, "maximum": {"kind": 1}}, "'kind' cannot be at least 2 and at most 1"),
        ({"method": "mxi"}, "has no method 'mxi' to pick from; did you mean 'mix'?"),
        ({"method": "base"}, "has no method 'base' to pick from"),
        ({"on": "tset"}, "'tset' is none of validation, test; did you mean 'test'?"),
        ({"unit": "boxes"}, "'boxes' is none of reward, box; did you mean 'box'?"),
    ],
)
def test_a_wish_that_makes_no_sense_gets_one_sentence(wishes: dict[str, Any], sentence: str, two: Path) -> None:
    with pytest.raises(UserError) as refused:
        pick(two, **wishes)
    assert sentence in str(refused.value)


def test_no_run_an_unfinished_one_a_study_and_a_run_of_broken_text_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        pick(tmp_path / "none")
    (tmp_path / "begun").mkdir()
    with pytest.raises(UserError, match=r"begun is not a run folder: it has no config\.yaml"):
        pick(tmp_path / "begun")
    (tmp_path / "begun" / "config.yaml").write_text("")
    with pytest.raises(UserError, match="the run has not finished"):
        pick(tmp_path / "begun")
    broken = run(tmp_path / "broken", [candidate("mix/a", [1.0, 1.0], on_frontier=False)])
    with pytest.raises(UserError, match="below the fluency bound"):
        pick(broken)
