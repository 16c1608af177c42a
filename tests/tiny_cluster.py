"""A Ray cluster of several nodes on this machine, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STORE = 100 * 2**20
"""Bytes of a node's object store."""


@contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """Start a head without CPUs, and nodes with some each; `.workers` lists them, for `remove_node`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    started = Cluster()
    try:
        started.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
        started.workers = [started.add_node(num_cpus=cpus, object_store_memory=STORE) for _ in range(nodes)]
        yield started
    finally:
        started.shutdown()
