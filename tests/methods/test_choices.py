"""The three choices of a method: what fits together, what does not and why, and the weight vectors that come of it."""

import itertools
import math
from typing import Any

import pytest
from pydantic import ValidationError

from valuesoup.errors import UserError
from valuesoup.methods import (
    Consistent,
    Cube,
    Decorrelated,
    Expanded,
    Independent,
    Margin,
    Method,
    Mixed,
    Points,
    Sequential,
    Simplex,
    Single,
    Sobol,
    Weighted,
)

COUNTS = [1, 2, 3, 5]


def values(n: int) -> list[str]:
    return [f"v{place}" for place in range(n)]


def complaint(n: int = 2, **choices: Any) -> str:
    """Return the one sentence that a method of these choices gets for n values."""
    try:
        Method.model_validate(choices).check(values(n))
    except ValidationError as error:
        # A list whose items are wrong is also reported as too short, which configurations do not repeat.
        (fault,) = [fault for fault in error.errors() if fault["type"] != "too_short"]
        return fault["msg"].removeprefix("Value error, ")
    except (ValueError, UserError) as error:
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError("nothing was wrong")


@pytest.mark.parametrize("objective", ["mixed", "sequential"])
@pytest.mark.parametrize("weights", ["simplex", "cube", "sobol"])
def test_a_finished_policy_takes_no_weights(objective: str, weights: str) -> None:
    said = complaint(objective={"kind": objective}, weights={"kind": weights})
    assert said == f"objective '{objective}' yields finished policies, so its weights are 'single'"
    assert Method.model_validate({"objective": {"kind": objective}}).weights == Single()


def test_a_margin_needs_a_grid_because_the_loss_divides_by_the_primary_weight() -> None:
    said = complaint(objective=Margin(), weights=Single())
    assert said == "objective 'margin' needs a weight above 0 for the primary value: give it a grid"
    assert Method(objective=Margin()).weights == Simplex()


@pytest.mark.parametrize("objective", [Mixed(), Sequential(), Weighted(), Margin()])
def test_finished_policies_cannot_be_composed_in_another_way(objective: Any) -> None:
    assert "has no vectors per value" in complaint(objective=objective, composition={"kind": "ties"})


@pytest.mark.parametrize("kind", ["factorwise", "ties", "dare", "magnitude", "svd"])
@pytest.mark.parametrize("objective", [Independent(), Decorrelated()])
def test_vectors_per_value_can_be_composed_in_any_way(kind: str, objective: Any) -> None:
    for n in COUNTS:
        Method.model_validate({"objective": objective, "composition": {"kind": kind}}).check(values(n))


def test_slerp_is_for_two_values_on_the_simplex() -> None:
    slerp = {"kind": "slerp"}
    Method.model_validate({"composition": slerp}).check(values(2))
    for n in (1, 3):
        assert f"slerp goes between two vectors, and there are {n} values" in complaint(n, composition=slerp)
    for weights in (Cube(levels=(0.1, 0.4)), Simplex(totals=(1.0, 1.5))):
        assert "composition 'slerp' takes weights on the simplex" in complaint(composition=slerp, weights=weights)


@pytest.mark.parametrize(
    ("orders", "says"),
    [
        ("al", "orders are given, all, or a list of orders, each a list of the values"),
        ((), "orders are given, all, or a list of orders, each a list of the values"),
        (("v0", "v1"), "orders are given, all, or a list of orders, each a list of the values"),
        (7, "orders are given, all, or a list of orders, each a list of the values"),
        ((("v0",),), "an order must hold each of v0, v1 once, not v0"),
        ((("v0", "v0"),), "an order must hold each of v0, v1 once, not v0, v0"),
        ((("v0", "v1", "v2"),), "an order must hold each of v0, v1 once, not v0, v1, v2"),
        ((("v1", "v0"), ("v1", "v0")), "the order v1, v0 is given twice"),
    ],
)
def test_orders_that_are_none_are_told_in_one_sentence(orders: Any, says: str) -> None:
    assert complaint(objective={"kind": "sequential", "orders": orders}) == says


def test_all_orders_are_for_at_most_three_values() -> None:
    every = Sequential(orders="all")
    for n in (1, 2, 3):
        every.check(values(n))
    for n in (4, 5):
        assert (
            complaint(n, objective=every) == f"{n} values have too many orders to train them all; list those you want"
        )
        Sequential(orders=(tuple(reversed(values(n))),)).check(values(n))


@pytest.mark.parametrize("objective", [Weighted(), Margin()])
@pytest.mark.parametrize("row", [{"v0": 0.0, "v1": 0.0}, {"v0": 2.0, "v1": -1.0}])
def test_a_training_cannot_weigh_its_pairs_by_nothing_or_less(objective: Any, row: dict[str, float]) -> None:
    said = complaint(objective=objective, weights={"kind": "points", "rows": [row]})
    assert said.endswith("weights are 0 or more, and one at least is above 0")
    assert str(list(row.values())) in said


def test_a_mixture_may_weigh_a_vector_negatively() -> None:
    Method(objective=Independent(), weights=Points(rows=({"v0": 2.0, "v1": -1.0},))).check(values(2))


@pytest.mark.parametrize(("primary", "named"), [(None, "v0"), ("v1", "v1")])
def test_a_point_must_weigh_the_primary_value(primary: str | None, named: str) -> None:
    other = {"v0": "v1", "v1": "v0"}[named]
    said = complaint(objective=Margin(primary=primary), weights=Points(rows=({named: 1.0}, {other: 1.0})))
    assert said == f"the weight of the primary value '{named}' must be above 0 in every point"


def test_a_grid_may_hold_points_without_the_primary_value_which_are_not_trained() -> None:
    for n in COUNTS:
        Method(objective=Margin(), weights=Simplex()).check(values(n))


def test_a_primary_value_must_be_a_value_and_only_models_rewards_are_normalised() -> None:
    assert complaint(objective=Margin(primary="v7")) == "primary 'v7' is none of the values v0, v1"
    said = complaint(objective={"kind": "margin", "normalise": True})
    assert said == "normalise divides the rewards of models; implicit rewards share one scale, β"
    Margin(rewards="models", normalise=True)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (Consistent(tau={"v0": 0.5}), "tau must name the values v0, v1"),
        (Consistent(tau={"v0": 0.5, "v1": 0.5, "v2": 0.5}), "tau must name the values v0, v1"),
        (Expanded(thresholds={"v0": 1.0}), "thresholds must name the values v0, v1"),
        (Expanded(filter=Consistent(tau={"v1": 0.5})), "tau must name the values v0, v1"),
        (Expanded(filter=Consistent(tau=-0.5, flip=True)), "flip needs a tau above 0, not -0.5"),
    ],
)
def test_thresholds_per_value_name_the_values(pairs: Any, says: str) -> None:
    assert complaint(pairs=pairs).startswith(says)


@pytest.mark.parametrize("tau", [0, -0.2, "positive", "lenient", {"v0": 0.7, "v1": 0.0}])
def test_pairs_are_flipped_only_above_a_threshold_of_zero(tau: Any) -> None:
    said = complaint(pairs={"kind": "consistent", "tau": tau, "flip": True})
    assert said.startswith("flip needs a tau above 0, not ")
    assert said.endswith(": else a pair counts on both sides")


@pytest.mark.parametrize("tau", [0.1, "strict", "auto", {"v0": "auto", "v1": 0.3}])
def test_any_threshold_above_zero_can_flip(tau: Any) -> None:
    Consistent(tau=tau, flip=True).check(values(2))


def test_a_strict_threshold_of_one_value_is_zero_and_cannot_flip() -> None:
    assert "flip needs a tau above 0, not strict" in complaint(1, pairs=Consistent(tau="strict", flip=True))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ({"tau": 1.5}, "The consistency threshold is 1.5; it must be a number in [-1, 1] or a name."),
        ({"tau": "atuo"}, "There is no consistency threshold named 'atuo'"),
        ({"tau": {"v0": 0.1, "v1": 3}}, "The consistency threshold is 3"),
        ({"tau": [0.5]}, "a threshold is a number in [-1, 1] or one of strict, positive, lenient and auto"),
        ({"tau": True}, "The consistency threshold is True"),
        ({"tau": 0.5, "keep": 0.5}, "give either tau or keep, not both"),
        ({"keep": 0}, "Input should be greater than 0"),
        ({"minimum_pairs": 0}, "Input should be greater than 0"),
    ],
)
def test_a_wrong_filter_is_told_in_one_sentence(pairs: dict[str, Any], says: str) -> None:
    assert complaint(pairs={"kind": "consistent", **pairs}).startswith(says)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"kind": "simplex", "steps": 0}, "Input should be greater than 0"),
        ({"kind": "simplex", "steps": 10**7}, "A weight space of 10000001 candidates"),
        ({"kind": "simplex", "totals": [0.0]}, "Input should be greater than 0"),
        ({"kind": "simplex", "totals": [-1.0]}, "Input should be greater than 0"),
        ({"kind": "cube", "levels": [0.5, 0.5]}, "The levels of a cube are [0.5, 0.5]; they must be different"),
        ({"kind": "cube", "levels": [math.inf]}, "Input should be a finite number"),
        ({"kind": "sobol", "points": 0}, "Input should be greater than 0"),
        ({"kind": "sobol", "points": 10**8}, "A weight space of 100000000 candidates"),
        ({"kind": "sobol", "low": 1.0}, "the cube goes from 1.0 to 1.0; high must be above low"),
        ({"kind": "sobol", "low": 2.0}, "the cube goes from 2.0 to 1.0; high must be above low"),
        ({"kind": "sobol", "high": math.nan}, "Input should be a finite number"),
        ({"kind": "points", "rows": [{"v2": 1.0}]}, "a point weighs 'v2', which is none of the values v0, v1"),
        (
            {"kind": "points", "rows": [{"v0": 1}, {"v0": 1, "v1": 0}]},
            "the point {'v0': 1.0, 'v1': 0.0} is given twice",
        ),
        ({"kind": "points", "rows": [{"v0": math.nan}]}, "Input should be a finite number"),
    ],
)
def test_wrong_weights_are_told_in_one_sentence_before_anything_is_planned(weights: dict[str, Any], says: str) -> None:
    assert complaint(weights=weights).startswith(says)


def rows(n: int, weights: Any) -> list[tuple[float, ...]]:
    found = Method(objective=Independent(), weights=weights).rows(values(n))
    assert len(set(found)) == len(found)
    assert all(len(row) == n and all(type(weight) is float for weight in row) for row in found)
    return found


@pytest.mark.parametrize("n", COUNTS)
def test_single_weights_are_the_vectors_alone_in_their_order(n: int) -> None:
    assert rows(n, Single()) == [tuple(float(i == j) for j in range(n)) for i in range(n)]


@pytest.mark.parametrize("n", COUNTS)
def test_the_simplex_holds_every_composition_of_its_steps_at_every_total(n: int) -> None:
    grid = rows(n, Simplex(steps=4))
    assert len(grid) == math.comb(4 + n - 1, n - 1)
    assert set(rows(n, Single())) <= set(grid)
    assert all(abs(sum(row) - 1) < 1e-12 for row in grid)
    longer = rows(n, Simplex(steps=4, totals=(1.0, 1.5)))
    assert longer == grid + [tuple(1.5 * weight for weight in row) for row in grid]
    assert rows(n, Simplex(steps=4, totals=(1.0, 1.0))) == grid


@pytest.mark.parametrize("n", COUNTS)
def test_the_cube_holds_every_combination_of_its_levels(n: int) -> None:
    assert rows(n, Cube(levels=(0.1, 0.5, 1.0))) == list(itertools.product((0.1, 0.5, 1.0), repeat=n))
    assert len(rows(min(n, 3), Cube())) == 10 ** min(n, 3)


@pytest.mark.parametrize("n", COUNTS)
def test_sobol_points_lie_in_their_cube_and_are_the_same_each_time(n: int) -> None:
    box = Sobol(points=16, low=0.2, high=1.4)
    found = rows(n, box)
    assert len(found) == 16
    assert all(0.2 <= weight <= 1.4 for row in found for weight in row)
    assert rows(n, box) == found
    for axis in range(n):  # even cover: one point in each sixteenth of every axis
        assert sorted(int((row[axis] - 0.2) / 1.2 * 16) for row in found) == list(range(16))


@pytest.mark.parametrize("n", COUNTS)
def test_points_are_taken_as_given_and_a_value_left_out_weighs_nothing(n: int) -> None:
    last = values(n)[-1]
    found = rows(n, Points(rows=({last: 0.25}, dict.fromkeys(values(n), 2.0))))
    assert found == [(0.0,) * (n - 1) + (0.25,), (2.0,) * n]
