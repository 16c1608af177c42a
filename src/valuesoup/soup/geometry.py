"""Lengths, distances and angles of value vectors, from the factors alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch

from valuesoup.soup.vector import Factors, ValueVector


@dataclass(frozen=True)
class LayerGeometry:
    """How two value vectors lie to each other in one layer.

    Attributes:
        layer: The layer's name; ``""`` for all layers together.
        first: One value.
        second: The other value.
        cosine: cos(θ_i, θ_j), NaN where a vector is zero.
        l2: ‖θ_i − θ_j‖.
    """

    layer: str
    first: str
    second: str
    cosine: float
    l2: float


def inner(first: Factors, second: Factors) -> float:
    """Return ⟨ΔW, ΔW'⟩ = s·s'·Σ (BᵀB') ⊙ (A A'ᵀ), never forming ΔW; computed in float64."""
    outer = first.B.double().T @ second.B.double()
    inward = first.A.double() @ second.A.double().T
    return float(torch.sum(outer * inward)) * first.scale * second.scale


def geometry(vectors: Mapping[str, ValueVector]) -> list[LayerGeometry]:
    """Return distance and cosine of every two vectors, per layer and then over all layers (the paper's Fig. 6).

    A layer that a vector does not adapt counts as zero there.
    """
    rows = []
    for (first, a), (second, b) in combinations(vectors.items(), 2):
        total = [0.0, 0.0, 0.0]
        for layer in dict.fromkeys([*a.layers, *b.layers]):
            x, y = a.layers.get(layer), b.layers.get(layer)
            products = [
                inner(x, x) if x else 0.0,
                inner(y, y) if y else 0.0,
                inner(x, y) if x and y else 0.0,
            ]
            total = [t + p for t, p in zip(total, products, strict=True)]
            rows.append(_relation(layer, first, second, *products))
        rows.append(_relation("", first, second, *total))
    return rows


def _relation(layer: str, first: str, second: str, xx: float, yy: float, xy: float) -> LayerGeometry:
    length = (max(xx, 0.0) * max(yy, 0.0)) ** 0.5
    cosine = max(-1.0, min(1.0, xy / length)) if length > 0 else float("nan")
    return LayerGeometry(layer, first, second, cosine, max(xx + yy - 2 * xy, 0.0) ** 0.5)
