"""MVA's penalty: how much two values' LoRA A factors depend on each other, measured by HSIC and summed over layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from valuesoup.errors import UserError

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup
    from valuesoup.soup.vector import ValueVector


@dataclass(frozen=True)
class LayerHSIC:
    """How dependent two value vectors are in one layer.

    Attributes:
        layer: The layer's name.
        first: One value.
        second: The other value.
        hsic: HSIC(A_i, A_j), 0 where the factors are independent.
    """

    layer: str
    first: str
    second: str
    hsic: float


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """Return tr(K H L H) / r² with Gaussian kernels (σ = 1) over the r rows of two LoRA A factors (arXiv:2511.17579).

    K_ab = exp(−‖a − b‖² / 2) over the rows of ``first``, L likewise over those of ``second``, H = I − 11ᵀ/r.
    Symmetric, between 0 and 1/4, differentiable everywhere; computed in float32 or better, also under autocast.

    Args:
        first: (…, r, d), leading dimensions are a batch.
        second: (…, r, d'), the same batch.

    Returns:
        (…) values.

    Raises:
        UserError: The ranks r differ.
    """
    if first.shape[-2] != second.shape[-2]:
        raise UserError(
            f"HSIC compares A factors of equal rank, not of ranks {first.shape[-2]} and {second.shape[-2]}; "
            "train every value with the same rank."
        )
    return _dependence(_centred_kernel(first), _centred_kernel(second))


def layer_hsic(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the HSIC of each layer; layers of equal shape are computed in one batch.

    Args:
        first: (r, d) per layer, in layer order; r and d may differ between layers.
        second: Those of the other vector, in the same order.

    Returns:
        (layers,) values.

    Raises:
        UserError: In a layer, the ranks r differ.
        ValueError: The numbers of layers differ, or there is none.
    """
    return torch.stack(_batched(hsic, first, second))


@dataclass(frozen=True)
class Decorrelation:
    """The penalty α · Σ_layers Σ_{i<j} HSIC(A_i, A_j) on the vectors in training (arXiv:2511.17579).

    Sequential mode trains one vector against frozen earlier ones, joint mode several vectors against each other;
    both together are the pairs of each: (frozen, trained) and (trained, trained). No pair, no penalty.

    Attributes:
        names: The soup's vectors in training.
        alpha: α; the paper's is 10.
        against: A factors of earlier vectors by name, in the soup's layer order; constants.
    """

    names: Sequence[str]
    alpha: float = 10.0
    against: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    _kept: dict[torch.device, dict[str, list[Tensor]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if twice := [name for name in self.names if name in self.against]:
            raise ValueError(f"a vector is either in training or frozen, not both: {', '.join(twice)}")

    def penalty(self, soup: "Soup") -> Tensor:
        """Return the penalty as the soup's factors are now, a scalar with gradients to the A of ``names``.

        Raises:
            UserError: In a layer, the ranks of two compared factors differ; it names layer and vectors.
        """
        values = [value.sum() for _, _, value in self._values(soup)]
        if not values:
            return torch.zeros((), device=_device(soup))
        return self.alpha * torch.stack(values).sum()

    @torch.no_grad()
    def per_layer(self, soup: "Soup") -> list[LayerHSIC]:
        """Return the HSIC of every compared pair in every layer as the soup's factors are now, without α.

        Raises:
            UserError: In a layer, the ranks of two compared factors differ.
        """
        return [
            LayerHSIC(layer, first, second, value)
            for first, second, values in self._values(soup)
            for layer, value in zip(soup.layer_names, values.tolist(), strict=True)
        ]

    def _values(self, soup: "Soup") -> Iterator[tuple[str, str, Tensor]]:
        """Yield each compared pair with its (layers,) values; every vector's kernels are computed once."""
        # parameters_of alternates A and B.
        kernels = {name: _batched(_centred_kernel, soup.parameters_of([name])[::2]) for name in self.names}
        frozen = self._frozen(_device(soup))
        pairs = [(old, new) for old in frozen for new in kernels] + list(combinations(kernels, 2))
        for first, second in pairs:
            one, other = frozen[first] if first in frozen else kernels[first], kernels[second]
            for layer, K, L in zip(soup.layer_names, one, other, strict=True):
                if len(K) != len(L):
                    raise UserError(
                        f"'{first}' has rank {len(K)} and '{second}' rank {len(L)} in layer {layer}: decorrelated "
                        "vectors need equal ranks; train every value with the same rank."
                    )
            yield first, second, torch.stack(_batched(_dependence, one, other))

    @torch.no_grad()
    def _frozen(self, device: torch.device) -> dict[str, list[Tensor]]:
        if device not in self._kept:
            self._kept[device] = {
                name: _batched(_centred_kernel, [A.to(device) for A in factors])
                for name, factors in self.against.items()
            }
        return self._kept[device]


def vector_hsic(vectors: "Mapping[str, ValueVector]") -> list[LayerHSIC]:
    """Return the HSIC of every two finished vectors in every layer that both adapt with equal ranks, in float64.

    A layer that one of the two does not adapt, or adapts with another rank, has no row.
    """
    rows = []
    for (first, a), (second, b) in combinations(vectors.items(), 2):
        shared = [name for name in a.layers if name in b.layers and a.layers[name].rank == b.layers[name].rank]
        if shared:
            values = layer_hsic(
                [a.layers[name].A.double() for name in shared], [b.layers[name].A.double() for name in shared]
            )
            rows += [LayerHSIC(name, first, second, value) for name, value in zip(shared, values.tolist(), strict=True)]
    return rows


def _device(soup: "Soup") -> torch.device:
    device: torch.device = soup.model.get_input_embeddings().weight.device
    return device


def _centred_kernel(rows: Tensor) -> Tensor:
    """Return H K H of the Gaussian kernel over rows, (…, r, d) to (…, r, r)."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    with torch.autocast(rows.device.type, enabled=False):
        # Distances do not change with a shift, but near the origin the Gram matrix loses fewer digits.
        near = rows - rows.mean(-2, keepdim=True)
        gram = near @ near.mT
    # Lengths from the Gram matrix itself: a row's distance to itself is then exactly zero.
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    squares = (lengths[..., :, None] + lengths[..., None, :] - 2 * gram).clamp(min=0)
    kernel = torch.exp(-squares / 2)
    return kernel - kernel.mean(-1, keepdim=True) - kernel.mean(-2, keepdim=True) + kernel.mean((-2, -1), keepdim=True)


def _dependence(first: Tensor, second: Tensor) -> Tensor:
    """Return tr(HKH · HLH) / r² of centred kernels, which is tr(K H L H) / r² as HH = H."""
    return (first * second).mean((-2, -1))


def _batched(function: Callable[..., Tensor], *columns: Sequence[Tensor]) -> list[Tensor]:
    """Apply a batched function to the tensors of each layer, with one call for all layers of equal shapes."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for place, row in enumerate(zip(*columns, strict=True)):
        groups.setdefault(tuple(tensor.shape for tensor in row), []).append(place)
    found: dict[int, Tensor] = {}
    for places in groups.values():
        results = function(*(torch.stack([column[place] for place in places]) for column in columns))
        found.update(zip(places, results.unbind(), strict=True))
    return [found[place] for place in range(len(found))]
