"""The pair of largest margin against a loop over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.expansion import max_margin


def by_loop(scores, sigma):
    best = None
    for chosen in range(len(scores)):
        for rejected in range(len(scores)):
            gaps = (scores[chosen] - scores[rejected]) / sigma
            if (gaps > 0).all() and (best is None or gaps.sum() > best[2] + 1e-9):
                best = (chosen, rejected, gaps.sum())
    return best


def test_by_hand_the_wider_gap_loses_where_one_value_disagrees():
    scores = [[0.0, 0.0], [9.0, -1.0], [1.0, 2.0], [-1.0, 1.0]]
    assert max_margin(scores, [1, 1]) == (2, 0, 3.0)


def test_the_spreads_decide_between_pairs():
    scores = [[4.0, 1.0], [0.0, 0.0], [3.9, -9.0], [1.0, 2.0]]
    assert max_margin(scores, [1, 1])[:2] == (0, 2)
    assert max_margin(scores, [0.01, 100])[:2] == (0, 1)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 5]), st.integers(0, 8))
def test_it_is_the_best_of_all_pairs(seed, n, count):
    rng = np.random.default_rng(seed)
    scores, sigma = rng.integers(-3, 4, size=(count, n)).astype(float), rng.choice([0.5, 1, 2], size=n)
    found, expected = max_margin(scores, sigma), by_loop(scores, sigma)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found[:2] == expected[:2]
        assert found[2] == pytest.approx(expected[2])


def test_equal_responses_and_a_single_one_are_no_pair():
    assert max_margin([[1.0, 2.0]] * 3, [1, 1]) is None
    assert max_margin([[1.0, 2.0]], [1, 1]) is None
    assert max_margin(np.zeros((0, 2)), [1, 1]) is None


def test_an_equal_reward_of_one_value_is_no_gain():
    assert max_margin([[1.0, 0.0], [0.0, 0.0]], [1, 1]) is None


def test_a_gap_that_dividing_would_lose_counts():
    assert max_margin([[1.0 + 2**-52], [1.0]], [3.0])[:2] == (0, 1)


@pytest.mark.parametrize(
    ("scores", "sigma"),
    [
        ([[1.0, 2.0]], [1.0]),
        ([1.0, 2.0], [1.0]),
        (np.zeros((3, 0)), []),
        ([[np.nan]], [1.0]),
        ([[1.0]], [0.0]),
        ([[1.0]], [np.inf]),
    ],
)
def test_input_that_does_not_fit_is_refused(scores, sigma):
    with pytest.raises(UserError, match="must be"):
        max_margin(scores, sigma)
