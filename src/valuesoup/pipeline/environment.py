"""What a run was made with: versions, the state of the user's repository, the machine."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from valuesoup.store import usable_cpus

PACKAGES = (
    "valuesoup",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "numpy",
    "tokenizers",
)
"""Those whose version may change a figure."""
PATIENCE = 5.0
"""Seconds that a command may take to answer."""


def environment() -> dict[str, Any]:
    """Return what a start of a run is logged with.

    Returns:
        ``python`` and ``packages`` (versions; null for one that is not installed), ``git`` (``commit`` and whether the
        tracked files were ``changed``, of the repository of the working directory; null outside of one), ``machine``
        (``system``, ``processor``, usable ``cpus``, ``memory`` in bytes, ``gpus`` by name).
    """
    return {
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "git": _git(Path.cwd()),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": usable_cpus(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
            "gpus": _lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or [],
        },
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _lines("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _lines("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit[0], "changed": bool(changed) if changed is not None else None}


def _lines(*command: str) -> list[str] | None:
    """Return what a command prints, or None where it is missing, fails or does not answer."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None
