"""The command that opens a run as a page: explore."""

import os
from pathlib import Path
from typing import Annotated

import typer

from valuesoup.cli.app import console
from valuesoup.errors import UserError


def explore(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    host: Annotated[str, typer.Option(help="Where to listen; another than this machine needs --auth.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also ask gradio's tunnel for a public address; needs --auth.")
    ] = False,
    auth: Annotated[
        str, typer.Option(metavar="USER", help="Ask for this user, and the password in VALUESOUP_PASSWORD.")
    ] = "",
) -> None:
    """Open a page: the frontier, a dial per value, two settings side by side that answer, scored as they do."""
    from valuesoup.explorer import PASSWORD, launch
    from valuesoup.store import Progress

    password = os.environ.get(PASSWORD, "")
    if auth and not password:
        raise UserError(f"--auth {auth} needs a password; put it in the environment variable {PASSWORD}.")
    who = (auth, password) if auth else None
    explorer = launch(run, host=host, port=port, share=share, auth=who, progress=Progress(console()))
    print(f"explorer: {explorer.url}", flush=True)
    if explorer.share_url:
        print(f"public:   {explorer.share_url}", flush=True)
    print("ctrl-C ends it.", flush=True)
    explorer.wait()
    print("closed.")
