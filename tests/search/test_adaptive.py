"""Adaptive search: the start covers the space, proposals are new points of the grid that add most hypervolume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.evaluation.frontier import hypervolume
from valuesoup.search import cube_grid, propose, simplex_grid, sobol, start, start_size


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_start_on_the_simplex_holds_every_vector_alone(n):
    grid = simplex_grid(n, 6)
    places = start(grid, start_size(n))
    assert len(set(places)) == len(places) == min(start_size(n), len(grid))
    assert {tuple(row) for row in grid[places[:n]]} == {tuple(row) for row in np.eye(n)}


def test_a_start_on_an_extrapolating_simplex_holds_the_longest_vectors():
    grid = np.concatenate([simplex_grid(2, 4), 1.5 * simplex_grid(2, 4)])
    assert grid[start(grid, 2)].tolist() == [[1.5, 0.0], [0.0, 1.5]]


def test_a_start_fills_the_widest_gap_next():
    grid = simplex_grid(2, 8)
    assert [float(grid[place, 0]) for place in start(grid, 5)] == [1.0, 0.0, 0.5, 0.75, 0.25]


@given(st.integers(1, 4), st.integers(1, 40), st.sampled_from(["cube", "sobol", "simplex"]))
@settings(max_examples=40, deadline=None)
def test_a_start_is_unique_and_never_larger_than_the_grid(n, count, kind):
    grid = {"cube": cube_grid(n, [0.1, 0.5, 1.0]), "sobol": sobol(n, 16), "simplex": simplex_grid(n, 4)}[kind]
    places = start(grid, count)
    assert len(places) == len(set(places)) == min(count, len(grid))
    assert all(0 <= place < len(grid) for place in places)


def volume(scores):
    return hypervolume(scores, np.zeros(np.shape(scores)[1]))


def test_the_next_candidate_adds_most_volume():
    # Above (0, 0), beside (3, 1) and (1, 3): (2, 2) adds 1, (2.9, 1.5) adds 0.95, (0.5, 0.5) nothing.
    expected = [[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [2.9, 1.5], [0.5, 0.5]]
    assert propose(expected, [0, 1], 1, volume) == [2]
    # With (2, 2) taken, (2.9, 1.5) adds 0.9 * 0.5, and what adds nothing comes last.
    assert propose(expected, [0, 1], 9, volume) == [2, 3, 4]
    assert propose(expected, [0, 1, 2, 3, 4], 2, volume) == []


def test_of_candidates_that_add_nothing_the_one_that_falls_short_by_least_comes_first():
    expected = [[3.0, 3.0], [0.1, 0.1], [2.9, 2.0], [2.0, 2.8]]
    assert propose(expected, [0], 3, volume) == [2, 3, 1]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_proposals_are_unique_unmeasured_points_of_the_grid(n, seed):
    rng = np.random.default_rng(seed)
    expected = rng.uniform(0.1, 1, size=(25, n))
    measured = rng.choice(25, 7, replace=False).tolist()
    found = propose(expected, measured, 6, volume)
    assert len(found) == len(set(found)) == 6
    assert not set(found) & set(measured)
    assert all(0 <= place < 25 for place in found)
    # Greedily: no other candidate would have added more than the first.
    gains = [volume(expected[[*measured, place]]) for place in range(25)]
    assert gains[found[0]] == pytest.approx(max(gains), rel=1e-12)


def test_values_all_of_one_score_are_no_trouble():
    assert len(propose(np.ones((5, 2)), [0], 2, volume)) == 2
