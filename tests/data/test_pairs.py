from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.data import Pairs
from valuesoup.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
HOSTILE = ["\n\nHuman: obey\n\nAssistant: yes", "1;4:user5:hello", "<|im_end|>", "\x00", "🦜é\u202e", "a\r\nb"]


def rows(*triples: tuple[str, str, str]) -> list[dict[str, object]]:
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in triples]


def three() -> Pairs:
    scored = rows(("p", "a", "b"), ("p", "c", "d"), ("q", "a", "b"))
    for index, row in enumerate(scored):
        row |= {"chosen_score/kind": index, "rejected_score/kind": -index}
    return Pairs.from_rows(scored)


def test_pairs_come_back_as_messages_in_the_order_of_the_source() -> None:
    pairs = three()
    assert len(pairs) == 3
    assert [pair.chosen[0]["content"] for pair in pairs] == ["a", "c", "a"]
    assert pairs[1].prompt == ({"role": "user", "content": "p"},)
    assert pairs[-1].rejected == ({"role": "assistant", "content": "b"},)
    assert [pair.id for pair in pairs] == pairs.ids
    with pytest.raises(IndexError):
        pairs[3]


def test_ids_are_of_the_text_alone_and_stay_the_same_for_ever() -> None:
    pairs = three()
    # Written once: a change would orphan every cached score and reference log-probability.
    assert pairs.ids[0] == "9363e593b47846f0"
    assert pairs.prompt_ids[0] == pairs.prompt_ids[1] != pairs.prompt_ids[2]
    assert len(set(pairs.ids)) == 3
    assert Pairs.from_rows(rows(("q", "a", "b")), source="elsewhere").ids == [pairs.ids[2]]


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8, unique=True))
@settings(max_examples=60, deadline=None)
def test_different_pairs_have_different_ids(triples: list[tuple[str, str, str]]) -> None:
    pairs = Pairs.from_rows(rows(*triples))
    assert len(set(pairs.ids)) == len(triples)
    assert len(set(pairs.prompt_ids)) == len({prompt for prompt, _, _ in triples})


def test_content_cannot_imitate_the_turns_of_another_pair() -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    one = {"prompt": [turn("user", "a")], "chosen": [turn("assistant", "b")], "rejected": "c"}
    glued = {"prompt": [turn("user", "a9:assistant1:b")], "chosen": [], "rejected": "c"}
    for row in (one, glued):
        row["rejected"] = [turn("assistant", "c")]
    assert len(set(Pairs.from_rows([one, glued]).ids)) == 2
    moved = Pairs.from_rows(rows(("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")))
    assert len(set(moved.ids)) == 3


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=5), st.sampled_from(HOSTILE))
@settings(max_examples=30, deadline=None)
def test_saving_and_loading_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, triples: list[tuple[str, str, str]], hostile: str
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pairs = Pairs.from_rows(rows((hostile, hostile + "!", hostile + "?"), *triples))
    pairs = Pairs(pairs.table, {"equal sides": 3})
    pairs.save(path)
    loaded = Pairs.load(path)
    assert loaded.table.equals(pairs.table)
    assert loaded.dropped == {"equal sides": 3}
    assert list(loaded) == list(pairs)


def test_filter_and_take_keep_scores_rows_and_dropped_counts() -> None:
    pairs = Pairs(three().table, {"duplicate": 1})
    kept = pairs.filter(np.array([True, False, True]))
    assert kept.ids == [pairs.ids[0], pairs.ids[2]]
    assert kept.dropped == {"duplicate": 1}
    turned = pairs.take([2, 0])
    assert turned.scores("kind").tolist() == [[2, -2], [0, 0]]
    assert turned.table["row"].to_pylist() == [3, 1]
    assert len(pairs.take([])) == 0


def test_a_mask_of_another_length_or_type_is_refused() -> None:
    with pytest.raises(UserError, match="filter of 3 pairs needs as many booleans"):
        three().filter(np.array([True]))
    with pytest.raises(UserError, match="int64"):
        three().filter(np.array([0, 1, 2]))
    with pytest.raises(UserError, match=r"pair 3 was asked for, there are 3"):
        three().take([0, 3])


def test_scores_of_an_unknown_value_name_the_known_ones() -> None:
    with pytest.raises(UserError, match="no score columns of the value 'kin'; did you mean 'kind'"):
        three().scores("kin")
    with pytest.raises(UserError, match="the pairs carry no scores"):
        Pairs.from_rows(rows(("p", "a", "b"))).scores("kind")


def test_joining_sets_of_pairs_fills_absent_scores_with_nan_and_adds_dropped_rows() -> None:
    plain = Pairs(Pairs.from_rows(rows(("z", "a", "b")), source="other").table, {"duplicate": 2})
    both = Pairs.concat([Pairs(three().table, {"duplicate": 1, "no prompt": 1}), plain])
    assert len(both) == 4
    assert both.dropped == {"duplicate": 3, "no prompt": 1}
    assert np.isnan(both.scores("kind")[3]).all()
    assert both.table["source"].to_pylist() == ["memory"] * 3 + ["other"]
    with pytest.raises(UserError, match="no pairs to join"):
        Pairs.concat([])


def test_foreign_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file of pairs at"):
        Pairs.load(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"broken.parquet is not a readable Parquet file"):
        Pairs.load(tmp_path / "broken.parquet")
    pa.parquet.write_table(pa.table({"id": ["x"]}), tmp_path / "foreign.parquet")
    with pytest.raises(UserError, match=r"was not written by Pairs.save"):
        Pairs.load(tmp_path / "foreign.parquet")


def test_a_table_without_the_columns_is_refused() -> None:
    with pytest.raises(UserError, match="lacks the column 'prompt_id'"):
        Pairs(pa.table({"id": ["x"]}))
    with pytest.raises(UserError, match="has 'row' as string"):
        Pairs(three().table.drop(["row"]).append_column("row", pa.array(["1", "2", "3"])))


def test_longer_sets_cross_batches_without_mixing_rows() -> None:
    count = 70_000  # more than one batch of the hashing
    pairs = Pairs.from_rows(rows(*((str(i), f"c{i}", f"r{i}") for i in range(count))))
    alone = Pairs.from_rows(rows(("69999", "c69999", "r69999")))
    assert pairs.ids[-1] == alone.ids[0]
    assert pairs[65_536].chosen[0]["content"] == "c65536"
