"""How large a model is, layer by layer, from its configuration alone: no weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valuesoup.training.settings import PretrainSettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTISED = {"nf4": 0.5, "int8": 1.0}
"""Bytes of a quantised weight; the scales, about 2 % more of nf4, are left out."""


@dataclass(frozen=True)
class Size:
    """Sizes of a causal language model or a classifier on one.

    Attributes:
        parameters: All weights.
        embedding: Of these, what is looked up and not multiplied.
        hidden: Width.
        layers: Depth.
        inner: Width within a layer's feed-forward part.
        kv: Numbers of keys and values that a token leaves in each layer.
        vocabulary: Tokens.
        positions: Most tokens of a text.
        adapted: (in, out) features of every layer that a LoRA adapts.
        dtype: Of the checkpoint, where the configuration tells.
    """

    parameters: int
    embedding: int
    hidden: int
    layers: int
    inner: int
    kv: int
    vocabulary: int
    positions: int
    adapted: tuple[tuple[int, int], ...]
    dtype: str = "float32"

    @property
    def flops(self) -> float:
        """Floating-point operations of a forward pass, per token."""
        return 2.0 * (self.parameters - self.embedding)

    def weights(self, dtype: str, quantize: str | None = None) -> int:
        """Return the bytes of the weights, of which all but embeddings and output head may be quantised.

        Args:
            dtype: Of those that are not; ``auto`` is the checkpoint's.
            quantize: ``base.quantize``.
        """
        each = BYTES.get(self.dtype if dtype == "auto" else dtype, 4)
        if quantize is None:
            return self.parameters * each
        whole = self.vocabulary * self.hidden * (2 if self.embedding else 1)
        return round(whole * each + (self.parameters - whole) * QUANTISED[quantize])

    def lora(self, rank: int) -> int:
        """Return the parameters of a LoRA of this rank."""
        return rank * sum(inputs + outputs for inputs, outputs in self.adapted)


def size_of_config(
    config: Any,
    targets: Sequence[str] | None = None,
    *,
    classifier: bool = False,
    trust_remote_code: bool = False,
) -> Size:
    """Return the sizes of the model of a transformers configuration, built without memory.

    Args:
        config: Of the model.
        targets: ``training.target_modules``.
        classifier: Take it as a sequence classifier, which no LoRA adapts; else as a causal language model.
        trust_remote_code: Run code that comes with the model.

    Raises:
        valuesoup.errors.UserError: No layer matches the targets.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from valuesoup.soup.base import features, position_limit, target_layers

    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    head: Any = None if classifier else model.get_output_embeddings()
    table: Any = model.get_input_embeddings().weight
    parameters = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    tied = head is not None and bool(getattr(text, "tie_word_embeddings", False))
    if tied and head.weight is not table:
        parameters -= head.weight.numel()  # built apart, used as one
    heads = int(getattr(text, "num_attention_heads", 1))
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    inner = int(getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size)
    layers = [] if classifier else target_layers(model, targets)
    return Size(
        parameters=parameters,
        embedding=0 if tied else table.numel(),
        hidden=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        inner=inner,
        kv=2 * kv_heads * width,
        vocabulary=int(text.vocab_size),
        positions=position_limit(config),
        adapted=tuple(features(model.get_submodule(name)) for name in layers),
        dtype=str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
    )


def size_of_pretrain(settings: PretrainSettings) -> Size:
    """Return the sizes of a base that is made here, see :func:`valuesoup.training.pretrain.pretrain`."""
    hidden, inner = settings.hidden, settings.hidden * 8 // 3 // 32 * 32 or 32
    table = settings.vocabulary * hidden
    layer = 4 * hidden * hidden + 3 * hidden * inner
    return Size(
        parameters=2 * table + settings.layers * layer,
        embedding=table,
        hidden=hidden,
        layers=settings.layers,
        inner=inner,
        kv=2 * hidden,
        vocabulary=settings.vocabulary,
        positions=max(2048, settings.context),
        adapted=((hidden, hidden),) * (4 * settings.layers),
    )


def size_of_number(parameters: int) -> Size:
    """Return the sizes of a usual model of so many parameters, where no configuration is at hand."""
    hidden = max(64, round((parameters * 128 / 12) ** (1 / 3) / 64) * 64)
    layers = max(1, round(parameters / 12 / hidden**2))
    return Size(
        parameters=parameters,
        embedding=32_000 * hidden if parameters > 10**8 else 0,
        hidden=hidden,
        layers=layers,
        inner=round(hidden * 8 / 3),
        kv=2 * hidden,
        vocabulary=32_000,
        positions=4096,
        adapted=((hidden, hidden),) * (4 * layers),
        dtype="bfloat16",
    )


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Return the transformers configuration in a folder; its errors are transformers'."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)
