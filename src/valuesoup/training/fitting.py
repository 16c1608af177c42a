"""Batches that memory does not suffice for: computed in halves, with the same loss and gradients."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from valuesoup.errors import RunError
from valuesoup.limits import out_of_memory

Undo: TypeAlias = Callable[[], None]


@dataclass
class Fitting:
    """How many rows fit into memory at once, as far as was seen.

    Attributes:
        say: Told, in a sentence, when there are fewer from now on.
        rows: The most of a forward pass.
        divisible: Whether a batch may be halved; not where other processes run the same number of passes.
    """

    say: Callable[[str], None]
    rows: int = sys.maxsize
    divisible: bool = True

    def each(
        self, inputs: dict[str, Tensor], compute: Callable[[dict[str, Tensor]], Tensor], remember: Callable[[], Undo]
    ) -> list[tuple[int, Tensor]]:
        """Compute a batch, in as few pieces as fit.

        Args:
            inputs: Tensors with a first dimension of rows.
            compute: Is given the same for some rows.
            remember: Called before each piece; what it returns undoes a piece that failed on its way.

        Returns:
            Rows and result of each piece.

        Raises:
            RunError: Memory does not suffice for one row, or for a batch that must not be halved.
        """
        count, start = len(inputs["row"]), 0
        found: list[tuple[int, Tensor]] = []
        while start < count:
            piece = {name: tensor[start : start + self.rows] for name, tensor in inputs.items()}
            size = len(piece["row"])
            undo = remember()
            try:
                found.append((size, compute(piece)))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1 or not self.divisible:
                    what, remedy = f"{size} pairs", "raise accumulate"
                    if size == 1:
                        what, remedy = "one pair", "set gradient_checkpointing"
                    raise RunError(
                        f"memory does not suffice to train on {what} ({error}); lower max_length, or {remedy}."
                    ) from error
                undo()
                torch.cuda.empty_cache()
                self.rows = size // 2
                self.say(f"memory does not suffice for {size} pairs at a time: {self.rows} from here on")
            else:
                start += size
        return found


def remember_gradients(parameters: Iterable[nn.Parameter]) -> Undo:
    """Return what puts gradients back to what they are now, after a backward pass that ended on its way."""
    before = [(parameter, None if parameter.grad is None else parameter.grad.clone()) for parameter in parameters]

    def undo() -> None:
        for parameter, gradient in before:
            parameter.grad = gradient

    return undo
