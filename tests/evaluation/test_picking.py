"""Constraints, preferences and the knee: hand-worked points, any number of values, any units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from valuesoup.errors import UserError
from valuesoup.evaluation.frontier import pareto
from valuesoup.evaluation.picking import Constraint, from_box, knee, shortfalls, to_box, weighted

TABLES = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(-20, 20).map(float), min_size=n, max_size=n), min_size=1, max_size=12).map(
        np.array
    )
)


def best(scores: NDArray[np.float64]) -> int:
    """The place of the knee, as a picker takes it."""
    found = knee(scores)
    return int(max(range(len(scores)), key=lambda place: (bool(found.between[place]), found.distance[place])))


def test_the_knee_of_two_values_is_furthest_from_the_chord() -> None:
    scores = np.array([[0.0, 10.0], [6.0, 9.0], [9.0, 5.0], [10.0, 0.0], [5.0, 5.0]])
    found = knee(scores)
    # In units of the range the chord is x + y = 1, and a point is (x + y - 1)/√2 in front of it.
    assert found.distance == pytest.approx(np.array([0.0, 0.5, 0.4, 0.0, 0.0]) / np.sqrt(2))
    assert found.between.tolist() == [False, True, True, False, False]
    assert best(scores) == 1


def test_the_knee_of_three_values_is_furthest_from_the_plane() -> None:
    scores = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.5, 0.5, 0.5], [0.6, 0.4, 0.3]])
    assert knee(scores).distance == pytest.approx(np.array([0, 0, 0, 0.5, 0.3]) / np.sqrt(3))
    assert best(scores) == 3


def test_a_frontier_that_bends_inward_has_no_knee_and_the_least_behind_goes_first() -> None:
    scores = np.array([[0.0, 1.0], [0.4, 0.4], [0.2, 0.7], [1.0, 0.0]])
    found = knee(scores)
    assert found.distance.max() == 0.0
    assert best(scores) == 2


def test_one_value_has_its_best_candidate_and_one_candidate_is_itself() -> None:
    assert best(np.array([[1.0], [3.0], [2.0]])) == 1
    for n in (1, 2, 3, 5):
        found = knee(np.zeros((1, n)))
        assert found.distance.tolist() == [0.0]
        assert found.between.tolist() == [False]


def test_extremes_that_span_no_plane_leave_the_direction_that_weighs_all_values_alike() -> None:
    # The first candidate is the best on two of three values.
    scores = np.array([[5.0, 5.0, 0.0], [0.0, 0.0, 5.0], [4.0, 3.0, 3.0], [2.0, 2.0, 4.5]])
    assert best(scores) == 2


@settings(max_examples=60, deadline=None)
@given(TABLES, st.integers(0, 2**16))
def test_the_knee_is_on_the_frontier_and_no_change_of_units_moves_it(scores: NDArray[np.float64], seed: int) -> None:
    place, draw, front = best(scores), np.random.default_rng(seed), pareto(scores)
    found = knee(scores)
    if found.between.any():
        assert front[place]
    other = scores * draw.uniform(0.1, 9, scores.shape[1]) + draw.uniform(-9, 9, scores.shape[1])
    assert knee(other).distance[front] == pytest.approx(found.distance[front], abs=1e-6)
    order = draw.permutation(len(scores))
    assert knee(scores[order]).distance == pytest.approx(found.distance[order], abs=1e-9)


def test_shortfalls_by_hand() -> None:
    means = np.array([[0.5, 2.0], [0.1, 5.0], [0.3, 0.0]])
    rules = [Constraint(0, 0.4, True), Constraint(1, 4.0, False)]
    assert shortfalls(means, means, rules) == pytest.approx([0.0, np.hypot(0.3, 1.0), 0.1])
    assert shortfalls(means, means, []).tolist() == [0.0, 0.0, 0.0]
    # To be sure, a lower bound meets the low ends and an upper bound the high ones.
    assert shortfalls(means - 0.2, means + 3.0, rules) == pytest.approx([np.hypot(0.1, 1.0), np.hypot(0.5, 4.0), 0.3])


@settings(max_examples=60, deadline=None)
@given(TABLES, st.data())
def test_a_shortfall_is_zero_exactly_where_every_bound_is_kept(
    scores: NDArray[np.float64], data: st.DataObject
) -> None:
    n = scores.shape[1]
    rule = st.builds(Constraint, st.integers(0, n - 1), st.integers(-20, 20).map(float), st.booleans())
    rules = data.draw(st.lists(rule, max_size=4))
    keeps = [
        all(row[one.value] >= one.bound if one.at_least else row[one.value] <= one.bound for one in rules)
        for row in scores
    ]
    assert (shortfalls(scores, scores, rules) == 0).tolist() == keeps


def test_weights_count_as_shares_and_bad_ones_are_refused() -> None:
    scores = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert weighted(scores, [2, 1, 1]) == pytest.approx([0.5, 0.25])
    assert weighted(scores, [20, 10, 10]) == pytest.approx([0.5, 0.25])
    for bad in ([-1, 1, 1], [0, 0, 0], [float("nan"), 1, 1]):
        with pytest.raises(UserError, match="preference weights must be 0 or more, and one at least above 0"):
            weighted(scores, bad)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_box_units_are_0_at_the_reference_and_1_at_the_best(n: int) -> None:
    low, high = np.arange(n) - 3.0, np.arange(n) + 1.0
    assert to_box(low, low, high) == pytest.approx(np.zeros(n))
    assert to_box(high, low, high) == pytest.approx(np.ones(n))
    scores = np.linspace(-5, 5, 4 * n).reshape(4, n)
    assert from_box(to_box(scores, low, high), low, high) == pytest.approx(scores)
    assert to_box(scores, low, low) == pytest.approx(scores - low)  # no range: the score's own unit
