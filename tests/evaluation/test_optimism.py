import numpy as np
import pytest
from scipy.stats import ttest_ind

from valuesoup.evaluation.comparison import Box
from valuesoup.evaluation.optimism import selection_optimism

BOX = Box(np.array([0.0, 0.0]), np.array([2.0, 4.0]))


def test_the_drop_is_in_units_of_the_box() -> None:
    validation = np.array([[[2.0, 1.0], [2.0, 3.0]], [[1.0, 4.0], [1.0, 4.0]]])  # means (2, 2) and (1, 4)
    test = np.array([[[1.0, 2.0], [2.0, 2.0]], [[0.5, 3.0], [0.5, 3.0]]])  # means (1.5, 2) and (0.5, 3)
    found = selection_optimism(validation.mean(axis=1), validation, test, BOX, ["a", "b"])
    # Over both candidates: a falls from 1.5 to 1 of 2, b from 3 to 2.5 of 4.
    assert found["drop"]["a"]["mean"] == pytest.approx(0.25)
    assert found["drop"]["b"]["mean"] == pytest.approx(0.125)
    # In the box (1, 1/2) and (1/2, 1) on validation; (3/4, 1/2) and (1/4, 3/4) on test.
    assert found["validation"] == pytest.approx(0.75)
    assert found["test"] == pytest.approx(0.375 + 0.0625)


def test_the_interval_of_a_drop_is_over_prompts_averaged_over_the_candidates() -> None:
    rng = np.random.default_rng(0)
    validation, test = rng.normal(1, 0.3, (4, 30, 2)), rng.normal(0.8, 0.3, (4, 50, 2))
    drop = selection_optimism(validation.mean(axis=1), validation, test, BOX, ["a", "b"])["drop"]["b"]
    before, after = validation[:, :, 1].mean(axis=0) / 4, test[:, :, 1].mean(axis=0) / 4
    expected = ttest_ind(before, after, equal_var=False).confidence_interval(0.95)
    assert (drop["low"], drop["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_other_figures_than_means_give_a_drop_without_interval() -> None:
    found = selection_optimism([[1.0, 2.0]], None, np.ones((1, 3, 2)), BOX, ["a", "b"])
    assert found["drop"] == {
        "a": {"mean": pytest.approx(0.0), "low": None, "high": None},
        "b": {"mean": pytest.approx(0.25), "low": None, "high": None},
    }


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_luck_that_was_chosen_shows_as_a_drop(n: int) -> None:
    """Of 200 equal candidates those that are best on few prompts fall back to the mean of all on many."""
    rng = np.random.default_rng(n)
    validation, test = rng.normal(0, 1, (200, 10, n)), rng.normal(0, 1, (200, 200, n))
    chosen = np.argsort(-validation.mean(axis=(1, 2)))[:5]
    box = Box(np.full(n, -1.0), np.full(n, 1.0))
    found = selection_optimism(
        validation[chosen].mean(axis=1), validation[chosen], test[chosen], box, [str(j) for j in range(n)]
    )
    assert all(drop["mean"] > 0 for drop in found["drop"].values())
    assert found["validation"] > found["test"]
