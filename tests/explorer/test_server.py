"""Who reaches the page, and what is said where it cannot be served."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from served import serve

import tiny_run
from valuesoup.errors import UserError
from valuesoup.explorer.server import check_open, launch, listen
from valuesoup.pipeline.run import open_run
from valuesoup.store import Progress


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_the_machine_itself_needs_no_password(host: str) -> None:
    check_open(host, share=False, auth=None)


@pytest.mark.parametrize(
    ("host", "share", "what"),
    [
        ("0.0.0.0", False, "host 0.0.0.0"),
        ("::", False, "host ::"),
        ("192.168.1.5", False, "host 192.168.1.5"),
        ("example.org", False, "host example.org"),
        ("127.0.0.1", True, "--share"),
    ],
)
def test_nobody_else_is_let_in_without_one(host: str, share: bool, what: str) -> None:
    with pytest.raises(UserError, match=f"{what} opens this page to others.*add --auth USER"):
        check_open(host, share=share, auth=None)
    check_open(host, share=share, auth=("me", "secret"))
    with pytest.raises(UserError, match="must not be empty"):
        check_open(host, share=share, auth=("me", ""))


def test_a_port_in_use_and_addresses_that_are_none_are_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use; give another one by --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="port 70000 does not exist"):
        listen("127.0.0.1", 70000)
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(UserError, match=f"host '{host}' is not an address of this machine"):
            listen(host, 0)


def refused(tmp_path: Path, *arguments: str | Path, **environment: str) -> str:
    """Run the command, which must end with code 2 and one line."""
    for name, value in environment.items():
        os.environ[name] = value
    try:
        done = tiny_run.valuesoup(tmp_path, "explore", *arguments)
    finally:
        for name in environment:
            del os.environ[name]
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_command_says_in_one_sentence_what_is_wrong(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    run = demo_run[0]
    assert "is not a run folder" in refused(tmp_path, tmp_path / "nothing")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run / "config.yaml", unfinished)
    assert "has not finished; continue it with" in refused(tmp_path, unfinished)
    (tmp_path / "study" / "seed-3").mkdir(parents=True)
    shutil.copy(run / "config.yaml", tmp_path / "study" / "seed-3")
    assert "explore one of its runs, such as" in refused(tmp_path, tmp_path / "study")
    assert "opens this page to others" in refused(tmp_path, run, "--host", "0.0.0.0")
    assert "opens this page to others" in refused(tmp_path, run, "--share")
    assert "--auth me needs a password; put it in" in refused(tmp_path, run, "--auth", "me")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "is in use" in refused(tmp_path, run, "--port", str(taken.getsockname()[1]))
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError('No module named gradio', name='gradio')")
    hidden = {"PYTHONPATH": str(tmp_path)}
    code = "import sys; sys.argv = ['valuesoup', 'explore', sys.argv[1]]; from valuesoup.cli import main; main()"
    environment = tiny_run.environment(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join([hidden["PYTHONPATH"], environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: the explorer needs gradio; install it by `pip install 'valuesoup[explore]'`.\n"


def answer(
    url: str, path: str = "/", host: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    at = urlsplit(url)
    assert at.hostname and at.port
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
    connection.request(method, path, headers={"Host": host or at.netloc, **headers})
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
    connection.close()
    return found


def test_it_serves_this_machine_with_a_policy_asks_for_the_password_and_ends_at_ctrl_c(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    secret = "correct horse battery"
    with serve(demo_run[0], tmp_path, "--auth", "me", VALUESOUP_PASSWORD=secret) as served:
        assert urlsplit(served.url).hostname == "127.0.0.1"
        status, headers, body = answer(served.url)
        assert status in (200, 401)
        assert "connect" not in headers["content-security-policy"].partition("default-src 'self'")[0]
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "vs-board" not in body, "nothing of the run before the password"
        assert answer(served.url, "/config")[0] == 401
        assert answer(served.url, host="evil.example:80")[0] == 403
        assert answer(served.url, host="localhost:1")[0] in (200, 401)
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        for site, refused in (("cross-site", True), ("same-site", True), ("same-origin", False)):
            asked = answer(served.url, "/gradio_api/upload", method="POST", **{"Sec-Fetch-Site": site})
            assert ("of its own only" in asked[2]) == refused
        assert answer(served.url, **{"Sec-Fetch-Site": "cross-site"})[0] in (200, 401), "a link to the page works"
        printed = served.interrupt()
    assert served.process.returncode == 0
    assert printed.endswith("closed.\n")
    assert secret not in printed
    assert "Traceback" not in printed and "Warning" not in printed


def test_it_says_whose_own_code_it_runs(demo_run: tuple[Path, str]) -> None:
    class Said(Progress):
        lines: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    finished = open_run(demo_run[0])
    name, value = next(iter(finished.plan.config.values.items()))
    own = value.reward.model_copy(update={"model": "somebody/reward", "trust_remote_code": True})
    values = {**finished.plan.config.values, name: value.model_copy(update={"reward": own})}
    config = finished.plan.config.model_copy(update={"values": values})
    launch(replace(finished, plan=replace(finished.plan, config=config)), port=0, progress=Said()).close()
    assert Said.lines[0] == "trust_remote_code is set: code that comes with somebody/reward is run."
