import numpy as np
import pytest
from scipy.stats import ttest_ind

from valuesoup.errors import UserError
from valuesoup.evaluation.comparison import (
    changed_settings,
    common_box,
    difference_over_seeds,
    same_rows,
    unpaired_difference,
    welch,
)
from valuesoup.evaluation.frontier import normalised_hypervolume, reference_point
from valuesoup.evaluation.statistics import hypervolume_difference, resamples


def test_the_common_box_is_that_of_all_runs_together() -> None:
    # Worst (0, 0), best (2, 2): the reference lies a tenth of 2 below the worst.
    box = common_box([[[0, 0], [2, 1], [1, 2]], [[1, 1]]])
    assert box.reference.tolist() == pytest.approx([-0.2, -0.2])
    assert box.best.tolist() == [2, 2]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_common_box_of_one_run_is_the_box_of_that_run(n: int) -> None:
    means = np.random.default_rng(n).normal(size=(7, n))
    box = common_box([means])
    assert np.array_equal(box.reference, reference_point(means)) and np.array_equal(box.best, means.max(axis=0))


def test_no_candidate_has_no_box() -> None:
    with pytest.raises(UserError, match="at least one candidate"):
        common_box([np.zeros((0, 2))])


def test_rows_are_matched_whatever_their_order() -> None:
    found = same_rows(["a", "b", "c"], ["c", "a", "b"])
    assert found is not None and found.tolist() == [1, 2, 0]


@pytest.mark.parametrize("other", [["a", "b"], ["a", "b", "d"], ["a", "b", "b"], []])
def test_other_rows_are_not_matched(other: list[str]) -> None:
    assert same_rows(["a", "b", "c"], other) is None


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_an_unpaired_difference_has_the_point_of_the_paired_one_and_is_no_surer(n: int) -> None:
    rng = np.random.default_rng(n)
    shared = rng.normal(0, 1, (1, 60, 1))  # hard and easy prompts, the same for both
    first, second = (shared + rng.normal(0, 0.05, (3, 60, n)) for _ in range(2))
    box = common_box([first.mean(axis=1), second.mean(axis=1), np.full((1, n), -1.0), np.full((1, n), 1.0)])
    unpaired = unpaired_difference(first, second, box, 400)
    paired = hypervolume_difference(first, second, resamples(60, 400), *box)
    expected = normalised_hypervolume(first.mean(axis=1), *box) - normalised_hypervolume(second.mean(axis=1), *box)
    assert unpaired.value == pytest.approx(expected) == pytest.approx(paired.value)
    assert unpaired.low is not None and unpaired.high is not None
    assert unpaired.high - unpaired.low > 3 * (paired.high - paired.low)


def test_an_unpaired_difference_takes_different_numbers_of_prompts_and_has_the_known_spread() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.1, (1, 80, 1)), rng.normal(0.3, 0.2, (1, 50, 1))
    box = common_box([[[0.0]], [[1.0]]])  # from -0.1 to 1
    found = unpaired_difference(first, second, box, 4000)
    error = np.sqrt(first.var() / 80 + second.var() / 50) / 1.1
    assert found.value == pytest.approx((first.mean() - second.mean()) / 1.1)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)


def test_a_level_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        unpaired_difference(np.ones((1, 2, 1)), np.ones((1, 2, 1)), common_box([[[0.0]], [[1.0]]]), level=95)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_welchs_interval_is_that_of_scipy(level: float) -> None:
    first, second = [0.61, 0.70, 0.66], [0.40, 0.55, 0.31, 0.52, 0.48]
    expected = ttest_ind(first, second, equal_var=False).confidence_interval(level)
    found = welch(first, second, level)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    assert [found.low, found.high] == pytest.approx([expected.low, expected.high])


def test_one_figure_gives_no_interval_and_equal_figures_one_without_width() -> None:
    assert welch([1.0], [0.5, 0.6])[1:] == (None, None)
    assert welch([0.1, 0.1, 0.1], [0.3, 0.3]) == pytest.approx((-0.2, -0.2, -0.2))


def test_seeds_are_paired_by_their_number() -> None:
    # Differences 0.1, 0.2 and 0.3: mean 0.2, deviation 0.1, t(0.975, 2) = 4.302653.
    found = difference_over_seeds({0: 1.1, 1: 2.2, 2: 3.3}, {2: 3.0, 0: 1.0, 1: 2.0})
    half = 4.302653 * 0.1 / 3**0.5
    assert list(found) == pytest.approx([0.2, 0.2 - half, 0.2 + half])


def test_seeds_of_which_one_is_another_are_not_paired() -> None:
    first, second = {0: 1.0, 1: 2.0}, {0: 0.5, 2: 1.0}
    assert difference_over_seeds(first, second) == welch([1.0, 2.0], [0.5, 1.0])


def test_settings_are_compared_key_by_key() -> None:
    one = {"a": {"x": 1, "y": [1, 2], "same": None}, "text": "t", "gone": {"deep": 1}}
    two = {"a": {"x": 2, "y": [1], "same": None}, "text": "t", "new": "z" * 80}
    assert changed_settings([one, two]) == [
        {"key": "a.x", "texts": ["1", "2"]},
        {"key": "a.y", "texts": ["[1, 2]", "[1]"]},
        {"key": "gone", "texts": ["set", None]},
        {"key": "new", "texts": [None, "z" * 59 + "…"]},
    ]
    assert changed_settings([one, one, one]) == []
