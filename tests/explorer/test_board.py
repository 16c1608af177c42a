"""The board: every candidate with its scores, and a surface that goes through all of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.explorer.board import interpolation, read_board
from valuesoup.pipeline.run import Finished, open_run
from valuesoup.search.weights import simplex_grid, sobol


def surface(points: Any, heights: Any, at: Any) -> Any:
    """The surface as the page computes it."""
    bent, affine = interpolation(np.asarray(points, float), np.asarray(heights, float))
    where = np.atleast_2d(np.asarray(at, float))
    distances = np.linalg.norm(where[:, None] - np.asarray(points, float)[None], axis=2)
    return distances @ bent + affine[0] + where @ affine[1:]


@settings(deadline=None, max_examples=40)
@given(n=st.sampled_from([1, 2, 3, 5]), grid=st.booleans(), seed=st.integers(0, 1000))
def test_the_surface_goes_through_every_candidate(n: int, grid: bool, seed: int) -> None:
    points = simplex_grid(n, 3) if grid else sobol(n, 9, seed=seed)
    heights = np.random.default_rng(seed).normal(size=(len(points), n))
    np.testing.assert_allclose(surface(points, heights, points), heights, atol=1e-6)


def test_between_two_candidates_of_two_values_it_is_the_straight_line() -> None:
    points = [[0, 1], [0.25, 0.75], [1, 0]]
    heights = [[0.0, 4.0], [1.0, 3.0], [-2.0, 9.0]]
    found = surface(points, heights, [[0.125, 0.875], [0.625, 0.375], [0.75, 0.25]])
    np.testing.assert_allclose(found, [[0.5, 3.5], [-0.5, 6.0], [-1.0, 7.0]], atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(n=st.sampled_from([1, 2, 3, 5]), seed=st.integers(0, 1000))
def test_where_scores_are_linear_in_the_weights_so_is_the_surface_everywhere(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    slopes, points, at = draw.normal(size=(n, n)), sobol(n, 12, seed=seed), 2 * draw.random((4, n))
    np.testing.assert_allclose(surface(points, points @ slopes + 1, at), at @ slopes + 1, atol=1e-6)


def test_one_candidate_alone_is_a_plain() -> None:
    np.testing.assert_allclose(surface([[1.0]], [[0.7]], [[1.0]]), [[0.7]], atol=1e-9)


@pytest.fixture(scope="module")
def finished(demo_run: tuple[Path, str]) -> Finished:
    return open_run(demo_run[0])


def test_every_candidate_is_on_the_board_with_the_figures_of_the_results(finished: Finished) -> None:
    board = json.loads(json.dumps(read_board(finished), allow_nan=False))
    shown = {one["id"]: one for method in board["methods"] for one in method["candidates"]} | {"base": board["base"]}
    rows = {row["id"]: row for row in finished.results["candidates"]}
    assert shown.keys() == rows.keys()
    for name, one in shown.items():
        for place, value in enumerate(board["values"]):
            assert one["plot"][place] == one["validation"][place][0] == rows[name]["validation"][value]["mean"]
            if rows[name]["test"] is None:
                assert one["test"] is None
            else:
                assert one["test"][place] == [rows[name]["test"][value][part] for part in ("mean", "low", "high")]


def test_methods_with_a_dial_start_at_their_most_balanced_candidate_and_the_others_have_none(
    finished: Finished,
) -> None:
    board = read_board(finished)
    dials = {method["title"]: method["dial"] for method in board["methods"]}
    assert [title for title, dial in dials.items() if dial is None] == ["DPO"]
    for dial in (dials["SOUP"], dials["VC-soup"]):
        assert dial["simplex"]
        assert dial["start"] == [0.5, 0.5]
        assert 0.5 < dial["reach"] < 0.75  # half a step of a grid of two steps is 0.35, a whole one 0.71
    assert {kind for kind, _ in board["start"]} == {"dial"}
    assert len(set(board["start"])) == 2
