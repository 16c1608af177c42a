"""An interruption ends the command even where it meets code that can raise nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_run

SWALLOWS = """
import os, signal, sys, time
from valuesoup import cli
from valuesoup.cli import commands

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # the handler runs in here, where its exception goes nowhere

def work():
    Finalised()
    time.sleep(30)

commands.app = work
cli.main()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_an_interruption_swallowed_by_a_finaliser_comes_again() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert done.stderr == tiny_run.interrupted()


IMPORTS = """
import os, signal, sys, time
from valuesoup import cli
from valuesoup.cli import commands

def work():
    import swallowing
    time.sleep(30)

commands.app = work
cli.main()
"""
SWALLOWING = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
except BaseException:
    pass  # as a library does that tries what there is
class Wrapping:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
class Owner:
    wrapped = Wrapping()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_an_interruption_in_the_midst_of_an_import_comes_after_it(tmp_path: Path) -> None:
    (tmp_path / "swallowing.py").write_text(SWALLOWING)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=20, env=environment, check=False
    )
    assert done.returncode == 130
    assert done.stderr == tiny_run.interrupted()


STARTS = """
import sys
from valuesoup.cli import main
sys.argv = ["valuesoup", "demo", "--out", sys.argv[1]]
print("up", flush=True)
main()
"""


@pytest.mark.parametrize(
    ("number", "wait"), [(signal.SIGINT, 0.1), (signal.SIGTERM, 0.3), (signal.SIGINT, 0.6), (signal.SIGTERM, 1.2)]
)
def test_signals_at_any_moment_of_the_start_end_the_command(number: int, wait: float, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, str(tmp_path / "run")],
        env=tiny_run.environment(tmp_path / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "up\n"
        time.sleep(wait)
        run.send_signal(number)
        run.send_signal(number)
        errors = run.stderr.read()
    assert (run.returncode, errors) == (130, tiny_run.interrupted("demo", "--out", tmp_path / "run"))
