"""Other ways to compose value vectors, to compare with the exact linear one: none of them is Eq. 7 or 17.

TIES, DARE and magnitude pruning act on the entries of ΔW, layer by layer, as mergekit does; PEFT's merges of the same
names act on A and B one by one, which is another model. Their results are dense, so they come as factors of full
rank, one of which is the identity: exact, and as large as the layer unless cut.
"""

import hashlib
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from valuesoup.errors import UserError, did_you_mean
from valuesoup.soup.composition import compose, cut, weight_row
from valuesoup.soup.geometry import inner
from valuesoup.soup.vector import Factors, ValueVector

PARALLEL = 0.9995
"""|cos| above which two vectors span no arc to speak of, and slerp is linear (mergekit's threshold)."""


def merge(
    vectors: Mapping[str, ValueVector],
    weights: Mapping[str, float],
    kind: str = "linear",
    *,
    rank: int | None = None,
    **settings: float,
) -> tuple[ValueVector, float]:
    """Compose vectors in any of the ways.

    Args:
        vectors: By name; a layer that one does not adapt counts as zero there.
        weights: λ by name; a name left out weighs 0.
        kind: linear, factorwise, ties, dare, slerp, magnitude, or svd: linear, then cut.
        rank: Cut the result to this rank per layer. By default svd cuts to the largest rank of the vectors, the
            other ways do not cut.
        settings: Of the way: ``density``, ``seed``.

    Returns:
        The vector, and its relative error ‖ΔW − ΔW_rank‖ / ‖ΔW‖ against the same without a cut; 0 where none is made.

    Raises:
        UserError: An unknown way, name or setting's value, only zero weights, vectors of different bases, or vectors
            or weights that the way cannot take.
    """
    ways: dict[str, Callable[..., ValueVector]] = {
        "linear": compose,
        "factorwise": factorwise,
        "ties": ties,
        "dare": dare,
        "slerp": slerp,
        "magnitude": magnitude,
        "svd": compose,
    }
    if kind not in ways:
        raise UserError(f"there is no way to compose called '{kind}'{did_you_mean(kind, ways)}")
    made = ways[kind](vectors, weights, **settings)
    if kind == "svd" and rank is None:
        rank = max(vector.rank for vector in vectors.values())
    return (made, 0.0) if rank is None else cut(made, rank)


def factorwise(vectors: Mapping[str, ValueVector], weights: Mapping[str, float]) -> ValueVector:
    """Return A = Σ λ_i A_i and B = Σ λ_i B_i, what published scripts do: (Σ λ_i B_i)(Σ λ_i A_i) has cross terms.

    Raises:
        UserError: As compose; or in a layer, ranks or scales differ.
    """
    whole = compose(vectors, weights)
    layers = {}
    for layer in whole.layers:
        mine = _adapting(vectors, weights, layer)
        for what, found in (
            ("ranks", {name: factors.rank for name, factors, _ in mine}),
            ("scales", {name: factors.scale for name, factors, _ in mine}),
        ):
            if len(set(found.values())) > 1:
                listed = ", ".join(f"'{name}' {number:g}" for name, number in found.items())
                raise UserError(
                    f"factors can only be averaged where {what} are equal; in layer {layer} they are {listed}."
                )
        layers[layer] = Factors(
            A=torch.stack([weight * factors.A.float() for _, factors, weight in mine]).sum(0),
            B=torch.stack([weight * factors.B.float() for _, factors, weight in mine]).sum(0),
            scale=mine[0][1].scale,
        )
    return ValueVector(layers, whole.base, whole.base_fingerprint)


def ties(vectors: Mapping[str, ValueVector], weights: Mapping[str, float], *, density: float = 0.5) -> ValueVector:
    """Trim each ΔW_i to its largest entries, elect a sign per entry, average those who agree (arXiv:2306.01708).

    Weights and normalisation are mergekit's: the sign of an entry is that of Σ λ_i ΔW_i over the trimmed vectors
    (plus where that is zero), and the entry is the mean Σ λ_i ΔW_i / Σ λ_i over the vectors that have this sign. So
    only the ratios of the weights count, and a vector alone is that vector trimmed, whatever its weight. Trimming is
    per layer.

    Args:
        vectors: By name.
        weights: λ by name, none negative.
        density: Share of the entries of each ΔW_i that stay, in (0, 1].

    Raises:
        UserError: As compose; or a density out of range, or a negative weight.
    """
    _check_density(density)
    for name, weight in weights.items():
        if weight < 0:
            raise UserError(f"ties takes a weighted mean: the weight of '{name}' must be 0 or more, not {weight}.")

    def mean_of_the_elected(layer: str, deltas: dict[str, Tensor], lambdas: dict[str, float]) -> Tensor:
        trimmed = torch.stack([_trimmed(delta, density) for delta in deltas.values()])
        row = torch.tensor([lambdas[name] for name in deltas], device=trimmed.device)[:, None, None]
        weighted = row * trimmed
        elected = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
        agree = trimmed.sign() == elected
        total = (row * agree).sum(0)
        return (weighted * agree).sum(0) / torch.where(total > 0, total, 1.0)

    return _entrywise(vectors, weights, mean_of_the_elected)


def dare(
    vectors: Mapping[str, ValueVector], weights: Mapping[str, float], *, density: float = 0.5, seed: int = 0
) -> ValueVector:
    """Drop entries of each ΔW_i at random, divide the rest by the density, add up: Σ λ_i ΔW_i on average.

    Source: arXiv:2311.03099, with a linear sum. What is dropped depends on the seed, the vector's name and the layer
    alone: all candidates of a run lose the same entries.

    Args:
        vectors: By name.
        weights: λ by name.
        density: Probability that an entry stays, in (0, 1].
        seed: Of the draws.

    Raises:
        UserError: As compose; or a density out of range.
    """
    _check_density(density)

    def sum_of_what_stays(layer: str, deltas: dict[str, Tensor], lambdas: dict[str, float]) -> Tensor:
        parts = []
        for name, delta in deltas.items():
            digest = hashlib.sha256(f"{seed}/{name}/{layer}".encode()).digest()
            # Drawn on the CPU, so that a device changes nothing.
            draws = torch.rand(delta.shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
            parts.append(lambdas[name] / density * delta * (draws < density).to(delta.device))
        return torch.stack(parts).sum(0)

    return _entrywise(vectors, weights, sum_of_what_stays)


def magnitude(vectors: Mapping[str, ValueVector], weights: Mapping[str, float], *, density: float = 0.5) -> ValueVector:
    """Keep the largest entries of each ΔW_i, per layer, then add up: Σ λ_i trimmed ΔW_i.

    Args:
        vectors: By name.
        weights: λ by name.
        density: Share of the entries of each ΔW_i that stay, in (0, 1].

    Raises:
        UserError: As compose; or a density out of range.
    """
    _check_density(density)

    def sum_of_the_largest(layer: str, deltas: dict[str, Tensor], lambdas: dict[str, float]) -> Tensor:
        return torch.stack([lambdas[name] * _trimmed(delta, density) for name, delta in deltas.items()]).sum(0)

    return _entrywise(vectors, weights, sum_of_the_largest)


def slerp(vectors: Mapping[str, ValueVector], weights: Mapping[str, float]) -> ValueVector:
    """Go from ΔW_1 to ΔW_2 on the arc between them: (sin λ_1 Ω · ΔW_1 + sin λ_2 Ω · ΔW_2) / sin Ω.

    Ω is the angle of the two vectors over all layers. The result is in their plane, so it is a linear composition
    with other weights, of rank r_1 + r_2 and exact. Where |cos Ω| > 0.9995 or a vector is zero there is no arc, and
    the weights stay as they are, as in mergekit.

    Args:
        vectors: Two, by name.
        weights: λ_1 + λ_2 = 1, none negative.

    Raises:
        UserError: As compose; or other than two vectors, or weights off the simplex.
    """
    if len(vectors) != 2:
        raise UserError(f"slerp goes between two vectors, not {len(vectors)}; choose another way to compose.")
    row = weight_row(weights, list(vectors))
    compose(vectors, weights)  # refuses zero weights and different bases before anything else is asked
    if min(row) < 0 or abs(sum(row) - 1) > 1e-6:
        raise UserError(f"slerp's two weights must be 0 or more and sum to 1, not {row[0]:g} and {row[1]:g}.")
    one, other = vectors.values()
    lengths = math.sqrt(_product(one, one) * _product(other, other))
    cosine = _product(one, other) / lengths if lengths > 0 else 1.0
    if abs(cosine) <= PARALLEL:
        angle = math.acos(cosine)
        row = [math.sin(weight * angle) / math.sin(angle) for weight in row]
    return compose(vectors, dict(zip(vectors, row, strict=True)))


def _product(one: ValueVector, other: ValueVector) -> float:
    shared = [layer for layer in one.layers if layer in other.layers]
    return sum(inner(one.layers[layer], other.layers[layer]) for layer in shared)


def _entrywise(
    vectors: Mapping[str, ValueVector],
    weights: Mapping[str, float],
    mix: Callable[[str, dict[str, Tensor], dict[str, float]], Tensor],
) -> ValueVector:
    """Mix the dense ΔW_i of each layer; a vector that does not adapt it, or of weight 0, is not among them."""
    whole = compose(vectors, weights)  # its checks, its layers and its base
    layers = {}
    for layer in whole.layers:
        mine = _adapting(vectors, weights, layer)
        deltas = {name: factors.delta() for name, factors, _ in mine}
        layers[layer] = _exact(mix(layer, deltas, {name: weight for name, _, weight in mine}))
    return ValueVector(layers, whole.base, whole.base_fingerprint)


def _adapting(
    vectors: Mapping[str, ValueVector], weights: Mapping[str, float], layer: str
) -> list[tuple[str, Factors, float]]:
    """Return name, factors and weight of the vectors that adapt a layer and weigh something."""
    return [
        (name, vector.layers[layer], float(weights[name]))
        for name, vector in vectors.items()
        if weights.get(name, 0.0) != 0.0 and layer in vector.layers
    ]


def _exact(delta: Tensor) -> Factors:
    """Return factors of rank min(out, in) whose product is the matrix, digit by digit."""
    outputs, inputs = delta.shape
    identity = torch.eye(min(outputs, inputs), device=delta.device)
    return Factors(delta, identity, 1.0) if outputs <= inputs else Factors(identity, delta, 1.0)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    from peft.utils.merge_utils import magnitude_based_pruning

    kept: Tensor = magnitude_based_pruning(delta, density)
    return kept


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise UserError(f"density is the share of entries that stay: it must be above 0 and at most 1, not {density}.")
