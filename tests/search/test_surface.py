"""The surface through noisy scores: what it smooths, what it leaves alone, and what it knows of its own error."""

import numpy as np
import pytest

from valuesoup.search import cube_grid, fit_surface, simplex_grid
from valuesoup.search.surface import _means


def smooth_problem(n, seed, noise=0.5, prompts=10, slopes=0.0, steps=None):
    rng = np.random.default_rng(seed)
    points = simplex_grid(n, steps or {1: 1, 2: 20, 3: 8, 5: 4}[n])
    gains = rng.uniform(-0.5, 2, size=(n, n))
    truth = points @ gains + (1 - (points**2).sum(axis=1, keepdims=True)) * rng.uniform(0, 1, size=n)
    own = np.einsum("kd,pdj->pkj", points, rng.normal(size=(prompts, n, n)) * slopes)
    scores = truth + rng.normal(size=(prompts, 1, n)) + own + noise * rng.normal(size=(prompts, *truth.shape))
    return points, truth, scores


@pytest.mark.parametrize("n", [2, 3, 5])
def test_smoothed_means_are_nearer_to_the_truth_than_means(n):
    plain = smoothed = 0.0
    for seed in range(5):
        points, truth, scores = smooth_problem(n, seed)
        surface = fit_surface(points, scores)

        def error(means, truth=truth):
            off = means - truth
            return np.square(off - off.mean(axis=0)).sum()  # the prompts' own level is everyone's

        plain += error(scores.mean(axis=0))
        smoothed += error(surface.mean)
    assert smoothed < 0.4 * plain


def test_without_noise_the_surface_goes_through_the_scores():
    points, truth, _ = smooth_problem(3, 0)
    surface = fit_surface(points, np.repeat(truth[None], 6, axis=0))
    np.testing.assert_allclose(surface.mean, truth, atol=1e-3)
    assert surface.deviation.max() < 1e-2


@pytest.mark.parametrize("slopes", [0.0, 1.0])
def test_it_knows_its_own_error(slopes):
    ratios = []
    for seed in range(12):
        points, truth, scores = smooth_problem(3, seed, slopes=slopes, noise=0.3)
        surface = fit_surface(points, scores)
        weights = np.eye(len(points))[[0, -1]]  # the difference of two corners
        for value in range(3):
            off = (weights[0] - weights[1]) @ (surface.mean - truth)[:, value]
            covariance = surface.covariance[value]
            spread = (weights[0] - weights[1]) @ covariance @ (weights[0] - weights[1])
            ratios.append(off**2 / spread)
    assert 0.3 < np.mean(ratios) < 2.5


def test_slopes_of_the_prompts_own_make_it_less_sure():
    def unsure(slopes):
        return np.mean([fit_surface(*smooth_problem(3, seed, slopes=slopes)[::2]).deviation for seed in range(4)])

    assert unsure(1.5) > 1.5 * unsure(0.0)


def test_policies_without_a_common_direction_keep_their_order():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(10, 6, 2)) + np.arange(6)[None, :, None]
    surface = fit_surface(np.eye(6), scores)
    for value in range(2):
        np.testing.assert_array_equal(np.argsort(surface.mean[:, value]), np.argsort(scores.mean(axis=0)[:, value]))


def test_rough_truth_is_not_smoothed_away():
    rng = np.random.default_rng(1)
    points = simplex_grid(3, 8)
    truth = rng.normal(size=(len(points), 2))
    surface = fit_surface(points, truth + 0.2 * rng.normal(size=(10, *truth.shape)))
    assert np.corrcoef(surface.mean[:, 0], truth[:, 0])[0, 1] > 0.95


def test_candidates_that_were_not_measured_are_predicted_less_surely():
    points, truth, scores = smooth_problem(3, 2, noise=0.1, prompts=20)
    known = list(range(0, len(points), 3))
    surface = fit_surface(points, scores[:, known], known)
    others = [place for place in range(len(points)) if place not in known]
    off = surface.mean - truth
    assert np.abs(off - off.mean(axis=0))[others].max() < 0.3
    assert surface.deviation[others].mean() > surface.deviation[known].mean()
    assert surface.noise.shape == (3, len(points), len(points))


def test_one_that_answered_fewer_prompts_counts_by_its_differences_to_the_others():
    points, truth, scores = smooth_problem(3, 1, noise=0.2, prompts=40)
    scores += 20 * np.random.default_rng(0).normal(size=(40, 1, 1))  # the prompts' own levels say nothing
    early = list(range(0, len(points), 2))
    scores[8:, early] = np.nan
    surface = fit_surface(points, scores)
    off = surface.mean - truth
    assert np.abs(off - off.mean(axis=0)).max() < 0.3
    alone = fit_surface(points, scores[:, 1::2], range(1, len(points), 2))
    assert surface.deviation[early].mean() < alone.deviation[early].mean(), "its own answers tell of it"


def test_the_means_of_those_who_answered_less_have_the_covariance_that_is_told():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    levels = rng.normal(size=(10, 1)) * 9
    found = []
    for _ in range(4000):
        scores = levels + rng.normal(size=(10, 4)) @ root.T
        scores[3:, 0], scores[6:, 1] = np.nan, np.nan
        found.append(_means(scores, root @ root.T)[0])
    covariance = _means(scores, root @ root.T)[1]
    np.testing.assert_allclose(np.cov(np.array(found).T), covariance, atol=0.08 * covariance.max())
    np.testing.assert_allclose(np.mean(found, axis=0), levels.mean(), atol=0.1)


def test_a_gap_in_the_answers_of_one_is_refused():
    points, _, scores = smooth_problem(2, 0)
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="beginning"):
        fit_surface(points, scores)


@pytest.mark.parametrize("prompts", [0, 1])
def test_a_value_of_fewer_than_two_prompts_is_unknown(prompts):
    points, _, scores = smooth_problem(2, 0)
    scores[prompts:, :, 1] = np.nan
    surface = fit_surface(points, scores)
    assert np.isfinite(surface.deviation[:, 0]).all()
    assert np.isposinf(surface.deviation[:, 1]).all()
    assert np.isfinite(surface.mean).all()


def test_a_value_may_be_measured_on_some_prompts_only():
    points, _, scores = smooth_problem(2, 0, prompts=12)
    scores[::2, :, 0] = np.nan
    scores[1::2, :, 1] = np.nan
    surface = fit_surface(points, scores)
    np.testing.assert_allclose(surface.mean[:, 0], fit_surface(points, scores[1::2, :, :1]).mean[:, 0])
    assert np.isfinite(surface.mean).all()


@pytest.mark.parametrize(
    "points", [np.ones((1, 1)), np.zeros((1, 3)), np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((3, 2))]
)
def test_few_or_equal_candidates_are_no_trouble(points):
    scores = np.random.default_rng(0).normal(size=(5, len(points), 2))
    surface = fit_surface(points, scores)
    assert np.isfinite(surface.mean).all()
    assert np.isfinite(surface.draws(3, np.random.default_rng(0))).all()
    assert surface.draws(3, np.random.default_rng(0)).shape == (3, len(points), 2)


def test_constant_scores_are_no_trouble():
    surface = fit_surface(simplex_grid(3, 3), np.ones((5, 10, 3)))
    np.testing.assert_allclose(surface.mean, 1.0)


def test_draws_have_the_posterior_mean_and_deviation():
    points, _, scores = smooth_problem(3, 0, steps=4)
    surface = fit_surface(points, scores)
    draws = surface.draws(4000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), surface.mean, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), surface.deviation, atol=0.05)


def test_many_candidates_use_a_part_of_them_for_the_settings():
    points = cube_grid(3, [level / 8 for level in range(9)])[:400]
    truth = points @ np.array([[1.0], [0.5], [-1.0]])
    surface = fit_surface(points, truth + 0.1 * np.random.default_rng(0).normal(size=(6, 400, 1)))
    assert np.abs(surface.mean - truth).max() < 0.1
