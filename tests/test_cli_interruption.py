"""An interruption ends the command even where it meets code that can raise nothing."""

import signal
import subprocess
import sys

import pytest

SWALLOWS = """
import os, signal, sys, time
from valuesoup import cli

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # the handler runs in here, where its exception goes nowhere

def work():
    Finalised()
    time.sleep(30)

cli.app = work
cli.main()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_an_interruption_swallowed_by_a_finaliser_comes_again() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert done.stderr == "interrupted; the same command continues where it stopped.\n"
