"""Correlation of two rewards over answers, with an interval that knows that answers to one prompt are alike."""

import numpy as np
import pytest

from valuesoup.evaluation.correlation import correlation_interval
from valuesoup.evaluation.statistics import resamples


def test_the_correlation_is_pearsons_over_all_answers() -> None:
    rng = np.random.default_rng(0)
    x = 100.0 + rng.normal(size=(40, 5))
    y = -0.3 * x + rng.normal(size=(40, 5))
    found = correlation_interval(x, y, resamples(40, 200), 0.95)
    assert found is not None
    assert found.value == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-12)
    assert -1 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equal_rewards_have_one_and_opposite_ones_minus_one(sign: float) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    found = correlation_interval(x, 2.0 + sign * 7.0 * x, resamples(30, 50), 0.9)
    assert found is not None
    assert tuple(found) == pytest.approx((sign, sign, sign), abs=1e-9)


@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1])
def test_a_reward_that_never_varies_has_no_correlation(constant: float) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    assert correlation_interval(x, np.full((30, 3), constant), resamples(30, 50), 0.9) is None
    assert correlation_interval(np.full((30, 3), constant), x, resamples(30, 50), 0.9) is None


def test_a_reward_that_varies_on_one_prompt_alone_has_no_interval_where_no_resample_holds_it() -> None:
    x = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert correlation_interval(x, x, np.zeros((3, 2), np.int64), 0.9) is None


def test_more_answers_of_the_same_prompts_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50, 1))
    draws = resamples(50, 500)
    few, many = (correlation_interval(x.repeat(k, 1), y.repeat(k, 1), draws, 0.95) for k in (1, 20))
    assert few is not None
    assert many is not None
    assert tuple(few) == pytest.approx(tuple(many), abs=1e-9)
