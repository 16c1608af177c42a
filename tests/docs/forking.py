"""Runs commands of valuesoup in forks of one process that has loaded the libraries: seconds less for each command.

Usage: forking.py SOCKET.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOCKET = "VALUESOUP_PAGES_SOCKET"
"""Environment variable that names the socket of the running server."""


def start(arguments: list[str], out: int = 1) -> tuple[int, Callable[[], int]]:
    """Start a command line of valuesoup with this process's folder, environment and streams.

    Args:
        arguments: Behind ``valuesoup``.
        out: Where it prints.

    Returns:
        The id of its process, and what waits for its exit code.
    """
    request = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ[SOCKET])
    socket.send_fds(server, [len(request).to_bytes(8)], [0, out, 2])
    server.sendall(request)
    pid = int.from_bytes(server.recv(8))
    return pid, lambda: int(server.recv(16))


def serve(path: str) -> None:
    """Answer one command after the other until the process is ended."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401

        while True:
            asking, _ = listening.accept()
            with asking:
                size, streams, _, _ = socket.recv_fds(asking, 8, 3)
                left, request = int.from_bytes(size), b""
                while len(request) < left:
                    request += asking.recv(left - len(request))
                child = os.fork()
                if child == 0:
                    _run(json.loads(request), streams)
                for stream in streams:
                    os.close(stream)
                asking.sendall(child.to_bytes(8))
                asking.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _run(request: Any, streams: list[int]) -> None:
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:0] = [request["folder"], *request["environment"]["PYTHONPATH"].split(os.pathsep)]
        sys.argv = ["valuesoup", *request["arguments"]]
        from valuesoup.cli import main

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
