"""One stage done by several processes of a Ray cluster together: a team (``store/team.py``) that Ray Train starts."""

import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from valuesoup.store.artifacts import Store
from valuesoup.store.ray_actor import SEEN_SECONDS, Actor, fetched, make_sent
from valuesoup.store.relay import Message, portable
from valuesoup.store.team import PartedError, join


class TeamActor(Actor):
    """Has each stage made by a team, and hands on what its leader tells; computes nothing itself.

    When a process of the team dies Ray Train ends the others, and the run tries the stage again.
    """

    def __init__(
        self,
        store: Store,
        lock: Path | None,
        threads: Mapping[str, str],
        paths: Sequence[str],
        processes: int,
        resources: Mapping[str, float],
    ) -> None:
        super().__init__(store, lock, threads, paths)
        self._threads, self._paths = dict(threads), list(paths)
        self._processes = processes
        self._resources = dict(resources)
        self._send: Callable[[Message], None] = lambda _: None
        self._ends: list[Message] = []
        self._telling = threading.Lock()

    def tell(self, message: Message) -> None:
        """Take a message of a process of the team; how it ended is handed on when all have."""
        with self._telling:
            if message[0] not in ("made", "failed"):
                self._send(message)
            else:
                self._ends.append(message)

    def _make(self, sent: bytes, label: str, send: Callable[[Message], None]) -> None:
        from ray.train import TrainingFailedError

        self._send, self._ends = send, []
        try:
            self._start(sent, label)
        except TrainingFailedError as error:  # after a process told of its own error, or died
            self._ends.append(("parted", _reason(error)))
        except BaseException as error:  # in a thread it would end nothing but the messages
            self._ends.append(("failed", portable(RuntimeError(f"{type(error).__name__}: {error}"))))
        send(self._ends[0])

    def _start(self, sent: bytes, label: str) -> None:
        import ray
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpu = self._resources.get("GPU", 0) > 0
        call = {
            "sent": sent,
            "label": label,
            "store": Store(self._store.root, remote=self._store.remote),
            "lock": self._lock,
            "paths": self._paths,
            "tell": ray.get_runtime_context().current_actor,
        }
        with tempfile.TemporaryDirectory(prefix="valuesoup-") as scratch:
            trainer = TorchTrainer(
                _take_part,
                train_loop_config=call,
                torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=self._processes, use_gpu=gpu, resources_per_worker=self._resources
                ),
                run_config=RunConfig(
                    name="team",
                    storage_path=scratch,  # Ray Train keeps nothing of ours
                    failure_config=FailureConfig(max_failures=0),  # the run counts what is lost
                    worker_runtime_env={"env_vars": self._threads},
                    logging_config=LoggingConfig(log_level="ERROR"),
                ),
            )
            trainer.fit()


def _take_part(call: dict[str, Any]) -> None:
    """Do this process's share of a stage; what Ray Train calls in each process of the team."""
    import ray
    import torch
    from ray.train.torch import get_device

    sys.path += [path for path in call["paths"] if path not in sys.path]
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())

    def tell(message: Message) -> None:
        ray.get(call["tell"].tell.remote(message))

    team, store = join(), call["store"]
    with tempfile.TemporaryDirectory(prefix="valuesoup-") as own:
        if call["lock"] is None:
            store.root = Path(own)
        else:
            _hold(call["lock"], team.rank)
        try:
            if team.leads:
                tell(("made", make_sent(call["sent"], call["label"], store, tell)))
                team.dismiss()
            elif call["lock"] is None:
                team.follow(store.root, partial(fetched, store))
            else:
                team.follow()
        except PartedError:
            raise  # whoever is gone is the reason
        except Exception as error:
            tell(("failed", portable(error)))
            raise  # which ends the others


def _hold(lock: Path, rank: int) -> None:
    """Hold a lock of this process, until it ends, beside that of its actor.

    Raises:
        PartedError: The run has given its actor up meanwhile, and may have begun anew.
    """
    held = FileLock(lock.with_name(f"{lock.stem}-{rank}{lock.suffix}"), timeout=SEEN_SECONDS)
    held.acquire()
    _HELD.append(held)
    if not lock.exists():
        raise PartedError("the run does not wait for this process any more.")


_HELD: list[FileLock] = []


def _reason(error: Exception) -> str:
    """Return in few words what Ray Train says of a team that broke."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    for rank, one in failures.items():
        if isinstance(one, WorkerHealthCheckFailedError):
            return f"process {rank + 1} of its team died"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
