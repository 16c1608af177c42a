"""Asks a language model behind an OpenAI-compatible endpoint; every answer is on disk as soon as it is there."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat, PositiveInt, field_validator

from valuesoup.errors import RunError, UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Conversation = Sequence[Mapping[str, object]]
"""Turns, each with ``role`` and ``content``."""

_WRONG = (401, 404)
"""Status codes that say that address, model or key are wrong, whatever was asked; 403 may also mean one request."""


class Endpoint(BaseModel):
    """A model behind an OpenAI-compatible endpoint (``/chat/completions``), local or hosted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    url: str
    """Address up to ``/v1``, such as http://127.0.0.1:8000/v1."""
    model: str = Field(min_length=1)
    """Name by which the endpoint knows the model."""
    key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """Name of the environment variable that holds the key; local servers need none."""
    concurrency: PositiveInt = 8
    """Requests under way at a time."""
    timeout: PositiveFloat = 60.0
    """Seconds after which an attempt is given up."""
    retries: int = Field(5, ge=0)
    """Further attempts, with growing pauses, at a request that met a lost connection, a timeout, 429 or 5xx."""
    temperature: float | None = Field(0.0, ge=0)
    """Sampling temperature; null leaves it to the endpoint."""
    max_tokens: PositiveInt | None = 512
    """Most tokens of an answer; null leaves it to the endpoint."""
    extra: dict[str, JsonValue] = {}
    """Further fields of the request, for endpoints that need them, such as ``max_completion_tokens``."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an endpoint's url is like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("an endpoint's url holds no key; put it into the environment variable that key_env names")
        return url.rstrip("/")

    def identity(self) -> dict[str, Any]:
        """Return what its answers depend on, for keys: not how many at a time, how patiently, or with whose key."""
        return self.model_dump(mode="json", include={"url", "model", "temperature", "max_tokens", "extra"})


@dataclass(frozen=True)
class Reply:
    """What came back for one request.

    Attributes:
        text: The answer, maybe empty; None where there is none.
        finished: False where the length limit cut it off.
        failure: Why there is no answer; empty where there is one.
    """

    text: str | None
    finished: bool = True
    failure: str = ""


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
    replies = read_replies(answered)
    distinct = dict(zip(keys, requests, strict=True))
    missing = {key: request for key, request in distinct.items() if key not in replies}
    if len(missing) < len(distinct):
        on_done(sum(key not in missing for key in keys))
    if missing:
        times = Counter(keys)
        with answered.open("a", encoding="utf-8") as file:
            asking = _Asking(endpoint, file, replies, lambda key: on_done(times[key]), len(missing))
            _run(asking, missing)
    return [replies[key] for key in keys]


class _Asking:
    """One call's requests under way."""

    def __init__(
        self,
        endpoint: Endpoint,
        file: TextIO,
        replies: dict[str, Reply],
        settled: Callable[[str], None],
        requests: int,
    ) -> None:
        self.endpoint = endpoint
        self.file = file
        self.replies = replies
        self.settled = settled
        # So many failures with no answer between them are the endpoint's, not the requests'. So are those of all
        # requests, where they say so plainly or where it never answered any.
        self.patience = max(2, endpoint.concurrency)
        self.least = min(requests, self.patience)
        self.answered = bool(replies)
        self.failures = 0
        self.key = os.environ.get(endpoint.key_env, "")

    async def all(self, missing: Mapping[str, Conversation]) -> None:
        """Ask all that is missing, by as many workers as may be under way."""
        import asyncio

        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise UserError(
                "asking an endpoint needs the package openai; install it with: pip install 'valuesoup[judge]'"
            ) from None
        queue = iter(missing.items())
        endpoint = self.endpoint
        async with AsyncOpenAI(
            api_key=self.key or "none",
            base_url=endpoint.url,
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
        ) as client:
            workers = [
                asyncio.create_task(self._work(client, queue)) for _ in range(min(endpoint.concurrency, len(missing)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, client: "AsyncOpenAI", queue: Iterator[tuple[str, Conversation]]) -> None:
        for key, request in queue:
            reply = await self._one(client, request)
            self.replies[key] = reply
            if reply.text is not None:
                self.file.write(json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n")
                self.file.flush()
            self.settled(key)

    async def _one(self, client: "AsyncOpenAI", request: Conversation) -> Reply:
        import openai

        endpoint = self.endpoint
        body: dict[str, Any] = {"model": endpoint.model, "messages": [dict(message) for message in request]}
        for name in ("temperature", "max_tokens"):
            if getattr(endpoint, name) is not None:
                body[name] = getattr(endpoint, name)
        try:
            found: object = await client.chat.completions.create(**body, extra_body=dict(endpoint.extra))
        except openai.APIStatusError as error:
            status = error.status_code
            return self._failed(f"status {status}{self._said(error)}", status, plain=status in _WRONG)
        except openai.APITimeoutError:
            return self._failed(f"no answer within {endpoint.timeout:g} s", None, plain=False)
        except openai.APIConnectionError as error:
            nobody = type(error.__cause__).__name__ == "ConnectError"  # of httpx, whichever the library uses
            return self._failed("nobody is there" if nobody else "the connection broke", None, plain=nobody)
        except (openai.OpenAIError, ValueError):
            found = None
        self.failures, self.answered = 0, True
        return _reply(found)

    def _failed(self, reason: str, status: int | None, *, plain: bool) -> Reply:
        """Note a failure, and stop the call where it is clear that the endpoint answers nothing.

        Args:
            reason: What happened.
            status: The answer's status code, None where there was none.
            plain: Whether it would have happened to any request.
        """
        maybe = status is None or status in (*_WRONG, 403, 408, 429) or status >= 500
        self.failures = self.failures + 1 if maybe else 0
        if self.failures < (self.least if plain or not self.answered else self.patience):
            return Reply(None, failure=reason)
        endpoint = self.endpoint
        where = f"the endpoint {endpoint.url} answers no request for the model '{endpoint.model}': {reason}"
        kept = "; what it answered is kept, and the same command goes on from there."
        if status in (401, 403):
            key = "the key there is refused" if self.key else "it is not set"
            raise UserError(f"{where}; check the environment variable {endpoint.key_env} ({key}){kept}")
        if status == 404:
            raise UserError(f"{where}; check its url and model{kept}")
        raise RunError(
            f"{where}; check that it is up, or give it more time (timeout) or less at once (concurrency){kept}"
        )

    def _said(self, error: Any) -> str:
        """Return the server's own words, short, on one line and without the key."""
        body = error.body
        text = body.get("message") if isinstance(body, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            return ""
        if self.key:
            text = text.replace(self.key, "[key]")
        return f" ({' '.join(text.split())[:200]})"


def _run(asking: _Asking, missing: Mapping[str, Conversation]) -> None:
    import asyncio  # a quick command that only reads a configuration need not wait for it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(asking.all(missing))
        return
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop is running already, and loops do not nest
        thread.submit(asyncio.run, asking.all(missing)).result()


def _reply(found: Any) -> Reply:
    """Read an answer, which may be anything: the library does not check what a server sends."""
    try:
        choice = found.choices[0]
        text, reason = choice.message.content, choice.finish_reason
    except (AttributeError, IndexError, TypeError):
        return Reply(None, failure="the answer is no chat completion")
    if text is not None and not isinstance(text, str):
        return Reply(None, failure="the answer is no chat completion")
    return Reply(text or "", finished=reason != "length")


def request_key(endpoint: Endpoint, request: Conversation, attempt: int) -> str:
    """Return what an answer is known by: 32 hex digits of whom is asked, what, how, and for which time."""
    parts = {**endpoint.identity(), "messages": [dict(message) for message in request], "attempt": attempt}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read_replies(answered: Path) -> dict[str, Reply]:
    """Read the answers so far, and cut off a last line that was being written when the call was stopped."""
    found: dict[str, Reply] = {}
    if not answered.is_file():
        return found
    content = answered.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with answered.open("r+b") as file:
            file.truncate(len(whole))
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            key = row.pop("key")
            found[key] = Reply(**row)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"{answered}, line {number} is no answer of an endpoint; remove that line.") from None
    return found
