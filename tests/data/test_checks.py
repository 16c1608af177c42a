import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.data import Pairs, check, drop_long, drop_shared_prompts, load_pairs


def rows(*triples: tuple[str, str, str]) -> list[dict[str, object]]:
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in triples]


def kept(*triples: tuple[str, str, str]) -> tuple[list[int], dict[str, int]]:
    pairs = load_pairs(rows(*triples))
    return pairs.table["row"].to_pylist(), pairs.dropped


def test_good_pairs_stay_and_nothing_is_counted() -> None:
    assert kept(("p", "a", "b"), ("p", "a", "c"), ("q", "b", "a")) == ([1, 2, 3], {})


def test_blank_parts_are_dropped_each_under_its_reason() -> None:
    good = ("p", "a", "b")
    assert kept(good, ("", "a", "b"), (" \n", "a", "b"), ("q", "\t", "b"), ("q", "a", "\u2003")) == (
        [1],
        {"no prompt": 2, "empty chosen": 1, "empty rejected": 1},
    )


def test_a_row_counts_once_under_the_first_reason() -> None:
    assert kept(("", "", ""), ("p", "a", "b")) == ([2], {"no prompt": 1})


def test_equal_sides_are_dropped_white_space_aside() -> None:
    assert kept(("p", "a", "a"), ("p", "a", " a\n"), ("p", "a", "A")) == ([3], {"equal sides": 2})


def test_both_orders_of_a_pair_contradict_each_other_and_all_go() -> None:
    assert kept(("p", "a", "b"), ("p", "b", "a"), ("p", "a", "b"), ("p", "a", "c"), ("q", "b", "a")) == (
        [4, 5],
        {"contradiction": 3},
    )


def test_the_first_of_duplicates_stays() -> None:
    assert kept(("p", "a", "b"), ("q", "a", "b"), ("p", "a", " b"), ("p", "a", "b")) == (
        [1, 2],
        {"duplicate": 2},
    )


def test_conversations_that_do_not_alternate_to_an_answer_are_dropped() -> None:
    def turns(*roles: str, last: str = "x") -> list[dict[str, str]]:
        return [{"role": role, "content": f"{role}{last}"} for role in roles]

    good = {"prompt": turns("user"), "chosen": turns("assistant"), "rejected": turns("assistant", last="y")}
    pairs = load_pairs(
        [
            good,
            good | {"prompt": turns("user", "assistant")},
            good | {"prompt": []},
            good | {"chosen": turns("assistant", "user")},
        ]
    )
    assert pairs.table["row"].to_pylist() == [1]
    assert pairs.dropped == {
        "prompt does not end in a user turn": 1,
        "no prompt": 1,
        "answer does not end in an assistant turn": 1,
    }


def test_transcripts_without_a_common_prompt_or_without_an_answer_are_dropped() -> None:
    start = "\n\nHuman: hi\n\nAssistant:"
    pairs = load_pairs(
        [
            {"chosen": f"{start} a", "rejected": f"{start} b"},
            {"chosen": f"{start} a", "rejected": "\n\nHuman: ho\n\nAssistant: b"},
            {"chosen": f"{start} a", "rejected": "\n\nHuman: hi"},
            {"chosen": f"{start} ", "rejected": f"{start} b"},
            {"chosen": "", "rejected": f"{start} b"},
            {"chosen": f"{start} a", "rejected": f"{start} a"},
        ]
    )
    assert pairs.table["row"].to_pylist() == [1]
    assert pairs.dropped == {"no prompt": 2, "empty rejected": 1, "empty chosen": 1, "equal sides": 1}


def test_checking_everything_away_leaves_no_pairs() -> None:
    pairs = load_pairs(rows(("p", "a", "a")))
    assert (len(pairs), pairs.dropped) == (0, {"equal sides": 1})
    assert len(check(pairs)) == 0


def test_prompts_of_another_split_are_dropped_and_counted() -> None:
    train = load_pairs(rows(("p", "a", "b"), ("q", "a", "b"), ("p", "a", "c")))
    test = load_pairs(rows(("p", "x", "y")))
    clean = drop_shared_prompts(train, set(test.prompt_ids), "prompt in the test split")
    assert clean.table["row"].to_pylist() == [2]
    assert clean.dropped == {"prompt in the test split": 2}
    assert drop_shared_prompts(train, set(), "none").ids == train.ids


LETTERS = st.sampled_from(["", "a", "b", " a", "c"])


@given(st.lists(st.tuples(LETTERS, LETTERS, LETTERS), min_size=1, max_size=25))
@settings(max_examples=80, deadline=None)
def test_what_stays_equals_a_plain_search_and_every_row_is_accounted_for(
    triples: list[tuple[str, str, str]],
) -> None:
    pairs = load_pairs(rows(*triples))
    plain = [tuple(text.strip() for text in triple) for triple in triples]
    usable = {i for i, (p, c, r) in enumerate(plain) if p and c and r and c != r}
    firm = {i for i in usable if (plain[i][0], plain[i][2], plain[i][1]) not in [plain[j] for j in usable]}
    expected = [i for i in sorted(firm) if plain.index(plain[i]) == i]
    assert (pairs.table["row"].to_numpy() - 1).tolist() == expected
    assert len(pairs) + sum(pairs.dropped.values()) == len(triples)


def test_scores_follow_their_pairs_through_the_checks() -> None:
    scored = [
        row | {"chosen_score/x": i, "rejected_score/x": -i}
        for i, row in enumerate(rows(*[("p", "a", "a")] * 2, ("p", "a", "b")))
    ]
    assert np.array_equal(load_pairs(scored).scores("x"), [[2, -2]])


def test_pairs_of_several_parts_are_checked_against_each_other() -> None:
    one, other = (Pairs.from_rows(rows(triple)) for triple in [("p", "a", "b"), ("p", "b", "a")])
    assert check(Pairs.concat([one, other])).dropped == {"contradiction": 2}


def test_pairs_with_more_words_than_the_limit_are_dropped_and_counted() -> None:
    rows = [
        {"prompt": "one two", "chosen": "three", "rejected": "three four"},
        {"prompt": "one two", "chosen": "a b c", "rejected": "d"},
    ]
    kept = drop_long(Pairs.from_rows(rows), 4)
    assert [pair.chosen[0]["content"] for pair in kept] == ["three"]
    assert kept.dropped["longer than 4 words"] == 1
