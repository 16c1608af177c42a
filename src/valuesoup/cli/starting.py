"""The commands before a run: init writes a configuration to edit, doctor says what it would need and what lacks."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from valuesoup.cli.app import console
from valuesoup.cli.running import JOBS, Set
from valuesoup.errors import UserError


def init(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="A folder for the configuration.")] = None,
    preset: Annotated[str | None, typer.Option(help="What to start from; without it, the presets are listed.")] = None,
) -> None:
    """Write an annotated configuration to edit, with the files that it needs."""
    from valuesoup.presets import PRESETS, write_preset

    if preset is None:
        for name, what in PRESETS.items():
            print(f"{name:<14}{what}")
        print(f"\nwrite one: valuesoup init {shlex.quote(str(folder or 'my-values'))} --preset custom")
        return
    if folder is None:
        raise UserError(f"give a folder to write to, such as `valuesoup init my-values --preset {preset}`.")
    config, *beside = write_preset(preset, folder)
    print(f"written: {', '.join(map(str, (config, *beside)))}")
    print(f"edit {config}, then:\n")
    where = f"{shlex.quote(str(config))} --out {shlex.quote(str(folder / 'run'))}"
    print(f"  valuesoup doctor {where}")
    print(f"  valuesoup run {where}")


def doctor(
    config: Annotated[Path | None, typer.Argument(help="Configuration; without it, the machine alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, as for `run`: what is done there is counted.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS)] = 1,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure this machine for up to half a minute.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    set_: Set = None,
) -> None:
    """Say what a configuration would need (memory, disk, downloads, time) and what is missing, before it runs."""
    from valuesoup.configfile import load_config

    if config is None and (set_ or out):
        raise UserError("--set and --out belong to a configuration; name its file.")
    if config is not None:
        load_config(config, set_ or ())  # a wrong one is told at once, before torch is imported

    from valuesoup.doctor import examine
    from valuesoup.doctor.text import print_report, report_json

    report = examine(config, set_ or (), out=out, jobs=jobs, measure=measure)
    if as_json:
        print(report_json(report))
    else:
        print_report(report, console())
    if report.stops:
        raise typer.Exit(UserError.exit_code)
