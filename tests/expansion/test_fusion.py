"""Rewriting: what cannot be used is tried again, dropped and counted by reason, whoever rewrites."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tiny_endpoint import serving
from valuesoup.data import Messages
from valuesoup.endpoint import Endpoint, Reply
from valuesoup.errors import UserError
from valuesoup.expansion import Rewriter, Target, fuse
from valuesoup.expansion.fusion import TEMPLATE, Write, by_endpoint, by_function, by_model, instruction, read_template
from valuesoup.worlds.errands import single_value_prompts

VALUES = ("kind", "terse", "true")


def target(*turns: str, missing: Sequence[str] = ("terse",)) -> Target:
    roles = ("user", "assistant")
    return Target([{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)], tuple(missing))


def scripted(*replies: Sequence[Reply]) -> tuple[Write, list[list[str]]]:
    """A rewriter that says what the script says, attempt by attempt, and what it was given."""
    given: list[list[str]] = []

    def write(targets: Sequence[Target], attempt: int) -> list[Reply]:
        assert attempt == len(given)
        given.append([one.messages[-1]["content"] for one in targets])
        return list(replies[attempt])

    return write, given


def short(messages: Messages) -> bool:
    return len(messages[-1]["content"]) <= 20


def test_only_the_last_turn_is_rewritten() -> None:
    write, _ = scripted([Reply(" and kindly ?\n")])
    fusion = fuse([target("hi", "hello", "how ?")], write, short)
    assert fusion.prompts == [target("hi", "hello", "and kindly ?").messages]
    assert fusion.counts == {"fused": 1, "failed": 0, "empty": 0, "unchanged": 0, "too_long": 0}


def test_every_reason_is_counted_and_the_counts_add_up() -> None:
    said = [Reply("new one"), Reply(None, failure="x"), Reply(" \n"), Reply(" D  d"), Reply("e" * 21)]
    said += [Reply("cut of", finished=False)]
    write, _ = scripted(said)
    fusion = fuse([target(text) for text in ("a", "b", "c", "d d", "e", "f")], write, short, attempts=1)
    assert fusion.counts == {"fused": 1, "failed": 1, "empty": 1, "unchanged": 1, "too_long": 2}
    assert [prompt is not None for prompt in fusion.prompts] == [True, False, False, False, False, False]


def test_what_cannot_be_used_is_tried_again_and_nothing_else() -> None:
    write, given = scripted(
        [Reply("new a"), Reply(""), Reply("c")],
        [Reply("new b"), Reply(None)],
        [Reply("")],
    )
    fusion = fuse([target("a"), target("b"), target("c")], write, short, attempts=3)
    assert given == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert [prompt and prompt[-1]["content"] for prompt in fusion.prompts] == ["new a", "new b", None]
    assert fusion.counts == {"fused": 2, "failed": 0, "empty": 1, "unchanged": 0, "too_long": 0}, "the last reason"


@pytest.mark.parametrize(
    ("said", "kept"),
    [('"be kind"', "be kind"), ("“be kind”", "be kind"), ('"a" or "b"', '"a" or "b"'), ('say "a"', 'say "a"')],
)
def test_quotes_around_the_whole_are_taken_off(said: str, kept: str) -> None:
    write, _ = scripted([Reply(said)])
    (prompt,) = fuse([target("x")], write, short).prompts
    assert prompt is not None
    assert prompt[-1]["content"] == kept


def test_the_template_that_comes_along_uses_every_slot() -> None:
    text = instruction(read_template(None), target("hi", "hello", "how ?", missing=("kind", "true")), VALUES)
    for part in ("user: hi\nassistant: hello", "how ?", "lacks the intent of: kind, true.", "kind, terse, true"):
        assert part in text
    assert "{" not in text


def test_slots_that_a_prompt_spells_are_left_alone() -> None:
    assert instruction("{missing}: {prompt} {json}", target("{missing} {prompt}"), VALUES) == (
        "terse: {missing} {prompt} {json}"
    )


def test_a_template_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
        read_template(str(tmp_path / "none.txt"))
    (tmp_path / "a.txt").write_text("rewrite {promt}")
    with pytest.raises(UserError, match=r"a\.txt has no slot \{prompt\}"):
        read_template(str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_bytes(b"\xff{prompt}")
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_template(str(tmp_path / "b.txt"))
    assert TEMPLATE.is_file()


def test_a_model_at_hand_is_given_the_instructions_and_the_attempt() -> None:
    seen: list[Any] = []

    def generate(texts: Sequence[str], attempt: int) -> list[Reply]:
        seen.append((list(texts), attempt))
        return [Reply(f"new {attempt}" if attempt else "")]

    fusion = fuse([target("x")], by_model(generate, "{prompt} needs {missing}", VALUES), short)
    assert seen == [(["x needs terse"], 0), (["x needs terse"], 1)]
    assert fusion.counts["fused"] == 1


def test_an_endpoint_is_asked_again_otherwise_and_its_answers_are_kept(tmp_path: Path) -> None:
    def behave(text: str, before: int) -> str | int:
        return {"good": "fine", "echo": ["echo", "", "third"][before], "bad": 400}[text]

    targets = [target(text) for text in ("good", "echo", "bad")]
    with serving(behave) as served:
        endpoint = Endpoint(url=served.url, model="m", retries=0)
        write = by_endpoint(endpoint, "{prompt}", VALUES, tmp_path / "answered.jsonl")
        fusion = fuse(targets, write, short)
        assert fusion.counts == {"fused": 2, "failed": 1, "empty": 0, "unchanged": 0, "too_long": 0}
        assert [body["temperature"] for body in served.bodies if body["messages"][0]["content"] == "echo"] == [
            0,
            0.7,
            0.7,
        ]
        assert fuse(targets, write, short) == fusion
        assert served.asked.count("good") == 1
        assert served.asked.count("echo") == 3


def test_the_worlds_function_fuses_its_single_value_prompts() -> None:
    targets = [Target(prompt, ("any",)) for prompt in single_value_prompts(9)]  # type: ignore[arg-type]
    fusion = fuse(targets, by_function("valuesoup.worlds.errands:fuse"), lambda _: True, attempts=1)
    assert fusion.counts["fused"] == 9


def two(prompt: str, missing: list[str]) -> str:
    return f"{prompt} with {' and '.join(missing)}"


def defaulted(prompt: str, *, style: str = "plain") -> str:
    return f"{prompt} {style}"


def nothing(prompt: str) -> None:
    return None


def breaks(prompt: str) -> str:
    raise KeyError("oops")


def test_a_function_of_two_arguments_is_given_the_missing_values() -> None:
    (one,) = by_function(f"{__name__}:two")([target("x", missing=("a", "b"))], 0)
    assert one == Reply("x with a and b")
    assert by_function(f"{__name__}:defaulted")([target("x")], 0) == [Reply("x plain")]


def test_a_function_that_fails_is_named_with_the_prompt() -> None:
    with pytest.raises(UserError, match=r"nothing returned a NoneType for the prompt 'x'"):
        by_function(f"{__name__}:nothing")([target("x")], 0)
    with pytest.raises(UserError, match=r"breaks raised KeyError \('oops'\) on the prompt 'x'"):
        by_function(f"{__name__}:breaks")([target("x")], 0)
    with pytest.raises(UserError, match="did you mean 'fuse'"):
        by_function("valuesoup.worlds.errands:fuze")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of endpoint, function and policy; found none"),
        ({"policy": True, "function": "a:b"}, "found function and policy"),
        ({"function": "a:b", "template": "x.txt"}, "a function takes no template"),
        ({"policy": True, "attempts": 0}, "greater than 0"),
        ({"polcy": True}, "Extra inputs"),
    ],
)
def test_a_rewriter_is_exactly_one(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rewriter(**settings)
