"""One candidate multiplied out: W + Σ λ_i s_i B_i A_i in each adapted layer, for many prompts at the same weights.

Per-row weights mix candidates in one forward pass and pay for the factors at each token. Where the factors are large
against the base and a candidate has prompts enough to keep the slots full, composing it once is cheaper.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from valuesoup.soup.soup import SoupLinear

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

LEAST_ROWS = 128
"""Rows of a candidate from which composing can pay: with 50 the slots that run empty at its end cost all of it."""
LEAST_SHARE = 0.15
"""Multiplications of the factors per token, of those of the base, from which composing can pay."""


class Composed:
    """A soup at one row of weights. The base's own weights are not touched: its layers are called past them."""

    def __init__(self, soup: "Soup", weights: Sequence[float]) -> None:
        """Multiply the layers out, in float32.

        Args:
            soup: A soup for which :func:`composes` is true.
            weights: One for each vector.
        """
        self.model = soup.model
        self.tokenizer = soup.tokenizer
        self._soup = soup
        self._forwards: list[tuple[SoupLinear, Callable[[Tensor], Tensor]]] = []
        for module in _layers(soup):
            layer: Any = module.layer
            whole = _matrix(layer).detach().clone()
            for name, share in zip(soup.names, weights, strict=True):
                if share != 0:
                    whole.addmm_(module.B[name].detach(), module.A[name].detach(), alpha=share * module.scales[name])
            self._forwards.append((module, partial(functional.linear, weight=whole, bias=layer.bias)))

    def __call__(self, _: Tensor | None, **inputs: Any) -> Any:
        """Run the base with the composed layers; takes what the soup's own forward takes."""
        try:
            for module, forward in self._forwards:
                module.__dict__["forward"] = forward
            return self._soup(None, **inputs)
        finally:
            for module, _forward in self._forwards:
                module.__dict__.pop("forward", None)


def composes(soup: "Soup", rows: float) -> bool:
    """Return whether a candidate is better composed than mixed per row; the soup and the job alone decide.

    Only for float32 bases in plain layers: in 16 bits the composed weights would be rounded.

    Args:
        soup: The soup.
        rows: To be written for each candidate.
    """
    from transformers.pytorch_utils import Conv1D

    layers = _layers(soup)
    if rows < LEAST_ROWS or hasattr(soup.model, "hf_device_map"):
        return False
    if any(type(m.layer) not in (nn.Linear, Conv1D) or m.layer.weight.dtype != torch.float32 for m in layers):
        return False
    factors = sum(factor.numel() for module in layers for factor in (*module.A.values(), *module.B.values()))
    matrices = {id(p): p.numel() for p in soup.model.parameters() if p.dim() == 2}
    head = soup.model.get_output_embeddings()
    embedding = soup.model.get_input_embeddings().weight
    if head is None or head.weight is not embedding:
        del matrices[id(embedding)]
    base: int = sum(matrices.values()) - factors
    return bool(factors >= LEAST_SHARE * base)


def _layers(soup: "Soup") -> list[SoupLinear]:
    return [module for module in soup.modules() if isinstance(module, SoupLinear)]


def _matrix(layer: Any) -> Tensor:
    """Return a layer's weight as (out, in)."""
    weight: Tensor = layer.weight
    return weight if isinstance(layer, nn.Linear) else weight.T
