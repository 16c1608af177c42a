"""Processes that train together, one for each GPU: started by ``accelerate launch``, ``torchrun`` or Ray Train.

The first of them leads: it alone runs the graph, writes artifacts and speaks. Before a stage that is done together it
sends the call to the others, which do their share of it and wait for the next.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.errors import RunError, UserError
from valuesoup.store.graph import Node, Work, substitute
from valuesoup.store.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from valuesoup.store.artifacts import Artifact

PATIENCE = timedelta(days=30)
"""How long the others wait while the leader is at stages that it does alone."""
LAUNCHER = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Variables of the launcher, or their beginnings: once read they are removed, for transformers would act on them."""


class PartedError(RunError):
    """A process of the team has ended, or cannot be reached."""


@dataclass(frozen=True)
class Team:
    """This process and those that it trains with.

    Attributes:
        rank: Its number; 0 leads.
        size: How many there are.
        divided: Whether each holds only its part of the base's weights (FSDP, ZeRO-3).
        calls: The group in which the leader tells what comes next.
    """

    rank: int = 0
    size: int = 1
    divided: bool = False
    calls: Any = field(default=None, repr=False)

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def add(self, tensor: "Tensor") -> None:
        """Add up a tensor over all processes, in place."""
        if not self.alone:
            import torch.distributed as dist

            with _parting():
                dist.all_reduce(tensor)

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return each number added up over all processes."""
        if self.alone:
            return list(numbers)
        import torch

        tensor = torch.tensor(numbers, dtype=torch.float64)
        self.add(tensor)
        found: list[float] = tensor.tolist()
        return found

    def least(self, number: int) -> int:
        """Return the least of the processes' numbers."""
        if self.alone:
            return number
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(number)
        with _parting():
            dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return int(tensor)

    @contextmanager
    def together(self, node: Node, out: Path, found: "Mapping[str, Artifact]") -> Iterator[None]:
        """Let the others do their share of a stage beside the leader; ends when all have finished.

        Args:
            node: The stage call.
            out: The folder that the leader writes into; the others keep their checkpoints below it.
            found: The artifacts of the node's parents by their keys.
        """
        if self.alone or not node.stage.together:
            yield
            return
        self._tell((node, out, {parent.key: found[parent.key] for parent in node.parents}))
        with self._at_work():
            yield
        self._wait()

    def follow(self, home: Path | None = None, fetch: "Callable[[Node], Artifact] | None" = None) -> None:
        """Do this process's share of every stage that the leader calls, until it dismisses.

        Args:
            home: Where to keep checkpoints, if not in the folder that the leader writes into.
            fetch: Gets an artifact, if those of the leader are not to be seen here.
        """
        while (call := self._tell(None)) is not None:
            node, out, found = call
            out = home or out
            if fetch is not None:
                found = {parent.key: fetch(parent) for parent in node.parents}
            work = Work(out / ".checkpoints" / f"process-{self.rank}", Progress(), node.label, lambda *_, **__: None)
            work.out.mkdir(parents=True, exist_ok=True)
            inputs = substitute(dict(node.inputs), partial(_by_key, found))
            with self._at_work():
                node.stage.function(work, **inputs)
            self._wait()

    def dismiss(self) -> None:
        """End what the others follow."""
        if not self.alone:
            self._tell(None)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        global _at_work
        _at_work = self
        try:
            yield
        finally:
            _at_work = ALONE

    def _tell(self, call: Any) -> Any:
        import torch.distributed as dist

        box = [call]  # pickled, between the processes of one launch
        with _parting():
            dist.broadcast_object_list(box, src=0, group=self.calls)
        return box[0]

    def _wait(self) -> None:
        import torch.distributed as dist

        with _parting():
            dist.barrier(group=self.calls)


@contextmanager
def _parting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo or NCCL
        raise PartedError(
            "a process of this training has ended, or cannot be reached; run the same command again."
        ) from error


ALONE = Team()
_joined = ALONE
_at_work = ALONE


def team() -> Team:
    """Return with whom this process does what it does now: with its team in a stage done together, else alone."""
    return _at_work


def _by_key(found: "Mapping[str, Artifact]", node: Node) -> "Artifact":
    return found[node.key]


def whole_team() -> Team:
    """Return the processes that :func:`join` found beside this one."""
    return _joined


def speaks() -> bool:
    """Return whether this process is the one that tells people what happens; known also before it has joined."""
    return _joined.leads and os.environ.get("RANK", "0") == "0"


def join() -> Team:
    """Join the processes that a launcher started beside this one, if it did, and return the team.

    Each computes on the GPU of its number, or on the CPU. Called again it returns the same team.

    Raises:
        UserError: The launcher asks for what cannot be done; the sentence says what would be right.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not _joined.alone or size == 1:
        return _joined
    divided = _asks_to_divide(os.environ)
    rank, place = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    import torch.distributed as dist

    if not dist.is_initialized():  # by Ray Train
        dist.init_process_group(_own_gpu(place), rank=rank, world_size=size)
    for name in [name for name in os.environ if name in LAUNCHER or name.startswith(LAUNCHER[:3])]:
        del os.environ[name]
    return _formed(divided)


def _formed(divided: bool) -> Team:
    global _joined
    import torch.distributed as dist

    calls = dist.new_group(backend="gloo", timeout=PATIENCE)
    _joined = Team(dist.get_rank(), dist.get_world_size(), divided, calls)
    return _joined


def _own_gpu(place: int) -> str:
    """Leave this process one GPU, where there are any, and return the backends of its group."""
    import torch

    if not (count := torch.cuda.device_count()):
        return "gloo"
    if place >= count:
        raise UserError(f"process {place + 1} of this machine has no GPU, there are {count}; start one for each.")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[place] if visible else str(place)
    return "cpu:gloo,cuda:nccl"


def _asks_to_divide(environment: Mapping[str, str]) -> bool:
    """Return whether a launcher asks that each process hold only a part of the base."""
    fsdp = environment.get("ACCELERATE_USE_FSDP", "false") == "true"
    if fsdp and environment.get("FSDP_OFFLOAD_PARAMS", "false") == "true":
        raise UserError("fsdp_offload_params: true is not supported; set it to false and start more processes.")
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    zero = environment.get("ACCELERATE_USE_DEEPSPEED", "false") == "true" and stage == "3"
    return zero or (fsdp and environment.get("FSDP_SHARDING_STRATEGY", "FULL_SHARD") != "NO_SHARD")
