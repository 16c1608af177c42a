"""Repetition and variety of answers: hand-worked, at the edges, and bounded for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.evaluation.text_signs import distinct, repetition

ANSWERS = st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=6)


def test_repetition_is_the_mean_share_of_n_grams_that_were_there_already() -> None:
    # abc, bca, cab, abc: one of four returns; the second answer repeats nothing.
    assert repetition(["abcabc", "abcdef"]) == pytest.approx((1 / 4 + 0) / 2)
    assert repetition(["aaaaaa"]) == pytest.approx(3 / 4)
    assert repetition([[7, 7, 8]], n=1) == pytest.approx(1 / 3)


def test_an_answer_too_short_for_an_n_gram_repeats_nothing() -> None:
    assert repetition(["", "a", "ab"]) == 0.0


def test_repetition_of_no_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        repetition([])


def test_distinct_counts_over_all_answers_together() -> None:
    assert distinct(["ab", "ab"], 1) == pytest.approx(2 / 4)
    assert distinct(["abab", "ab"], 2) == pytest.approx(2 / 4)  # ab, ba, ab | ab
    assert distinct(["a", "b"], 2) is None, "no answer has two tokens"
    assert distinct([], 1) is None


def test_an_n_gram_never_spans_two_answers() -> None:
    assert distinct(["ab", "cd"], 2) == 1.0


@given(ANSWERS, st.integers(1, 3))
def test_both_stay_in_their_bounds(answers: list[list[int]], n: int) -> None:
    assert 0.0 <= repetition(answers, n) < 1.0
    share = distinct(answers, n)
    assert share is None or 0.0 < share <= 1.0


@given(ANSWERS)
def test_saying_everything_twice_halves_the_variety_and_leaves_repetition_alone(answers: list[list[int]]) -> None:
    once, twice = distinct(answers, 1), distinct(answers * 2, 1)
    assert (twice is None) if once is None else twice == pytest.approx(once / 2)
    assert repetition(answers * 2) == pytest.approx(repetition(answers))
