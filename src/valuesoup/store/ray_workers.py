"""Workers on the machines of a Ray cluster: actors that make one stage at a time, and are replaced where they die.

An actor lives as long as the run and no longer: Ray ends the actors of a job whose driver is gone. In a run folder
that the machines share, each also holds a lock file there while it lives. The run tries a lost stage again only once
the lost actor's lock is free, and the next run waits for the locks of this one, so two processes never write into
one partial folder. With artifacts behind a URL each actor has a folder of its own, and nothing needs a lock.
"""

import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from valuesoup.errors import RunError, UserError
from valuesoup.store.artifacts import Artifact, Store
from valuesoup.store.cluster import Cluster, connect
from valuesoup.store.graph import Node
from valuesoup.store.log import RunLog
from valuesoup.store.progress import Progress
from valuesoup.store.ray_actor import SEEN_SECONDS, Actor
from valuesoup.store.ray_team import TeamActor
from valuesoup.store.relay import Listener, Message
from valuesoup.store.workers import LOCKS, THREADS

RETRIES = 3
"""How often a stage is tried again whose worker or machine was lost."""
GONE_SECONDS = 120.0
"""How long the lock of a lost worker may stay held; an NFS server frees those of a dead machine after about 90 s."""
PLACE_SECONDS = 300.0
"""How long nothing may run because no machine has room for a worker."""
SAY_SECONDS = 15.0
"""After so long without a place a run says that it waits."""
OUT_OF_MEMORY = "memory ran out"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class _Kind(Enum):
    """What makes a stage: an actor without or with a GPU, or one that starts a team of processes."""

    CPU = 0
    GPU = 1
    TEAM = 2


@dataclass
class _Call:
    """A stage that shall be made."""

    node: Node
    found: Mapping[str, Artifact]
    kind: _Kind
    losses: int = 0


@dataclass
class _Hired:
    """The run's end of one actor: ``greeting`` until it is ready, ``stream`` while it makes a stage, then ``begun``."""

    handle: Any
    kind: _Kind
    lock: Path | None
    listener: Listener
    greeting: Any = None
    stream: Any = None
    call: _Call | None = None
    begun: bool = False
    host: str = ""


class RayWorkers:
    """Actors of a Ray cluster that make stages side by side; the same face as ``Workers``.

    An actor that dies, alone or with its machine, is replaced, and its stage is tried again up to ``RETRIES`` times.
    """

    def __init__(
        self,
        cluster: Cluster,
        jobs: int | None,
        store: Store,
        progress: Progress,
        log: RunLog,
        on_gpu: Callable[[Node], bool] = lambda _: False,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            cluster: Where stages run.
            jobs: The most stages to run at a time; None for as many as fit.
            store: Where artifacts live: a folder that all machines share, or one with a remote store.
            progress: Shows what goes on in the workers.
            log: Receives the stages' events.
            on_gpu: Says whether a stage computes on a GPU where there is one.
        """
        self.cluster = cluster
        self.jobs = jobs or 1
        self.store = store
        self.progress = progress
        self.log = log
        self._root = store.root.absolute()  # actors work elsewhere
        self._asked_jobs = jobs
        self._on_gpu = on_gpu
        self._hired: list[_Hired] = []
        self._calls: list[_Call] = []
        self._started_ray = False
        self._cpus = 1
        self._gpus = 0

    def __enter__(self) -> "RayWorkers":
        self.store.root.mkdir(parents=True, exist_ok=True)
        self._started_ray = connect(self.cluster.address)
        try:
            self._share_out()
        except BaseException:
            self.__exit__(RunError)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import ray

        ours = list(self._hired)
        if kind is None:
            with suppress(ray.exceptions.RayError):
                ray.get([one.handle.leave.remote() for one in ours if one.greeting is None], timeout=10)
        for one in ours:
            with suppress(RunError):  # the next run waits for its lock
                self._dismiss(one)
        if self._started_ray:
            ray.shutdown()

    @property
    def busy(self) -> bool:
        """Whether any stage is running or waits for a worker."""
        return self._under_way > 0

    @property
    def free(self) -> bool:
        """Whether one more stage may start."""
        return self._under_way < self.jobs

    def start(self, node: Node, found: Mapping[str, Artifact]) -> None:
        """Have a stage made by the next free actor; arguments as for :func:`valuesoup.store.workers.make_node`."""
        parents = {parent.key: found[parent.key].at(self._root) for parent in node.parents}
        kind = _Kind.GPU if self._gpus and self._on_gpu(node) else _Kind.CPU
        if node.stage.together and self.cluster.processes > 1:
            kind = _Kind.TEAM
        self._calls.append(_Call(node, parents, kind))

    def next_made(self) -> tuple[Node, Artifact]:
        """Show and log what the actors report until one has made its artifact, and return that.

        Raises:
            RunError: A stage lost its worker too often, or no machine has room. An error of a stage is raised as it
                was.
        """
        import ray

        began = time.monotonic()
        said = False
        while True:
            self._hand_out()
            waiting = {id(one.stream or one.greeting): one for one in self._hired if one.stream or one.greeting}
            ready, _ = ray.wait([one.stream or one.greeting for one in waiting.values()], timeout=1.0)
            if any(one.stream for one in self._hired):
                began = time.monotonic()
            elif not ready:
                said = self._wait_for_place(time.monotonic() - began, said)
            for event in ready:
                one = waiting[id(event)]
                try:
                    message = ray.get(event if one.stream is None else next(one.stream))
                except ray.exceptions.RayTaskError:
                    raise  # a fault of this module
                except (ray.exceptions.RayError, StopIteration) as error:
                    self._lost(one, error)
                    continue
                made = self._take(one, message)
                if made is not None:
                    return made

    @property
    def _under_way(self) -> int:
        return len(self._calls) + sum(one.call is not None for one in self._hired)

    def _take(self, one: _Hired, message: Message) -> tuple[Node, Artifact] | None:
        if one.stream is None:
            one.host, wrong = message
            one.greeting = None
            if wrong is not None:
                raise RunError(wrong)
            return None
        if message[0] == "parted":
            one.stream = None
            self._lost(one, RunError(message[1]))
            return None
        one.begun = True
        artifact = one.listener.take(message)
        if artifact is None:
            return None
        call = one.call
        assert call is not None
        one.stream = one.call = None
        if self.store.remote is not None:
            fetched = self.store.find(call.node, self.progress.say)
            if fetched is None:
                raise RunError(f"{call.node.label}: its result is not in {self.store.remote.url} any more; run again.")
            artifact = fetched
        self.store.keep_shared(call.node)
        return call.node, artifact.at(self.store.root)

    def _hand_out(self) -> None:
        """Give waiting calls to idle actors, and hire where there are fewer actors than calls."""
        idle = [one for one in self._hired if not one.greeting and not one.call]
        if any(one.kind is _Kind.TEAM and one.call and not one.begun for one in self._hired):
            for one in idle:
                if one.kind is not _Kind.TEAM:
                    self._dismiss(one)  # the team needs its CPUs
            return
        for call in list(self._calls):
            fit = [one for one in idle if one.kind is call.kind]
            if fit:
                one = fit[0]
                idle.remove(one)
                self._calls.remove(call)
                one.call, one.begun = call, False
                found = {} if self.store.remote is not None else call.found
                # As bytes, so that what a machine cannot import fails as the stage does, and not as Ray.
                sent = pickle.dumps((call.node, found))
                one.stream = one.handle.make.options(num_returns="streaming").remote(sent, call.node.label)
        for kind in _Kind:
            wanted = sum(call.kind is kind for call in self._calls)
            coming = sum(one.kind is kind and one.greeting is not None for one in self._hired)
            for _ in range(wanted - coming):
                self._hire(kind)

    def _hire(self, kind: _Kind) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        lock = None
        if self.store.remote is None:
            lock = self._root / LOCKS.replace("*", uuid4().hex[:12])
            lock.touch()  # which the actor must see: then its machine shares the folder
        threads = {name: os.environ.get(name, str(self._cpus)) for name in THREADS}
        paths = [str(Path(path).absolute()) for path in sys.path]
        memory = {} if self.cluster.memory is None else {"memory": int(self.cluster.memory * 2**30)}
        # The store between runs is of this machine: the run itself keeps there what an actor has made.
        store = Store(self._root, remote=self.store.remote)
        if kind is _Kind.TEAM:
            gpus = {"GPU": 1} if self._gpus else {}
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            handle = (
                ray.remote(TeamActor)
                .options(num_cpus=0, max_concurrency=3, scheduling_strategy=here)
                .remote(store, lock, threads, paths, self.cluster.processes, {"CPU": self._cpus, **gpus, **memory})
            )
        else:
            options = {"num_cpus": self._cpus, "num_gpus": kind.value, **memory}
            handle = ray.remote(Actor).options(**options).remote(store, lock, threads, paths)
        hired = _Hired(handle, kind, lock, Listener(self.progress, self.log))
        hired.greeting = handle.greet.remote(version("valuesoup"), SEEN_SECONDS)
        self._hired.append(hired)

    def _dismiss(self, one: _Hired) -> None:
        """End an actor and wait until it is gone.

        Raises:
            RunError: It may still write into the shared folder.
        """
        import ray

        self._hired.remove(one)
        one.listener.forget()
        ray.kill(one.handle)
        if one.lock is None:
            return
        for lock in (one.lock, *one.lock.parent.glob(f"{one.lock.stem}-*")):
            try:
                with FileLock(lock, timeout=GONE_SECONDS):
                    lock.unlink(missing_ok=True)
            except Timeout:
                raise RunError(
                    f"a worker on {one.host or 'a machine'} that cannot be reached still holds {lock}; end it, then "
                    "run the same command again."
                ) from None

    def _lost(self, one: _Hired, error: Exception) -> None:
        """Put the call of a dead actor in front, to be tried again.

        Raises:
            RunError: It has been lost too often, or may still be running.
        """
        call = one.call
        host = one.host or "a machine of the cluster"
        why = _reason(error)
        self._dismiss(one)
        if call is None:  # it died before it had one: those who wait share this
            call = self._calls.pop(0) if self._calls else None
        if call is None:
            return
        call.losses += 1
        self.log.write("lost", label=call.node.label, key=call.node.key, host=host, reason=why, losses=call.losses)
        if call.losses > RETRIES:
            hint = ", with more --memory for a stage, or fewer --jobs" if why == OUT_OF_MEMORY else ""
            raise RunError(
                f"{call.node.label}: its worker was lost {call.losses} times, at last on {host} ({why}); finished "
                f"stages stay, run the same command again{hint}."
            )
        self.progress.say(
            f"! {call.node.label}: its worker on {host} was lost ({why}); trying again, {call.losses} of {RETRIES}"
        )
        self._calls.insert(0, call)

    def _share_out(self) -> None:
        """Decide how many stages run at a time, with how many CPUs each.

        Raises:
            UserError: No machine of the cluster is large enough for one stage.
        """
        import ray

        machines = [one["Resources"] for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU")]
        sizes = [int(one["CPU"]) for one in machines]
        if not sizes:
            raise UserError("the Ray cluster has no CPUs; start its machines with `ray start --num-cpus`.")
        self._gpus = int(sum(one.get("GPU", 0) for one in machines))
        given, processes = self.cluster.cpus, self.cluster.processes
        if self._asked_jobs is None:
            self.jobs = sum(size // given for size in sizes) if given else max(len(sizes), self._gpus)
            self.jobs = max(1, self.jobs // processes)
        self._cpus = given or min(max(sizes), max(1, sum(sizes) // (self.jobs * processes)))
        memory = (self.cluster.memory or 0) * 2**30
        if not any(one["CPU"] >= self._cpus and one.get("memory", 0) >= memory for one in machines):
            largest = max(one.get("memory", 0) for one in machines) / 2**30
            raise UserError(
                f"no machine of the Ray cluster has the {self._cpus} CPUs and {self.cluster.memory or 0:g} GiB that a "
                f"stage is to have; the largest have {max(sizes)} CPUs and {largest:.3g} GiB."
            )
        places = sum(size // self._cpus for size in sizes)
        if processes > min(places, self._gpus or places):
            raise UserError(
                f"the Ray cluster has {sum(sizes)} CPUs and {self._gpus} GPUs: not {processes} times {self._cpus} CPUs"
                f"{' and a GPU' if self._gpus else ''} for the {processes} processes of a training."
            )
        self.progress.say(
            f"Ray: {len(sizes)} machines with {sum(sizes)} CPUs and {self._gpus} GPUs; up to {self.jobs} stages at a "
            f"time, {self._cpus} CPUs each"
        )

    def _wait_for_place(self, waited: float, said: bool) -> bool:
        """Say once that no machine has room, and after ``PLACE_SECONDS`` give up."""
        what = f"{self._cpus} CPUs" + (f" and {self.cluster.memory:g} GiB" if self.cluster.memory else "")
        if waited > PLACE_SECONDS:
            raise RunError(
                f"no machine of the Ray cluster had {what} free for {PLACE_SECONDS:.0f} s; finished stages stay, run "
                "the same command again when there is room."
            )
        if waited > SAY_SECONDS and not said:
            self.progress.say(f"waiting for a machine of the Ray cluster with {what} free …")
            return True
        return said


def _reason(error: Exception) -> str:
    """Return in few words what Ray says to a death, which may fill a page."""
    import ray

    if isinstance(error, RunError):
        return str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return OUT_OF_MEMORY
    lines = [line.strip(" .") for line in ANSI.sub("", str(error)).splitlines() if line.strip()] or [""]
    failed_to_start = "creation task" in lines[0]  # then its traceback follows
    return f"{type(error).__name__}: {lines[-1 if failed_to_start else 0][:200]}".rstrip(": ")
