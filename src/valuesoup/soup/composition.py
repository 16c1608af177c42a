"""Exact linear composition of value vectors (Eq. 7, 17), and the low-rank cut with its error."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from valuesoup.errors import UserError, did_you_mean
from valuesoup.soup.vector import Factors, ValueVector


def weight_row(weights: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return the weights in the order of ``names``; a name left out weighs 0.

    Raises:
        UserError: A weight names no vector, or is not a finite number.
    """
    for name, weight in weights.items():
        if name not in names:
            raise UserError(f"the soup has no vector '{name}'{did_you_mean(name, names)}.")
        if not float("-inf") < weight < float("inf"):
            raise UserError(f"the weight of '{name}' must be a finite number, not {weight}.")
    return [float(weights.get(name, 0.0)) for name in names]


def compose(vectors: Mapping[str, ValueVector], weights: Mapping[str, float]) -> ValueVector:
    """Return Σ λ_i θ_i as one vector of rank Σ r_i: A stacked, [λ_1 s_1 B_1, …] side by side (Eq. 17, exact).

    Averaging A and B separately is not this sum. Vectors of weight 0 are left out.

    Raises:
        UserError: An unknown name, only zero weights, or vectors of different bases.
    """
    row = dict(zip(vectors, weight_row(weights, list(vectors)), strict=True))
    parts = [(vectors[name], weight) for name, weight in row.items() if weight != 0.0]
    if not parts:
        raise UserError("every weight is zero: that soup is the base model itself, there is no adapter to write.")
    if len({vector.base_fingerprint for vector, _ in parts} - {None}) > 1:
        raise UserError(f"vectors of different bases cannot be mixed: {', '.join(name for name in row if row[name])}.")
    layers = {}
    for layer in dict.fromkeys(name for vector, _ in parts for name in vector.layers):
        mine = [(vector.layers[layer], weight) for vector, weight in parts if layer in vector.layers]
        layers[layer] = Factors(
            A=torch.cat([factors.A.float() for factors, _ in mine]),
            B=torch.cat([weight * factors.scale * factors.B.float() for factors, weight in mine], dim=1),
            scale=1.0,
        )
    base = next((vector.base for vector, _ in parts if vector.base), "")
    fingerprint = next((vector.base_fingerprint for vector, _ in parts if vector.base_fingerprint), None)
    return ValueVector(layers, base, fingerprint)


def cut(vector: ValueVector, rank: int) -> tuple[ValueVector, float]:
    """Return the best approximation of ``rank`` per layer, and its relative error ‖ΔW − ΔW_r‖ / ‖ΔW‖ over all layers.

    The singular values come from the factors: QR of B and of Aᵀ, then an SVD of a matrix of the rank's size.

    Raises:
        UserError: ``rank`` is not positive.
    """
    if rank < 1:
        raise UserError(f"an adapter's rank must be at least 1, not {rank}.")
    layers, lost, whole = {}, 0.0, 0.0
    for name, factors in vector.layers.items():
        U, S, V = _svd(factors)
        kept = S[:rank].sqrt()
        layers[name] = Factors(A=kept[:, None] * V[:rank], B=U[:, :rank] * kept, scale=1.0)
        lost += float(S[rank:].square().sum())
        whole += float(S.square().sum())
    error = (lost / whole) ** 0.5 if whole else 0.0
    return ValueVector(layers, vector.base, vector.base_fingerprint), error


def _svd(factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    left, upper = torch.linalg.qr(factors.scale * factors.B.float())
    right, lower = torch.linalg.qr(factors.A.float().T)
    U, S, V = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return left @ U, S, V @ right.T
