"""Intent fusion: rewrites a single-reward prompt into one request that also carries the intents it lacks."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from valuesoup.data import Message, Messages, load_function
from valuesoup.endpoint import Endpoint, Reply, ask
from valuesoup.errors import UserError
from valuesoup.limits import Count

TEMPLATE = Path(__file__).parent / "templates" / "fusion.txt"
"""The instruction to a rewriting model, in the spirit of the paper's Fig. 9."""

REASONS = ("failed", "empty", "unchanged", "too_long")
"""Why a rewrite is dropped: no answer came, it is blank, it is the prompt itself, or it is too long or was cut off."""

RETRY_TEMPERATURE = 0.7
"""At least this warm are the further attempts of an endpoint: at 0 it would say the same again."""

_SLOT = re.compile(r"\{(prompt|missing|values|conversation)\}")


class Rewriter(BaseModel):
    """Who fuses intents: exactly one of endpoint, function and policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    endpoint: Endpoint | None = None
    """A language model behind an OpenAI-compatible endpoint."""
    function: str | None = None
    """A Python function ``module:function`` of the prompt's text, and of the missing values if it takes two
    arguments; it returns the rewritten text."""
    policy: bool = False
    """The policy itself."""
    template: str | None = None
    """File of the instruction to a language model, with the slots {prompt}, {missing}, {values} and {conversation}
    (the turns before the prompt); by default the one that comes with valuesoup."""
    attempts: Count = 3
    """Times that a prompt is rewritten until the rewrite can be used; a function has one."""

    @model_validator(mode="after")
    def _one_rewriter(self) -> "Rewriter":
        given = [name for name in ("endpoint", "function", "policy") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a rewriter is exactly one of endpoint, function and policy; found {found}")
        if self.function is not None and self.template is not None:
            raise ValueError("a function takes no template; leave it out")
        return self


@dataclass(frozen=True)
class Target:
    """A prompt to rewrite: a conversation that ends in a user turn, and the values that it lacks."""

    messages: Messages
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """What became of the targets.

    Attributes:
        prompts: For each target the conversation with its last user turn rewritten, or None.
        counts: How many are ``fused``, and dropped by each of ``REASONS``; they add up to the targets.
    """

    prompts: list[list[Message] | None]
    counts: dict[str, int]


Write = Callable[[Sequence[Target], int], list[Reply]]
"""Rewrites the last turns of targets, at the given attempt (from 0)."""


def fuse(targets: Sequence[Target], write: Write, fits: Callable[[Messages], bool], attempts: int = 3) -> Fusion:
    """Rewrite every target; what cannot be used is tried again, then dropped and counted (arXiv:2605.11679, step 2).

    Args:
        targets: N prompts.
        write: The rewriter: `by_endpoint`, `by_model` or `by_function`.
        fits: Says whether a fused conversation is within the length limit.
        attempts: The most times that one target is rewritten.

    Raises:
        UserError: Whatever ``write`` raises.
    """
    prompts: list[list[Message] | None] = [None] * len(targets)
    reasons: dict[int, str] = {}
    left = list(range(len(targets)))
    for attempt in range(attempts):
        if not left:
            break
        for place, reply in zip(left, write([targets[place] for place in left], attempt), strict=True):
            prompts[place], reasons[place] = _judged(targets[place].messages, reply, fits)
        left = [place for place in left if prompts[place] is None]
    found = Counter(reasons.values())
    return Fusion(prompts, {reason: found[reason] for reason in ("fused", *REASONS)})


def by_endpoint(
    endpoint: Endpoint,
    template: str,
    values: Sequence[str],
    answered: Path,
    on_done: Callable[[int], None] = lambda _: None,
) -> Write:
    """Rewrite by a language model behind an endpoint; answers are kept in the file ``answered``, see `ask`.

    Args:
        endpoint: Whom to ask.
        template: Text of the instruction.
        values: Names of all values.
        answered: JSON-lines file.
        on_done: Called with the number of rewrites settled since the last call, at the first attempt.
    """

    def write(targets: Sequence[Target], attempt: int) -> list[Reply]:
        asked = endpoint
        if attempt and endpoint.temperature is not None:
            asked = endpoint.model_copy(update={"temperature": max(endpoint.temperature, RETRY_TEMPERATURE)})
        requests = [[Message(role="user", content=instruction(template, target, values))] for target in targets]
        return ask(asked, requests, answered, (lambda _: None) if attempt else on_done, attempt=attempt)

    return write


def by_model(generate: Callable[[Sequence[str], int], list[Reply]], template: str, values: Sequence[str]) -> Write:
    """Rewrite by a model at hand, such as the policy: ``generate`` answers instructions at the given attempt."""

    def write(targets: Sequence[Target], attempt: int) -> list[Reply]:
        return generate([instruction(template, target, values) for target in targets], attempt)

    return write


def by_function(name: str) -> Write:
    """Rewrite by a Python function ``module:function``.

    It is given the prompt's text and, if it takes two arguments, the list of missing values.

    Raises:
        UserError: There is no such function; later, it raises or returns something other than a text.
    """
    function = load_function(name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C: the prompt is all it gets
        parameters = {}.values()
    needed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_missing = len(needed) > 1

    def write(targets: Sequence[Target], attempt: int) -> list[Reply]:
        found = []
        for target in targets:
            text = target.messages[-1]["content"]
            try:
                fused = function(text, list(target.missing)) if takes_missing else function(text)
            except Exception as error:
                raise UserError(
                    f"the rewriter {name} raised {type(error).__name__} ({error}) on the prompt {text[:80]!r}."
                ) from error
            if not isinstance(fused, str):
                raise UserError(
                    f"the rewriter {name} returned a {type(fused).__name__} for the prompt {text[:80]!r}; it must "
                    "return the rewritten text."
                )
            found.append(Reply(fused))
        return found

    return write


def read_template(path: str | None) -> str:
    """Return the instruction's text, the one that comes with valuesoup for None.

    Raises:
        UserError: The file cannot be read, or has no slot for the prompt.
    """
    file = TEMPLATE if path is None else Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"the fusion template {file} cannot be read: {reason}.") from None
    if "{prompt}" not in text:
        raise UserError(f"the fusion template {file} has no slot {{prompt}}, where the request goes.")
    return text


def instruction(template: str, target: Target, values: Sequence[str]) -> str:
    """Fill the slots of a template; slots that the prompt itself spells stay as they are."""
    *before, last = target.messages
    slots = {
        "prompt": last["content"],
        "missing": ", ".join(target.missing),
        "values": ", ".join(values),
        "conversation": "\n".join(f"{turn['role']}: {turn['content']}" for turn in before),
    }
    return _SLOT.sub(lambda slot: slots[slot[1]], template)


def _judged(messages: Messages, reply: Reply, fits: Callable[[Messages], bool]) -> tuple[list[Message] | None, str]:
    """Return the fused conversation, or why there is none."""
    if reply.text is None:
        return None, "failed"
    *before, last = messages
    text = _unquoted(reply.text.strip())
    if not text:
        return None, "empty"
    if _plain(text) == _plain(last["content"]):
        return None, "unchanged"
    fused = [*before, Message(role=last["role"], content=text)]
    return (fused, "fused") if reply.finished and fits(fused) else (None, "too_long")


def _unquoted(text: str) -> str:
    """Take off the quotes that models like to put around a text."""
    inner = text[1:-1]
    quoted = len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("“", "”")} and not {'"', "“", "”"} & set(inner)
    return inner.strip() if quoted else text


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
