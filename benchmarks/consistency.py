"""Value consistency of 10 million pairs under 3 values: seconds, and memory beyond its input."""

import time
import tracemalloc

import numpy as np

from valuesoup.consistency import value_consistency


def figures(repeats: int, pairs: int = 10_000_000) -> list[str]:
    """Return the figures as lines of text."""
    gaps = np.random.default_rng(0).normal(size=(pairs, 3))
    wall, cpu = [], []
    for _ in range(repeats):
        starts = time.perf_counter(), time.process_time()
        value_consistency(gaps)
        wall.append(time.perf_counter() - starts[0])
        cpu.append(time.process_time() - starts[1])
    tracemalloc.start()  # in a repeat of its own: tracing takes time; numpy reports its arrays to it
    value_consistency(gaps)
    extra = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    times = f"{np.median(wall):.2f} s ({np.median(cpu):.2f} s of CPU)"
    return [
        f"value_consistency, {pairs:,} pairs x 3 values: {times}, {extra:.0f} MiB beyond its input (goal 2 s, 1024 MiB)"
    ]
