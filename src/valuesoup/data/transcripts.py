"""The Human/Assistant transcript: HH-RLHF's own form, and the template of base models that have none."""

import re
from collections.abc import Sequence

from valuesoup.data.pairs import Message, Messages
from valuesoup.errors import UserError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_MARKERS = {"user": HUMAN, "assistant": ASSISTANT}
START = r"^\s*Human:"
"""Pattern of a text that is a transcript; the blank lines before its first marker may be lost."""

_TURN = re.compile(r"\n\n(Human|Assistant):")
_FIRST = re.compile(START)


def parse_transcript(text: str) -> list[Message]:
    r"""Split ``"\n\nHuman: x\n\nAssistant: y"`` into messages.

    One space after each marker belongs to the form, all other text is kept as it is. Blank space before the
    first marker may differ, other text there is a system message. A marker inside a message cannot be told
    from a turn: that is the form's weakness, and why valuesoup keeps messages.
    """
    head, *pieces = _TURN.split(_FIRST.sub(HUMAN, text))
    turns = [Message(role="system", content=head)] if head else []
    for speaker, content in zip(pieces[::2], pieces[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        turns.append(Message(role=role, content=content.removeprefix(" ")))
    return turns


def render_transcript(messages: Messages, add_generation_prompt: bool = False) -> str:
    r"""Write messages as a transcript; the inverse of ``parse_transcript``.

    Args:
        messages: Turns of ``user`` and ``assistant``, at most one ``system`` message before them.
        add_generation_prompt: End with ``"\n\nAssistant:"``, where the next answer goes.

    Raises:
        UserError: A role that the form does not have, or a system message after the first turn.
    """
    parts: list[str] = []
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "system" and index == 0:
            parts.append(message["content"])
        elif role in _MARKERS:
            parts += [_MARKERS[role], " ", message["content"]]
        else:
            raise UserError(
                f"message {index + 1} has the role '{role}', the Human/Assistant form has user and assistant "
                "turns and one system message at the start: give the model a chat template"
            )
    return "".join(parts) + (ASSISTANT if add_generation_prompt else "")


def split_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return how many leading turns two conversations share, cut back to a user turn; 0 where there is none.

    Those turns are the prompt, the turns after them the two answers.
    """
    shared = 0
    for index, (one, other) in enumerate(zip(chosen, rejected, strict=False), start=1):
        if one != other:
            break
        if one["role"] == "user":
            shared = index
    return shared
