"""Gradient conflict at the base (Eq. 16): where each value's DPO gradient would move a fresh LoRA, and how far apart.

At π_0 the DPO loss of a pair has the gradient −β/2·(∇log π(y_w) − ∇log π(y_l)), so no reference is needed. It is taken
in the B factors of one fresh adapter, whose A all values share: with B = 0 the adapter changes nothing, A has no
gradient, and that of B is the direction in which a LoRA starts to move. It is s·G·Aᵀ for the gradient G of the full
weights, a random projection of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.soup.shared_prompt import pair_batches, response_log_probs, shares_prompts
from valuesoup.training.rows import TokenPairs

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

PIECE = 1 << 22
"""Entries of a gradient that are multiplied at once in float64."""


@dataclass(frozen=True)
class Conflict:
    """How the gradients of two values lie to each other.

    Attributes:
        first: One value.
        second: The other value.
        cosine: Of the mean gradients over all pairs; below 0 they conflict. NaN where a gradient is zero.
        error: Its standard error, by leaving out one block of pairs of both values at a time (jackknife).
        ceiling: What the noise of so few pairs leaves of a cosine of 1: the root of the two values' reliabilities,
            each the share of ‖mean gradient‖² that another sample would show again. 0 where nothing would.
    """

    first: str
    second: str
    cosine: float
    error: float
    ceiling: float


def block_gradients(
    soup: "Soup",
    pairs: TokenPairs,
    weight: NDArray[np.float64],
    blocks: Sequence[Sequence[int]],
    *,
    batch_pairs: int = 8,
    on_done: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Return the summed DPO gradient of each block of pairs in the B factors of a fresh adapter, divided by β.

    Args:
        soup: Holds one vector, fresh, so that the policy is the base.
        pairs: Token ids.
        weight: (N,) of each pair in the loss; a negative one swaps its sides.
        blocks: Places of the pairs of each block.
        batch_pairs: Most pairs in a forward pass.
        on_done: Called with the number of pairs done since the last call.

    Returns:
        (blocks, parameters) float32, on the CPU.
    """
    (name,) = soup.names
    factors = soup.parameters_of([name])[1::2]  # A and B alternate
    for factor in factors:
        factor.requires_grad_(True)
    device = factors[0].device
    one = torch.ones(1, 1, device=device)
    shared = shares_prompts(soup, pairs.longest())
    lengths = pairs.lengths()
    found = torch.zeros(len(blocks), sum(factor.numel() for factor in factors))
    for block, own in enumerate(blocks):
        for batch in pair_batches(soup, lengths[list(own)].tolist(), batch_pairs, shared=shared):
            places = [own[row] for row in batch]
            chosen, rejected = response_log_probs(soup, one, pairs.batch(places).to(device), shared=shared)
            weights = torch.as_tensor(weight[places], dtype=chosen.dtype, device=device)
            loss = -0.5 * (weights * (chosen - rejected)).sum()
            gradients = torch.autograd.grad(loss, factors)
            found[block] += torch.cat([gradient.flatten() for gradient in gradients]).float().cpu()
            on_done(len(places))
    soup.requires_grad_(False)
    return found


def conflicts(gradients: Mapping[str, Tensor]) -> list[Conflict]:
    """Return how the mean gradients of every two values lie to each other.

    Args:
        gradients: (blocks, parameters) by value, equally many blocks of about as many pairs each; a block holds the sum
            over its pairs.

    Raises:
        ValueError: The values have not equally many blocks, or fewer than two.
    """
    counts = {len(of) for of in gradients.values()}
    if len(gradients) > 1 and (len(counts) > 1 or min(counts) < 2):
        raise ValueError(f"gradients come in equally many blocks, two at least, not in {sorted(counts)}")
    own = {value: _products(of, of) for value, of in gradients.items()}
    return [
        _conflict(first, second, own[first], own[second], _products(gradients[first], gradients[second]))
        for first, second in combinations(gradients, 2)
    ]


def _products(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Return the inner products of the blocks of two values, (blocks, blocks)."""
    pieces = zip(torch.split(first, PIECE, dim=1), torch.split(second, PIECE, dim=1), strict=True)
    found = sum((a.double() @ b.double().T for a, b in pieces), torch.zeros(len(first), len(second)).double())
    return np.asarray(found.numpy())


def _conflict(
    first: str, second: str, a: NDArray[np.float64], b: NDArray[np.float64], both: NDArray[np.float64]
) -> Conflict:
    count = len(a)
    without = 1.0 - np.eye(count)  # a row per block left out
    parts = np.array([_cosine(a, b, both, row) for row in without])
    error = float(np.sqrt((count - 1) * np.mean((parts - parts.mean()) ** 2)))
    ceiling = (_reliability(a) * _reliability(b)) ** 0.5
    return Conflict(first, second, _cosine(a, b, both, np.ones(count)), error, ceiling)


def _cosine(
    a: NDArray[np.float64], b: NDArray[np.float64], both: NDArray[np.float64], taken: NDArray[np.float64]
) -> float:
    """Return the cosine of the gradients over the blocks taken, from the inner products of all blocks."""
    length = float(taken @ a @ taken) * float(taken @ b @ taken)
    return float(np.clip(taken @ both @ taken / length**0.5, -1.0, 1.0)) if length > 0 else float("nan")


def _reliability(own: NDArray[np.float64]) -> float:
    """Return the share of ‖mean gradient‖² that is not noise: products of different blocks hold none."""
    whole, count = float(own.sum()), len(own)
    share = count / (count - 1) * (1.0 - float(np.trace(own)) / whole) if whole > 0 else 0.0
    return min(max(share, 0.0), 1.0)
