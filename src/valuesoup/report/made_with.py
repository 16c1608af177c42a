"""With what a run was made, in words: versions, the state of the user's repository, the machine."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIB = 2**30


def made_with(logs: Mapping[str, Path]) -> dict[str, str]:
    """Return what the last start of each run was logged with, as the foot of a page tells it.

    Args:
        logs: ``log.jsonl`` of one run, or of each run of a study by what it is called there.

    Returns:
        Heading to text. Where runs differ, the text names each; what a log does not hold is left out.
    """
    starts = {name: _told(_last_start(log)) for name, log in logs.items()}
    found = {}
    for heading in dict.fromkeys(heading for told in starts.values() for heading in told):
        texts = {name: told.get(heading, "not known") for name, told in starts.items()}
        if len(set(texts.values())) == 1:
            found[heading] = next(iter(texts.values()))
        else:
            found[heading] = "; ".join(f"{name}: {text}" for name, text in texts.items())
    return found


def _last_start(log: Path) -> Mapping[str, Any]:
    """Return the last ``run`` event; a line that an interruption cut, or a log that is gone, holds none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "run":
            return event
    return {}


def _told(start: Mapping[str, Any]) -> dict[str, str]:
    try:
        return _worded(start)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError):
        return {}  # of a version that did not log it, or damaged


def _worded(start: Mapping[str, Any]) -> dict[str, str]:
    packages = {name: version for name, version in start["packages"].items() if version is not None}
    versions = [f"Python {start['python']}", *(f"{name} {version}" for name, version in packages.items())]
    moment = datetime.datetime.fromtimestamp(start["time"]).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return {
        "last start": moment,
        "versions": ", ".join(versions),
        "git commit": _commit(start["git"]),
        "machine": _machine(start["machine"]),
    }


def _commit(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "no repository found"
    changed = {True: ", with changes that are not committed", None: ", changes not known"}
    return f"{git['commit']}{changed.get(git['changed'], '')}"


def _machine(machine: Mapping[str, Any]) -> str:
    cpus = machine["cpus"]
    parts = [machine["system"], machine["processor"], f"{cpus} CPU{'' if cpus == 1 else 's'}"]
    if machine["memory"] is not None:
        parts.append(f"{machine['memory'] / GIB:.0f} GiB of memory")
    gpus = machine["gpus"]
    counted = [f"{gpus.count(name)} × {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    return ", ".join([*filter(None, parts), *(counted or ["no GPU"])])
