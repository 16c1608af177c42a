import numpy as np
import pytest

from valuesoup.data import Pairs, load_pairs
from valuesoup.errors import UserError


def answer(question: str, text: str, **scores: object) -> dict[str, object]:
    return {"question": question, "answer": text, **scores}


def texts(pairs: Pairs) -> list[tuple[str, str]]:
    return [(pair.chosen[0]["content"], pair.rejected[0]["content"]) for pair in pairs]


QA = [
    answer("p", "best", helpful=4, honest=1),
    answer("q", "only", helpful=4, honest=2),
    answer("p", "worst", helpful=0, honest=3),
    answer("p", "middle", helpful=3, honest=2),
]


def test_the_best_and_the_worst_answer_make_the_pair() -> None:
    pairs = load_pairs(QA, value="helpful")
    assert texts(pairs) == [("best", "worst")]
    assert pairs.dropped == {"prompt whose answers do not differ": 1}
    assert pairs.table["row"].to_pylist() == [1]


def test_another_attribute_turns_the_pair_and_all_attributes_stay_as_scores() -> None:
    pairs = load_pairs(QA, value="honest")
    assert texts(pairs) == [("worst", "best")]
    assert pairs.score_values == ["helpful", "honest"]
    assert pairs.scores("helpful").tolist() == [[0, 4]]
    assert pairs.scores("honest").tolist() == [[3, 1]]


def test_more_pairs_per_prompt_come_by_falling_difference() -> None:
    pairs = load_pairs(QA, value="helpful", pairs_per_prompt=2)
    assert texts(pairs) == [("best", "worst"), ("middle", "worst")]
    assert texts(load_pairs(QA, value="helpful", pairs_per_prompt=9))[2:] == [("best", "middle")]


def test_a_seed_decides_between_equal_differences() -> None:
    rows = [answer("p", f"{kind}{i}", true=kind == "yes") for i in range(9) for kind in ("yes", "no")]
    drawn = {texts(load_pairs(rows, seed=seed))[0] for seed in range(12)}
    assert len(drawn) > 3
    assert all(good.startswith("yes") and bad.startswith("no") for good, bad in drawn)
    assert texts(load_pairs(rows, seed=5)) == texts(load_pairs(rows, seed=5))


def test_unscored_and_empty_answers_are_counted_and_never_chosen() -> None:
    rows = [answer("p", " ", good=9), answer("p", "a", good=2), answer("p", "b", good=1), answer("p", "c", good=None)]
    pairs = load_pairs(rows)
    assert texts(pairs) == [("a", "b")]
    assert pairs.dropped == {"answer without a score": 1, "empty answer": 1}


def test_numbers_that_are_no_attributes_are_not_taken_for_one() -> None:
    rows = [answer("p", "a", good=1, id=7, user_id=3), answer("p", "b", good=0, id=8, user_id=4)]
    assert load_pairs(rows).score_values == ["good"]


def test_a_missing_or_unknown_attribute_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"several attributes \(helpful, honest\): say which"):
        load_pairs(QA)
    with pytest.raises(UserError, match="no attribute 'helpfull'; did you mean 'helpful'"):
        load_pairs(QA, value="helpfull")
    with pytest.raises(UserError, match="pairs_per_prompt must be at least 1, got 0"):
        load_pairs(QA, value="helpful", pairs_per_prompt=0)


def completion(text: str, **ratings: object) -> dict[str, object]:
    return {
        "response": text,
        "annotations": {key: {"Rating": rating, "Rationale": "…"} for key, rating in ratings.items()},
        "overall_score": 5.0,
        "model": "m",
    }


ULTRA = {
    "instruction": "p",
    "completions": [
        completion("one", honesty="5", helpfulness="2"),
        completion("two", honesty="N/A", helpfulness="4"),
        completion("three", honesty="1", helpfulness="3"),
    ],
}


def test_ultrafeedback_ratings_become_attributes() -> None:
    honest = load_pairs([ULTRA], value="honesty")
    assert texts(honest) == [("one", "three")]
    assert honest.dropped == {"answer without a score": 1}
    helpful = load_pairs([ULTRA], value="helpfulness")
    assert texts(helpful) == [("two", "one")]
    assert set(helpful.score_values) == {"overall_score", "honesty", "helpfulness"}
    assert np.isnan(helpful.scores("honesty")[0, 0])


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ("text", "row 1: 'completions' must be a list"),
        (["text"], "row 1: completion 1 must be a mapping with a response"),
        ([{"respnse": "x"}], "row 1: completion 1 needs a text under 'response'"),
        ([completion("x", honesty="good")], "row 1: the rating of 'honesty' in completion 1 must be a number"),
        ([completion("x", honesty=[1])], "row 1: the rating of 'honesty' in completion 1 must be a number"),
        ([completion("\ud800", honesty=1)], "row 1: completion 1 is not valid Unicode"),
        ([{"response": "x", "annotations": 5}], "row 1: the annotations of completion 1 must be a mapping"),
        ([{"response": "x"}], "has answers but no number that scores them"),
    ],
)
def test_malformed_completions_name_their_place(completions: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_pairs([{"instruction": "p", "completions": completions}])
