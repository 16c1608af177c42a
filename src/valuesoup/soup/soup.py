"""The one idea: a soup is one LoRA whose rank blocks carry a weight, and the weight may differ per row of a batch.

For a layer W with value vectors (A_1, B_1) … (A_n, B_n),

    y = x W + ((x Aᵀ) ⊙ λ_row) Bᵀ,      A stacked, B side by side, λ_row spread over the rank blocks,

is x (W + Σ λ_i s_i B_i A_i) for that row, exactly. So one forward pass serves everything: a one-hot row trains one
value, rows of different values train several in a pass, a zero row is the reference policy, rows with different λ
evaluate many candidates at once without merging anything, and a slider is a row.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from valuesoup.errors import UserError
from valuesoup.soup import base as bases
from valuesoup.soup.composition import compose, weight_row
from valuesoup.soup.dropout import Dropout
from valuesoup.soup.vector import Factors, ValueVector

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from valuesoup.data.pairs import Message


class RowWeights:
    """The weights of the rows now in the forward pass, shared by all layers of a soup."""

    def __init__(self) -> None:
        """Start at the base: no weights."""
        self.rows: Tensor | None = None
        self._spread: dict[tuple[tuple[int, float], ...], Tensor] = {}

    def set(self, rows: Tensor | None) -> None:
        """Take the weights of the next forward pass, (rows, n) or (1, n) for all rows; None is the base.

        They stay until the next call: gradient checkpointing runs the layers again during backward.
        """
        self.rows = rows
        self._spread.clear()

    def spread(self, blocks: tuple[tuple[int, float], ...]) -> Tensor | None:
        """Return λ_i·s_i repeated over the rank blocks, shape (rows, 1, Σ ranks), once per forward pass.

        Args:
            blocks: (rank, scale) of each vector in the layer.
        """
        if self.rows is None:
            return None
        if blocks not in self._spread:
            ranks = torch.tensor([rank for rank, _ in blocks], device=self.rows.device)
            scales = self.rows.new_tensor([scale for _, scale in blocks])
            self._spread[blocks] = torch.repeat_interleave(self.rows * scales, ranks, dim=1)[:, None, :]
        return self._spread[blocks]


class SoupLinear(nn.Module):
    """A frozen linear layer of the base with the weighted rank blocks of every vector on top."""

    def __init__(self, layer: nn.Module, rows: RowWeights, dropout: float = 0.0) -> None:
        """Wrap a layer.

        Args:
            layer: Any module that maps (rows, tokens, in) to (rows, tokens, out); it is only called.
            rows: The soup's row weights.
            dropout: Of the adapters' input, in training.
        """
        super().__init__()
        self.layer = layer
        self.row_weights = rows
        self.dropout = Dropout(dropout)
        self.A = nn.ParameterDict()
        self.B = nn.ParameterDict()
        self.scales: dict[str, float] = {}
        self._stacked: tuple[tuple[tuple[int, int], ...], Tensor, Tensor] | None = None

    def add(self, name: str, factors: Factors) -> None:
        """Append the rank block of a vector."""
        self.A[name] = nn.Parameter(factors.A)
        self.B[name] = nn.Parameter(factors.B)
        self.scales[name] = factors.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + ((x Aᵀ) ⊙ λ_row) Bᵀ, shape (rows, tokens, out)."""
        y: Tensor = self.layer(x)
        if not self.scales:
            return y
        blocks = tuple((self.A[name].shape[0], scale) for name, scale in self.scales.items())
        coefficients = self.row_weights.spread(blocks)
        if coefficients is None:
            return y
        if x.dim() != 3:
            raise UserError(
                f"a layer of the base sees inputs of shape {tuple(x.shape)}, not (rows, tokens, features), so its "
                "weights cannot differ per row; leave such layers (experts, flattened ones) out of target_modules."
            )
        A, B = self._stack()
        h = functional.linear(self.dropout(x.to(A.dtype)), A) * coefficients.to(A.dtype)
        return y + functional.linear(h, B).to(y.dtype)

    def _stack(self) -> tuple[Tensor, Tensor]:
        if len(self.scales) == 1:
            (name,) = self.scales
            return self.A[name], self.B[name]
        factors = (*self.A.values(), *self.B.values())
        if any(p.requires_grad for p in factors):
            # A fused optimiser changes factors without raising their version: keep nothing while any is trained.
            self._stacked = None
            return torch.cat(list(self.A.values())), torch.cat(list(self.B.values()), dim=1)
        # Frozen factors are stacked once, until one is loaded anew or moved.
        state = tuple((p.data_ptr(), p._version) for p in factors)
        if self._stacked is None or self._stacked[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._stacked = (state, torch.cat(list(self.A.values())), torch.cat(list(self.B.values()), dim=1))
        return self._stacked[1], self._stacked[2]


def take_apart(model: "PreTrainedModel") -> "PreTrainedModel":
    """Give a base back as it was loaded, when the soup that it was in is not used any more."""
    for name, module in list(model.named_modules()):
        if isinstance(module, SoupLinear):
            model.set_submodule(name, module.layer)
        elif getattr(module, "gradient_checkpointing", False):
            module.gradient_checkpointing = False
    return model.requires_grad_(False).eval()


class Soup(nn.Module):
    """A base model and its value vectors, mixed per row.

    The base is frozen; the vectors' factors are the parameters. Adapters of another base, or not linear in their
    weights, are refused.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        *,
        layers: Iterable[str],
        dropout: float = 0.0,
    ) -> None:
        """Put the weighted blocks into a loaded base, in place, in evaluation mode.

        Args:
            model: The base; its layers are wrapped, its own weights are not changed.
            tokenizer: Needed to generate from text.
            layers: Names of the linear layers to adapt.
            dropout: LoRA dropout in training.

        Raises:
            UserError: The model already is in a soup.
        """
        super().__init__()
        if any(isinstance(module, SoupLinear) for module in model.modules()):
            raise UserError("this base already is in a soup; load it again for another one.")
        self.layer_names = list(layers)
        self.base_fingerprint = bases.fingerprint_weights(model)
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.base_name = str(getattr(model.config, "_name_or_path", ""))
        self.names: list[str] = []
        self.row_weights = RowWeights()
        for name in self.layer_names:
            parent, _, child = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, child, SoupLinear(getattr(owner, child), self.row_weights, dropout))
        self.eval()

    @classmethod
    def from_adapters(
        cls,
        base: "str | Path | PreTrainedModel",
        adapters: Mapping[str, str | Path | ValueVector],
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        trust_remote_code: bool = False,
    ) -> "Soup":
        """Load a base and PEFT LoRA adapters on it.

        Args:
            base: Hub id, folder, or a loaded causal language model.
            adapters: A folder or a vector by the value's name; the order is the order of the weights.
            tokenizer: Of the base; loaded with it by default.
            dtype: Of the base, by name; the adapters compute in float32.
            device: Where to compute.
            trust_remote_code: Run code that comes with the model.

        Raises:
            UserError: No adapters, an adapter that is not linear, or one that belongs to another base.
        """
        if not adapters:
            raise UserError("a soup needs at least one adapter.")
        if isinstance(base, str | Path):
            model = bases.load_model(base, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
            tokenizer = tokenizer or bases.load_tokenizer(base, trust_remote_code=trust_remote_code)
        else:
            model = base
        vectors = {
            name: item if isinstance(item, ValueVector) else ValueVector.load(item) for name, item in adapters.items()
        }
        known = [name for name, module in model.named_modules() if hasattr(module, "weight")]
        for name, vector in vectors.items():
            for layer in vector.layers:
                if layer not in known:
                    raise UserError(f"adapter '{name}' adapts layer {layer}, which the base does not have.")
        adapted = {layer for vector in vectors.values() for layer in vector.layers}
        soup = cls(model, tokenizer, layers=[name for name in known if name in adapted])
        for name, vector in vectors.items():
            soup.add(name, vector)
        return soup

    def add(self, name: str, vector: ValueVector) -> None:
        """Add a copy of a value vector; a layer that it does not adapt counts as zero.

        Raises:
            UserError: The name is taken, or the vector belongs to another base or adapts another layer than the soup.
        """
        if name in self.names:
            raise UserError(f"the soup already has a vector '{name}'; give each its own name.")
        if "." in name or not name:
            raise UserError(f"'{name}' cannot name a vector: a name is not empty and holds no dot.")
        for layer, factors in vector.layers.items():
            if layer not in self.layer_names:
                raise UserError(f"adapter '{name}' adapts layer {layer}, which this soup does not.")
            inputs, outputs = bases.features(self._layer(layer).layer)
            if factors.A.shape[1] != inputs or factors.B.shape[0] != outputs:
                raise UserError(
                    f"adapter '{name}' does not fit layer {layer}: it maps {factors.A.shape[1]} to "
                    f"{factors.B.shape[0]} features, the base {inputs} to {outputs}; another base?"
                )
        if None not in (vector.base_fingerprint, self.base_fingerprint):
            same = vector.base_fingerprint == self.base_fingerprint
        else:
            same = not vector.base or not self.base_name or bases.label(vector.base) == bases.label(self.base_name)
        if not same:
            raise UserError(
                f"adapter '{name}' was trained on another base ('{vector.base}') than this one ('{self.base_name}')."
            )
        for layer in self.layer_names:
            module = self._layer(layer)
            inputs, outputs = bases.features(module.layer)
            factors = vector.layers.get(layer) or Factors(torch.zeros(1, inputs), torch.zeros(outputs, 1), 1.0)
            device = next(module.layer.parameters()).device
            A, B = (f.detach().to(device, torch.float32, copy=True) for f in (factors.A, factors.B))
            module.add(name, Factors(A, B, factors.scale))
        self.names.append(name)
        self.requires_grad_(False)

    def add_fresh(self, name: str, *, rank: int, alpha: float, seed: int) -> None:
        """Add a vector to train: B = 0, A from Kaiming's uniform distribution as PEFT draws it.

        A depends on the seed and the layer alone, so all vectors of one seed share their initialisation.
        """
        layers = {}
        for layer in self.layer_names:
            module = self._layer(layer)
            inputs, outputs = bases.features(module.layer)
            digest = hashlib.sha256(f"{seed}/{layer}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            A = torch.empty(rank, inputs)
            nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
            layers[layer] = Factors(A, torch.zeros(outputs, rank), alpha / rank)
        self.add(name, ValueVector(layers, self.base_name, self.base_fingerprint))

    def forward(self, weights: Tensor | None, **inputs: Any) -> Any:
        """Run the base with these rows of weights.

        Args:
            weights: (rows, n) in the order of ``names``, (1, n) for all rows, or None for the base.
            inputs: What the base's forward takes.

        Returns:
            The base's output.
        """
        if weights is not None:
            given = next(iter(inputs.values()))
            if weights.dim() != 2 or weights.shape[1] != len(self.names) or weights.shape[0] not in (1, len(given)):
                raise ValueError(f"weights must be ({len(given)}, {len(self.names)}), not {tuple(weights.shape)}")
        self.row_weights.set(weights)
        return self.model(**inputs)

    def train(self, mode: bool = True) -> "Soup":
        """Switch the adapters' dropout; the base itself always stays in evaluation mode, as its reference is."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        super().train(False)
        for module in self.modules():
            if isinstance(module, SoupLinear):
                module.dropout.train(mode)
            elif isinstance(module, GradientCheckpointingLayer):
                module.training = mode  # the layer alone, not what is in it: it checkpoints only in training
        self.training = mode
        return self

    def parameters_of(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Return the factors of the named vectors, A and B of each layer in order."""
        wanted = list(names)
        layers = [self._layer(layer) for layer in self.layer_names]
        return [factors[name] for layer in layers for name in wanted for factors in (layer.A, layer.B)]

    def _layer(self, name: str) -> SoupLinear:
        module = self.model.get_submodule(name)
        assert isinstance(module, SoupLinear)
        return module

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them (gradient checkpointing)."""
        newer = getattr(self.model, "activation_checkpointing_enable", None)
        enable = newer or self.model.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # newer transformers warn of the older name

    def vector(self, name: str) -> ValueVector:
        """Return a copy of one value vector as it is now, on the CPU."""
        weight_row({name: 1.0}, self.names)
        layers = {}
        for layer in self.layer_names:
            module = self._layer(layer)
            A, B = module.A[name].detach().cpu().clone(), module.B[name].detach().cpu().clone()
            layers[layer] = Factors(A, B, module.scales[name])
        return ValueVector(layers, self.base_name, self.base_fingerprint)

    def adapter(self, weights: Mapping[str, float]) -> ValueVector:
        """Return the soup at these weights as one exact adapter of rank Σ r_i (Eq. 17).

        Raises:
            UserError: An unknown value, or only zero weights.
        """
        return compose({name: self.vector(name) for name in self.names}, weights)

    def weight_rows(self, weights: Mapping[str, float] | Sequence[Mapping[str, float]], count: int) -> Tensor:
        """Return (count, n) weights from one mapping for all rows or one mapping per row.

        Raises:
            UserError: An unknown value, or another number of mappings than ``count``.
        """
        each = [weights] * count if isinstance(weights, Mapping) else list(weights)
        if len(each) != count:
            raise UserError(f"{len(each)} mappings of weights were given for {count} prompts; give one, or one each.")
        return torch.tensor([weight_row(row, self.names) for row in each]).float().reshape(count, len(self.names))

    def generate(
        self,
        prompts: "Sequence[str | Sequence[Message]]",
        weights: Mapping[str, float] | Sequence[Mapping[str, float]],
        *,
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        seed: int = 0,
        batch_rows: int = 96,
    ) -> list[str]:
        """Answer prompts, each at its own weights, many in one batch.

        Args:
            prompts: Texts (each one user turn) or conversations.
            weights: One mapping for all prompts, or one per prompt; values left out weigh 0.
            max_new_tokens: The longest answer.
            temperature: 0 takes the likeliest token.
            seed: Of the draws; a row's draws depend on the seed and its place in ``prompts``, not on the batch.
            batch_rows: Rows in a forward pass.

        Returns:
            The answers' texts, in the order of the prompts.

        Raises:
            UserError: An unknown value, a wrong number of weights, or a soup without a tokenizer.
        """
        from valuesoup.data.templates import render_prompt
        from valuesoup.soup.generation import Row, generate

        if self.tokenizer is None:
            raise UserError("this soup has no tokenizer; give one to generate from text.")
        table = self.weight_rows(weights, len(prompts))
        rows = []
        for place, (prompt, row) in enumerate(zip(prompts, table.tolist(), strict=True)):
            messages: Sequence[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            text = render_prompt(messages, self.tokenizer)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            rows.append(Row(tuple(ids), tuple(row), seed=seed * 1_000_003 + place))
        answers = generate(self, rows, max_new_tokens=max_new_tokens, temperature=temperature, batch_rows=batch_rows)
        return [self.tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in answers]
