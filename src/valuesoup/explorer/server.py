"""Serving the page: where it may be reached, who may, and that it asks nothing of the network."""

import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.errors import RunError, UserError
from valuesoup.explorer.needed import import_gradio
from valuesoup.pipeline.run import CONFIG, Finished, has_file, models_with_own_code, open_run, say_own_code
from valuesoup.pipeline.study import seed_folders
from valuesoup.store import Progress

if TYPE_CHECKING:
    import gradio as gr

    from valuesoup.explorer.models import Models

PASSWORD = "VALUESOUP_PASSWORD"
"""The environment variable that holds the password."""
PORT = 7860
START_SECONDS = 30.0
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
"""What the page may load: what this server serves. gradio's own scripts are inline and use eval."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Explorer:
    """A page that is being served.

    Attributes:
        url: Where it is.
        share_url: Its public address, None where it is not shared.
        models: What answers.
    """

    def __init__(self, server: Any, thread: threading.Thread, models: "Models", url: str) -> None:
        """Made by :func:`launch`."""
        self.url = url
        self.share_url: str | None = None
        self.models = models
        self._server, self._thread = server, thread

    def wait(self) -> None:
        """Serve until the process is asked to stop (ctrl-C), then close; to be called in the main thread."""
        asked = threading.Event()
        before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self._thread.is_alive() and not asked.wait(0.5):
                pass
        finally:
            self.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Stop all answers and the server."""
        self.models.close()
        self._server.should_exit = True
        self._thread.join(10)


def build(run: str | Path | Finished) -> "gr.Blocks":
    """Return the page of a finished run as a gradio app, for a server of one's own; its models are loaded.

    Args:
        run: Its folder, or the run.

    Raises:
        UserError: gradio is not installed, or the run is unfinished or damaged.
    """
    import_gradio()
    from valuesoup.explorer.models import Models
    from valuesoup.explorer.page import make_page

    return make_page(Models(_open(run)))


def launch(
    run: str | Path | Finished,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    progress: Progress | None = None,
) -> Explorer:
    """Serve the page of a finished run; returns once it can be opened.

    Args:
        run: Its folder, or the run.
        host: Where to listen; other addresses than the machine's own need a password.
        port: 0 takes a free one.
        share: Ask gradio's tunnel for a public address; needs a password and the network.
        auth: User and password.
        progress: Where to say that the models are loaded, once nothing is left to refuse.

    Raises:
        UserError: gradio is not installed, the run is unfinished or damaged, the port is in use, or the page would be
            open to others without a password.
        RunError: The server or the tunnel did not start.
    """
    check_open(host, share=share, auth=auth)
    finished = _open(run)
    listening = listen(host, port)
    try:
        gradio = import_gradio()
        from valuesoup.explorer.models import Models

        progress = progress or Progress()
        say_own_code(models_with_own_code(finished.plan.config), progress)
        progress.say("loading the models …")
        models = Models(finished)
        app = _app(gradio, models, auth, None if share else host)
    except BaseException:
        listening.close()
        raise
    explorer = _serve(app, listening, models, host)
    if share:
        explorer.share_url = _tunnel(explorer, listening.getsockname()[1])
    return explorer


def _open(run: str | Path | Finished) -> Finished:
    if isinstance(run, Finished):
        return run
    if not has_file(Path(run), CONFIG) and (seeds := seed_folders(run)):
        raise UserError(f"{run} holds a study over seeds; explore one of its runs, such as {seeds[0]}.")
    return open_run(run)


def check_open(host: str, *, share: bool, auth: tuple[str, str] | None) -> None:
    """Refuse to open the page to others without a password.

    Raises:
        UserError: It would be.
    """
    if auth is not None and not all(auth):
        raise UserError("a user and a password must not be empty.")
    if auth is None and (share or not _is_loopback(host)):
        what = "--share opens" if share else f"host {host} opens"
        raise UserError(
            f"{what} this page to others, who could use your models and write exports; "
            f"add --auth USER, with the password in {PASSWORD}."
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, before any model is loaded.

    Raises:
        UserError: The port is in use, or there is no such address or port.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port {port} does not exist; give one from 1 to 65535, or 0 for a free one.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise UserError(f"host '{host}' is not an address of this machine; the default is 127.0.0.1.") from None
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; give another one by --port, or --port 0 for a free one.") from None
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is not open to you; give one above 1023 by --port.") from None
        raise UserError(f"host '{host}' is not an address of this machine; the default is 127.0.0.1.") from None
    return opened


class _Guard:
    """Adds the page's policy to every answer, and refuses requests that were meant for another host or come from one.

    Without that a page elsewhere, whose name its owner lets point here or which a visitor has open beside this one,
    could use the models. Browsers say where a request comes from (W3C, Fetch Metadata Request Headers).
    """

    def __init__(self, app: Any, names: frozenset[str] | None) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = headers.get(b"host", b"").decode("latin-1").lower()
        name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() else asked
        refused = None
        if self.names is not None and name not in self.names:
            refused = b"This page is served to this machine only.\n"
        elif scope["method"] not in ("GET", "HEAD") and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            refused = b"This page takes requests of its own only.\n"
        if refused is not None:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": refused})
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        await self.app(scope, receive, guarded)


def _app(gradio: Any, models: "Models", auth: tuple[str, str] | None, host: str | None) -> Any:
    from fastapi import FastAPI

    from valuesoup.explorer.page import make_page

    names = frozenset({"127.0.0.1", "localhost", "[::1]", host}) if host and _is_loopback(host) else None
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Guard, names=names)
    theme = gradio.themes.Default(
        primary_hue="slate", neutral_hue="slate", font=list(FONTS), font_mono=["ui-monospace", "Menlo", "monospace"]
    )
    return gradio.mount_gradio_app(
        app,
        make_page(models).queue(default_concurrency_limit=8),
        path="/",
        auth=auth,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1mb",  # nothing is uploaded here
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
    )


def _serve(app: Any, listening: socket.socket, models: "Models", host: str) -> Explorer:
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="explorer", daemon=True)
    thread.start()
    name = f"[{host}]" if ":" in host else host
    explorer = Explorer(server, thread, models, f"http://{name}:{listening.getsockname()[1]}/")
    waited = threading.Event()
    for _ in range(int(START_SECONDS / 0.05)):
        if server.started:
            return explorer
        if not thread.is_alive():
            break
        waited.wait(0.05)
    explorer.close()
    raise RunError("the page's server did not start.")


def _tunnel(explorer: Explorer, port: int) -> str:
    import secrets

    from gradio.networking import setup_tunnel

    try:
        return str(setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None))
    except Exception as error:
        explorer.close()
        raise RunError(f"no public address was to be had ({error}); leave out --share.") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
