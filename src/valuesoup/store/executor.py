"""Runs a graph on this machine, one node after the other, making only what is missing."""

from collections.abc import Iterable, Mapping

from valuesoup.errors import RunError
from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.files import disk_errors
from valuesoup.store.graph import Node, Work, substitute, topological
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress, duration


def run_graph(targets: Iterable[Node], store: Store, progress: Progress, log: RunLog) -> Mapping[str, Artifact]:
    """Make every artifact that the targets need and that is not there yet.

    Args:
        targets: The nodes wanted.
        store: Where artifacts live.
        progress: Shows what goes on.
        log: Receives an event per stage.

    Returns:
        The artifact of every node of the graph by the node's key.

    Raises:
        RunError: The disk is full or cannot be written; what was finished stays.
    """
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
    if found:
        progress.say(f"{len(found)} of {len(nodes)} stages are already done")
    for position, node in enumerate(missing, start=1):
        found[node.key] = run_node(node, store, progress, log, found, f"[{position}/{len(missing)}]")
    return found


def run_node(
    node: Node, store: Store, progress: Progress, log: RunLog, found: Mapping[str, Artifact], place: str
) -> Artifact:
    """Run one stage whose parents are all in ``found`` and return its artifact."""
    progress.say(f"{place} {node.label} …")
    inputs = substitute(dict(node.inputs), lambda parent: found[parent.key])

    def note(event: str, **fields: object) -> None:
        log.write(event, label=node.label, key=node.key, **fields)

    with disk_errors(node.label, store.root):
        log.write("start", stage=node.stage.name, label=node.label, key=node.key)
        with store.making(node) as out:
            node.stage.function(Work(out, progress, node.label, note), **inputs)
        artifact = store.find(node)
        if artifact is None:
            raise RunError(f"{node.label}: its result could not be read back from {store.root}.")
        log.write("done", stage=node.stage.name, label=node.label, key=node.key, seconds=round(artifact.seconds, 3))
    progress.say(f"{place} {node.label}: {duration(artifact.seconds)}")
    return artifact
