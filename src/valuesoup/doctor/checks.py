"""What else a configuration names and must be there: functions, endpoints, devices, trackers."""

import os
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from valuesoup.config import RunConfig
from valuesoup.data import load_function
from valuesoup.doctor.models import trainings
from valuesoup.doctor.report import Machine, Problem
from valuesoup.endpoint import Server
from valuesoup.errors import UserError
from valuesoup.expansion.fusion import Rewriter
from valuesoup.methods import Expanded
from valuesoup.pipeline.environment import installed_version
from valuesoup.pipeline.rewriters import rewriter_ref

CONNECT_SECONDS = 2.0
"""After which an endpoint counts as not listening."""
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def check_all(config: RunConfig, machine: Machine, problems: list[Problem]) -> None:
    """Look for everything that is neither a model nor a pair."""
    for key, name in _functions(config):
        try:
            load_function(name)
        except UserError as error:
            said = str(error)
            problems.append(Problem(key, said if said[-1] in ".?" else f"{said}."))
        except Exception as error:  # a person's own module may raise anything
            text = f"'{name}': importing it raises {type(error).__name__}: {_first_line(error)}"
            problems.append(Problem(key, text))
    if config.generation.endpoint is not None:
        # Its candidates are trained first, so it may well start later.
        check_server(config.generation.endpoint, "generation.endpoint", problems, now=False)
    for key, rewriter in _rewriters(config):
        if rewriter.endpoint is not None:
            check_server(rewriter.endpoint, f"{key}.endpoint", problems, now=True)
        if rewriter.function is None:
            try:
                rewriter_ref(rewriter)
            except UserError as error:
                problems.append(Problem(f"{key}.template", str(error)))
    _device(config.base.device, machine, problems)
    if config.base.quantize is not None and installed_version("bitsandbytes") is None:
        text = f"{config.base.quantize} needs the package bitsandbytes: pip install 'valuesoup[qlora]'."
        problems.append(Problem("base.quantize", text))
    for tracker in sorted({tracker for of in trainings(config) for tracker in of.report_to}):
        _tracker(tracker, problems)


def check_server(server: Server, key: str, problems: list[Problem], *, now: bool) -> None:
    """See whether a server has a client, a key and somebody listening; nothing is asked of it.

    Args:
        server: Whom a run will ask.
        key: Of the configuration.
        problems: Receives what is missing.
        now: Whether a server that does not listen yet would stop the run.
    """
    if installed_version("openai") is None:
        problems.append(Problem(key, "an endpoint needs the package openai: pip install 'valuesoup[judge]'."))
    parts = urlsplit(server.url)
    host, local = parts.hostname or "", (parts.hostname or "") in _LOCAL
    if not local and not os.environ.get(server.key_env):
        text = f"{server.url} needs a key; put it in the environment variable {server.key_env}."
        problems.append(Problem(key, text))
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        text = f"nothing answers at {server.url} ({reason}); start the server before its stage is reached."
        problems.append(Problem(key, text, stops=now))


def _functions(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield every function that a configuration names, but those of pairs, which are read."""
    for value, of in config.values.items():
        if of.reward.function is not None:
            yield f"values.{value}.reward.function", of.reward.function
        if of.truth is not None:
            yield f"values.{value}.truth", of.truth
    for place, source in enumerate(config.base.dialogues or ()):
        if source.function is not None:
            yield f"base.dialogues.{place}.function", source.function
    if config.evaluation.fluency is not None:
        yield "evaluation.fluency", config.evaluation.fluency
    for key, rewriter in _rewriters(config):
        if rewriter.function is not None:
            yield f"{key}.function", rewriter.function


def _rewriters(config: RunConfig) -> Iterator[tuple[str, Rewriter]]:
    for entry in config.methods:
        if isinstance(entry.method.pairs, Expanded) and len(config.values) > 1:
            yield f"methods.{entry.name}.rewriter", entry.method.pairs.rewriter


def _device(device: str, machine: Machine, problems: list[Problem]) -> None:
    kind, _, place = device.partition(":")
    if kind == "cuda" and len(machine.gpus) <= int(place or 0):
        text = f"is {device}, and torch sees {len(machine.gpus)} GPUs here; write auto or cpu."
        problems.append(Problem("base.device", text))


def _tracker(name: str, problems: list[Problem]) -> None:
    if name not in ("none", "all") and find_spec(name) is None:
        problems.append(Problem("training.report_to", f"the tracker {name} is not installed: pip install {name}."))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
