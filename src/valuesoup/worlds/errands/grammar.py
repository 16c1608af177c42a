"""The grammar of the world: requests and answers written from the tables, and read back from text."""

import re
from dataclasses import dataclass, fields
from functools import cache

from valuesoup.worlds.errands.tables import (
    ADJECTIVES,
    ASKS,
    CAUTIONS,
    CLAIMS,
    DETAILS,
    FUSED,
    HEDGE,
    NARROW,
    OPINIONS,
    REFUSALS,
    REQUESTS,
    SENTENCES,
    TASKS,
    VAGUE_STEPS,
    WONDERS,
)

_STEPS = (*(task.steps for task in TASKS.values()), VAGUE_STEPS)

# What may stand in each slot of the templates; the generator and the parser both go by it.
SLOTS: dict[str, tuple[str, ...]] = {
    "task": tuple(TASKS),
    "ask": ASKS,
    "detail": DETAILS,
    "opinion": OPINIONS,
    "wonder": WONDERS,
    "adjective": ADJECTIVES,
    "first": tuple(sorted({first for first, *_ in _STEPS})),
    "second": tuple(sorted({step for _, *then in _STEPS for step in then})),
    "refusal": REFUSALS,
    "expert": tuple(sorted({task.expert for task in TASKS.values()})),
    "instead": tuple(sorted({task.instead for task in TASKS.values()})),
    "claim": (*CLAIMS, HEDGE),
    "caution": CAUTIONS,
}


@dataclass(frozen=True)
class Request:
    """A request: a kind of ``REQUESTS``, what fills its slots, and the clause that ends it, if any."""

    kind: str
    slots: dict[str, str]
    clause: str = ""

    @property
    def text(self) -> str:
        """The request in words."""
        return " ".join([REQUESTS[self.kind].format(**self.slots), *([self.clause] if self.clause else [])])


@dataclass(frozen=True)
class Answer:
    """An answer: the filling of each sentence that it has; ``None`` where it has no such sentence."""

    first: str | None = None
    second: str | None = None
    refusal: str | None = None
    expert: str | None = None
    instead: str | None = None
    claim: str | None = None
    caution: str | None = None

    @property
    def text(self) -> str:
        """The answer in words."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return " ".join(template.format(**said) for slot, template in SENTENCES.items() if said[slot])


def read_request(text: str) -> Request | None:
    """Read a request back from its words; ``None`` if the grammar does not accept it."""
    clause = next((clause for clause in (*NARROW.values(), FUSED) if text.endswith(f" {clause}")), "")
    core = text.removesuffix(f" {clause}") if clause else text
    for kind, template in REQUESTS.items():
        if match := _pattern(template).fullmatch(core):
            return Request(kind, match.groupdict(), clause)
    return None


def read_answer(text: str) -> Answer | None:
    """Read an answer back from its words; ``None`` if the grammar does not accept it, whatever the prompt."""
    match = _answer_pattern().fullmatch(f"{text} ")
    return Answer(**match.groupdict()) if match and text else None


def _slotted(template: str) -> str:
    """A regular expression for a template, with a named group for each slot."""
    words = re.sub(r"([.?])", r"\\\1", template)
    return re.sub(r"{(\w+)}", lambda slot: f"(?P<{slot[1]}>{'|'.join(SLOTS[slot[1]])})", words)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_slotted(template))


@cache
def _answer_pattern() -> re.Pattern[str]:
    steps, refusal, *rest = (_slotted(f"{template} ") for template in SENTENCES.values())
    return re.compile(f"(?:{steps}|{refusal})?" + "".join(f"(?:{sentence})?" for sentence in rest))
