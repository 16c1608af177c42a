"""Artifacts, the graph of stages, executors, progress and the log; knows nothing of alignment."""

from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.cluster import Cluster
from valuesoup.store.executor import run_graph
from valuesoup.store.files import hash_path, write_atomic
from valuesoup.store.graph import Identified, Node, Stage, Work, fingerprint, stage, topological
from valuesoup.store.kept import KEPT
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress, Task
from valuesoup.store.remote import Remote
from valuesoup.store.workers import usable_cpus

__all__ = [
    "KEPT",
    "Artifact",
    "Cluster",
    "Identified",
    "Node",
    "Progress",
    "Remote",
    "RunLog",
    "Stage",
    "Store",
    "Task",
    "Work",
    "fingerprint",
    "hash_path",
    "run_graph",
    "stage",
    "topological",
    "usable_cpus",
    "write_atomic",
]
