"""Lets one model answer conversations (``/chat/completions``)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from valuesoup.endpoint.asking import Reply, Server, digest, read_answers, settle

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Conversation = Sequence[Mapping[str, object]]
"""Turns, each with ``role`` and ``content``."""


class Endpoint(Server):
    """A model behind an OpenAI-compatible endpoint, asked by chat (``/chat/completions``)."""

    model: str = Field(min_length=1)
    """Name by which the endpoint knows the model."""
    temperature: float | None = Field(0.0, ge=0, le=1000)
    """Sampling temperature; null leaves it to the endpoint."""
    max_tokens: int | None = Field(512, gt=0, le=10**9)
    """Most tokens of an answer; null leaves it to the endpoint."""

    def identity(self) -> dict[str, Any]:
        """Return what its answers depend on, for keys: not how many at a time, how patiently, or with whose key."""
        return self.model_dump(mode="json", include={"url", "model", "temperature", "max_tokens", "extra"})


@dataclass(frozen=True)
class _Chat:
    """A conversation that a model shall answer."""

    endpoint: Endpoint
    request: Conversation

    @property
    def model(self) -> str:
        return self.endpoint.model

    def send(self, client: "AsyncOpenAI", server: Server) -> Awaitable[object]:
        body: dict[str, Any] = {"model": self.model, "messages": [dict(message) for message in self.request]}
        for name in ("temperature", "max_tokens"):
            if getattr(self.endpoint, name) is not None:
                body[name] = getattr(self.endpoint, name)
        sent: Awaitable[object] = client.chat.completions.create(**body, extra_body=dict(server.extra))
        return sent

    def read(self, found: Any) -> Reply:
        try:
            choice = found.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return Reply(None, failure="the answer is no chat completion")
        if text is not None and not isinstance(text, str):
            return Reply(None, failure="the answer is no chat completion")
        return Reply(text or "", finished=reason != "length")

    def failed(self, reason: str) -> Reply:
        return Reply(None, failure=reason)


def ask(
    endpoint: Endpoint,
    requests: Sequence[Conversation],
    answered: Path,
    on_done: Callable[[int], None] = lambda _: None,
    *,
    attempt: int = 0,
) -> list[Reply]:
    """Ask every request, several at a time; identical ones once, and none that ``answered`` holds an answer to.

    Args:
        endpoint: Whom to ask.
        requests: N conversations that end in a user turn.
        answered: JSON-lines file of the answers; each is appended as it comes, so that an interrupted call goes on
            where it stopped. A torn last line is ignored. Keys are never written.
        on_done: Called with the number of requests settled since the last call.
        attempt: Other numbers ask the same requests anew.

    Returns:
        N replies in the order of the requests. A request that failed for good has its reason, and is asked again by
        the next call.

    Raises:
        UserError: ``openai`` is not installed, or the endpoint refuses every request (401, 403, 404).
        RunError: It cannot be reached, or fails whatever it is asked. What was answered stays.
    """
    keys = [request_key(endpoint, request, attempt) for request in requests]
    chats = [_Chat(endpoint, request) for request in requests]
    return settle(endpoint, keys, chats, answered, read_replies(answered), on_done)


def request_key(endpoint: Endpoint, request: Conversation, attempt: int) -> str:
    """Return what an answer is known by: 32 hex digits of whom is asked, what, how, and for which time."""
    parts = {**endpoint.identity(), "messages": [dict(message) for message in request], "attempt": attempt}
    return digest(parts)


def read_replies(answered: Path) -> dict[str, Reply]:
    """Read the answers so far, and cut off a last line that was being written when the call was stopped."""
    return read_answers(answered, Reply)
