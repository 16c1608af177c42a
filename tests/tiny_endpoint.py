"""A real HTTP server on loopback that speaks /v1/chat/completions, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tiny_loopback import listening


@dataclass
class Served:
    """What the server was asked, and where it is.

    ``behave`` gets the text of the last turn and how often that text was asked before, and says what to do: a text is
    the answer, a number a status, and ``hang``, ``garbage``, ``page``, ``cut``, ``null``, ``long`` what they say.
    """

    behave: Callable[[str, int], str | int | None]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            with served.lock:
                before = served.asked.count(text)
                served.bodies.append(body)
                served.keys.add(self.headers["Authorization"])
                served.busy += 1
                served.busiest = max(served.busiest, served.busy)
            try:
                self.act(404 if self.path != "/v1/chat/completions" else served.behave(text, before))
            finally:
                with served.lock:
                    served.busy -= 1

        def act(self, how: str | int | None) -> None:
            match how:
                case int():
                    key = self.headers["Authorization"].removeprefix("Bearer ")
                    self.reply(how, {"error": {"message": f"no,\nnot with {key}"}})
                case "hang":
                    served.end.wait(30)
                case "garbage":
                    self.send("{not json", 200)
                case "page":
                    self.send("<html>hello</html>", 200, kind="text/html")
                case "cut":
                    self.send('{"choices": [', 200, length=1000)
                case "null":
                    self.answer(None, "stop")
                case "nothing":
                    self.reply(200, {"choices": []})
                case "long":
                    self.answer("cut in the", "length")
                case _:
                    self.answer(how, "stop")

        def answer(self, text: str | None, reason: str) -> None:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            self.reply(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

        def reply(self, status: int, content: object) -> None:
            self.send(json.dumps(content), status)

        def send(self, text: str, status: int, kind: str = "application/json", length: int | None = None) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length or len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving(behave: Callable[[str, int], str | int | None]) -> Iterator[Served]:
    served = Served(behave)
    with listening(_handler(served)) as served.url:
        try:
            yield served
        finally:
            served.end.set()
