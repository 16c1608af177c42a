"""Asks an OpenAI-compatible server, several requests at a time; every answer is on disk as soon as it is there."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TextIO, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, field_validator

from valuesoup.errors import RunError, UserError, ValuesoupError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

GRACE = 2.0
"""Seconds that requests under way may still take when the endpoint is given up."""
SECRET = 8
"""Characters from which a key is kept out of the answers, which are stored; shorter ones of local servers are words."""
_WRONG = (401, 404)
"""Status codes that say that address, model or key are wrong, whatever was asked; 403 may also mean one request."""


class Server(BaseModel):
    """An OpenAI-compatible server, local or hosted, and how patiently it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    url: str
    """Address up to ``/v1``, such as http://127.0.0.1:8000/v1."""
    key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """Name of the environment variable that holds the key; local servers need none."""
    concurrency: int = Field(8, gt=0, le=10_000)
    """Requests under way at a time."""
    timeout: float = Field(60.0, gt=0, le=1e6)
    """Seconds after which an attempt is given up."""
    retries: int = Field(5, ge=0, le=1000)
    """Further attempts, with growing pauses, at a request that met a lost connection, a timeout, 429 or 5xx."""
    extra: dict[str, JsonValue] = {}
    """Further fields of the request, for endpoints that need them, such as ``max_completion_tokens``."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if any(mark in url for mark in "@?#"):
            raise ValueError("an endpoint's url holds no key; put it into the environment variable that key_env names")
        try:
            parts = urlsplit(url)
            known = parts.port is None or parts.port > 0
        except ValueError:  # it may repeat what stands for a port, such as a key
            raise ValueError("an endpoint's url is like http://127.0.0.1:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not known:
            raise ValueError("an endpoint's url is like http://127.0.0.1:8000/v1")
        return url.rstrip("/")


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


R = TypeVar("R", bound=Reply)
R_co = TypeVar("R_co", bound=Reply, covariant=True)


class Request(Protocol[R_co]):
    """What is asked: it sends itself and reads the answer, which may be anything: the library does not check it."""

    @property
    def model(self) -> str:
        """Name by which the server knows the model that is asked."""
        ...

    def send(self, client: "AsyncOpenAI", server: Server) -> Awaitable[object]:
        """Ask."""
        ...

    def read(self, found: Any) -> R_co:
        """Read what came back."""
        ...

    def failed(self, reason: str) -> R_co:
        """Say why nothing came back."""
        ...


def settle(
    server: Server,
    keys: Sequence[str],
    requests: Sequence[Request[R]],
    answered: Path,
    replies: dict[str, R],
    on_done: Callable[[int], None],
) -> list[R]:
    """Ask what is not answered yet, identical requests once.

    Args:
        server: Whom to ask.
        keys: What each of the N requests is known by.
        requests: N requests.
        answered: JSON-lines file to which each answer is appended as it comes.
        replies: Answers that are there already, by key.
        on_done: Called with the number of requests settled since the last call.

    Returns:
        N replies in the order of the requests.

    Raises:
        UserError: ``openai`` is not installed, or the server refuses every request (401, 403, 404).
        RunError: It cannot be reached, or fails whatever it is asked. What was answered stays.
    """
    distinct = dict(zip(keys, requests, strict=True))
    missing = {key: request for key, request in distinct.items() if key not in replies}
    if len(missing) < len(distinct):
        on_done(sum(key not in missing for key in keys))
    if missing:
        times = Counter(keys)
        with answered.open("a", encoding="utf-8") as file:
            asking = _Asking(server, file, replies, lambda key: on_done(times[key]), len(missing))
            _run(asking, missing)
    return [replies[key] for key in keys]


def read_answers(answered: Path, kind: type[R]) -> dict[str, R]:
    """Read the answers so far by key, and cut off a last line that was being written when a call was stopped.

    Raises:
        RunError: A line is no answer.
    """
    found: dict[str, R] = {}
    if not answered.is_file():
        return found
    content = answered.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with answered.open("r+b") as file:
            file.truncate(len(whole))
    reply = TypeAdapter(kind)
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            found[str(json.loads(line)["key"])] = reply.validate_json(line, strict=True)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunError(f"{answered}, line {number} is no answer of an endpoint; remove that line.") from None
    return found


def digest(parts: Mapping[str, Any]) -> str:
    """Return 32 hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def library() -> Any:
    """Return the package ``openai``.

    Raises:
        UserError: It is not installed.
    """
    try:
        import openai
    except ImportError:
        raise UserError(
            "asking an endpoint needs the package openai; install it with: pip install 'valuesoup[judge]'"
        ) from None
    return openai


class _Asking(Generic[R]):
    """One call's requests under way."""

    def __init__(
        self,
        server: Server,
        file: TextIO,
        replies: dict[str, R],
        settled: Callable[[str], None],
        requests: int,
    ) -> None:
        self.server = server
        self.file = file
        self.replies = replies
        self.settled = settled
        # So many failures with no answer between them are the endpoint's, not the requests'. So are those of all
        # requests, where they say so plainly or where it never answered any.
        self.patience = max(2, server.concurrency)
        self.least = min(requests, self.patience)
        self.answered = bool(replies)
        self.failures = 0
        self.over = False
        self.key = os.environ.get(server.key_env, "")

    async def all(self, missing: Mapping[str, Request[R]]) -> None:
        """Ask all that is missing, by as many workers as may be under way."""
        import asyncio

        queue = iter(missing.items())
        server = self.server
        async with library().AsyncOpenAI(
            api_key=self.key or "none",
            base_url=server.url,
            timeout=server.timeout,
            max_retries=server.retries,
        ) as client:
            workers = [
                asyncio.create_task(self._work(client, queue)) for _ in range(min(server.concurrency, len(missing)))
            ]
            try:
                await asyncio.gather(*workers)
            except ValuesoupError:
                # Nothing new is asked, and what the server is answering just now is not lost.
                self.over = True
                await asyncio.wait(workers, timeout=GRACE)
                raise
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, client: "AsyncOpenAI", queue: Iterator[tuple[str, Request[R]]]) -> None:
        for key, request in queue:
            if self.over:
                return
            reply = await self._one(client, request)
            if reply.text is not None and len(self.key) >= SECRET:
                reply = replace(reply, text=reply.text.replace(self.key, "[key]"))
            self.replies[key] = reply
            if reply.text is not None:
                self.file.write(json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n")
                self.file.flush()
            self.settled(key)

    async def _one(self, client: "AsyncOpenAI", request: Request[R]) -> R:
        import openai

        found: object
        try:
            found = await request.send(client, self.server)
        except openai.APIStatusError as error:
            status = error.status_code
            return self._failed(request, f"status {status}{self._said(error)}", status, plain=status in _WRONG)
        except openai.APITimeoutError:
            return self._failed(request, f"no answer within {self.server.timeout:g} s", None, plain=False)
        except openai.APIConnectionError as error:
            nobody = type(error.__cause__).__name__ == "ConnectError"  # of httpx, whichever the library uses
            return self._failed(request, "nobody is there" if nobody else "the connection broke", None, plain=nobody)
        except (openai.OpenAIError, ValueError):
            found = None
        self.failures, self.answered = 0, True
        return request.read(found)

    def _failed(self, request: Request[R], reason: str, status: int | None, *, plain: bool) -> R:
        """Note a failure, and stop the call where it is clear that the endpoint answers nothing.

        Args:
            request: What was asked.
            reason: What happened.
            status: The answer's status code, None where there was none.
            plain: Whether it would have happened to any request.
        """
        maybe = status is None or status in (*_WRONG, 403, 408, 429) or status >= 500
        self.failures = self.failures + 1 if maybe else 0
        if self.failures < (self.least if plain or not self.answered else self.patience):
            return request.failed(reason)
        server = self.server
        where = f"the endpoint {server.url} answers no request for the model '{request.model}': {reason}"
        kept = "; what it answered is kept, and the same command goes on from there."
        if status in (401, 403):
            key = "the key there is refused" if self.key else "it is not set"
            raise UserError(f"{where}; check the environment variable {server.key_env} ({key}){kept}")
        if status == 404:
            raise UserError(f"{where}; check its url and model{kept}")
        raise RunError(
            f"{where}; check that it is up, or give it more time (timeout) or less at once (concurrency){kept}"
        )

    def _said(self, error: Any) -> str:
        """Return the server's own words, short, on one line and without the key."""
        body = error.body
        text = body.get("message") or body.get("detail") if isinstance(body, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            return ""
        if self.key:
            text = text.replace(self.key, "[key]")
        return f" ({' '.join(text.split())[:200]})"


def _run(asking: _Asking[R], missing: Mapping[str, Request[R]]) -> None:
    import asyncio  # a quick command that only reads a configuration need not wait for it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(asking.all(missing))
        return
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop is running already, and loops do not nest
        thread.submit(asyncio.run, asking.all(missing)).result()
