"""Where Ray runs the stages, and how a cluster is reached; Ray itself is imported only then."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from valuesoup.errors import UserError
from valuesoup.store.workers import usable_cpus

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs the stages, and what each of them is given there.

    A stage that computes with a model also gets one GPU, where the cluster has any.

    Attributes:
        address: Of a running cluster (``auto``: the one that this machine is part of). By default $RAY_ADDRESS, or
            else Ray is started on this machine alone, for as long as the run lasts.
        cpus: Of a stage, which computes with as many threads; by default the cluster's, shared out among the jobs.
        memory: Of a stage in GiB, so that no more stages come to a machine than it has memory for; by default
            memory is not counted.
        processes: That share one training, each with the CPUs, the memory and the GPU of a stage.
    """

    address: str | None = None
    cpus: int | None = None
    memory: float | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise UserError(
                f"Ray address {self.address}: run on a machine of the cluster and give auto, or its HOST:PORT; through "
                "a Ray client, ray://, a run cannot see its workers die."
            )
        for name, number in (("cpus", self.cpus), ("memory", self.memory)):
            if number is not None and not number > 0:
                raise UserError(f"{name} of a stage must be more than 0, not {number}.")
        if self.processes < 1:
            raise UserError(f"processes of a training must be at least 1, not {self.processes}.")


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one on this machine; False where the program has done so already.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU asked for is no GPU seen
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'valuesoup[ray]'.") from None
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    to = address or os.environ.get("RAY_ADDRESS") or "local"
    alone = {"num_cpus": usable_cpus(), "include_dashboard": False} if to == "local" else {}
    host, _, port = to.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        with _own_handlers():
            ray.init(to, log_to_driver=False, logging_level="ERROR", configure_logging=False, **alone)
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"no Ray cluster answers at {to} ({text}); start one with `ray start --head`, or leave --address out."
        ) from None
    return True


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this program's answers to signals, which Ray replaces by its own."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                signal.signal(number, handler)
