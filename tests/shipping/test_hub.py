"""Uploading: refused before any work where it cannot succeed; what a hub on loopback receives."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from valuesoup.errors import RunError, UserError
from valuesoup.shipping import check_push, push

TOKEN = "hf_" + "x" * 20


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files asks."""

    asked: list[tuple[str, Any]]
    status = 200

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lines = [json.loads(line) for line in raw.decode().splitlines() if line]
        body = lines[0] if len(lines) == 1 else lines
        type(self).asked.append((self.path, body))
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        reply: dict[str, Any] = {"url": f"{address}/me/my-soup"}
        if self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in body["files"]]
            reply = {"files": files}
        elif self.path.endswith("/commit/main"):
            reply = {"commitUrl": f"{address}/me/my-soup/commit/0", "commitOid": "0" * 40, "success": True}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            type(self).status = 401
        text = json.dumps(reply).encode()
        self.send_response(type(self).status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    class Own(Hub):
        asked: list[tuple[str, Any]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield Own
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "adapter_config.json").write_text("{}")
    (made / "README.md").write_text("---\nlibrary_name: peft\n---\n# mine\n")
    return made


def test_every_file_arrives_in_a_private_repository(hub: type[Hub], folder: Path) -> None:
    assert push(folder, "me/my-soup").endswith("/me/my-soup")
    paths = dict(hub.asked)
    created = paths["/api/repos/create"]
    assert created.get("private") is True or created.get("visibility") == "private"
    commit = next(body for path, body in hub.asked if path.endswith("/commit/main"))
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in commit if line["key"] == "file"
    }
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_refused_token_and_a_hub_that_fails_are_told_apart_and_no_token_is_shown(
    hub: type[Hub], folder: Path
) -> None:
    hub.status = 403
    with pytest.raises(UserError, match="the hub refuses the token for me/my-soup") as refused:
        push(folder, "me/my-soup")
    assert TOKEN not in str(refused.value)
    hub.status = 400
    with pytest.raises(RunError, match="the hub answers 400 for me/my-soup; the export stays in"):
        push(folder, "me/my-soup")


def test_a_hub_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(RunError, match=r"the hub cannot be reached .* the export stays in"):
        push(folder, "me/my-soup")


@pytest.mark.parametrize("name", ["mine", "a/b/c", "a b/c", "me/", "/x", "me/..", ""])
def test_what_is_no_repository_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="--push takes owner/name"):
        check_push(name)


def test_without_a_token_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="needs a token that may write: set HF_TOKEN"):
        check_push("me/my-soup")
