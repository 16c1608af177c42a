import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.data import Pairs, split_pairs
from valuesoup.errors import UserError


def pairs_of(prompts: list[int], answers: int = 1) -> Pairs:
    rows = [
        {"prompt": f"p{prompt}", "chosen": f"good {answer}", "rejected": "bad"}
        for prompt in prompts
        for answer in range(answers)
    ]
    return Pairs.from_rows(rows)


def test_the_sizes_of_the_paper_are_the_defaults() -> None:
    split = split_pairs({"kind": pairs_of(list(range(600)), answers=2)})["kind"]
    assert [len(set(part.prompt_ids)) for part in (split.test, split.validation, split.train)] == [200, 50, 350]
    assert [len(part) for part in (split.test, split.validation, split.train)] == [400, 100, 700]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_no_held_out_prompt_of_any_value_is_trained_on_under_any_value(count: int, data: st.DataObject) -> None:
    pool = st.sets(st.integers(0, 120), min_size=70, max_size=121)
    values = {
        f"value{i}": pairs_of(sorted(data.draw(pool)), answers=data.draw(st.integers(1, 2))) for i in range(count)
    }
    seed = data.draw(st.integers(0, 3))
    splits = split_pairs(values, test_prompts=6, validation_prompts=4, seed=seed)
    assert list(splits) == list(values)
    tested = {prompt for split in splits.values() for prompt in split.test.prompt_ids}
    validated = {prompt for split in splits.values() for prompt in split.validation.prompt_ids}
    trained = {prompt for split in splits.values() for prompt in split.train.prompt_ids}
    assert not tested & trained
    assert not tested & validated
    assert not validated & trained
    for value, split in splits.items():
        assert len(set(split.test.prompt_ids)) == 6
        assert len(set(split.validation.prompt_ids)) == 4
        parts = len(split.train) + len(split.validation) + len(split.test)
        assert parts + sum(split.train.dropped.values()) == len(values[value])


def test_values_on_the_same_prompts_are_split_alike_and_lose_nothing() -> None:
    splits = split_pairs({"a": pairs_of(list(range(40))), "b": pairs_of(list(range(40)))}, 10, 5)
    assert splits["a"].test.ids == splits["b"].test.ids
    assert splits["a"].train.dropped == splits["b"].train.dropped == {}


def test_a_test_set_does_not_depend_on_the_other_values_or_the_order_of_rows() -> None:
    own = list(range(100))
    alone = split_pairs({"a": pairs_of(own)}, 10, 5)["a"]
    joint = split_pairs({"b": pairs_of(list(range(70, 110))), "a": pairs_of(own[::-1])}, 10, 5)["a"]
    assert set(joint.test.prompt_ids) == set(alone.test.prompt_ids)
    assert joint.train.dropped["conversation held out"] > 0


def test_the_seed_alone_chooses() -> None:
    pairs = {"a": pairs_of(list(range(60)))}
    first, again, other = (split_pairs(pairs, 10, 5, seed=seed)["a"].test.ids for seed in (0, 0, 1))
    assert first == again != other


def test_earlier_drops_are_counted_with_the_training_part_only() -> None:
    pairs = Pairs(pairs_of(list(range(20))).table, {"duplicate": 4})
    split = split_pairs({"a": pairs}, 3, 2)["a"]
    assert split.train.dropped == {"duplicate": 4}
    assert split.test.dropped == split.validation.dropped == {}
    assert pairs.dropped == {"duplicate": 4}


def test_no_held_out_prompts_may_be_asked_for() -> None:
    split = split_pairs({"a": pairs_of([1, 2])}, 0, 0)["a"]
    assert [len(part) for part in (split.train, split.validation, split.test)] == [2, 0, 0]


def test_too_few_prompts_are_refused_with_the_numbers() -> None:
    with pytest.raises(
        UserError, match="value 'small' has 250 prompts in 250 conversations, too few for 200 test and 50"
    ):
        split_pairs({"big": pairs_of(list(range(400))), "small": pairs_of(list(range(250)))})
    with pytest.raises(UserError, match=r"no pairs to split"):
        split_pairs({})
    with pytest.raises(UserError, match="test_prompts must be at least 0, got -1"):
        split_pairs({"a": pairs_of([1])}, test_prompts=-1)


def test_prompts_used_up_by_other_values_are_refused_with_the_numbers() -> None:
    windows = {f"v{i}": pairs_of([i, (i + 1) % 10, (i + 2) % 10]) for i in range(10)}
    with pytest.raises(UserError, match=r"value 'v\d' has 3 prompts in 3 conversations, too few for 2 test"):
        split_pairs(windows, test_prompts=2, validation_prompts=0)


def test_nothing_of_a_held_out_conversation_is_trained_on() -> None:
    rows = []
    for number in range(40):
        opening = [{"role": "system", "content": "be kind"}, {"role": "user", "content": f"p{number}"}]
        longer = [*opening, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then?"}]
        for prompt in (opening, longer):
            sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
            rows.append({"prompt": prompt, **sides})
    split = split_pairs({"a": Pairs.from_rows(rows)}, 10, 5)["a"]
    first = [{pair.prompt[1]["content"] for pair in part} for part in (split.train, split.validation, split.test)]
    assert [len(turns) for turns in first] == [25, 5, 10]
    assert not first[0] & (first[1] | first[2]) and not first[1] & first[2]
    assert [len(part) for part in (split.train, split.validation, split.test)] == [50, 5, 10]
    assert split.train.dropped == {"conversation held out": 15}
