"""Linear mode connectivity: what the loss gains or loses between two value vectors (Eq. 22), and what curvature says.

Along w_λ = λ·θ_i + (1 − λ)·θ_j the merging gap is Δ(λ) = f(w_λ) − λ·f(θ_i) − (1 − λ)·f(θ_j), positive where merging
costs. If f were quadratic it would be −½·λ(1 − λ)·dᵀHd with d = θ_i − θ_j (Eq. 24); dᵀHd is measured here at λ = ½
without the losses of the ladder, as the change of df/dλ, which autograd gives through the row weights of the soup.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.soup.shared_prompt import pair_batches, response_log_probs, shares_prompts
from valuesoup.training.loss import preference_loss
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TokenPairs

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

LADDER = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The λ at which the gap is measured."""
STEP = 0.1
"""Half the distance in λ between the two slopes whose difference is the curvature: less is lost in rounding, more is
another curvature."""

Weights = NDArray[np.float64]
Losses = Callable[[Weights], NDArray[np.float64]]
"""From weights (n,) of the vectors to the loss of each pair, (N,)."""
Slopes = Callable[[Weights, Weights], NDArray[np.float64]]
"""From weights (n,) and a direction (n,) to the derivative of each pair's loss along it, (N,)."""


@dataclass(frozen=True)
class Path:
    """The way between two vectors, per pair of responses.

    Attributes:
        ladder: (L,) λ, from 0 (the second vector) to 1 (the first).
        losses: (L, N) loss of each pair at each λ.
        gaps: (L, N) Δ(λ) of each pair's loss; zero at both ends.
        curvature: (N,) dᵀHd of each pair's loss at λ = ½.
    """

    ladder: Weights
    losses: NDArray[np.float64]
    gaps: NDArray[np.float64]
    curvature: NDArray[np.float64]


def path_between(
    first: int, second: int, size: int, losses: Losses, slopes: Slopes, ladder: Sequence[float] = LADDER
) -> Path:
    """Follow the loss from one vector to another in a straight line, all other vectors at 0 (Eq. 22, 24).

    Args:
        first: Place of θ_i.
        second: Place of θ_j.
        size: Number of vectors n.
        losses: Of each pair at given weights; asked for the ends too.
        slopes: Of each pair along a direction.
        ladder: λ in order, 0 and 1 at its ends.
    """
    one, other = np.eye(size)[first], np.eye(size)[second]
    rungs = np.array(ladder, dtype=np.float64)
    found = np.stack([losses(share * one + (1 - share) * other) for share in rungs])
    chord = rungs[:, None] * found[-1] + (1 - rungs[:, None]) * found[0]
    middle, direction = (one + other) / 2, one - other
    ahead, behind = (slopes(middle + step * direction, direction) for step in (STEP, -STEP))
    return Path(rungs, found, found - chord, (ahead - behind) / (2 * STEP))


def predicted_gap(share: float, curvature: float) -> float:
    """Return the gap that a quadratic loss would have at λ: −½·λ(1 − λ)·dᵀHd (Eq. 24)."""
    return 0.0 - 0.5 * share * (1.0 - share) * curvature


class HeldOutLoss:
    """DPO's loss of held-out pairs as a function of the weights of a soup's vectors."""

    def __init__(
        self,
        soup: "Soup",
        pairs: TokenPairs,
        reference: NDArray[np.float64],
        beta: float,
        *,
        batch_pairs: int = 8,
        on_done: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            soup: Holds the vectors.
            pairs: Token ids of N pairs.
            reference: (N, 2) log π_0 of chosen and rejected.
            beta: DPO's β.
            batch_pairs: Most pairs in a forward pass.
            on_done: Called with the number of pairs done since the last call.
        """
        self.soup = soup
        self.pairs = pairs
        self.reference = torch.as_tensor(reference)
        self.beta = beta
        self.batch_pairs = batch_pairs
        self.on_done = on_done
        self._known: dict[tuple[float, ...], NDArray[np.float64]] = {}

    def losses(self, weights: Weights) -> NDArray[np.float64]:
        """Return the loss of each pair, (N,), in nats; asked again for the same weights, it computes nothing."""
        key = tuple(weights.tolist())
        if key not in self._known:
            device = self.soup.model.get_input_embeddings().weight.device
            row = torch.tensor([key], dtype=torch.float32, device=device)
            found = torch.as_tensor(
                pair_log_probs(self.soup, row, self.pairs, batch_pairs=self.batch_pairs, on_done=self.on_done)
            )
            self._known[key] = self._loss(found[:, 0], found[:, 1], self.reference).numpy()
        return self._known[key]

    def slopes(self, weights: Weights, direction: Weights) -> NDArray[np.float64]:
        """Return the derivative of each pair's loss along a direction of the weights, (N,)."""
        device = self.soup.model.get_input_embeddings().weight.device
        shared = shares_prompts(self.soup, self.pairs.longest())
        found = np.zeros(len(self.pairs))
        for places in pair_batches(self.soup, self.pairs.lengths().tolist(), self.batch_pairs, shared=shared):
            rows = torch.tensor(np.tile(weights, (len(places), 1)), dtype=torch.float32, device=device)
            rows.requires_grad_(True)  # each pair has weights of its own, so one backward pass gives every derivative
            batch = self.pairs.batch(places).to(device)
            chosen, rejected = response_log_probs(self.soup, rows, batch, shared=shared)
            loss = self._loss(chosen, rejected, self.reference[places].to(chosen))
            (gradient,) = torch.autograd.grad(loss.sum(), rows)
            found[places] = gradient.double().cpu().numpy() @ direction
            self.on_done(len(places))
        return found

    def _loss(self, chosen: Tensor, rejected: Tensor, reference: Tensor) -> Tensor:
        return preference_loss(chosen, rejected, *reference.unbind(1), beta=self.beta)
