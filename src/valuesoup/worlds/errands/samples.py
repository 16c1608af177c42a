"""Draws from the world: dialogues of its base distribution, noisy preference pairs, single-value prompts."""

import math
from collections.abc import Iterator
from random import Random

from valuesoup.errors import UserError, did_you_mean
from valuesoup.worlds.errands.grammar import SLOTS, Answer, Request, read_request
from valuesoup.worlds.errands.oracle import reward
from valuesoup.worlds.errands.tables import (
    ADJECTIVES,
    ASPECTS,
    CAUTIONS,
    FUSED,
    HEDGE,
    NARROW,
    REFUSALS,
    REQUESTS,
    TASKS,
    VAGUE_STEPS,
    VALUES,
)

# What people ask under each value: the share of hazardous tasks, then the odds of each kind of request.
_ASKED = {
    "helpful": (0.4, {"how": 6, "belief": 2, "question": 2}),
    "harmless": (0.65, {"how": 6, "belief": 2, "question": 2}),
    "honest": (0.45, {"how": 2, "belief": 4, "question": 4}),
}
# How often an answer opens with steps, with a refusal, or sends the person to an expert at once.
_OPENINGS = {"benign": (0.7, 0.15, 0.15), "hazardous": (0.55, 0.3, 0.15)}
_RIGHT_STEP = 0.65
_EXPERT, _INSTEAD, _CLAIM, _CAUTION = 0.25, 0.2, 0.8, 0.25
_FUSED_EXTRA = 0.3  # a fused request makes an expert, a way out and a caution that much likelier
_HEDGE = 0.12
_REPLY = 0.7  # how often a claim is about what the request speaks of
_NARROW, _FUSED = 0.1, 0.1  # shares of narrow and fused requests among the dialogues


def pairs(value: str, size: int, seed: int = 0, noise: float = 0.25) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Draw preference pairs labelled under one value, as TRL conversational rows.

    Each row holds two different answers of the base distribution to one request; the first is chosen with
    the Bradley-Terry probability σ(gap / noise) of the true reward gap (Bradley and Terry, 1952).

    Args:
        value: One of ``VALUES``; it decides what is asked (harmless: more hazards) and who is preferred.
        size: How many pairs.
        seed: Of the draw; the same seed gives the same pairs, and other prompts under another value.
        noise: In units of reward; 0 labels by the true reward, with ties broken by chance.

    Returns:
        Rows with ``prompt``, ``chosen`` and ``rejected``, each a list of messages.

    Raises:
        UserError: If the value is not one of ``VALUES`` or the noise is negative.
    """
    if value not in VALUES:
        raise UserError(f"the errands world has no value '{value}'{did_you_mean(value, VALUES)}")
    if not noise >= 0:
        raise UserError(f"noise is {noise}, but must be at least 0")
    return _pairs(value, size, Random(f"pairs/{value}/{seed}"), noise)


def dialogues(size: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Draw requests of all values, each with one answer of the base distribution, to pretrain a base model.

    Args:
        size: How many dialogues.
        seed: Of the draw.

    Returns:
        Dialogues of two messages, user and assistant.
    """
    rng = Random(f"dialogues/{seed}")
    for _ in range(size):
        request = draw_request(rng, rng.choice(VALUES))
        clauses = (rng.choice(list(NARROW.values())), FUSED, "")
        clause = rng.choices(clauses, (_NARROW, _FUSED, 1 - _NARROW - _FUSED))[0]
        request = Request(request.kind, request.slots, clause)
        yield [_message("user", request.text), _message("assistant", draw_answer(rng, request).text)]


def single_value_prompts(size: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Draw prompts that admit one value only: whatever is answered, no other value's reward passes 0.

    Args:
        size: How many prompts; the values take turns.
        seed: Of the draw.

    Returns:
        Prompts of one user message.
    """
    rng = Random(f"single/{seed}")
    for index in range(size):
        value = VALUES[index % len(VALUES)]
        request = draw_request(rng, value)
        yield [_message("user", Request(request.kind, request.slots, NARROW[value]).text)]


def fuse(prompt: str) -> str:
    """Rewrite a request so that it carries the intents of all values: a stand-in for MORA's intent fusion.

    Args:
        prompt: A request of this world, narrow or not.

    Returns:
        The fused request; a text that is no request of this world comes back unchanged.
    """
    request = read_request(prompt)
    return Request(request.kind, request.slots, FUSED).text if request else prompt


def draw_request(rng: Random, value: str) -> Request:
    """Draw what a person asks under a value, without a closing clause."""
    hazardous_share, odds = _ASKED[value]
    hazardous = rng.random() < hazardous_share
    kind = rng.choices(list(odds), list(odds.values()))[0]
    slots = {slot: rng.choice(SLOTS[slot]) for slot in ("ask", "detail", "opinion", "wonder", "adjective")}
    slots["task"] = rng.choice([name for name, task in TASKS.items() if task.hazardous == hazardous])
    return Request(kind, {slot: filling for slot, filling in slots.items() if f"{{{slot}}}" in REQUESTS[kind]})


def draw_answer(rng: Random, request: Request) -> Answer:
    """Draw an answer of the base distribution: to the point, but blind to truth, and to harm nearly so."""
    task = TASKS[request.slots["task"]]
    odds = _OPENINGS["hazardous" if task.hazardous else "benign"]
    opening = rng.choices(("steps", "refusal", "expert"), odds)[0]
    extra = _FUSED_EXTRA if request.clause == FUSED else 0.0
    steps = [task.steps if rng.random() < _RIGHT_STEP else VAGUE_STEPS for _ in range(2)]
    return Answer(
        first=steps[0][0] if opening == "steps" else None,
        second=rng.choice(steps[1][1:]) if opening == "steps" else None,
        refusal=rng.choice(REFUSALS) if opening == "refusal" else None,
        expert=task.expert if opening == "expert" or rng.random() < _EXPERT + extra else None,
        instead=task.instead if rng.random() < _INSTEAD + extra else None,
        claim=_draw_claim(rng, request) if rng.random() < _CLAIM else None,
        caution=rng.choice(CAUTIONS) if rng.random() < _CAUTION + extra else None,
    )


def _draw_claim(rng: Random, request: Request) -> str:
    if rng.random() < _HEDGE:
        return HEDGE
    topic = request.slots.get("adjective")
    if topic is None or rng.random() >= _REPLY:
        return f"it is {rng.choice(ADJECTIVES)}"
    return f"it is {rng.choice(next(aspect for aspect in ASPECTS if topic in aspect))}"


def _pairs(value: str, size: int, rng: Random, noise: float) -> Iterator[dict[str, list[dict[str, str]]]]:
    for _ in range(size):
        request = draw_request(rng, value)
        one = other = draw_answer(rng, request).text
        while other == one:
            other = draw_answer(rng, request).text
        gap = reward(value, request.text, one) - reward(value, request.text, other)
        if rng.random() >= _preference(gap, noise):
            one, other = other, one
        yield {
            "prompt": [_message("user", request.text)],
            "chosen": [_message("assistant", one)],
            "rejected": [_message("assistant", other)],
        }


def _preference(gap: float, noise: float) -> float:
    """The Bradley-Terry probability σ(gap / noise), by tanh so that it cannot overflow."""
    if noise == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return 0.5 + 0.5 * math.tanh(gap / noise / 2)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
