"""Lets the models of a server go on with texts (``/completions``), and asks which models it serves."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.endpoint.asking import Reply, Server, digest, library, read_answers, settle
from valuesoup.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True)
class Continuation(Reply):
    """What came back for one text to go on with.

    Attributes:
        prompt_tokens: How many tokens the server read, None where it does not say.
        written_tokens: How many it wrote, an end of sequence maybe counted; None where it does not say.
        log_probs: Of the written tokens in nats, where they were asked for and the server gives them.
    """

    prompt_tokens: int | None = None
    written_tokens: int | None = None
    log_probs: Sequence[float] | None = None


@dataclass(frozen=True)
class Completion:
    """A text that a model shall go on with (``/completions``): no chat template stands between.

    Attributes:
        model: Name by which the server knows the model.
        prompt: The text, or its token ids.
        max_tokens: Most tokens of the answer.
        temperature: 0 asks for the likeliest token.
        seed: Of the draws.
        log_probs: Whether to ask for the log-probabilities of the written tokens.
    """

    model: str
    prompt: str | tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int
    log_probs: bool = False

    def send(self, client: "AsyncOpenAI", server: Server) -> Awaitable[object]:
        """Ask a server. Its own sampling defaults (top_p) are overruled: answers are drawn from the whole policy."""
        return client.completions.create(
            model=self.model,
            prompt=self.prompt if isinstance(self.prompt, str) else list(self.prompt),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=1.0,
            seed=self.seed,
            logprobs=1 if self.log_probs else None,
            extra_body=dict(server.extra),
        )

    def read(self, found: Any) -> Continuation:
        """Read an answer."""
        try:
            choice = found.choices[0]
            text, reason = choice.text, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return Continuation(None, failure="the answer is no completion")
        if not isinstance(text, str):
            return Continuation(None, failure="the answer is no completion")
        usage = getattr(found, "usage", None)
        read, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        given = getattr(getattr(choice, "logprobs", None), "token_logprobs", None)
        numbers = isinstance(given, list) and all(isinstance(number, int | float) for number in given)
        return Continuation(
            text,
            finished=reason != "length",
            prompt_tokens=read if isinstance(read, int) else None,
            written_tokens=written if isinstance(written, int) else None,
            log_probs=given if numbers else None,
        )

    def failed(self, reason: str) -> Continuation:
        """Say why there is no answer."""
        return Continuation(None, failure=reason)

    def key(self, server: Server) -> str:
        """Return what an answer is known by; another address that serves the same models gives the same answers."""
        return digest({**asdict(self), "extra": server.extra})


def complete(
    server: Server,
    requests: Sequence[Completion],
    answered: Path,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Continuation]:
    """Let models go on with texts; arguments, returned replies and errors are those of :func:`ask`."""
    keys = [request.key(server) for request in requests]
    return settle(server, keys, requests, answered, read_continuations(answered), on_done)


def served_models(server: Server) -> list[str] | None:
    """Return the names that a server lists (``/models``), maybe not all that it serves; None where nobody is there.

    Raises:
        UserError: ``openai`` is not installed, or the key is refused.
    """
    openai = library()
    key = os.environ.get(server.key_env, "")
    with openai.OpenAI(api_key=key or "none", base_url=server.url, timeout=server.timeout, max_retries=0) as client:
        try:
            return [str(model.id) for model in client.models.list().data]
        except openai.APIConnectionError:
            return None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise UserError(
                f"the server {server.url} refuses the key; check the environment variable {server.key_env}."
            ) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return []  # it is there, and lists nothing


def read_continuations(answered: Path) -> dict[str, Continuation]:
    """Read what :func:`complete` wrote so far, as :func:`read_replies` does."""
    return read_answers(answered, Continuation)
