"""How cost grows with the size of each job: processor seconds and peak memory, each size in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "growth.json"


@dataclass(frozen=True)
class Point:
    """The cost of one job at one size.

    Attributes:
        job: What is done.
        size: How large it is, in words.
        seconds: Of processor time.
        peak: MiB of resident memory beyond what the process held when its input was ready.
    """

    job: str
    size: str
    seconds: float
    peak: float


@dataclass(frozen=True)
class Job:
    """A job that can be prepared at several sizes.

    Attributes:
        title: What is done.
        unit: What a size counts.
        prepare: Makes the input of a size and returns the work to measure.
        sizes: Arguments of ``prepare``.
    """

    title: str
    unit: str
    prepare: Callable[..., Callable[[], object]]
    sizes: tuple[tuple[int, ...], ...]


def _filter(pairs: int, values: int) -> Callable[[], object]:
    import numpy as np

    from valuesoup.consistency import consistent, value_consistency
    from valuesoup.rewards import RewardTable

    names = tuple(f"value {number}" for number in range(values))
    scores = np.random.default_rng(0).normal(size=(pairs, 2, values))
    table = RewardTable(["pair"] * pairs, ("chosen", "rejected"), names, scores)
    return lambda: consistent(value_consistency(table.gaps()), 0.5)


def _frontier(candidates: int, values: int) -> Callable[[], object]:
    import numpy as np

    from valuesoup.evaluation import hypervolume, pareto

    points = np.abs(np.random.default_rng(0).normal(size=(candidates, values)))
    # A little below a sphere, as candidates of a good method lie: many of them are on the frontier.
    points *= np.random.default_rng(1).uniform(0.99, 1.0, (candidates, 1)) / np.linalg.norm(
        points, axis=1, keepdims=True
    )
    return lambda: hypervolume(points[pareto(points)], reference=np.zeros(values))


JOBS = {
    "filter": Job(
        "consistency filter from a score table",
        "pairs × values",
        _filter,
        ((1_000_000, 3), (3_000_000, 3), (10_000_000, 3), (3_000_000, 2), (3_000_000, 5), (3_000_000, 10)),
    ),
    "frontier": Job(
        "Pareto set and its hypervolume",
        "candidates × values",
        _frontier,
        ((1_000, 2), (100_000, 2), (1_000, 3), (100_000, 3), (1_000, 5), (10_000, 5)),
    ),
}


def measure(name: str, size: tuple[int, ...]) -> Point:
    """Measure a job at one size in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", name, *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Point(
        JOBS[name].title, f"{' × '.join(f'{part:,}' for part in size)} {JOBS[name].unit}", **json.loads(done.stdout)
    )


def figures(_: int) -> list[str]:
    """Measure every job at every size once, keep the points, and return them as lines of text."""
    points = [measure(name, size) for name, job in JOBS.items() for size in job.sizes]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n", encoding="utf-8")
    return [f"{point.job}, {point.size}: {point.seconds:.2f} s, {point.peak:.0f} MiB" for point in points]


def _resident() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure one job at one size here."""
    name, *size = sys.argv[1:]
    work = JOBS[name].prepare(*map(int, size))
    before, start = _resident(), time.process_time()
    work()
    print(json.dumps({"seconds": time.process_time() - start, "peak": _resident() - before}))


if __name__ == "__main__":
    main()
