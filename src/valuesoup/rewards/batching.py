"""Batches of token sequences under a token budget: similar lengths together, each distinct sequence once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuesoup.limits import out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Tokens = NDArray[np.int32]
"""Token ids of one text, (length,)."""
CPU_TOKENS, GPU_TOKENS = 768, 16_384
"""Tokens of a batch: on a CPU activations must stay in its caches, a GPU wants to be filled."""


@dataclass
class Budget:
    """Most tokens of one batch, padding included; halved whenever memory does not suffice.

    Attributes:
        tokens: The budget now.
        name: Of the model, for messages.
        halved: Whether memory has run out.
    """

    tokens: int
    name: str
    halved: bool = field(default=False, init=False)

    def halve(self) -> None:
        """Take half the tokens from now on; the first time that is logged."""
        self.tokens = max(1, self.tokens // 2)
        if not self.halved:
            logger.warning("%s: memory ran out; it goes on with smaller batches, of the same scores", self.name)
        self.halved = True


def in_batches(
    lengths: Sequence[int], budget: Budget, work: Callable[[NDArray[np.int64]], None], *, before: int = 0
) -> None:
    """Give ``work`` the positions of all rows in batches of similar length, within the budget when padded.

    Longest first, so that memory runs out at once or never; a batch that it does not suffice for is tried again in
    halves. A row longer than the budget is a batch of its own.

    Args:
        lengths: (N,) tokens of each row.
        budget: Of a batch.
        work: Is given (rows,) positions; one that failed for lack of memory is called again for the same rows.
        before: Tokens that each row reads beside its own.

    Raises:
        torch.OutOfMemoryError: Memory does not suffice for a single row.
    """
    import torch

    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(lengths[order[start]] + before, 1)
        rows = order[start : start + max(1, budget.tokens // longest)]
        try:
            work(rows)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(rows) == 1:
                raise torch.OutOfMemoryError(str(error)) from error  # of one class on every device
            torch.cuda.empty_cache()
            budget.tokens = min(budget.tokens, len(rows) * longest)  # what was tried, where few rows were left
            budget.halve()
            continue
        start += len(rows)


def distinct(sequences: Sequence[Tokens]) -> tuple[list[int], NDArray[np.int64]]:
    """Return the place of each distinct sequence's first occurrence, and for each sequence (N,) which of them it is."""
    known: dict[bytes, int] = {}
    first: list[int] = []
    which = np.empty(len(sequences), dtype=np.int64)
    for place, ids in enumerate(sequences):
        which[place] = known.setdefault(ids.tobytes(), len(first))
        if which[place] == len(first):
            first.append(place)
    return first, which


def padded(sequences: Sequence[Tokens], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids, (rows, width), padded on the right, and the (rows,) lengths."""
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    table = np.full(mask.shape, pad, dtype=np.int64)
    table[mask] = np.concatenate(sequences)
    return table, lengths


def padded_logits(
    model: "PreTrainedModel",
    pad: int,
    sequences: Sequence[Tokens],
    budget: Budget,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """Return a classifier's own logits of each text, padded and masked, (N, logits).

    Args:
        model: The classifier.
        pad: Its padding token.
        sequences: (N,) texts.
        budget: Of a batch.
        advance: Called with the number of texts done since the last call.
    """
    import torch

    first, which = distinct(sequences)
    advance(len(sequences) - len(first))
    found = np.empty((len(first), model.config.num_labels))

    def one_pass(rows: NDArray[np.int64]) -> None:
        ids, lengths = padded([sequences[first[row]] for row in rows], pad)
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        given, seen = (torch.from_numpy(array).to(model.device) for array in (ids, mask))
        found[rows] = model(input_ids=given, attention_mask=seen).logits.double().cpu().numpy()
        advance(len(rows))

    with torch.inference_mode():
        in_batches([len(sequences[place]) for place in first], budget, one_pass)
    return found[which]
