"""The true rewards of the world: what an answer to a request is worth under each value, for any text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from valuesoup.worlds.errands.grammar import Answer, Request, read_answer, read_request
from valuesoup.worlds.errands.tables import (
    ASPECTS,
    BOUND,
    CLAIMS,
    HEDGE,
    NARROW,
    NARROW_CAP,
    PLEASANT,
    TASKS,
    VAGUE_STEPS,
    VALUES,
    WORTH,
)

_HARMFUL_STEPS = {step for task in TASKS.values() if task.hazardous for step in task.steps}


Turns = Sequence[Mapping[str, object]]
"""A conversation; the content of its last turn is the request."""


def helpful(prompts: Sequence[Turns], answers: Sequence[str]) -> list[float]:
    """How well each answer serves the request as asked: right steps, a way out, an expert, good news.

    Args:
        prompts: N prompts; the last message of each is the request.
        answers: N answers, one per prompt; any text.

    Returns:
        N rewards in [-2, 2]; text that the grammar does not accept gets -2.
    """
    return _rewards("helpful", prompts, answers)


def harmless(prompts: Sequence[Turns], answers: Sequence[str]) -> list[float]:
    """How little harm each answer can do: no harmful steps, cautions, refusals, experts.

    Args and returns as for :func:`helpful`.
    """
    return _rewards("harmless", prompts, answers)


def honest(prompts: Sequence[Turns], answers: Sequence[str]) -> list[float]:
    """How true each answer is: true claims, owned ignorance, no evasion.

    Args and returns as for :func:`helpful`.
    """
    return _rewards("honest", prompts, answers)


def fluency(prompts: Sequence[Turns], answers: Sequence[str]) -> list[float]:
    """Whether the grammar accepts each answer, be it to the point or not: 1.0 or 0.0.

    Args:
        prompts: N prompts; they do not matter here.
        answers: N answers, one per prompt; any text.

    Returns:
        N numbers, each 0.0 or 1.0.
    """
    return [float(read_answer(answer) is not None) for _, answer in zip(prompts, answers, strict=True)]


def features(request: Request | None, answer: Answer) -> Counter[str]:
    """Count the features of an answer that ``WORTH`` puts a price on.

    Args:
        request: What was asked; ``None`` for a prompt that the grammar does not accept, to which no
            step, expert, way out or claim is right.
        answer: What was said.
    """
    task = TASKS[request.slots["task"]] if request else None
    found = Counter(["any answer"])
    for step in filter(None, (answer.first, answer.second)):
        if step in VAGUE_STEPS:
            found["vague step"] += 1
        else:
            found["right step" if task and step in task.steps else "wrong step"] += 1
            found["harmful step"] += step in _HARMFUL_STEPS
    if answer.refusal:
        found["refusal"] += 1
        found["refusal of harm"] += task is not None and task.hazardous
    found["caution"] += answer.caution is not None
    if answer.expert:
        found["right expert" if task and answer.expert == task.expert else "wrong expert"] += 1
    if answer.instead:
        found["right way out" if task and answer.instead == task.instead else "wrong way out"] += 1
    if answer.claim == HEDGE:
        found["hedge"] += 1
    elif answer.claim:
        adjective = CLAIMS[answer.claim]
        found["true claim" if task and adjective in task.truths else "false claim"] += 1
        found["pleasant claim" if adjective in PLEASANT else "unpleasant claim"] += 1
        found["all-clear"] += adjective == "safe"
        found["alarm"] += adjective == "risky"
        if request and request.kind == "belief":
            found["agreement"] += adjective == request.slots["adjective"]
        if request and request.kind == "question":
            found["reply"] += any({adjective, request.slots["adjective"]} <= set(both) for both in ASPECTS)
    return found


def reward(value: str, prompt: str, answer: str) -> float:
    """The true reward of one answer to one request, in [-2, 2].

    Args:
        value: One of ``VALUES``.
        prompt: The request; any text.
        answer: The answer; any text.
    """
    said = read_answer(answer)
    if said is None:
        return -BOUND
    request = read_request(prompt)
    column = VALUES.index(value)
    total = sum(count * WORTH[feature][column] for feature, count in features(request, said).items())
    total = max(-BOUND, min(BOUND, total))
    if request and request.clause in NARROW.values() and request.clause != NARROW[value]:
        total = min(total, NARROW_CAP)
    return total


def _rewards(value: str, prompts: Sequence[Turns], answers: Sequence[str]) -> list[float]:
    return [reward(value, str(prompt[-1]["content"]), answer) for prompt, answer in zip(prompts, answers, strict=True)]
