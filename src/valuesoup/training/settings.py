"""Settings of training; defaults are the paper's (section 5.1.4)."""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from valuesoup.limits import Amount, Batch, Count, Rank


class TrainingSettings(BaseModel):
    """How every method's value vectors are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    rank: Rank = 64
    """LoRA rank: 64 for Anthropic-HH, 16 for BeaverTails in the paper."""
    alpha: Amount | None = None
    """LoRA alpha; by default twice the rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """LoRA dropout."""
    target_modules: tuple[str, ...] | None = None
    """Layers that the LoRA adapts, as in PEFT; by default the attention projections q, k, v, o."""
    beta: Amount = 0.1
    """DPO's β."""
    likelihood: float = Field(0.0, ge=0, le=1e6)
    """ρ: weight of the chosen responses' negative log-likelihood per token."""
    learning_rate: Amount = 1e-5
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "polynomial", "inverse_sqrt", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule, a transformers scheduler's name."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    batch_size: Batch = 2
    """Pairs per optimiser step."""
    accumulate: Batch = 1
    """Forward passes into which a step's pairs are divided; a divisor of ``batch_size``."""
    epochs: Amount = 3.0
    """Passes over the pairs."""
    max_length: Count = 1024
    """Longest prompt + response in tokens; a longer pair is dropped and counted, never cut."""
    max_grad_norm: float = Field(1.0, gt=0, le=1e30)
    """Gradient clipping."""
    evaluations: int = Field(1, gt=0, le=10**4)
    """Validation losses (and checkpoints) per epoch; the vector of the best one is kept."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass to save memory."""
    bf16: bool | Literal["auto"] = "auto"
    """Train in bfloat16 autocast; ``auto``: on a GPU that computes in it, and in float32 on a CPU."""
    report_to: tuple[str, ...] = ()
    """Trackers of transformers.Trainer, e.g. wandb, trackio, tensorboard, mlflow."""

    @model_validator(mode="after")
    def _accumulate_divides(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate = {self.accumulate} must divide batch_size = {self.batch_size}")
        return self

    @property
    def lora_alpha(self) -> float:
        """The alpha in force."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank

    def autocasts(self, device: str) -> bool:
        """Return whether training on a kind of device, such as ``cpu`` or ``cuda``, is in bfloat16 autocast."""
        if self.bf16 != "auto":
            return self.bf16
        if device != "cuda":
            return False
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))

    def steps(self, rows: int) -> int:
        """Return the optimiser steps of a training on that many rows."""
        return max(1, math.ceil(math.ceil(rows / self.batch_size) * self.epochs))


class PretrainSettings(BaseModel):
    """A small causal language model made here, for worlds and data without a pretrained base of the right size."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    tokenizer: str = Field("bpe", pattern="^(bpe|words)$")
    """``bpe`` (bytes, for real text) or ``words`` (for a world of few words)."""
    vocabulary: int = Field(4096, gt=0, le=10**7)
    """Entries of the tokenizer."""
    hidden: int = Field(256, gt=0, le=2**16)
    """Width."""
    layers: int = Field(4, gt=0, le=1000)
    """Depth."""
    heads: int = Field(4, gt=0, le=1000)
    """Attention heads; the width is an even multiple of them."""
    context: Count = 256
    """Tokens of a training sequence."""
    steps: Count = 500
    """Optimiser steps."""
    batch_size: Batch = 32
    """Sequences of a step."""
    learning_rate: Amount = 3e-3
    """Peak learning rate of AdamW, with 5 % warm-up and a cosine down."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden = {self.hidden} must be a multiple of 2 x heads = {2 * self.heads}")
        return self
