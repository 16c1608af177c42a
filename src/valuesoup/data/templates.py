"""Turns messages into the text that one model sees: its own chat template, or Human/Assistant without one."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

from valuesoup.data.pairs import Message, Messages
from valuesoup.data.transcripts import render_transcript
from valuesoup.errors import UserError

# What Python raises at a template: of its text (a `break` outside a loop), of its size, of what stands in it.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    chat_template: Any
    bos_token: Any
    bos_token_id: Any
    eos_token: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render messages as text (``tokenize=False``)."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with the special tokens that the model expects around it."""
        ...


def render(messages: Messages, tokenizer: Tokenizer | None = None, add_generation_prompt: bool = False) -> str:
    """Return the text of a conversation as a model sees it; tokenize it with ``add_special_tokens=False``.

    A tokenizer's chat template is used if it has one. Otherwise the text is a Human/Assistant transcript,
    begun with the beginning-of-sequence token where the tokenizer sets one before every text.

    Contents are not altered: a content that spells a turn marker or a special token is rendered as it is.

    Args:
        messages: The turns, in order.
        tokenizer: The consumer's tokenizer; None gives the plain transcript.
        add_generation_prompt: End where the assistant's next answer begins.

    Raises:
        UserError: The template refuses the conversation (roles that it does not have, a wrong order).
    """
    if tokenizer is None:
        return render_transcript(messages, add_generation_prompt)
    if not tokenizer.chat_template:
        return _begin(tokenizer) + render_transcript(messages, add_generation_prompt)
    import jinja2

    conversation = [dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=add_generation_prompt)
    # transformers renders it in a sandbox; what is wrong with a template is raised as Python raises it.
    except (jinja2.TemplateError, *_FAULTS) as error:
        roles = ", ".join(message["role"] for message in messages)
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the chat template refuses a conversation of the roles {roles}: {said}") from error
    return str(text)


def render_prompt(prompt: Messages, tokenizer: Tokenizer | None = None) -> str:
    """Return the text after which the model answers: ``render`` with the generation prompt."""
    return render(prompt, tokenizer, add_generation_prompt=True)


def render_answer(prompt: Messages, answer: Messages, tokenizer: Tokenizer | None = None) -> tuple[str, str]:
    """Return the text of the prompt and of the answer; joined they are what the model sees.

    The prompt's text is ``render_prompt``'s, as in generation. The answer's text ends with the token on which
    generation stops: what the chat template writes after the answer, up to its end-of-sequence token if it
    writes one; where it writes nothing, and in transcripts, the tokenizer's end-of-sequence token.

    Args:
        prompt: Turns ending in a user turn.
        answer: The assistant's turn, or turns beginning and ending with one.
        tokenizer: As in ``render``.

    Raises:
        UserError: The template refuses the conversation, or renders the prompt differently before an answer,
            so that no text is the prompt's alone.
    """
    before = render_prompt(prompt, tokenizer)
    whole = render([*prompt, *answer], tokenizer)
    if not whole.startswith(before):
        raise UserError(
            "the chat template writes a prompt differently once the answer follows, so the answer's part "
            f"cannot be told: before an answer it ends in {before[-40:]!r}"
        )
    text = whole[len(before) :]
    end = str(tokenizer.eos_token or "") if tokenizer is not None else ""
    if not end:
        return before, text
    stripped = text.rstrip()
    if stripped.endswith(end) and not _content(answer).endswith(end):
        return before, stripped
    says_nothing_more = stripped.endswith(_content(answer))
    return before, text + end if says_nothing_more else text


def template_id(tokenizer: Tokenizer | None = None) -> str:
    """Return 16 hexadecimal digits that change with whatever ``render`` takes from the tokenizer."""
    parts: Sequence[object] = ["human-assistant"]
    if tokenizer is not None and tokenizer.chat_template:
        parts = ["chat", tokenizer.chat_template, str(tokenizer.bos_token), str(tokenizer.eos_token)]
    elif tokenizer is not None:
        parts = ["human-assistant", _begin(tokenizer), str(tokenizer.eos_token or "")]
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def _begin(tokenizer: Tokenizer) -> str:
    ids = tokenizer.encode("")
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""


def _content(answer: Sequence[Message]) -> str:
    return answer[-1]["content"].strip()
