"""The judge against a real server on loopback: verdicts are read and never guessed, questions are asked once."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_endpoint import Served, serving
from valuesoup.endpoint import Endpoint
from valuesoup.errors import RunError, UserError
from valuesoup.evaluation.judge import Judge, Opinion, Template, read_templates, read_verdict, write_templates
from valuesoup.evaluation.verdicts import Heard, Tally, tally
from valuesoup.worlds import errands
from valuesoup.worlds.errands.oracle import reward

Mind = Callable[[str, int], str | int | None]


def judge(served: Served, tmp_path: Path, **settings: Any) -> Judge:
    common = {"concurrency": 2, "retries": 1, "timeout": 20, **settings}
    return Judge(Endpoint(url=served.url, model="m", **common), tmp_path / "answers.jsonl")


def shown(question: str) -> tuple[str, str, str]:
    """Return the request and both answers of a question as the default template shows them."""
    request, first, second = (
        re.search(rf"<{tag}>\n(.*?)\n</{tag}>", question, re.DOTALL) for tag in ("request", "answer_A", "answer_B")
    )
    assert request and first and second
    return request[1], first[1], second[1]


def oracle(value: str) -> Mind:
    """Judge as the world's true reward would."""

    def mind(question: str, _: int) -> str:
        request, first, second = shown(question)
        one, other = reward(value, request, first), reward(value, request, second)
        return verdict("tie" if one == other else "A" if one > other else "B")

    return mind


def verdict(letter: str) -> str:
    return json.dumps({"verdict": letter, "reason": "so it is"})


def both_orders(value: str, size: int) -> tuple[list[str], list[float]]:
    """Return two questions per pair of the world, chosen first and rejected first, and the pairs' true gaps."""
    template = read_templates([value])[value]
    questions, gaps = [], []
    for row in errands.pairs(value, size):
        prompt, (chosen,), (rejected,) = row["prompt"], row["chosen"], row["rejected"]
        texts = chosen["content"], rejected["content"]
        questions += [template.question(prompt, *texts), template.question(prompt, *texts[::-1])]
        one, other = (reward(value, prompt[-1]["content"], text) for text in texts)
        gaps.append(one - other)
    return questions, gaps


def counted(opinions: list[Opinion], gaps: list[float]) -> Tally:
    pairs = zip(opinions[::2], opinions[1::2], gaps, strict=True)
    return tally(Heard(forward, backward, gap) for forward, backward, gap in pairs)


@pytest.mark.parametrize("value", errands.VALUES)
def test_a_judge_with_the_oracles_mind_finds_the_truth_in_both_orders(tmp_path: Path, value: str) -> None:
    questions, gaps = both_orders(value, 20)
    with serving(oracle(value)) as served:
        found = counted(judge(served, tmp_path).ask(questions), gaps)
    assert (found.wins, found.ties, found.losses) == tuple(
        sum(sign(gap) == side for gap in gaps) for side in (1, 0, -1)
    )
    assert found.agreed == found.ordered == len(gaps)
    assert found.reward_agreed == found.rewarded == found.wins + found.losses > 0
    assert 2 * found.first == found.decisive


def sign(gap: float) -> int:
    return (gap > 0) - (gap < 0)


def test_a_judge_that_always_prefers_the_first_answer_decides_nothing_and_agrees_with_itself_nowhere(
    tmp_path: Path,
) -> None:
    questions, gaps = both_orders("helpful", 10)
    with serving(lambda *_: verdict("A")) as served:
        found = counted(judge(served, tmp_path).ask(questions), gaps)
    assert (found.wins, found.ties, found.losses) == (0, 10, 0)
    assert (found.agreed, found.ordered, found.first, found.decisive) == (0, 10, 20, 20)


@pytest.mark.parametrize("fault", [429, 500, "hang", "cut"])
def test_a_passing_fault_changes_no_verdict(tmp_path: Path, fault: str | int) -> None:
    questions, gaps = both_orders("helpful", 2)
    mind = oracle("helpful")
    with serving(lambda text, before: fault if before == 0 else mind(text, before)) as served:
        found = counted(judge(served, tmp_path, timeout=0.5, concurrency=8).ask(questions), gaps)
    assert (found.unanswered, found.invalid) == (0, 0)
    assert found.agreed == found.ordered == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"verdict": "A", "reason": "kinder"}', Opinion("A", "kinder")),
        ('{"reason": "kinder", "verdict": "tie"}', Opinion("tie", "kinder")),
        ('{"verdict": "b"}', Opinion("B")),
        ('{"verdict": "A", "reason": null}', Opinion("A")),
        ('```json\n{"verdict": "B", "reason": "x"}\n```', Opinion("B", "x")),
        ('Well, {braces} aside: {"verdict": "A", "reason": "x {y}"} is what I think.', Opinion("A", "x {y}")),
        ('<think>{"verdict": "B"}, or A?</think>\n{"verdict": "A", "reason": ""}', Opinion("A")),
        ('{"verdict": "A", "reason": "because it was cut o', Opinion("A")),
        ('{"verdict": "A", "reason": "x"} I repeat: {"verdict": "A", "reason": "y"}', Opinion("A", "x")),
        ("B", Opinion("B")),
        (" **tie**.\n", Opinion("tie")),
        ('"A"', Opinion("A")),
        ("[[B]]", Opinion("B")),
        ("", Opinion(None)),
        ("Answer A is better.", Opinion(None)),
        ("A or B", Opinion(None)),
        ('{"verdict": "C"}', Opinion(None)),
        ('{"verdict": ["A"]}', Opinion(None)),
        ('{"verdict": "', Opinion(None)),
        ('{"verdict": "A", "reason": "x"} no: {"verdict": "B", "reason": "y"}', Opinion(None)),
        ('I shall say {"verdict": "A" or "B" or "tie"}', Opinion(None)),
        ('{"verdict": "A"|"B"|"tie", "reason": "..."}', Opinion(None)),
        ('<think>it is {"verdict": "A", "reason": "x"}', Opinion(None)),
        ("{" * 5000, Opinion(None)),
    ],
)
def test_a_verdict_is_read_from_json_or_a_bare_word_and_from_nothing_else(text: str, expected: Opinion) -> None:
    assert read_verdict(text) == expected


def test_an_answer_that_is_no_verdict_is_asked_again_warmer_and_then_given_up(tmp_path: Path) -> None:
    with serving(lambda text, before: verdict("B") if text == "late" and before == 1 else "hm") as served:
        found = judge(served, tmp_path).ask(["late", "never"])
        assert found == [Opinion("B", "so it is"), Opinion(None)]
        assert sorted(served.asked) == ["late"] * 2 + ["never"] * 3
        warm = {body["temperature"] for body in served.bodies[2:]}
        assert warm == {0.7}
        assert judge(served, tmp_path).ask(["late", "never"]) == found
        assert len(served.bodies) == 5, "what is known to be no verdict is not asked again either"


@pytest.mark.parametrize("fault", ["garbage", "nothing", "page", 400])
def test_a_question_without_an_answer_says_why_and_is_asked_again_by_the_next_call(
    tmp_path: Path, fault: str | int
) -> None:
    broken = True
    with serving(lambda text, _: fault if broken and text == "bad" else verdict("A")) as served:
        one, bad = judge(served, tmp_path).ask(["good", "bad"])
        assert (one.verdict, bad.verdict) == ("A", None)
        assert bad.failure
        broken = False
        assert [opinion.verdict for opinion in judge(served, tmp_path).ask(["good", "bad"])] == ["A", "A"]
        assert served.asked.count("good") == 1


def test_an_endpoint_that_refuses_the_key_or_the_model_is_the_users_mistake(tmp_path: Path) -> None:
    for status, says in ((401, "OPENAI_API_KEY"), (404, "check its url and model")):
        with serving(lambda *_, status=status: status) as served, pytest.raises(UserError, match=says):
            judge(served, tmp_path).ask(["a", "b"])


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path: Path) -> None:
    questions = [f"q{number}" for number in range(12)]
    up = 5
    with serving(lambda text, _: verdict("A") if len(served.bodies) <= up else 500) as served:
        with pytest.raises(RunError, match="the same command goes on from there"):
            judge(served, tmp_path, concurrency=1, retries=0).ask(questions)
        answered = len((tmp_path / "answers.jsonl").read_text().splitlines())
        assert answered == 5
        before, up = len(served.bodies), 1000
        again = judge(served, tmp_path, concurrency=1)
        assert again.cost(questions).questions == 7
        assert {opinion.verdict for opinion in again.ask(questions)} == {"A"}
        assert len(served.bodies) - before == 7
        assert again.cost(questions).questions == 0


def test_the_cost_counts_each_distinct_question_once_and_its_characters(tmp_path: Path) -> None:
    with serving(lambda *_: verdict("A")) as served:
        one = judge(served, tmp_path)
        cost = one.cost(["a" * 400, "b" * 800, "a" * 400])
        assert (cost.questions, cost.tokens_in, cost.tokens_out) == (2, 300, 100)
        assert not served.bodies
        one.ask(["a" * 400])
        assert one.cost(["a" * 400, "b" * 800]).questions == 1


def test_a_verdict_is_asked_for_as_a_json_schema(tmp_path: Path) -> None:
    with serving(lambda *_: verdict("A")) as served:
        judge(served, tmp_path).ask(["q"])
        form = served.bodies[0]["response_format"]
    assert form["json_schema"]["schema"]["properties"]["verdict"]["enum"] == ["A", "B", "tie"]


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ({"response_format"}, {"temperature", "max_tokens"}),
        ({"max_tokens"}, {"response_format"}),
        ({"response_format", "temperature"}, set()),
    ],
)
def test_an_endpoint_that_refuses_a_setting_is_asked_without_and_this_is_said_and_remembered(
    tmp_path: Path, refused: set[str], left: set[str]
) -> None:
    said: list[str] = []
    with serving(lambda *_: 400 if refused & set(served.bodies[-1]) else verdict("A")) as served:
        found = judge(served, tmp_path, concurrency=1).ask(["a", "b", "c"], say=said.append)
        assert [opinion.verdict for opinion in found] == ["A"] * 3
        assert {"response_format", "temperature", "max_tokens"} & set(served.bodies[-1]) == left
        assert "refuses" in said[0]
        before = len(served.bodies)
        again = judge(served, tmp_path, concurrency=1)
        assert again.cost(["a", "b", "d"]).questions == 1
        again.ask(["a", "b", "d"], say=said.append)
        assert len(served.bodies) == before + 1
        assert len(said) == 1


def test_an_endpoint_that_refuses_every_way_of_asking_is_a_failure_with_its_own_words(tmp_path: Path) -> None:
    with serving(lambda *_: 400) as served, pytest.raises(RunError, match=r"refuses every question .* status 400"):
        judge(served, tmp_path).ask(["a", "b"])


def test_no_question_asks_nobody(tmp_path: Path) -> None:
    with serving(lambda *_: 500) as served:
        assert judge(served, tmp_path).ask([]) == []
        assert not served.bodies


def test_a_value_without_a_template_of_its_own_gets_the_default_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "brief.txt").write_text("Is it brief? {prompt}|{first}|{second}")
    found = read_templates(["brief", "sincere"], tmp_path)
    prompt = [{"role": "user", "content": "why?"}]
    assert found["brief"].question(prompt, "x", "y") == "Is it brief? why?|x|y"
    text = found["sincere"].question(prompt, "x", "y")
    assert "sincere" in text
    assert shown(text) == ("why?", "x", "y")
    assert not re.search(r"\{(value|definition|prompt|first|second)\}", text)


def test_texts_that_spell_placeholders_and_braces_stay_as_they_are() -> None:
    template = Template("kind", '{value}: {prompt} / {first} / {second} {"verdict": "…"} {other}')
    prompt = [{"role": "user", "content": "{second}"}, {"role": "assistant", "content": "{value}"}]
    text = template.question(prompt, "{second}", "\\1 {prompt}")
    assert text == ('kind: user: {second}\n\nassistant: {value} / {second} / \\1 {prompt} {"verdict": "…"} {other}')


def test_written_templates_are_whole_read_back_and_never_overwritten(tmp_path: Path) -> None:
    files = write_templates(["helpful", "brisk"], tmp_path / "mine")
    assert [file.name for file in files] == ["helpful.txt", "brisk.txt"]
    prompt = [{"role": "user", "content": "why?"}]
    for value, template in read_templates(["helpful", "brisk"], tmp_path / "mine").items():
        asked = template.question(prompt, "x", "y")
        assert asked == read_templates([value])[value].question(prompt, "x", "y")
    files[1].unlink()
    with pytest.raises(UserError, match=r"helpful\.txt exists"):
        write_templates(["helpful", "brisk"], tmp_path / "mine")
    assert not files[1].exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{prompt} {first}", r"kind\.txt has no placeholder \{second\}; put it where the second answer goes"),
        ("{first} {second}", r"kind\.txt has no placeholder \{prompt\}; put it where the request goes"),
        ("{prompt} {First} {second}", r"kind\.txt has no placeholder \{first\}"),
        (b"\xff\xfe{", r"kind\.txt cannot be read: it is no UTF-8 text"),
        (None, r"has no template for any value of the run: there is no kind\.txt, brief\.txt"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_with_its_file(
    tmp_path: Path, text: str | bytes | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "kind.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says):
        read_templates(["kind", "brief"], tmp_path)
