"""What every benchmark shares: the record of a claim, interleaved timing, and the cost of a command."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """How valuesoup compares with one opponent at one job.

    Attributes:
        name: Of the claim.
        opponent: What it is compared with.
        ratio: Opponent's time / valuesoup's time, median over the repeats; above 1 valuesoup is faster.
        low: The smallest ratio of a repeat.
        high: The largest ratio of a repeat.
        unit: Of the two times that the ratio compares.
        note: The size of the job, the median times, and what was checked to be equal.
    """

    name: str
    opponent: str
    ratio: float
    low: float
    high: float
    unit: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """Seconds of processor time of two ways to do a job, one after the other in each repeat."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    def claim(self, name: str, opponent: str, note: str) -> Claim:
        """Return the record; ``note`` is what it says beside the median times."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        times = f"medians {statistics.median(self.ours):.2f} s and {statistics.median(self.theirs):.2f} s"
        return Claim(
            name,
            opponent,
            round(statistics.median(ratios), 2),
            round(min(ratios), 2),
            round(max(ratios), 2),
            "CPU seconds",
            f"{note}; {times} over {len(ratios)} repeats",
        )


def compare(ours: Callable[[], T], theirs: Callable[[], T], same: Callable[[T, T], None], repeats: int) -> Comparison:
    """Time two ways to do one job, interleaved, taking turns at going first; ``same`` checks each pair of results.

    Processor time of all threads is taken, so that other work on the machine weighs little.
    """
    mine: list[float] = []
    others: list[float] = []
    for repeat in range(repeats):
        if repeat % 2:
            other = _timed(theirs, others)
            same(_timed(ours, mine), other)
        else:
            same(_timed(ours, mine), _timed(theirs, others))
    return Comparison(tuple(mine), tuple(others))


def _timed(job: Callable[[], T], seconds: list[float]) -> T:
    start = time.process_time()
    result = job()
    seconds.append(time.process_time() - start)
    return result


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds by the clock, seconds of processor time, peak resident memory in MiB."""

    wall: float
    cpu: float
    peak: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s of CPU), peak {self.peak:.0f} MiB"


# A small process of its own starts the command: a child counts its parent's memory, until it loads its program, as its.
_RUNNER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
wall = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))  # Linux counts KiB
"""


def command(arguments: Sequence[str], code: int = 0) -> Cost:
    """Run ``valuesoup`` with these arguments and return its cost.

    Raises:
        RuntimeError: It ends with another exit code than ``code``.
    """
    whole = [sys.executable, "-S", "-c", _RUNNER, sys.executable, "-m", "valuesoup", *arguments]
    found, *cost = json.loads(subprocess.run(whole, capture_output=True, check=True).stdout)
    if found != code:
        raise RuntimeError(f"valuesoup {' '.join(arguments)} ended with {found}, not {code}")
    return Cost(*cost)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the medians of each figure."""
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("wall", "cpu", "peak")))
