"""Runs a graph, making only what is missing: one stage after the other, or side by side here or on a cluster."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from valuesoup.errors import UserError
from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.cluster import Cluster
from valuesoup.store.graph import Node, topological
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress, duration
from valuesoup.store.ray_workers import RayWorkers
from valuesoup.store.workers import Workers, await_orphans, make_node

WORTH_SAYING = 1.0
"""Stages that took fewer seconds are announced, and their time is only in the log."""


def run_graph(
    targets: Iterable[Node],
    store: Store,
    progress: Progress,
    log: RunLog,
    jobs: int | None = None,
    cluster: Cluster | None = None,
    on_gpu: Callable[[Node], bool] = lambda _: False,
) -> Mapping[str, Artifact]:
    """Make every artifact that the targets need and that is not there yet.

    Args:
        targets: The nodes wanted.
        store: Where artifacts live.
        progress: Shows what goes on.
        log: Receives an event per stage.
        jobs: The most stages to run at a time: here 1, by default, runs them in this process, and more in that many
            worker processes; on a cluster, by default as many as fit.
        cluster: Runs the stages instead of this machine.
        on_gpu: Says whether a stage computes on a GPU where the cluster has one.

    Returns:
        The artifact of every node of the graph by the node's key.

    Raises:
        UserError: ``jobs`` is less than 1, or the cluster cannot be had.
        RunError: The disk is full or cannot be written, or a worker died, on a cluster too often; what was finished
            stays. What a stage raises is raised as it was; stages that run beside it are stopped, and resume when
            run again.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be at least 1 stage at a time, not {jobs}.")
    await_orphans(store)
    nodes = topological(targets)

    def complain(text: str) -> None:
        progress.say(f"! {text}")
        log.write("damaged", text=text)

    found: dict[str, Artifact] = {}
    missing = []
    for node in nodes:
        artifact = store.find(node, complain)
        if artifact is None:
            missing.append(node)
        else:
            found[node.key] = artifact
            store.offer(node)
    if found:
        progress.say(f"{len(found)} of {len(nodes)} stages are already done")
    if cluster is not None and missing:
        _side_by_side(missing, found, RayWorkers(cluster, jobs, store, progress, log, on_gpu))
    elif jobs is not None and jobs > 1 and missing:  # a single one too: threads of a process may show in last digits
        _side_by_side(missing, found, Workers(jobs, store, progress, log))
    else:
        for position, node in enumerate(missing, start=1):
            place = f"[{position}/{len(missing)}]"
            progress.say(f"{place} {node.label}")
            found[node.key] = make_node(node, store, progress, log, found)
            _say_duration(progress, place, node, found[node.key])
    return found


def _side_by_side(missing: Sequence[Node], found: dict[str, Artifact], workers: Workers | RayWorkers) -> None:
    """Make the missing nodes in workers, each as soon as its parents are in ``found`` and a worker is free."""
    waiting = {node.key: node for node in most_needed_first(missing)}
    places: dict[str, str] = {}
    with workers:
        while waiting or workers.busy:
            ready = [node for node in waiting.values() if all(parent.key in found for parent in node.parents)]
            for node in ready:
                if not workers.free:
                    break
                del waiting[node.key]
                places[node.key] = f"[{len(places) + 1}/{len(missing)}]"
                workers.progress.say(f"{places[node.key]} {node.label}")
                workers.start(node, found)
            made, artifact = workers.next_made()
            found[made.key] = artifact
            _say_duration(workers.progress, places[made.key], made, artifact)


def _say_duration(progress: Progress, place: str, node: Node, artifact: Artifact) -> None:
    if artifact.seconds >= WORTH_SAYING:
        progress.say(f"{place} {node.label}: {duration(artifact.seconds)}")


def most_needed_first(nodes: Sequence[Node]) -> list[Node]:
    """Return nodes that stand in topological order by how many of them need each, most first, else in that order."""
    needed_by: dict[str, set[str]] = {node.key: set() for node in nodes}
    for node in reversed(nodes):
        for parent in node.parents:
            if parent.key in needed_by:
                needed_by[parent.key] |= {node.key} | needed_by[node.key]
    return sorted(nodes, key=lambda node: -len(needed_by[node.key]))
