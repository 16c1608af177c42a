"""Pass@N, single-reward prompts and what they lack, by hand and against enumeration of every draw."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.expansion import default_thresholds, lacking, pass_at_n, single_reward

# Three prompts, two rollouts, two values; thresholds 0.
SCORES = np.array([[[1.0, -1.0], [-1.0, 2.0]], [[1.0, 1.0], [-1.0, -1.0]], [[-1.0, 0.0], [-2.0, -1.0]]])


def by_enumeration(scores, thresholds, count):
    """Pass@N as the share of all draws of N rollouts in which one passes, (P, n + 1)."""
    passing = scores > thresholds
    passing = np.concatenate([passing, passing.all(axis=2, keepdims=True)], axis=2)
    draws = combinations(range(scores.shape[1]), count)
    return np.mean([passing[:, draw].any(axis=1) for draw in map(list, draws)], axis=0)


def test_the_default_threshold_is_the_median_over_all_rollouts_of_each_value():
    assert default_thresholds(SCORES).tolist() == [-1.0, -0.5]


def test_pass_at_n_by_hand():
    found = pass_at_n(SCORES, [0, 0], [1, 2])
    assert found[0].tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0, 0, 0]]
    assert found[1].tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_a_reward_at_the_threshold_does_not_pass():
    assert pass_at_n([[[1.0]]], [1.0], [1]).tolist() == [[[0, 0]]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 5]), st.integers(1, 6), st.integers(1, 5))
def test_pass_at_n_is_the_mean_over_all_draws(seed, n, rollouts, prompts):
    rng = np.random.default_rng(seed)
    scores, kappa = rng.normal(size=(prompts, rollouts, n)), rng.normal(size=n)
    counts = range(1, rollouts + 1)
    found = pass_at_n(scores, kappa, counts)
    assert found.shape == (rollouts, prompts, n + 1)
    np.testing.assert_allclose(found, [by_enumeration(scores, kappa, count) for count in counts], atol=1e-12)
    assert set(np.unique(found[-1])) <= {0.0, 1.0}, "all rollouts drawn: some passes or none does"
    assert (np.diff(found, axis=0) >= -1e-12).all()
    assert (found[:, :, -1] <= found[:, :, :-1].min(axis=2) + 1e-12).all()


def test_the_counts_may_stand_in_any_order():
    scores = np.random.default_rng(0).normal(size=(4, 8, 3))
    both = pass_at_n(scores, [0, 0, 0], [8, 2])
    assert np.array_equal(both, pass_at_n(scores, [0, 0, 0], [2, 8])[::-1])


def test_single_reward_prompts_pass_a_value_but_never_all_in_one_rollout():
    assert single_reward(SCORES, [0, 0]).tolist() == [True, False, False]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 5]))
def test_a_single_reward_prompt_has_a_value_and_lacks_one(seed, n):
    rng = np.random.default_rng(seed)
    scores, kappa = rng.normal(size=(20, 3, n)), rng.normal(size=n)
    single, missing = single_reward(scores, kappa), lacking(scores, kappa, np.ones(n))
    joint = pass_at_n(scores, kappa, [3])[0]
    assert single.tolist() == ((joint[:, :-1].max(axis=1) == 1) & (joint[:, -1] == 0)).tolist()
    assert (missing[single].any(axis=1) & ~missing[single].all(axis=1)).all()
    assert n > 1 or not single.any()


def test_what_is_lacking_is_what_the_rollout_that_passes_most_does_not_pass():
    rollouts = [[5.0, -1.0, -1.0], [0.1, 0.1, -1.0], [-1.0, -1.0, 9.0]]
    assert lacking([rollouts], [0, 0, 0], [1, 1, 1]).tolist() == [[False, False, True]]


def test_among_equals_the_normalised_sum_decides_and_then_the_first():
    rollouts = [[1.0, -1.0], [-1.0, 4.0]]
    assert lacking([rollouts], [0, 0], [1, 1]).tolist() == [[True, False]]
    assert lacking([rollouts], [0, 0], [0.1, 10]).tolist() == [[False, True]]
    assert lacking([[[1.0, -1.0], [-1.0, 1.0]]], [0, 0], [1, 1]).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("scores", "thresholds", "counts", "message"),
    [
        (np.zeros((2, 3)), [0], [1], r"have shape \(2, 3\)"),
        (np.zeros((2, 0, 1)), [0], [1], r"have shape \(2, 0, 1\)"),
        (np.full((1, 2, 2), np.nan), [0, 0], [1], "prompt 0, rollout 0, value 0 is not finite"),
        (SCORES, [0], [1], "2 values need as many finite numbers"),
        (SCORES, [0, np.inf], [1], "2 values need as many finite numbers"),
        (SCORES, [0, 0], [3], r"pass@3 was asked for, but there are 2 rollouts"),
        (SCORES, [0, 0], [0], r"pass@0 was asked for"),
    ],
)
def test_input_that_does_not_fit_is_refused(scores, thresholds, counts, message):
    with pytest.raises(UserError, match=message):
        pass_at_n(scores, thresholds, counts)
