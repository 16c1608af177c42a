"""A language model as judge: which of two answers is better under one value; verdicts are read, never guessed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from valuesoup.data import Message, Messages
from valuesoup.endpoint import Endpoint, Reply, ask, read_replies, request_key
from valuesoup.errors import RunError, UserError

Verdict = Literal["A", "B", "tie"]

TEMPLATES = Path(__file__).parent / "templates" / "judge"
"""The question to a judge, in the spirit of VC-soup's Fig. 9 (arXiv:2603.18113, Appendix B.2), and known values."""
NEEDED = {"prompt": "the request", "first": "the first answer", "second": "the second answer"}
"""Placeholders that every template has, and what goes there; {value} and {definition} may be spelt out instead."""
ATTEMPTS = 3
"""The most times that one question is asked where the judge's answer is no verdict."""
RETRY_TEMPERATURE = 0.7
"""At least this warm are further attempts: at 0 the judge would say the same again."""
MAX_TOKENS = 1024
"""Longest answer of a judge, which may think before it says little."""
TOKEN_CHARACTERS, VERDICT_TOKENS = 4, 50
"""For an estimate: characters of a token, and tokens of a verdict with its reason."""
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "verdict": {"type": "string", "enum": ["A", "B", "tie"]},
                "reason": {"type": "string"},
            },
            "required": ["verdict", "reason"],
            "additionalProperties": False,
        },
    },
}
"""``response_format`` of a structured verdict."""

_SLOT = re.compile(r"\{(value|definition|prompt|first|second)\}")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
# The end matters: a judge that repeats its instructions writes "A" | "B".
_CUT_OFF = re.compile(r'"verdict"\s*:\s*"(A|B|tie)"\s*(?=[,}]|$)', re.IGNORECASE)
_VERDICTS: Mapping[str, Verdict] = {"a": "A", "b": "B", "tie": "tie"}
_REFUSED = ("status 400", "status 422")


@dataclass(frozen=True)
class Template:
    """The question under one value.

    Attributes:
        value: Name of the value.
        text: With placeholders.
        file: Where it is from; None for the one that comes with valuesoup.
    """

    value: str
    text: str
    file: Path | None = None

    def question(self, prompt: Messages, first: str, second: str) -> str:
        """Fill in a prompt and two answers; placeholders that these spell stay as they are.

        Args:
            prompt: A conversation; of more than one turn, each is headed by its role.
            first: Answer A.
            second: Answer B.
        """
        turns = [f"{turn['role']}: {turn['content']}" for turn in prompt]
        asked = prompt[0]["content"] if len(prompt) == 1 else "\n\n".join(turns)
        slots = {"prompt": asked, "first": first, "second": second}
        slots |= {"value": self.value, "definition": definition(self.value)}
        return _SLOT.sub(lambda slot: slots[slot[1]], self.text)


@dataclass(frozen=True)
class Opinion:
    """What a judge made of one question.

    Attributes:
        verdict: None where there is none: `failure` says why no answer came, empty where the answer was no verdict.
        reason: In the judge's words, maybe empty.
        failure: Why the endpoint gave no answer.
    """

    verdict: Verdict | None
    reason: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Cost:
    """What questions will take: those without an answer on disk, and roughly how many tokens in and out."""

    questions: int
    tokens_in: int
    tokens_out: int

    def __add__(self, other: "Cost") -> "Cost":
        """Add two costs."""
        return Cost(
            self.questions + other.questions, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )


def definition(value: str) -> str:
    """Return what a value asks of an answer, from the list that comes with valuesoup; by its name where unknown."""
    lines = (TEMPLATES / "definitions.txt").read_text(encoding="utf-8").splitlines()
    known = dict(line.split(": ", 1) for line in lines)
    return known.get(value, f"it is {value}, as people commonly mean the word.")


def read_templates(values: Sequence[str], folder: Path | None = None) -> dict[str, Template]:
    """Return the template of each value: ``folder/<value>.txt`` where there is one, else the default.

    Args:
        values: Names of the values.
        folder: A user's templates.

    Raises:
        UserError: A file cannot be read or lacks a placeholder, or the folder has a template for none of the values.
    """
    default = (TEMPLATES / "default.txt").read_text(encoding="utf-8")
    files = {} if folder is None else {value: folder / f"{value}.txt" for value in values}
    own = {value: Template(value, _read_template(file), file) for value, file in files.items() if file.exists()}
    if folder is not None and not own:
        names = ", ".join(f"{value}.txt" for value in values)
        raise UserError(f"{folder} has no template for any value of the run: there is no {names}.")
    return {value: own.get(value) or Template(value, default) for value in values}


def write_templates(values: Sequence[str], folder: Path) -> list[Path]:
    """Write the default template of each value, with its definition filled in, to ``folder/<value>.txt``.

    Raises:
        UserError: One of the files exists; nothing is written then.
    """
    files = {value: folder / f"{value}.txt" for value in values}
    for file in files.values():
        if file.exists():
            raise UserError(f"{file} exists; remove it, or write the templates to another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    default = (TEMPLATES / "default.txt").read_text(encoding="utf-8")
    for value, file in files.items():
        file.write_text(default.replace("{definition}", definition(value)), encoding="utf-8")
    return list(files.values())


def read_verdict(text: str) -> Opinion:
    """Read a judge's answer: JSON, alone or in prose or a code fence, or nothing but A, B or tie.

    JSON that is cut off after its verdict counts; two verdicts that differ, and anything else, are no verdict.
    """
    said = _THOUGHT.sub("", text)
    found = [
        (verdict, str(item.get("reason") or ""))
        for item in _objects(said)
        if (verdict := _VERDICTS.get(str(item.get("verdict", "")).strip().lower())) is not None
    ]
    found = found or [(_VERDICTS[match[1].lower()], "") for match in _CUT_OFF.finditer(said)]
    bare = _VERDICTS.get(said.strip(" \t\r\n.*`'\"()[]").lower())
    if not found and bare is not None:
        found = [(bare, "")]
    if len({verdict for verdict, _ in found}) != 1:
        return Opinion(None)
    return Opinion(*found[0])


class Judge:
    """A judge behind an endpoint, its answers on disk."""

    def __init__(self, endpoint: Endpoint, answered: Path) -> None:
        """Make a judge.

        Args:
            endpoint: Whom to ask.
            answered: JSON-lines file of the answers, see `ask`.
        """
        self.endpoint = endpoint
        self.answered = answered

    def cost(self, questions: Sequence[str]) -> Cost:
        """Estimate what it takes to ask these questions; identical ones and those answered before are free.

        Further attempts where an answer is no verdict are not foreseen.
        """
        known = read_replies(self.answered)
        way = self._used(questions, known) or self._ways()[0][1]
        left = {key: text for text in questions if (key := request_key(way, _request(text), 0)) not in known}
        characters = sum(map(len, left.values()))
        return Cost(len(left), characters // TOKEN_CHARACTERS, VERDICT_TOKENS * len(left))

    def ask(
        self,
        questions: Sequence[str],
        on_done: Callable[[int], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> list[Opinion]:
        """Ask every question; where the answer is no verdict, up to `ATTEMPTS` times.

        The answer's form is asked for as a JSON schema; an endpoint that refuses this, or a temperature, or a limit of
        tokens, is asked without.

        Args:
            questions: N questions.
            on_done: Called with the number of questions settled at the first attempt.
            say: Told how the endpoint is asked where it refused the first way.

        Returns:
            N opinions in the order of the questions.

        Raises:
            UserError: As `ask`.
            RunError: As `ask`, or the endpoint refuses every way of asking.
        """
        if not questions:
            return []
        requests = [_request(text) for text in questions]
        way = self._used(questions, read_replies(self.answered)) or self._accepted(requests, say)
        opinions: dict[int, Opinion] = {}
        left = list(range(len(requests)))
        for attempt in range(ATTEMPTS):
            asked = way
            if attempt and way.temperature is not None:
                asked = way.model_copy(update={"temperature": max(way.temperature, RETRY_TEMPERATURE)})
            settled = (lambda _: None) if attempt else on_done
            replies = ask(asked, [requests[place] for place in left], self.answered, settled, attempt=attempt)
            opinions |= {place: _opinion(reply) for place, reply in zip(left, replies, strict=True)}
            left = [place for place in left if opinions[place].verdict is None and not opinions[place].failure]
        return [opinions[place] for place in range(len(requests))]

    def _ways(self) -> list[tuple[str, Endpoint]]:
        """Return the ways to ask, the strictest first, each with the words for it."""
        plain = self.endpoint
        strict = plain.model_copy(update={"extra": {**plain.extra, "response_format": SCHEMA}})
        free = {"temperature": None, "max_tokens": None}
        return [
            ("with a JSON schema", strict),
            ("without a JSON schema", plain),
            ("without temperature and limit of tokens", strict.model_copy(update=free)),
            ("without JSON schema, temperature and limit of tokens", plain.model_copy(update=free)),
        ]

    def _used(self, questions: Sequence[str], known: Mapping[str, Reply]) -> Endpoint | None:
        """Return the way in which some of the questions were answered before, None where none was."""
        for _, way in self._ways() if known else ():
            if any(request_key(way, _request(text), 0) in known for text in questions):
                return way
        return None

    def _accepted(self, requests: Sequence[list[Message]], say: Callable[[str], None]) -> Endpoint:
        """Return the first way that the endpoint does not refuse, seen from the first few requests."""
        few = requests[: max(2, self.endpoint.concurrency)]
        for number, (words, way) in enumerate(self._ways()):
            replies = ask(way, few, self.answered)
            if not all(reply.failure.startswith(_REFUSED) for reply in replies):
                if number:
                    say(f"the endpoint refuses requests with some settings; it is asked {words}")
                return way
        raise RunError(
            f"the endpoint {self.endpoint.url} refuses every question to the model '{self.endpoint.model}': "
            f"{replies[0].failure}."
        )


def _opinion(reply: Reply) -> Opinion:
    return Opinion(None, failure=reply.failure) if reply.text is None else read_verdict(reply.text)


def _request(question: str) -> list[Message]:
    return [Message(role="user", content=question)]


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the outermost JSON objects in a text."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    start = text.find("{")
    while start >= 0:
        try:
            item, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(item)
        start = text.find("{", end)
    return found


def _read_template(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"the judge's template {file} cannot be read: {reason}.") from None
    for slot, what in NEEDED.items():
        if f"{{{slot}}}" not in text:
            raise UserError(f"the judge's template {file} has no placeholder {{{slot}}}; put it where {what} goes.")
    return text
