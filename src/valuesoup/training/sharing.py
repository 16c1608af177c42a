"""What a process of a team does of a training: its rows of every step, whose gradients are added up."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import Sampler

from valuesoup.store.team import Team


class Order(Sized, Protocol):
    """Places of rows in an order."""

    def __iter__(self) -> Iterator[int]:
        """Give one place after the other."""


class Share(Sampler[int]):
    """This process's rows of every step, so that those of all processes are what one process would take.

    All draw equally many: where a step's rows do not divide, a process repeats one, as a place past the last row; the
    trainer counts such a filler for nothing.
    """

    def __init__(self, order: Order, step: int, team: Team) -> None:
        """Prepare.

        Args:
            order: The rows in the order in which one process alone takes them.
            step: Rows of a step, of all processes.
            team: This process and the others.
        """
        self.order = order
        self.step = step
        self.team = team

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the data loader calls it."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.step)
        return whole * -(-self.step // self.team.size) + -(-rest // self.team.size)

    def __iter__(self) -> Iterator[int]:
        order = list(self.order)
        for start in range(0, len(order), self.step):
            rows = order[start : start + self.step]
            yield from rows[self.team.rank :: self.team.size]
            if 0 < len(rows) % self.team.size <= self.team.rank:
                yield len(order) + rows[0]


def rounds(batches: Sequence[Any], team: Team) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Deal batches out in rounds: give this process's batch of each round, or None, and all of the round."""
    for start in range(0, len(batches), team.size):
        dealt = batches[start : start + team.size]
        yield (dealt[team.rank] if team.rank < len(dealt) else None), dealt


def sum_gradients(parameters: Sequence[nn.Parameter], team: Team) -> None:
    """Add up the gradients of all processes, each of which has those of its own rows."""
    if team.alone:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    team.add(flat)
    pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
