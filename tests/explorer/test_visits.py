"""Visits: both sides of all sessions are written together, and whoever leaves or stops makes place."""

import threading
from typing import Any

import pytest

from valuesoup.errors import UserError
from valuesoup.explorer.models import Models
from valuesoup.explorer.visits import Question, Visits, read_number
from valuesoup.pipeline.answering import prompt_tokens

EMPTY: dict[str, list[Any]] = {"A": [], "B": []}
LONG = 1500


def question(models: Models, first: float, second: float, **settings: Any) -> Question:
    sides = {"A": first, "B": second}
    return Question(
        settings={
            side: models.setting({"method": "soup", "weights": {"helpful": weight, "harmless": 1 - weight}})
            for side, weight in sides.items()
        },
        **{"prompt": "how do i cook rice at home ?", "max_new_tokens": 12, **settings},
    )


def generated(models: Models, weight: float, asked: Question) -> str:
    soup = models.finished.soup("soup")
    from valuesoup.soup.generation import Row, generate

    messages: Any = {"messages": [{"role": "user", "content": asked.prompt}]}
    row = Row(prompt_tokens(soup, messages), (weight, 1 - weight), asked.seed)
    (answer,) = generate(soup, [row], max_new_tokens=asked.max_new_tokens, temperature=asked.temperature)
    assert soup.tokenizer is not None
    return str(soup.tokenizer.decode(answer.tokens, skip_special_tokens=True))


@pytest.fixture
def visits(models: Models) -> Visits:
    return Visits(models)


def test_both_sides_stream_what_their_weights_write_and_end_scored(visits: Visits, models: Models) -> None:
    asked = question(models, 0.9, 0.1, seed=4)
    steps = list(visits.answer("me", asked, EMPTY))
    assert len(steps) >= 2
    last = steps[-1]
    assert last["A"]["answer"] == generated(models, 0.9, asked)
    assert last["B"]["answer"] == generated(models, 0.1, asked)
    for side in ("A", "B"):
        assert last[side]["state"] in ("done", "cut")
        (scores,) = models.score([{"role": "user", "content": asked.prompt}], [last[side]["answer"]])
        assert {value: score for value, score, _ in last[side]["scores"]} == pytest.approx(scores)
    for first, second in zip(last["A"]["scores"], last["B"]["scores"], strict=True):
        assert (first[2], second[2]) == (first[1] > second[1], second[1] > first[1])
    assert models.streamer.waiting == 0


def test_two_visitors_at_once_get_their_own_soups_from_one_forward_pass(visits: Visits, models: Models) -> None:
    weights = {"one": (1.0, 0.5), "two": (0.2, 0.0)}
    asked = {name: question(models, *pair, seed=7, temperature=1.0) for name, pair in weights.items()}
    found: dict[str, Any] = {}

    def visit(name: str) -> None:
        *_, found[name] = visits.answer(name, asked[name], EMPTY)

    threads = [threading.Thread(target=visit, args=(name,)) for name in weights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name, pair in weights.items():
        for side, weight in zip("AB", pair, strict=True):
            assert found[name][side]["answer"] == generated(models, weight, asked[name])


def endless(models: Models) -> Any:
    """No token ends an answer."""
    patch = pytest.MonkeyPatch()
    patch.setattr("valuesoup.soup.generation.end_tokens", lambda _: set())
    fresh = type(models.streamer)(models.streamer.soup)
    patch.setattr(models, "streamer", fresh)
    return patch, fresh


def test_stopping_keeps_what_is_written_frees_the_rows_and_leaves_other_sessions_alone(
    visits: Visits, models: Models
) -> None:
    patch, streamer = endless(models)
    try:
        mine = visits.answer("me", question(models, 1, 0, max_new_tokens=LONG), EMPTY)
        other = visits.answer("other", question(models, 0, 1, max_new_tokens=LONG), EMPTY)
        next(mine), next(other)
        assert streamer.waiting == 4
        visits.stop("me")
        *_, last = mine
        assert {turn["state"] for turn in last.values()} == {"stopped"}
        assert all(turn["scores"] == [] for turn in last.values())
        assert streamer.waiting == 2
        other.close()  # the other one closed the page
        assert streamer.waiting == 0
        visits.stop("nobody")
    finally:
        streamer.close()
        patch.undo()


def test_a_conversation_goes_on_only_where_that_is_wanted(visits: Visits, models: Models) -> None:
    asked: list[Any] = []
    patch = pytest.MonkeyPatch()
    ask = models.ask
    patch.setattr(
        models, "ask", lambda messages, *rest, **named: (asked.append(messages), ask(messages, *rest, **named))[1]
    )
    try:
        *_, first = visits.answer("me", question(models, 1, 0), EMPTY)
        history = {side: [turn] for side, turn in first.items()}
        list(visits.answer("me", question(models, 1, 0, prompt="and then ?"), history))
        list(visits.answer("me", question(models, 1, 0, prompt="and then ?", follows=True), history))
    finally:
        patch.undo()
    alone, on = asked[2], asked[4]
    assert alone == [{"role": "user", "content": "and then ?"}]
    answered = [{"role": "assistant", "content": first["A"]["answer"]}] if first["A"]["answer"] else []
    assert on == ([{"role": "user", "content": first["A"]["prompt"]}, *answered] if answered else []) + alone


def test_a_side_that_cannot_answer_says_why_and_the_page_goes_on(visits: Visits, models: Models) -> None:
    (step, *_) = list(visits.answer("me", question(models, 1, 0, max_new_tokens=10**6), EMPTY))
    assert step["A"]["state"] == "error"
    assert "more than the" in step["A"]["answer"]
    assert step["A"]["scores"] == []
    *_, last = visits.answer("me", question(models, 1, 0), EMPTY)
    assert last["A"]["state"] in ("done", "cut")


def test_what_is_cleared_while_it_is_written_ends_in_nothing(visits: Visits, models: Models) -> None:
    patch, streamer = endless(models)
    try:
        mine = visits.answer("me", question(models, 1, 0, max_new_tokens=LONG), EMPTY)
        other = visits.answer("other", question(models, 0, 1, max_new_tokens=LONG), EMPTY)
        next(mine), next(other)
        visits.clear("me")
        *_, last = mine
        assert last == {}
        assert streamer.waiting == 2
        assert next(other)["A"]["state"] == "writing"
        other.close()
        visits.clear("nobody")
    finally:
        streamer.close()
        patch.undo()
    *_, last = visits.answer("me", question(models, 1, 0), EMPTY)
    assert last["A"]["state"] in ("done", "cut"), "what was cleared before changes nothing"


def test_an_error_that_nobody_foresaw_ends_its_side_alone(
    visits: Visits, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = models.ask

    def fails_second(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(models, "ask", fails)
        return ask(*given, **named)

    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("of a chat template")

    monkeypatch.setattr(models, "ask", fails_second)
    *_, last = visits.answer("me", question(models, 1, 0), EMPTY)
    assert last["A"]["state"] in ("done", "cut")
    assert last["B"]["state"] == "error"
    assert "that failed (ValueError)" in last["B"]["answer"]
    assert models.streamer.waiting == 0


def test_a_reward_that_fails_costs_the_score_and_not_the_answer(
    visits: Visits, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(models, "score", fails)
    *_, last = visits.answer("me", question(models, 1, 0), EMPTY)
    assert last["A"]["state"] in ("done", "cut")
    assert last["A"]["answer"]
    assert "no score: that failed (RuntimeError)" in last["A"]["label"]


def test_a_number_out_of_range_is_told_in_whole_digits() -> None:
    with pytest.raises(UserError, match=r"^the seed must be a number from 0 to 2,147,483,647\.$"):
        read_number(None, "the seed", 0, 2**31 - 1)
