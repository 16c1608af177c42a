"""Racing: who has clearly lost by hand-worked numbers, and that a candidate of the true frontier rarely leaves."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, t, ttest_rel

from valuesoup.search import clearly_beaten, clearly_below, parts


def everyone(scores):
    return np.ones(scores.shape[1], dtype=bool)


def test_parts_grow_to_all_prompts():
    assert parts(50, 10, 2.0) == [10, 20, 40, 50]
    assert parts(8, 8, 2.0) == [8]
    assert parts(8, 20, 2.0) == [8]
    assert parts(10, 4, 1.1) == [4, 5, 6, 7, 8, 9, 10], "every part asks at least one prompt"


@given(st.integers(1, 400), st.integers(1, 60), st.floats(1.01, 4))
def test_parts_ascend_and_end_with_every_prompt(prompts, first, growth):
    ends = parts(prompts, first, growth)
    assert ends[-1] == prompts
    assert all(one < other for one, other in pairwise(ends))


def test_the_paired_difference_and_not_the_two_means_decides():
    # Per prompt the second is 0.5, 1.0, 1.5, 1.0 and so on below the first; the prompts themselves differ by tens.
    first = np.array([10.0, 50.0, -30.0, 20.0, 0.0, -70.0, 40.0, 30.0])
    second = first - [0.5, 1.0, 1.5, 1.0] * 2
    scores = np.stack([first, second], axis=1)[:, :, None]
    # Mean difference -1, variance 1 / 7, standard error sqrt(1 / 7 / 8): t = -7.5 with 7 degrees.
    statistic = -1 / math.sqrt(1 / 7 / 8)
    miss = t.cdf(statistic, 7)
    assert clearly_beaten(scores, everyone(scores), miss * 1.01).tolist() == [-1, 0]
    assert clearly_beaten(scores, everyone(scores), miss * 0.99).tolist() == [-1, -1]


def test_every_value_must_be_worse():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(8, 2))
    worse, mixed, equal = base - 1 + 0.01 * rng.normal(size=(3, 8, 2))
    mixed[:, 1] += 2
    equal[:, 1] = base[:, 1]
    scores = np.stack([base, worse, mixed, equal], axis=1)
    # The fourth has exactly the same score in one value: nothing says that it is worse there.
    assert clearly_beaten(scores, everyone(scores), 0.05).tolist() == [-1, 0, -1, -1]


def test_only_prompts_that_both_have_answered_count():
    scores = np.full((11, 2, 1), np.nan)
    scores[:, 0, 0] = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, -50.0, -50.0, -50.0]
    scores[:8, 1, 0] = [0.0, 0.05, 0.02, 0.0, 0.1, -0.1, 0.03, 0.01]
    assert clearly_beaten(scores, everyone(scores), 0.05).tolist() == [-1, 0]
    scores[7, 1, 0] = np.nan
    assert clearly_beaten(scores, everyone(scores), 0.05).tolist() == [-1, -1], "seven prompts tell too little"


def test_equal_differences_are_as_sure_as_if_one_more_prompt_could_disagree():
    # The second loses by 1 on each of 9 prompts. The differences of answers are 1, so the floor of the variance is
    # 1 · 10 / 11², and t = -1 / sqrt(10 / 121 / 9).
    scores = np.tile([[1.0], [0.0]], (9, 1, 1))
    miss = t.cdf(-1 / math.sqrt(10 / 121 / 9), 8)
    assert clearly_beaten(scores, everyone(scores), miss * 1.01).tolist() == [-1, 0]
    assert clearly_beaten(scores, everyone(scores), miss * 0.99).tolist() == [-1, -1]
    # A third candidate shows that an answer may change the score by 3; of 27 pairs of answers 9 differ by 3, 9 by 1
    # and 9 by 2, so the floor is (9 + 1 + 4) / 3 times as high.
    wider = np.concatenate([scores, np.full((9, 1, 1), -2.0)], axis=1)
    miss = t.cdf(-1 / math.sqrt(14 / 3 * 10 / 121 / 9), 8)
    beaten = [clearly_beaten(wider, np.array([True, True, False]), miss * by)[1] for by in (0.99, 1.01)]
    assert beaten == [-1, 0]


def test_rewards_of_few_steps_rarely_drop_one_that_is_better():
    # The second mostly loses by 1 but sometimes wins by 2, and is better by 0.2 in truth.
    rng = np.random.default_rng(0)
    left = 0
    for _ in range(2000):
        answers = np.stack([np.ones(8), np.where(rng.random(8) < 0.4, 3.0, 0.0)], axis=1)
        others = rng.choice([0.0, 1.0, 3.0], size=(8, 30))
        scores = np.concatenate([answers, others], axis=1)[:, :, None]
        rivals = np.arange(32) == 0
        left += int(clearly_beaten(scores, rivals, 0.001)[1] >= 0)
    assert left / 2000 <= 0.001, "on eight prompts it loses every time in 1.7 % of races"


def test_one_who_is_no_rival_beats_nobody():
    scores = np.random.default_rng(0).normal(size=(9, 3, 2)) * 0.01 + np.array([2.0, 1.0, 0.0])[None, :, None]
    assert clearly_beaten(scores, everyone(scores), 0.05).tolist() == [-1, 0, 0]
    assert clearly_beaten(scores, np.array([False, True, True]), 0.05).tolist() == [-1, -1, 1]
    assert clearly_beaten(scores, np.zeros(3, dtype=bool), 0.05).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_it_equals_paired_tests_one_by_one(n):
    rng = np.random.default_rng(n)
    scores = rng.normal(size=(12, 7, n)) * 0.5 + rng.normal(size=(1, 7, 1)) + 1e3
    scores[8:, 4:] = np.nan
    expected = []
    for one in range(7):
        beaten = -1
        for other in reversed(range(7)):
            known = np.isfinite(scores[:, one, 0]) & np.isfinite(scores[:, other, 0])
            tests = [
                ttest_rel(scores[known, one, value], scores[known, other, value], alternative="less").pvalue
                for value in range(n)
            ]
            if other != one and max(tests) < 0.3 / 6:
                beaten = other
        expected.append(beaten)
    assert clearly_beaten(scores, everyone(scores), 0.3).tolist() == expected
    assert max(expected) >= 0


@pytest.mark.parametrize(("n", "sides"), [(1, 1), (2, 6), (3, 10)])
def test_a_candidate_of_the_true_frontier_leaves_in_less_than_five_percent_of_races(n, sides):
    rng = np.random.default_rng(3)
    left = runs = 0
    ends = parts(40, 8, 2.0)
    for _ in range(400 if n == 1 else 150):
        angles = rng.uniform(0, 1, size=(sides, n))
        truth = angles / np.linalg.norm(angles, axis=1, keepdims=True)  # all on a sphere: all on the frontier
        scores = truth + rng.normal(size=(40, 1, n)) + 0.5 * rng.standard_t(5, size=(40, sides, n))
        if n == 1:
            scores = np.concatenate([scores, truth + rng.normal(size=scores.shape)], axis=1)  # a twin as good
        beaten = np.zeros(scores.shape[1], dtype=bool)
        for end in ends:
            part = np.where(np.arange(40)[:, None, None] < end, scores, np.nan)
            beaten |= clearly_beaten(part, everyone(scores), 0.05 / len(ends)) >= 0
        left += beaten.sum()
        runs += len(beaten)
    assert left / runs < 0.05


def test_what_is_truly_worse_leaves():
    rng = np.random.default_rng(0)
    truth = np.array([[1.0, 1.0, 1.0], [0.0, 0.1, 0.2], [0.9, 1.1, 0.9]])
    scores = truth + rng.normal(size=(16, 1, 3)) + 0.3 * rng.normal(size=(16, 3, 3))
    assert clearly_beaten(scores, everyone(scores), 0.05).tolist() == [-1, 0, -1]


def test_a_share_is_below_the_bound_when_so_few_sound_answers_would_be_too_unlikely():
    shares = np.array([[1, 0, 1, np.nan]] * 4 + [[0, 0, 1, np.nan]] * 4)
    assert binom.cdf(4, 8, 0.8) == pytest.approx(0.0563, abs=1e-4)
    assert clearly_below(shares, 0.8, 0.06).tolist() == [True, True, False, False]
    assert clearly_below(shares, 0.8, 0.05).tolist() == [False, True, False, False]
    assert not clearly_below(shares, 0.0, 0.05).any()
