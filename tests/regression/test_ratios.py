"""Figures of the check, worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.evaluation.statistics import resamples
from valuesoup.regression.outputs import Metric
from valuesoup.regression.ratios import Change, difference, perplexity


def test_perplexity_its_ratio_and_bits_per_byte_are_those_worked_by_hand() -> None:
    tokens, sizes = np.array([2, 8]), np.array([10, 30])
    found = perplexity([4.0, 6.0], [2.0, 3.0], tokens, sizes, np.array([[0, 0], [1, 1], [0, 1]]), 1 - 1e-12)
    assert found.perplexity == pytest.approx(math.e)  # 10 nats over 10 tokens
    assert found.bits_per_byte == pytest.approx(10 / math.log(2) / 40)
    # Gaps of 2 over 2 tokens and 3 over 8: resamples give 4/4, 6/16 and 5/10.
    assert found.log_ratio == pytest.approx((0.5, 0.375, 1.0))
    assert found.bits == pytest.approx([x / math.log(2) for x in (5 / 40, 6 / 60, 4 / 20)])


def test_one_document_has_no_interval() -> None:
    found = perplexity([4.0], [2.0], np.array([4]), np.array([9]), np.array([[0]]), 0.95)
    assert found.log_ratio == Change(0.5, None, None)


@given(st.lists(st.tuples(st.floats(1, 100), st.integers(1, 50)), min_size=2, max_size=9), st.floats(0.1, 3))
def test_a_candidate_that_loses_the_same_on_every_token_has_an_interval_of_no_width(
    rows: list[tuple[float, int]], loss: float
) -> None:
    base, tokens = np.array([nats for nats, _ in rows]), np.array([count for _, count in rows])
    found = perplexity(base + loss * tokens, base, tokens, tokens, resamples(len(rows), 40), 0.95)
    assert found.log_ratio == pytest.approx((loss, loss, loss))


def test_a_difference_of_metrics_has_the_normal_interval_of_independent_estimates() -> None:
    # √(0.03² + 0.04²) = 0.05, and 1.96 of it on either side.
    found = difference(Metric(0.5, 0.03), Metric(0.6, 0.04), 0.95)
    assert found == pytest.approx((-0.1, -0.1 - 1.959964 * 0.05, -0.1 + 1.959964 * 0.05), abs=1e-6)


@pytest.mark.parametrize(("one", "other"), [(None, 0.1), (0.1, None), (None, None)])
def test_without_both_standard_errors_there_is_no_interval(one: float | None, other: float | None) -> None:
    assert difference(Metric(0.5, one), Metric(0.75, other), 0.95) == Change(-0.25, None, None)
