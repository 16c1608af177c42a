"""From the cost of every stage to the time of a run, with stages side by side."""

import heapq
from collections.abc import Callable, Mapping, Sequence

from valuesoup.doctor.report import Duration, Stages
from valuesoup.store import Node
from valuesoup.store.executor import most_needed_first

SPREAD_MEASURED, SPREAD_COUNTED = 1.5, 3.0
"""A run takes this factor more or less: where its own steps were measured here, and where a formula tells."""
AROUND = 12.0
"""Seconds in which processes load their libraries at the start of a run, and its report is written at the end."""
KINDS = {
    "pretrain": "pretraining the base",
    "reward": "training reward models",
    "reference": "reference log-probabilities",
    "scores": "scoring the pairs",
    "train": "training vectors",
    "train-joint": "training vectors",
    "answers": "answers",
    "served": "answers",
    "search": "searches of the frontier",
    "rated": "scoring the answers",
    "quality": "fluency and divergence",
    "conflict": "diagnostics",
    "connectivity": "diagnostics",
    "fusion": "fusing prompts",
}
"""What a stage is counted as; all others are quick."""
OTHERS = "reading, splitting, filtering, choosing"


def duration(
    plans: Sequence[tuple[Sequence[Node], set[str]]],
    seconds: Callable[[Node], float],
    jobs: int,
    *,
    measured: bool,
) -> Duration:
    """Return how long runs take, one after the other.

    Args:
        plans: Per run its stages in topological order, and the keys of those that are done.
        seconds: Of a stage.
        jobs: Stages side by side.
        measured: Whether the seconds come from the run's own steps.
    """
    counted: dict[str, tuple[int, int, float]] = {}
    total = 0.0
    for nodes, done in plans:
        left = [node for node in nodes if node.key not in done]
        costs = {node.key: seconds(node) for node in left}
        for node in nodes:
            kind = KINDS.get(node.stage.name, OTHERS)
            done_so_far, to_do, spent = counted.get(kind, (0, 0, 0.0))
            is_done = node.key in done
            counted[kind] = (done_so_far + is_done, to_do + (not is_done), spent + costs.get(node.key, 0.0))
        total += wall(left, costs, jobs) + (AROUND if left else 0.0)
    spread = SPREAD_MEASURED if measured else SPREAD_COUNTED
    order = [*dict.fromkeys(KINDS.values()), OTHERS]
    stages = tuple(Stages(kind, *counted[kind]) for kind in order if kind in counted)
    return Duration(stages, jobs, total, total / spread, total * spread, measured)


def wall(nodes: Sequence[Node], costs: Mapping[str, float], jobs: int) -> float:
    """Return the seconds from start to end, where stages start as the executor starts them.

    Args:
        nodes: To do, in topological order.
        costs: Seconds by key.
        jobs: Stages side by side.
    """
    waiting = {node.key: node for node in most_needed_first(nodes)}
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        busy = {key for _, key in running}
        ready = [
            node
            for node in waiting.values()
            if not any(parent.key in waiting or parent.key in busy for parent in node.parents)
        ]
        for node in ready[: jobs - len(running)]:
            del waiting[node.key]
            heapq.heappush(running, (now + costs[node.key], node.key))
        now, _ = heapq.heappop(running)
    return now
