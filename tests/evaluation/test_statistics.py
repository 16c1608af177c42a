"""Bootstrap and Wilson intervals: paired, reproducible, equal to plain loops, and refused on missing scores."""

import math

import numpy as np
import pytest

from valuesoup.errors import UserError
from valuesoup.evaluation import statistics
from valuesoup.evaluation.frontier import hypervolume, pareto
from valuesoup.evaluation.statistics import (
    frontier_probability,
    hypervolume_difference,
    hypervolume_interval,
    mean_intervals,
    resampled_means,
    resamples,
    wilson_interval,
)


def scores(k=6, p=30, n=2, seed=0):
    return np.random.default_rng(seed).normal(size=(k, p, n))


def loop_means(table, draws):
    return np.array([table[:, draw].mean(axis=1) for draw in draws])


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(statistics, "_BLOCK", 64)


def test_resamples_are_seeded_positions_of_prompts():
    draws = resamples(7, times=50, seed=3)
    assert draws.shape == (50, 7)
    assert draws.min() >= 0
    assert draws.max() == 6
    np.testing.assert_array_equal(draws, resamples(7, times=50, seed=3))
    assert (draws != resamples(7, times=50, seed=4)).any()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_means_equal_a_plain_loop_over_resamples(n):
    table, draws = scores(n=n), resamples(30, 40)
    np.testing.assert_allclose(resampled_means(table, draws), loop_means(table, draws), atol=1e-13)


def test_intervals_are_percentiles_of_the_resampled_means(blocks):
    table, draws = scores(), resamples(30, 200)
    got = mean_intervals(table, draws, level=0.9)
    expected = np.quantile(loop_means(table, draws), [0.05, 0.95], axis=0)
    np.testing.assert_allclose(got.mean, table.mean(axis=1))
    np.testing.assert_allclose([got.low, got.high], expected, atol=1e-13)


def test_a_worked_interval_of_two_prompts():
    draws = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    got = mean_intervals([[[0.0], [1.0]]], draws, level=0.5)
    assert (got.mean.item(), got.low.item(), got.high.item()) == (0.5, 0.375, 0.625)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        got = mean_intervals(scores(k=1, p=60, n=1, seed=seed), resamples(60, 300, seed))
        covered += bool(got.low.item() <= 0 <= got.high.item())
    assert 0.88 <= covered / 200 <= 0.99


def test_frontier_probability_equals_a_plain_loop(blocks):
    table, draws = scores(), resamples(30, 100)
    expected = np.mean([pareto(means) for means in loop_means(table, draws)], axis=0)
    np.testing.assert_allclose(frontier_probability(table, draws), expected)


def test_a_candidate_better_on_every_prompt_is_always_on_the_frontier_and_its_loser_never():
    table = scores(k=2)
    table[1] = table[0] - 0.01
    assert frontier_probability(table, resamples(30, 100)).tolist() == [1, 0]


def test_duplicates_share_their_probability_whatever_the_rounding():
    # A product with these shapes rounds equal columns differently on common processors.
    for candidates, prompts, times in [(101, 200, 50), (101, 200, 3), (37, 37, 50)]:
        table = np.random.default_rng(5).normal(size=(1, prompts, 3)).repeat(candidates, axis=0)
        np.testing.assert_array_equal(frontier_probability(table, resamples(prompts, times)), np.ones(candidates))


def test_a_tie_on_one_value_leaves_the_other_to_decide():
    table = np.random.default_rng(6).normal(size=(1, 37, 2)).repeat(9, axis=0)
    table[:, :, 1] += np.arange(9)[:, None]
    assert frontier_probability(table, resamples(37, 50)).tolist() == [0] * 8 + [1]


def test_hypervolume_interval_equals_a_plain_loop(blocks):
    table, draws, reference = scores(), resamples(30, 100), [-1, -1]
    got = hypervolume_interval(table, draws, reference)
    volumes = [hypervolume(means, reference) for means in loop_means(table, draws)]
    assert got.value == pytest.approx(hypervolume(table.mean(axis=1), reference))
    np.testing.assert_allclose([got.low, got.high], np.quantile(volumes, [0.025, 0.975]))


def test_normalised_volumes_are_shares_of_the_box():
    table, draws = scores(), resamples(30, 50)
    plain = hypervolume_interval(table, draws, [-1, -1])
    share = hypervolume_interval(table, draws, [-1, -1], best=[3, 4])
    np.testing.assert_allclose(share, np.array(plain) / 20)


def test_differences_are_paired_so_a_constant_lead_has_a_narrow_interval():
    first = scores(k=1, n=1)
    draws = resamples(30, 200)
    got = hypervolume_difference(first + 0.5, first, draws, reference=[-10])
    assert (got.value, got.low, got.high) == pytest.approx((0.5, 0.5, 0.5))
    own = hypervolume_interval(first, draws, reference=[-10])
    assert own.high - own.low > 0.1


def test_a_method_does_not_differ_from_itself_and_the_sign_follows_the_order():
    one, other, draws = scores(seed=1), scores(k=4, seed=2), resamples(30, 50)
    assert hypervolume_difference(one, one, draws, [-1, -1]) == (0, 0, 0)
    there, back = (
        hypervolume_difference(one, other, draws, [-1, -1]),
        hypervolume_difference(other, one, draws, [-1, -1]),
    )
    np.testing.assert_allclose(there, [-back.value, -back.high, -back.low])


def test_wilson_equals_published_numbers():
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
    for successes, trials, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        got = wilson_interval(successes, trials)
        assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_at_the_share_itself_when_all_or_none_win():
    assert wilson_interval(10, 10).high == 1
    assert wilson_interval(0, 10).low == 0
    half = wilson_interval(5.5, 11)
    assert (half.value, half.low + half.high) == pytest.approx((0.5, 1))


def test_wilson_without_trials_knows_nothing():
    got = wilson_interval(0, 0)
    assert math.isnan(got.value)
    assert (got.low, got.high) == (0, 1)


def test_missing_scores_are_refused_with_their_place():
    table = scores()
    table[2, 7, 1] = np.nan
    for function in (mean_intervals, frontier_probability):
        with pytest.raises(UserError, match="candidate 2 on prompt 7 for value 1"):
            function(table, resamples(30, 5))


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="30 prompts need"):
        mean_intervals(scores(), resamples(29, 5))
    with pytest.raises(UserError, match="shape"):
        frontier_probability(np.zeros((3, 4)), resamples(4, 5))
    with pytest.raises(UserError, match="level"):
        mean_intervals(scores(), resamples(30, 5), level=95)
    with pytest.raises(UserError, match="at least one prompt"):
        resamples(0)
    with pytest.raises(UserError, match="between 0 and the trials"):
        wilson_interval(3, 2)
