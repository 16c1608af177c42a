import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.data import Message, parse_transcript, render_transcript
from valuesoup.errors import UserError

CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def talk(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(role=roles[i % 2], content=content) for i, content in enumerate(contents)]


def test_a_transcript_is_split_into_its_turns() -> None:
    text = "\n\nHuman: hi\n\nAssistant: yes?\n\n1. a list\n\nHuman: bye\n\nAssistant:"
    assert parse_transcript(text) == talk("hi", "yes?\n\n1. a list", "bye", "")


def test_a_conversation_is_written_in_the_form_of_hh_rlhf() -> None:
    assert render_transcript(talk("hi", "yes?")) == "\n\nHuman: hi\n\nAssistant: yes?"
    assert render_transcript(talk("hi"), add_generation_prompt=True) == "\n\nHuman: hi\n\nAssistant:"


@given(st.lists(CONTENT, min_size=1, max_size=6), CONTENT)
def test_parsing_undoes_rendering(contents: list[str], system: str) -> None:
    messages = talk(*contents)
    if system.strip():
        messages.insert(0, Message(role="system", content=system))
    assert parse_transcript(render_transcript(messages)) == messages


@given(st.lists(st.sampled_from(["\n\nHuman: ", "\n\nAssistant: ", "x", " ", "\n"]), max_size=12))
def test_rendering_undoes_parsing_of_every_well_formed_transcript(pieces: list[str]) -> None:
    text = "\n\nHuman: " + "".join(pieces)
    assert render_transcript(parse_transcript(text)) == text


def test_markers_inside_a_line_or_with_one_newline_are_content() -> None:
    content = "he said Human: hello\nAssistant: no\n\nhuman: small"
    assert parse_transcript(f"\n\nHuman: {content}") == talk(content)


def test_roles_without_a_marker_are_refused() -> None:
    with pytest.raises(UserError, match="message 2 has the role 'tool'"):
        render_transcript([*talk("hi"), Message(role="tool", content="4")])
    with pytest.raises(UserError, match="message 2 has the role 'system'"):
        render_transcript([*talk("hi"), Message(role="system", content="late")])
