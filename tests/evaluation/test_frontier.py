"""Frontier and hypervolume against brute force, for one to five values."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from valuesoup.errors import UserError
from valuesoup.evaluation import frontier
from valuesoup.evaluation.frontier import hypervolume, normalised_hypervolume, pareto, reference_point

sizes = st.sampled_from([1, 2, 3, 5])
# Few distinct numbers, so that ties and duplicates are common.
grids = sizes.flatmap(
    lambda n: arrays(np.float64, st.tuples(st.integers(1, 12), st.just(n)), elements=st.integers(-3, 3).map(float))
)


def brute_pareto(points):
    return [not any((q >= p).all() and (q > p).any() for q in points) for p in points]


def brute_volume(points, reference):
    """Count the unit cells below some point, for whole numbers."""
    ranges = [range(int(r), int(max(points[:, j].max(), r))) for j, r in enumerate(reference)]
    cells = np.array(list(product(*ranges)), dtype=float).reshape(-1, points.shape[1])
    return sum(any((cell + 1 <= p).all() for p in points) for cell in cells)


def test_a_worked_frontier_where_duplicates_stay():
    scores = [[1, 3], [2, 2], [3, 1], [1, 1], [2, 2], [2, 1], [3, 0]]
    assert pareto(scores).tolist() == [True, True, True, False, True, False, False]


@given(grids)
def test_the_frontier_equals_brute_force(points):
    assert pareto(points).tolist() == brute_pareto(points)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_frontier_of_many_continuous_points_equals_brute_force(n):
    points = np.random.default_rng(n).normal(size=(300, n))
    points[:20] = points[20:40]
    assert pareto(points).tolist() == brute_pareto(points)


def test_zero_and_negative_zero_are_duplicates():
    assert pareto([[0.0, 1.0], [-0.0, 1.0]]).tolist() == [True, True]


def test_no_candidate_gives_an_empty_frontier():
    assert pareto(np.zeros((0, 2))).shape == (0,)
    assert hypervolume(np.zeros((0, 2)), [0, 0]) == 0


@given(grids)
def test_the_hypervolume_equals_counted_cells(points):
    reference = np.full(points.shape[1], -2.0)
    if points.shape[1] == 5:
        reference += 2
    assert hypervolume(points, reference) == pytest.approx(brute_volume(points, reference))


def test_a_worked_hypervolume():
    assert hypervolume([[1, 3], [2, 2], [3, 1]], reference=[0, 0]) == 6
    assert hypervolume([[2.5]], reference=[1]) == 1.5
    assert hypervolume([[0, 5], [5, 0]], reference=[0, 0]) == 0


def test_dominated_candidates_add_nothing():
    assert hypervolume([[2, 2], [1, 1], [2, 1]], [0, 0]) == hypervolume([[2, 2]], [0, 0]) == 4


def test_the_reference_is_a_tenth_of_the_range_below_the_worst():
    np.testing.assert_allclose(reference_point([[0, 10], [5, 30], [10, 20]]), [-1, 8])


def test_a_value_without_range_still_leaves_a_box():
    np.testing.assert_allclose(reference_point([[1, 5], [2, 5]]), [0.9, 4.9])
    np.testing.assert_allclose(reference_point([[7.0]]), [6.9])


@given(grids)
def test_the_normalised_hypervolume_is_a_share_of_the_box(points):
    reference, best = reference_point(points), points.max(axis=0)
    share = normalised_hypervolume(points, reference, best)
    assert 0 <= share <= 1 + 1e-9
    assert share == pytest.approx(hypervolume(points, reference) / np.prod(best - reference))
    assert normalised_hypervolume(best[None], reference, best) == pytest.approx(1)


def test_scores_beyond_the_best_are_not_cut_there():
    assert normalised_hypervolume([[9, 1]], [0, 0], [2, 2]) == pytest.approx(2.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_name_the_candidate(bad):
    with pytest.raises(UserError, match="candidate 1"):
        pareto([[1, 2], [bad, 2]])
    with pytest.raises(UserError, match="candidate 0"):
        hypervolume([[bad, 2]], [0, 0])


def test_shapes_and_corners_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="shape"):
        pareto([1, 2, 3])
    with pytest.raises(UserError, match="reference point"):
        hypervolume([[1, 2]], [0])
    with pytest.raises(UserError, match="reference point"):
        hypervolume([[1, 2]], [0, np.nan])
    with pytest.raises(UserError, match="above its reference"):
        normalised_hypervolume([[1, 2]], [0, 0], [1, 0])
    with pytest.raises(UserError, match="at least one candidate"):
        reference_point(np.zeros((0, 2)))


def sphere(count, values):
    """Points of which none dominates another, on scales as far apart as those of rewards."""
    points = np.abs(np.random.default_rng(0).normal(size=(count, values)))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * 10.0 ** np.arange(values)


@pytest.mark.parametrize(("count", "values"), [(4_000, 5), (700, 6), (150, 7)])
def test_the_volume_of_a_huge_frontier_is_near_the_exact_one(count, values, monkeypatch):
    points = sphere(count, values)
    dominated = np.concatenate([points, points * 0.5])
    exact = hypervolume(dominated, np.zeros(values))
    monkeypatch.setattr(frontier, "EXACT", dict.fromkeys(range(5, 10), 10))
    monkeypatch.setattr(frontier, "_PROJECTIONS", 200_000_000)
    near = hypervolume(dominated, np.zeros(values))
    assert near != exact
    assert near == pytest.approx(exact, rel=2e-3)
    assert near == hypervolume(dominated, np.zeros(values))


def test_dominated_candidates_do_not_make_a_volume_approximate(monkeypatch):
    points = sphere(30, 5)
    exact = hypervolume(points, np.zeros(5))
    monkeypatch.setattr(frontier, "EXACT", {5: 40})
    assert hypervolume(np.concatenate([points, points * 0.9]), np.zeros(5)) == pytest.approx(exact, rel=1e-12)
