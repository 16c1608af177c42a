"""The reward table: gaps and spreads as worked by hand, Parquet there and back, and refusals that name the culprit."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.rewards.table import RewardTable

SIDES = ("chosen", "rejected")
SCORES = [[[1, 10], [0, 30]], [[3, 20], [4, 20]]]


def table(scores=SCORES, sides=SIDES, values=("a", "b"), dataset=""):
    scores = np.asarray(scores, dtype=float)
    return RewardTable([f"p{i}" for i in range(len(scores))], sides, values, scores, dataset)


def test_raw_gaps_are_chosen_minus_rejected():
    np.testing.assert_array_equal(table().gaps(normalise=False), [[1, -20], [-1, 0]])


def test_the_sides_are_found_by_name_not_by_place():
    swapped = table(np.asarray(SCORES)[:, ::-1], sides=("rejected", "chosen"))
    np.testing.assert_array_equal(swapped.gaps(), table().gaps())


def test_sigma_is_the_population_spread_over_items_and_sides():
    np.testing.assert_allclose(table().sigma(), [np.sqrt(2.5), np.sqrt(50)])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_sigma_of_a_long_table_equals_numpys(n):
    scores = np.random.default_rng(n).normal(size=(40_000, 2, n)) * 10.0 ** np.arange(n) + 1e4
    long = RewardTable(["pair"] * 40_000, ("chosen", "rejected"), tuple("abcde"[:n]), scores)
    np.testing.assert_allclose(long.sigma(), scores.reshape(-1, n).std(axis=0), rtol=1e-11)


def test_normalised_gaps_divide_by_the_own_or_the_given_sigma():
    np.testing.assert_allclose(table().gaps(), [[1 / 2.5**0.5, -20 / 50**0.5], [-1 / 2.5**0.5, 0]])
    np.testing.assert_allclose(table().gaps(sigma=[2, 4]), [[0.5, -5], [-0.5, 0]])


def test_gaps_leave_the_raw_scores_alone():
    rewards = table()
    rewards.gaps()
    np.testing.assert_array_equal(rewards.scores, SCORES)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_sigma_neither_overflows_nor_underflows(scale):
    np.testing.assert_allclose(table(np.asarray(SCORES) * scale).sigma() / scale, table().sigma())


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_any_number_of_values_and_any_shift_of_a_reward(n):
    scores = np.random.default_rng(n).normal(size=(20, 2, n))
    values = tuple("abcde"[:n])
    gaps = table(scores, values=values).gaps()
    assert gaps.shape == (20, n)
    np.testing.assert_allclose(table(3 * scores + 100, values=values).gaps(), gaps, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_pair_side_value_and_data_set(bad):
    scores = np.array(SCORES, dtype=float)
    scores[1, 1, 0] = bad
    with pytest.raises(UserError, match=r"value 'a' .*rejected.* item 'p1' .*'beaver'"):
        table(scores, dataset="beaver")


def test_a_reward_without_spread_names_value_and_data_set():
    constant = np.full((4, 2, 2), 0.1)
    constant[:, :, 0] += np.arange(8).reshape(4, 2)
    with pytest.raises(UserError, match=r"value 'b' gives all 8 responses of data set 'hh' the same score, 0\.1"):
        table(constant, dataset="hh").gaps()
    assert table(constant).gaps(normalise=False).shape == (4, 2)


def test_shapes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="shape"):
        RewardTable(["p"], SIDES, ("a", "b"), np.zeros((1, 2, 3)))
    with pytest.raises(UserError, match="value 'a' occurs twice"):
        table(values=("a", "a"))
    with pytest.raises(UserError, match="at least one item"):
        table(np.zeros((0, 2, 2)))
    with pytest.raises(UserError, match="sides 'chosen' and 'rejected'"):
        table(sides=("base", "soup")).gaps()


@pytest.mark.parametrize("sigma", [[1], [1, 0], [1, -2], [1, np.nan]])
def test_a_sigma_that_cannot_divide_is_refused(sigma):
    with pytest.raises(UserError, match="sigma"):
        table().gaps(sigma=sigma)


def test_a_misspelt_value_is_answered_with_the_nearest():
    rewards = table(values=("helpful", "honest"))
    assert rewards.value_index("honest") == 1
    with pytest.raises(UserError, match="did you mean 'helpful'"):
        rewards.value_index("helpfull")


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(0, 2**32 - 1),
)
def test_parquet_brings_everything_back_bit_for_bit(tmp_path_factory, items, sides, values, seed):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    scores = np.random.default_rng(seed).normal(size=(len(items), sides, values))
    saved = RewardTable(items, tuple(f"s{i}" for i in range(sides)), tuple("abcde"[:values]), scores, "set")
    saved.save(path)
    loaded = RewardTable.load(path)
    assert (loaded.items, loaded.sides, loaded.values, loaded.dataset) == (
        saved.items,
        saved.sides,
        saved.values,
        saved.dataset,
    )
    np.testing.assert_array_equal(loaded.scores, scores)


@pytest.mark.parametrize("together", [1, 7, 24, 1 << 20])
def test_a_file_of_many_row_groups_brings_everything_back(tmp_path, monkeypatch, together):
    monkeypatch.setattr("valuesoup.rewards.table._ROW_GROUP", together)
    saved = table(np.random.default_rng(0).normal(size=(50, 2, 3)), values=("a", "b", "c"))
    saved.save(tmp_path / "t.parquet")
    loaded = RewardTable.load(tmp_path / "t.parquet")
    assert (loaded.items, loaded.sides, loaded.values) == (saved.items, saved.sides, saved.values)
    np.testing.assert_array_equal(loaded.scores, saved.scores)
    rows = pl.read_parquet(tmp_path / "t.parquet")
    order = np.r_[0:148, 150, 149, 148, 151:300]  # within one item, the sides and values in another order
    rows[order].write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="complete"):
        RewardTable.load(tmp_path / "t.parquet")
    pl.concat([rows[:3], rows[6:9], rows[3:6], rows[9:]]).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="complete"):
        RewardTable.load(tmp_path / "t.parquet")


def test_the_items_are_a_list_of_texts_that_cannot_change():
    items = table(np.arange(400.0).reshape(100, 2, 2)).items
    assert items == [f"p{number}" for number in range(100)]
    assert items != [*items[:99], "other"]
    assert items != list(items)[:99]
    assert (items[-1], items[3:5], list(items)[7], len(items)) == ("p99", ["p3", "p4"], "p7", 100)
    with pytest.raises(TypeError):
        items[0] = "other"


def test_the_file_is_a_plain_long_table_for_other_tools(tmp_path):
    table().save(tmp_path / "t.parquet")
    frame = pl.read_parquet(tmp_path / "t.parquet").with_columns(pl.col("item", "side", "value").cast(pl.String))
    assert frame.rows()[:3] == [("p0", "chosen", "a", 1.0), ("p0", "chosen", "b", 10.0), ("p0", "rejected", "a", 0.0)]
    assert frame.shape == (8, 4)


def test_files_that_are_no_complete_reward_table_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match="no reward table at"):
        RewardTable.load(path)
    path.write_text("not parquet")
    with pytest.raises(UserError, match="not a Parquet file"):
        RewardTable.load(path)
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(UserError, match="its columns are x"):
        RewardTable.load(path)
    table().save(path)
    rows = pl.read_parquet(path)
    rows[:-1].write_parquet(path)
    with pytest.raises(UserError, match="complete"):
        RewardTable.load(path)
    rows.reverse()[[0, 2, 1, 3, 4, 5, 6, 7]].write_parquet(path)
    with pytest.raises(UserError, match="complete"):
        RewardTable.load(path)
