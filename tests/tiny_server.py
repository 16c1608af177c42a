"""A real HTTP server on loopback that speaks /v1/completions for the policies of a soup, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

from tiny_loopback import listening
from valuesoup.evaluation.parity import read_answers
from valuesoup.soup import Soup
from valuesoup.soup.generation import Row, end_tokens, generate


@dataclass
class Fake:
    """What a server serves, and how.

    Attributes:
        soup: Whose policies it serves.
        models: Their weights by name.
        listed: Whether it lists them.
        before: Tokens that it puts before every prompt, beside those of the tokenizer.
        usage: Whether it says how many tokens it read and wrote.
        warmth: Factor of every temperature.
        shift: Added to the log-probabilities that it gives; None gives none.
        refuse: Says with which status a request is refused, by how many came before it; 0 answers it.
    """

    soup: Soup
    models: Mapping[str, tuple[float, ...]]
    listed: bool = True
    before: tuple[int, ...] = ()
    usage: bool = True
    warmth: float = 1.0
    shift: float | None = None
    refuse: Callable[[dict[str, Any], int], int] = lambda body, before: 0
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        tokenizer: Any = self.soup.tokenizer
        asked = body["prompt"]
        tokens = (*self.before, *(tokenizer(asked)["input_ids"] if isinstance(asked, str) else asked))
        weights = self.models[body["model"]]
        with self.lock:
            (answer,) = generate(
                self.soup,
                [Row(tokens, weights, body["seed"])],
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"] * self.warmth,
            )
            choice: dict[str, Any] = {
                "index": 0,
                "text": tokenizer.decode(answer.tokens, skip_special_tokens=True),
                "finish_reason": "stop" if answer.finished else "length",
            }
            if self.shift is not None and "logprobs" in body:
                row = np.array([weights], dtype=np.float32).reshape(1, -1)
                ends = sorted(end_tokens(self.soup))
                read = read_answers(self.soup, [tokens], [answer.tokens], [answer.finished], row, ends)
                choice["logprobs"] = {"token_logprobs": (read.log_probs[0] + self.shift).tolist()}
        found: dict[str, Any] = {"id": "1", "object": "text_completion", "created": 0, "model": "m"}
        found["choices"] = [choice]
        if self.usage:
            found["usage"] = {"prompt_tokens": len(tokens), "completion_tokens": len(answer.tokens) + answer.finished}
        return found


def _handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            models = fake.models if fake.listed else ()
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "me"} for name in models]
            self.reply(200, {"object": "list", "data": data})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                before = len(fake.bodies)
                fake.bodies.append(body)
            status = fake.refuse(body, before)
            if body["model"] not in fake.models:
                status = 404
            if self.path != "/v1/completions" or status:
                self.reply(status or 404, {"error": {"message": "not this"}})
            else:
                self.reply(200, fake.complete(body))

        def reply(self, status: int, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    with listening(_handler(fake)) as fake.url:
        yield fake
