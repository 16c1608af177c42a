"""Weight spaces: complete, ordered, on the simplex to the last bit, and reproducible."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.search import cube_grid, dirichlet, simplex_grid, sobol


def test_two_values_walk_from_the_first_to_the_second():
    np.testing.assert_array_equal(simplex_grid(2, 4), [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]])


def test_three_values_in_two_steps():
    expected = [[2, 0, 0], [1, 1, 0], [1, 0, 1], [0, 2, 0], [0, 1, 1], [0, 0, 2]]
    np.testing.assert_array_equal(simplex_grid(3, 2), np.array(expected) / 2)


def test_one_value_has_one_point():
    np.testing.assert_array_equal(simplex_grid(1, 10), [[1.0]])


@given(st.sampled_from([1, 2, 3, 5]), st.integers(1, 9))
def test_the_simplex_grid_is_every_composition_once(n, steps):
    grid = simplex_grid(n, steps)
    counted = {row for row in product(range(steps + 1), repeat=n) if sum(row) == steps}
    assert {tuple(round(x * steps) for x in row) for row in grid} == counted
    assert len(grid) == len(counted)
    assert all(math.fsum(row) == pytest.approx(1, abs=2.3e-16, rel=0) for row in grid)
    np.testing.assert_array_equal(grid * steps, np.round(grid * steps))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_value_alone_is_on_the_grid(n):
    rows = {tuple(row) for row in simplex_grid(n, 10)}
    assert rows >= {tuple(row) for row in np.eye(n)}


def test_the_cube_holds_all_combinations_with_the_last_value_fastest():
    np.testing.assert_array_equal(cube_grid(2, [0.1, 1.0]), [[0.1, 0.1], [0.1, 1.0], [1.0, 0.1], [1.0, 1.0]])
    assert cube_grid(3, [0.1 * i for i in range(1, 11)]).shape == (1000, 3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_sobol_points_are_seeded_inside_the_cube_and_even(n):
    points = sobol(n, 64, 0.1, 1.0, seed=7)
    assert points.shape == (64, n)
    assert points.dtype == np.float64
    assert ((points >= 0.1) & (points <= 1.0)).all()
    np.testing.assert_array_equal(points, sobol(n, 64, 0.1, 1.0, seed=7))
    assert (points != sobol(n, 64, 0.1, 1.0, seed=8)).any()
    # The first 2^k points hold one point in each of 2^k equal slices of every axis.
    slices = np.floor((points - 0.1) / 0.9 * 64).clip(0, 63)
    for axis in range(n):
        assert len(set(slices[:, axis])) == 64


def test_sobol_leaves_the_global_random_state_alone():
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sobol(3, 8, seed=1)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_dirichlet_points_are_seeded_and_on_the_simplex(n):
    points = dirichlet(n, 500, seed=1)
    assert points.shape == (500, n)
    assert (points >= 0).all()
    assert all(abs(math.fsum(row) - 1) <= 2.3e-16 for row in points)
    np.testing.assert_array_equal(points, dirichlet(n, 500, seed=1))
    np.testing.assert_allclose(points.mean(axis=0), 1 / n, atol=0.06)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: simplex_grid(0, 4), "n of a weight space is 0"),
        (lambda: simplex_grid(2, 0), "steps of a weight space is 0"),
        (lambda: simplex_grid(10, 100), "too large"),
        (lambda: cube_grid(7, [0.1 * i for i in range(1, 11)]), "too large"),
        (lambda: cube_grid(2, []), "at least one"),
        (lambda: cube_grid(2, [0.5, 0.5]), "different"),
        (lambda: cube_grid(2, [0.5, math.nan]), "finite"),
        (lambda: sobol(2, 0), "count"),
        (lambda: sobol(2, 4, 1.0, 0.5), "above the lower"),
        (lambda: dirichlet(2, -1), "count"),
    ],
)
def test_spaces_that_cannot_be_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
