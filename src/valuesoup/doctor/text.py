"""What ``valuesoup doctor`` prints: a table per question, or the same as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from valuesoup.doctor.memory import gigabytes
from valuesoup.doctor.report import Duration, Machine, Need, Report
from valuesoup.store.progress import duration

if TYPE_CHECKING:
    from rich.console import Console


def report_json(report: Report) -> str:
    """Return a report as JSON, with what the tables derive: ``stops``, and ``fits`` of each need."""
    found = asdict(report)
    found["stops"] = report.stops
    for name in ("memory", "disk"):
        for row, need in zip(found[name], getattr(report, name), strict=True):
            row["fits"] = need.fits
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)


def print_report(report: Report, console: "Console") -> None:
    """Print a report: what is missing first, then what the run needs, and the machine."""
    if report.config is not None:
        _problems(report, console)
        _rows(
            console,
            "models",
            ("model", "for", "parameters", "where", "licence"),
            [
                (
                    model.name,
                    model.role,
                    _parameters(model.parameters, model.exact),
                    model.state + (f" ({gigabytes(model.download)})" if model.download else ""),
                    (model.licence or "–") + (", gated" if model.gated else ""),
                )
                for model in report.models
            ],
        )
        _rows(
            console,
            "pairs",
            ("value", "usable", "train", "validation", "test", "tokens of a pair"),
            [
                (one.value, *map(_number, (one.pairs, one.train, one.validation, one.test)), _number(one.tokens))
                for one in report.data
            ],
        )
        _needs(console, "memory, estimated", report.memory)
        _needs(console, "disk, estimated", report.disk)
        if report.duration is not None:
            _time(report.duration, console)
        for note in report.notes:
            _say(console, f"note: {note}")
        _say(console, "")
    _machine(report.machine, console)
    if report.config is None:
        _problems(report, console)


def _problems(report: Report, console: "Console") -> None:
    stopping = [problem for problem in report.problems if problem.stops]
    others = [problem for problem in report.problems if not problem.stops]
    if stopping:
        _say(console, f"missing: {len(stopping)}, each of which would stop the run", style="bold red")
        for problem in stopping:
            _say(console, f"  ✗ {problem.where}: {problem.text}")
    elif report.config is not None:
        _say(console, f"{report.config}: nothing is missing", style="bold green")
    else:
        _say(console, "this machine is ready; name a configuration to see what it would need", style="bold green")
    if others:
        _say(console, "to know:", style="bold")
        for problem in others:
            _say(console, f"  ! {problem.where}: {problem.text}")


def _needs(console: "Console", title: str, needs: Sequence[Need]) -> None:
    rows = []
    for need in needs:
        fits = {True: "yes", False: "no", None: "not known"}[need.fits]
        free = "–" if need.free is None else gigabytes(need.free)
        rows.append((need.what, gigabytes(need.bytes), free, need.place, fits))
    _rows(console, title, ("for", "needed", "free", "in", "fits"), rows)


def _time(found: Duration, console: "Console") -> None:
    rows = [(one.kind, str(one.done), str(one.left), spelt(one.seconds) if one.left else "–") for one in found.stages]
    how = "from a few measured steps" if found.measured else "from counted operations"
    _rows(console, f"time, estimated {how}", ("stages", "done", "to do", "time left"), rows)
    left = sum(one.left for one in found.stages)
    if not left:
        _say(console, "everything is done already.")
        return
    jobs = f"with {found.jobs} stages side by side" if found.jobs > 1 else "one stage after the other"
    text = f"in all about {spelt(found.seconds)} {jobs}; take {spelt(found.low)} to {spelt(found.high)} as its range."
    _say(console, text, style="bold")


def _machine(machine: Machine, console: "Console") -> None:
    rows = [("python", machine.python, "")]
    for package in machine.packages:
        version = package.version or "not installed"
        install = "" if package.version else package.install
        rows.append((package.name, version, ": ".join(part for part in (package.purpose, install) if part)))
    _rows(console, "packages", ("package", "version", ""), rows)
    load = "" if machine.load is None else f", load {machine.load:.1f}"
    devices = [("CPU", f"{machine.cpus} cores usable{load}")]
    if machine.memory is not None:
        free = "" if machine.memory_free is None else f", {gigabytes(machine.memory_free)} free"
        devices.append(("RAM", f"{gigabytes(machine.memory)}{free}"))
    for gpu in machine.gpus:
        bf16 = "bfloat16" if gpu.bf16 else "no bfloat16"
        devices.append(("GPU", f"{gpu.name}, {gigabytes(gpu.memory)}, {gigabytes(gpu.free)} free, {bf16}"))
    if not machine.gpus:
        devices.append(("GPU", "none that torch sees"))
    devices += [(disk.what, f"{gigabytes(disk.free)} free in {disk.folder}") for disk in machine.disks]
    devices.append(("hub", "must not be asked (HF_HUB_OFFLINE)" if machine.hub_offline else "may be asked"))
    _rows(console, "machine", ("what", ""), devices)


def spelt(seconds: float) -> str:
    """Return seconds for people, in days and years where they are many."""
    days = seconds / 86_400
    if days < 2:
        return duration(seconds)
    return f"{days:,.1f} days" if days < 365 else f"{days / 365:,.1f} years"


def _rows(console: "Console", title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    listed = list(rows)
    if not listed:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    numeric = {"parameters", "usable", "train", "validation", "test", "tokens of a pair", "needed", "free"}
    for column in columns:
        right = column in numeric | {"done", "to do", "time left"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in listed:
        table.add_row(*map(escape, row))
    console.print(table)


def _parameters(number: int | None, exact: bool) -> str:
    if number is None:
        return "not known"
    text = f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"
    return text if exact else f"{text} by its name"


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _say(console: "Console", text: str, style: str | None = None) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)
