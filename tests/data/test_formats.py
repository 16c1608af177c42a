import pytest

from valuesoup.data import Message, Pairs, load_pairs
from valuesoup.errors import UserError


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def only(row: dict[str, object]) -> tuple[list[Message], list[Message], list[Message]]:
    pair = Pairs.from_rows([row])[0]
    return list(pair.prompt), list(pair.chosen), list(pair.rejected)


def test_hh_transcripts_share_their_prompt_up_to_the_last_common_human_turn() -> None:
    start = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: how?\n\nAssistant: "
    prompt, chosen, rejected = only({"chosen": start + "so", "rejected": start + "no"})
    assert prompt == [user("hi"), assistant("yes?"), user("how?")]
    assert (chosen, rejected) == ([assistant("so")], [assistant("no")])


def test_hh_transcripts_that_part_earlier_keep_their_later_turns_as_the_answer() -> None:
    prompt, chosen, rejected = only(
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: a\n\nHuman: go\n\nAssistant: b",
            "rejected": "\n\nHuman: hi\n\nAssistant: c",
        }
    )
    assert prompt == [user("hi")]
    assert chosen == [assistant("a"), user("go"), assistant("b")]
    assert rejected == [assistant("c")]


def test_hh_answers_that_repeat_the_marker_become_one_turn() -> None:
    _, chosen, _ = only(
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: a\n\nAssistant: b",
            "rejected": "\n\nHuman: hi\n\nAssistant: c",
        }
    )
    assert chosen == [assistant("a\n\nb")]


def test_trl_standard_rows_keep_their_text_letter_by_letter() -> None:
    hostile = "\n\nHuman: forget it\n\nAssistant: done "
    prompt, chosen, rejected = only({"prompt": " the sky ", "chosen": hostile, "rejected": " green\n"})
    assert prompt == [user(" the sky ")]
    assert (chosen, rejected) == ([assistant(hostile)], [assistant(" green\n")])


def test_a_prompt_that_is_a_transcript_is_split_into_turns() -> None:
    prompt, chosen, _ = only(
        {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": "d", "rejected": "e"}
    )
    assert prompt == [user("a"), assistant("b"), user("c")]
    assert chosen == [assistant("d")]


def test_transcripts_that_lost_their_first_blank_lines_are_recognised() -> None:
    expected = ([user("hi")], [assistant("a")], [assistant("b")])
    start = "Human: hi\n\nAssistant:"
    assert only({"chosen": f"{start} a", "rejected": f"{start} b"}) == expected
    assert only({"prompt": start, "chosen": "a", "rejected": "b"}) == expected


def test_a_prompt_that_only_mentions_a_transcript_is_one_turn() -> None:
    text = "Continue: \n\nHuman: a\n\nAssistant:"
    assert only({"prompt": text, "chosen": "d", "rejected": "e"})[0] == [user(text)]


def test_texts_without_a_prompt_share_their_beginning_up_to_a_space() -> None:
    prompt, chosen, rejected = only({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert prompt == [user("The sky is")]
    assert (chosen, rejected) == ([assistant("blue.")], [assistant("black.")])


def test_conversational_rows_with_a_prompt() -> None:
    row = {"prompt": [user("x")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert only(row) == ([user("x")], [assistant("a")], [assistant("b")])


def test_conversational_rows_without_a_prompt_or_repeating_it() -> None:
    system: Message = {"role": "system", "content": "be brief"}
    chosen, rejected = [system, user("x"), assistant("a")], [system, user("x"), assistant("b")]
    expected = ([system, user("x")], [assistant("a")], [assistant("b")])
    assert only({"chosen": chosen, "rejected": rejected}) == expected
    assert only({"prompt": "x", "chosen": chosen, "rejected": rejected}) == expected


def test_a_text_prompt_with_conversational_answers_is_a_user_turn() -> None:
    row = {"prompt": "x", "chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert only(row)[0] == [user("x")]


@pytest.mark.parametrize(
    ("chosen", "rejected", "value"),
    [
        ("chosen_score/kind", "rejected_score/kind", "kind"),
        ("chosen_kind", "rejected_kind", "kind"),
        ("kind_chosen", "kind_rejected", "kind"),
        ("score_chosen", "score_rejected", "score"),
        ("chosen_score", "rejected_score", "score"),
    ],
)
def test_columns_of_scores_are_found_by_their_names(chosen: str, rejected: str, value: str) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", chosen: 1, rejected: 0.5},
        {"prompt": "q", "chosen": "a", "rejected": "b", chosen: 1.0 if "score/" in chosen else True, rejected: None},
    ]
    pairs = Pairs.from_rows(rows)
    assert pairs.score_values == [value]
    assert pairs.scores(value)[0].tolist() == [1, 0.5]
    assert str(pairs.scores(value)[1].tolist()) == "[1.0, nan]"


def test_texts_about_the_sides_are_no_scores() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": "m", "rejected_model": "n"}
    assert Pairs.from_rows([row]).score_values == []


def test_a_declared_score_must_be_numbers_on_both_sides() -> None:
    row: dict[str, object] = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score/x": 1}
    with pytest.raises(UserError, match="has 'chosen_score/x' without 'rejected_score/x'"):
        Pairs.from_rows([row])
    with pytest.raises(UserError, match="row 1: 'rejected_score/x' must be a number, got 'high'"):
        Pairs.from_rows([row | {"rejected_score/x": "high"}])


SAFE = {"prompt": "p", "response_0": "zero", "response_1": "one"}


def labelled(value: str | None, **labels: object) -> Pairs:
    return load_pairs([SAFE | labels], value=value)


def test_two_labels_on_one_pair_give_one_order_per_value() -> None:
    both = {"better_response_id": 0, "safer_response_id": 1}
    better, safer = (labelled(value, **both) for value in ("better", "safer"))
    assert better[0].chosen == (assistant("zero"),)
    assert safer[0].chosen == (assistant("one"),)
    assert labelled("safer_response_id", **both).ids == safer.ids
    assert better.scores("better").tolist() == [[1, 0]]
    assert better.scores("safer").tolist() == [[0, 1]]


def test_a_pair_without_the_label_is_dropped_and_counted() -> None:
    rows = [SAFE | {"better_response_id": 1}, SAFE | {"prompt": "q", "better_response_id": None}]
    pairs = load_pairs(rows)
    assert len(pairs) == 1
    assert pairs.dropped == {"no label 'better'": 1}


def test_labels_must_be_chosen_known_and_0_or_1() -> None:
    both = {"better_response_id": 0, "safer_response_id": 1}
    with pytest.raises(UserError, match=r"several labels \(better, safer\)"):
        labelled(None, **both)
    with pytest.raises(UserError, match="no label 'safe'; did you mean 'safer'"):
        labelled("safe", **both)
    with pytest.raises(UserError, match="row 1: 'better_response_id' must be 0 or 1, got 2"):
        labelled(None, better_response_id=2)


def test_a_value_cannot_choose_where_the_sides_are_given() -> None:
    with pytest.raises(UserError, match="value='kind' cannot choose"):
        load_pairs([{"prompt": "p", "chosen": "a", "rejected": "b"}], value="kind")


def test_unknown_columns_list_what_was_found_and_what_is_recognised() -> None:
    with pytest.raises(UserError) as caught:
        Pairs.from_rows([{"prompt": "p", "choosen": "a", "rejected": "b"}], source="x.jsonl")
    message = str(caught.value)
    assert message.startswith("x.jsonl has the columns prompt, choosen, rejected")
    assert "'choosen'; did you mean 'chosen'?" in message
    assert "response_0, response_1" in message


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": 3}, "row 2: 'prompt' must be a text, got 3"),
        ({"chosen": None}, r"row 2: 'chosen' must be a text, got nothing \(null\)"),
        ({"rejected": ["b"]}, "row 2: 'rejected' must be a text"),
        ({"prompt": "\ud800"}, "row 2: 'prompt' holds text that is not valid Unicode"),
    ],
)
def test_a_malformed_text_names_its_row(bad: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(UserError, match=message):
        Pairs.from_rows([good, good | bad])


def test_a_row_without_a_column_names_the_row_and_the_near_name() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a", "rejectd": "b"}]
    with pytest.raises(UserError, match="row 2: no 'rejected'; did you mean 'rejectd'"):
        Pairs.from_rows(rows)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ("text", "row 2: 'prompt' must be a list of messages, got 'text'"),
        ([{"role": "user"}], "row 2: 'prompt', message 1 needs a text under 'content'"),
        ([{"role": "usr", "content": "x"}], "unknown role 'usr'; did you mean 'user'"),
        ([{"role": "user", "content": 5}], "needs a text under 'content', got 5"),
        (["x"], "message 1 must be a mapping of role and content"),
        ([{"role": "user", "content": "\udfff"}], "row 2: a message is not valid Unicode"),
    ],
)
def test_malformed_messages_name_their_place(turns: object, message: str) -> None:
    good = {"prompt": [user("x")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    with pytest.raises(UserError, match=message):
        Pairs.from_rows([good, good | {"prompt": turns}])


def test_no_rows_and_rows_that_are_no_mappings_are_refused() -> None:
    with pytest.raises(UserError, match="holds no rows"):
        Pairs.from_rows([])
    with pytest.raises(UserError, match="memory, row 1: needed is a mapping of columns, got 'abc'"):
        Pairs.from_rows(["abc"])  # type: ignore[list-item]
