"""Value consistency: the numbers of the paper, any number of values, any magnitude, and clear refusals."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from valuesoup.consistency import (
    LADDER,
    auto_threshold,
    check_enough,
    consistent,
    gap_correlation,
    keep_threshold,
    opposite_signs,
    retention,
    row_weights,
    sigma,
    threshold,
    value_consistency,
)
from valuesoup.errors import UserError
from valuesoup.rewards.table import RewardTable

sizes = st.sampled_from([1, 2, 3, 5])


moderate = st.floats(-1e3, 1e3, allow_subnormal=False)


def gap_rows(elements=moderate):
    return sizes.flatmap(lambda n: arrays(np.float64, st.tuples(st.integers(1, 20), st.just(n)), elements=elements))


def reference(gaps):
    """Eq. 11 row by row, in exact enough sums."""
    out = []
    for row in gaps:
        norm = math.sqrt(math.fsum(g * g for g in row))
        out.append(math.fsum(row) / (norm * math.sqrt(len(row))) if norm else math.nan)
    return np.array(out)


def table(scores, values=("a", "b"), dataset=""):
    scores = np.asarray(scores, dtype=float)
    return RewardTable([f"p{i}" for i in range(len(scores))], ("chosen", "rejected"), values, scores, dataset)


def test_worked_numbers_of_two_values():
    gaps = [[1, 1], [1, 0], [3, 4], [1, -1], [-1, 0], [-2, -2], [0, 0]]
    expected = [1, math.sqrt(0.5), 7 / (5 * math.sqrt(2)), 0, -math.sqrt(0.5), -1, math.nan]
    np.testing.assert_allclose(value_consistency(gaps), expected, atol=1e-15)


def test_worked_numbers_of_three_values():
    gaps = [[1, 1, 1], [2, 2, 0], [1, 0, 0], [1, 2, -2]]
    expected = [1, math.sqrt(2 / 3), math.sqrt(1 / 3), 1 / (3 * math.sqrt(3))]
    np.testing.assert_allclose(value_consistency(gaps), expected, atol=1e-15)


def test_one_value_gives_the_sign_of_the_gap():
    np.testing.assert_array_equal(value_consistency([[0.3], [-7.0], [0.0]]), [1, -1, np.nan])


@given(gap_rows(st.floats(-1e3, 1e3).filter(lambda g: g == 0 or abs(g) > 1e-100)))
def test_equals_the_formula_for_any_number_of_values(gaps):
    got = value_consistency(gaps)
    np.testing.assert_allclose(got, reference(gaps), rtol=1e-12, atol=1e-14)
    defined = got[~np.isnan(got)]
    assert ((defined >= -1) & (defined <= 1)).all()


@given(gap_rows(), st.sampled_from([5e-324, 1e-300, 1e-12, 1.0, 1e12, 1e300]))
def test_magnitude_does_not_matter_even_where_squares_overflow(gaps, scale):
    directions = np.sign(gaps)
    np.testing.assert_allclose(value_consistency(directions * scale), value_consistency(directions), atol=1e-15)


@given(gap_rows())
def test_negating_all_gaps_negates_the_consistency_and_order_of_values_is_irrelevant(gaps):
    np.testing.assert_array_equal(value_consistency(-gaps), -value_consistency(gaps))
    np.testing.assert_allclose(value_consistency(gaps[:, ::-1]), value_consistency(gaps), atol=1e-14)


def test_float32_and_strided_gaps_are_taken_as_they_are():
    gaps = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
    got = value_consistency(gaps[:, ::2])
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, reference(gaps[:, ::2].astype(float)), atol=1e-12)


@given(gap_rows())
def test_a_reward_table_is_taken_as_its_gaps(gaps):
    scores = np.stack([gaps, np.linspace(0, 1, gaps.size).reshape(gaps.shape)], axis=1)
    table = RewardTable(["p"] * len(gaps), ("rejected", "chosen"), tuple(map(str, range(gaps.shape[1]))), scores)
    try:
        spreads = table.sigma()
    except UserError:  # a reward without a spread has no normalised gaps, either way
        with pytest.raises(UserError, match="the same score"):
            value_consistency(table)
        return
    np.testing.assert_array_equal(value_consistency(table), value_consistency(table.gaps(sigma=spreads)))


def test_a_large_reward_table_is_taken_as_its_gaps_without_their_memory():
    scores = np.random.default_rng(0).normal(size=(200_001, 2, 3))
    table = RewardTable(["p"] * len(scores), ("chosen", "rejected"), ("a", "b", "c"), scores)
    expected = value_consistency(table.gaps())
    tracemalloc.start()
    found = value_consistency(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert peak < found.nbytes + 3e6


def test_many_rows_need_little_memory_beyond_the_result():
    gaps = np.random.default_rng(0).normal(size=(500_000, 3)).astype(np.float32)
    tracemalloc.start()
    result = value_consistency(gaps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < result.nbytes + 8 * 2**20
    np.testing.assert_allclose(result[-5:], reference(gaps[-5:].astype(float)), atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gap_that_is_not_finite_is_refused_with_its_row(bad):
    gaps = np.ones((70_000, 2))
    gaps[65_000, 1] = bad
    with pytest.raises(UserError, match="pair 65000"):
        value_consistency(gaps)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 2, 2)])
def test_gaps_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(UserError, match="shape"):
        value_consistency(np.zeros(shape))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_named_thresholds_have_the_values_of_the_paper(n):
    assert threshold("strict", values=n) == pytest.approx(math.sqrt((n - 1) / n), abs=1e-15)
    assert threshold("positive", values=n) == 0
    assert threshold("lenient", values=n) == pytest.approx(-1 / math.sqrt(n), abs=1e-15)


def test_named_thresholds_of_one_value():
    assert [threshold(name, values=1) for name in ("strict", "positive", "lenient")] == [0, 0, -1]


@given(gap_rows(st.floats(-10, 10).filter(lambda g: g == 0 or abs(g) > 1e-6)))
def test_strict_keeps_no_negative_gap(gaps):
    kept = consistent(value_consistency(gaps), threshold("strict", values=gaps.shape[1]))
    assert (gaps[kept] > -1e-12).all()


@given(gap_rows(st.floats(-10, 10).filter(lambda g: g == 0 or abs(g) > 1e-6)).filter(lambda g: g.shape[1] > 1))
def test_lenient_keeps_no_pair_whose_gaps_are_all_negative(gaps):
    kept = consistent(value_consistency(gaps), threshold("lenient", values=gaps.shape[1]))
    assert (gaps[kept].max(axis=1) > -1e-5).all()


@pytest.mark.parametrize("n", [2, 3, 5, 7, 10])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1, 7.7, 1e-9])
def test_pairs_exactly_on_a_named_boundary_are_kept(n, scale):
    on_strict = [[scale] * (n - 1) + [0.0]]
    on_lenient = [[0.0] * (n - 1) + [-scale]]
    assert value_consistency(on_strict)[0] >= threshold("strict", values=n)
    assert value_consistency(on_lenient)[0] >= threshold("lenient", values=n)


def test_a_number_is_its_own_threshold():
    assert threshold(0.7, values=2) == 0.7
    assert threshold(-1, values=3) == -1.0


@pytest.mark.parametrize("tau", [1.01, -2, math.nan, math.inf, True])
def test_a_threshold_outside_the_range_is_refused(tau):
    with pytest.raises(UserError, match=r"\[-1, 1\]"):
        threshold(tau, values=2)


def test_a_misspelt_threshold_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'strict'"):
        threshold("strickt", values=2)


def test_keep_takes_the_most_consistent_share_of_all_pairs():
    vc = np.array([0.9, -0.5, np.nan, 0.1, 0.7, 0.3, -1, 0.2, 0.6, np.nan])
    tau = keep_threshold(vc, 0.3)
    assert tau == 0.6
    assert consistent(vc, tau).sum() == 3
    assert consistent(vc, keep_threshold(vc, 1.0)).sum() == 8


def test_keep_lets_ties_stay_whatever_their_order():
    assert consistent([1, 1, 1, -1], keep_threshold([1, 1, 1, -1], 0.25)).tolist() == [True, True, True, False]


@given(st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=1, max_size=50), st.floats(0.01, 1))
def test_keep_leaves_at_least_the_share_and_no_undefined_pair(vc, fraction):
    vc = np.array(vc)
    defined = np.count_nonzero(~np.isnan(vc))
    if not defined:
        with pytest.raises(UserError, match="all reward gaps are zero"):
            keep_threshold(vc, fraction)
        return
    kept = consistent(vc, keep_threshold(vc, fraction))
    assert kept.sum() >= min(defined, math.floor(fraction * len(vc)))
    assert not np.isnan(vc[kept]).any()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, math.nan, True])
def test_a_share_to_keep_outside_its_range_is_refused(fraction):
    with pytest.raises(UserError, match="keep is"):
        keep_threshold([0.1, 0.2], fraction)


def test_undefined_pairs_are_never_kept():
    assert consistent([np.nan, -1.0, 1.0], -1.0).tolist() == [False, True, True]


def test_retention_counts_what_each_threshold_keeps():
    vc = [0.7, np.nan, -1, 0.7, 0.2]
    assert retention(vc, [-1, 0.7, 0.7000001, 0.2, 1]).tolist() == [4, 2, 0, 3, 0]
    assert len(retention(vc)) == len(LADDER)
    assert retention([], [0]).tolist() == [0]


def test_too_few_pairs_are_refused_with_the_ladder():
    vc = np.concatenate([np.full(3, 0.95), np.full(7, 0.3), [np.nan]])
    assert check_enough(vc, 0.9, 3, "helpful-base").sum() == 3
    with pytest.raises(UserError) as caught:
        check_enough(vc, 0.9, 8, "helpful-base")
    message = str(caught.value)
    assert "3 of the 11 pairs of data set 'helpful-base'" in message
    assert "1 undefined" in message
    assert "0.25: 10" in message
    assert "0.9: 3" in message


A = [[[0, 10], [2, 30]], [[4, 10], [6, 30]]]
B = [[[1, 5], [1, 7]], [[3, 5], [3, 7]]]


def test_sigma_by_dataset_is_each_sets_own_spread():
    got = sigma({"a": table(A), "b": table(B)}, "dataset")
    np.testing.assert_allclose(got["a"], [math.sqrt(5), 10])
    np.testing.assert_allclose(got["b"], [1, 1])


def test_sigma_by_value_takes_each_reward_from_its_own_set():
    got = sigma({"a": table(A), "b": table(B)}, "value")
    for name in ("a", "b"):
        np.testing.assert_allclose(got[name], [math.sqrt(5), 1])


def test_sigma_pooled_is_the_spread_over_all_responses():
    got = sigma({"a": table(A), "b": table(B)}, "pooled")
    both = np.concatenate([np.reshape(A, (-1, 2)), np.reshape(B, (-1, 2))])
    for name in ("a", "b"):
        np.testing.assert_allclose(got[name], both.std(axis=0))


def test_sigma_refuses_unknown_modes_other_values_and_missing_sets():
    with pytest.raises(UserError, match="did you mean 'pooled'"):
        sigma({"a": table(A)}, "poled")
    with pytest.raises(UserError, match="same values"):
        sigma({"a": table(A), "b": table(B, values=("b", "a"))})
    with pytest.raises(UserError, match="none for 'b'"):
        sigma({"a": table(A)}, "value")
    with pytest.raises(UserError, match="at least one data set"):
        sigma({})


def test_a_reward_without_spread_is_refused_by_value_and_data_set():
    flat = table([[[1, 2], [2, 2]], [[3, 2], [4, 2]]], dataset="beaver")
    with pytest.raises(UserError, match=r"value 'b' .* data set 'beaver'"):
        sigma({"a": flat})


def test_opposite_signs_is_the_share_of_conflicting_pairs():
    gaps = [[1, -1, 0], [1e-200, -1e-200, 3], [2, 2, -1], [-3, -1, -1]]
    expected = [[0, 0.5, 0.25], [0.5, 0, 0.5], [0.25, 0.5, 0]]
    np.testing.assert_array_equal(opposite_signs(gaps), expected)
    np.testing.assert_array_equal(opposite_signs([[1.0], [-1.0]]), [[0]])


def test_gap_correlation_is_pearsons_and_undefined_without_variation():
    gaps = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(gap_correlation(gaps), np.corrcoef(gaps.T), atol=1e-12)
    gaps[:, 1] = 4
    got = gap_correlation(gaps)
    assert np.isnan(got[1]).all()
    np.testing.assert_allclose(got[0, 2], np.corrcoef(gaps[:, 0], gaps[:, 2])[0, 1])
    np.testing.assert_allclose(gap_correlation([[1.0], [2.0]]), [[1.0]])


@pytest.mark.parametrize("matrix", [opposite_signs, gap_correlation])
def test_conflict_without_pairs_is_refused(matrix):
    with pytest.raises(UserError, match="at least one pair"):
        matrix(np.zeros((0, 2)))


AGREEMENT = st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, -0.7, 0.0, 0.3, 0.7, 1.0, math.nan]))


@given(vc=st.lists(AGREEMENT, max_size=25))
def test_the_automatic_threshold_is_the_best_of_all_that_could_be(vc):
    vc = np.array(vc, dtype=np.float64)
    candidates = np.unique(vc[vc > 0])
    if not candidates.size:
        with pytest.raises(UserError, match="no threshold helps"):
            auto_threshold(vc)
        return

    def gain(tau):
        kept = vc[consistent(vc, tau)]
        return math.sqrt(len(kept)) * kept.mean()

    tau = auto_threshold(vc)
    assert tau in candidates
    assert gain(tau) == pytest.approx(max(gain(other) for other in candidates))


def test_the_automatic_threshold_weighs_agreement_against_number():
    # sqrt(2) x 0.9 = 1.27, sqrt(3) x 0.7 = 1.21: the third pair adds less than it blurs.
    assert auto_threshold([0.9, 0.9, 0.3, -0.5, np.nan]) == 0.9
    # sqrt(3) x 0.8 = 1.39 > 1.27
    assert auto_threshold([0.9, 0.9, 0.6]) == 0.6
    assert auto_threshold([1.0]) == 1.0
    assert auto_threshold(np.full(7, 0.4)) == 0.4


def test_the_automatic_threshold_takes_tied_pairs_together_in_any_order():
    vc = [1.0, 0.42, 0.42, 0.42, 0.42, 0.42, 0.42]
    assert auto_threshold(vc) == auto_threshold(vc[::-1]) == 0.42


@given(vc=st.lists(AGREEMENT, max_size=25), tau=st.sampled_from([-1.0, -0.5, 0.0, 0.3, 0.7, 1.0]), soft=st.booleans())
def test_the_weights_of_a_filter_are_those_of_its_kept_pairs(vc, tau, soft):
    vc = np.array(vc, dtype=np.float64)
    weights = row_weights(vc, tau, soft=soft)
    kept = consistent(vc, tau)
    assert (weights >= 0).all()
    assert not weights[~kept].any()
    if not soft:
        assert (weights[kept] == 1).all()
    elif kept.any():
        # Pairs exactly on the threshold weigh nothing, unless there are no others.
        graded = weights != 0
        assert weights[graded].mean() == pytest.approx(1)
        assert (graded == (vc > tau)).all() or (weights[kept] == 1).all()
        order = np.argsort(vc[kept])
        assert (np.diff(weights[kept][order]) >= -1e-12).all()


@given(vc=st.lists(AGREEMENT, max_size=25), tau=st.sampled_from([0.1, 0.3, 0.7, 1.0]), soft=st.booleans())
def test_flipping_treats_a_pair_and_the_same_pair_written_the_other_way_round_alike(vc, tau, soft):
    vc = np.array(vc, dtype=np.float64)
    weights = row_weights(vc, tau, soft=soft, flip=True)
    np.testing.assert_allclose(row_weights(-vc, tau, soft=soft, flip=True), -weights)
    taken = weights != 0
    assert (np.sign(weights[taken]) == np.sign(vc[taken])).all()
    assert not weights[~(np.abs(vc) >= tau)].any()
    if taken.any():
        assert np.abs(weights[taken]).mean() == pytest.approx(1)


def test_soft_weights_on_hand_worked_numbers():
    # strengths 0, 0.1, 0.3 and, flipped, 0.2; their mean over the three that count is 0.2
    np.testing.assert_allclose(
        row_weights([0.7, 0.8, 1.0, -0.9, 0.2, np.nan], 0.7, soft=True, flip=True), [0, 0.5, 1.5, -1, 0, 0]
    )
    np.testing.assert_allclose(row_weights([0.7, 0.8, 1.0, -0.9], 0.7, soft=True), [0, 0.5, 1.5, 0])


@pytest.mark.parametrize("soft", [False, True])
def test_where_all_kept_pairs_lie_on_the_threshold_all_weigh_the_same(soft):
    np.testing.assert_array_equal(row_weights([1.0, 1.0, 0.2, -1.0], 1.0, soft=soft), [1, 1, 0, 0])
    np.testing.assert_array_equal(row_weights([1.0, 1.0, 0.2, -1.0], 1.0, soft=soft, flip=True), [1, 1, 0, -1])


@pytest.mark.parametrize("tau", [0.0, -0.7, math.nan])
def test_flipping_at_or_below_zero_is_refused(tau):
    with pytest.raises(UserError, match="Flipping pairs needs a threshold above 0"):
        row_weights([0.5, -0.5], tau, flip=True)
