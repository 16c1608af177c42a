"""One machine for all faults, and on it a small disk for each test that wants one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.machine import Disk, Machine

SIZE = "24m"


def _unshare() -> list[str]:
    """Return what gives a process a mount namespace in which it may mount; nothing where the system allows none."""
    command = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    if shutil.which("unshare") and shutil.which("mount"):
        tried = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    return []


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    started = Machine(_unshare())
    yield started
    started.end()


@pytest.fixture
def disk(machine: Machine, tmp_path: Path) -> Iterator[Disk]:
    if not machine.mounts:
        pytest.skip("this system lets a test mount no file system of its own")
    (tmp_path / "disk").mkdir()
    mounted = Disk(machine, tmp_path / "disk")
    machine.shell("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", mounted.path)
    yield mounted
    machine.shell("umount", "--lazy", mounted.path)
