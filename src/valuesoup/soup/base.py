"""The frozen base model π_0: loading, its tokenizer, its fingerprint, and which of its layers a LoRA adapts."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from valuesoup.errors import UserError
from valuesoup.limits import loading_fault
from valuesoup.soup import quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The projections that the paper adapts (section 5.1.4)."""


def load_tokenizer(
    base: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase":
    """Load a tokenizer, with a padding token.

    Raises:
        UserError: There is none, or a damaged one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base), revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UserError(
            f"base '{base}' has no tokenizer that loads ({loading_fault(error)}); save one beside the model."
        ) from None
    if tokenizer is None or tokenizer.vocab_size == 0:
        raise UserError(f"base '{base}' has an empty tokenizer; save the right one beside the model.")
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of '{base}' has no end-of-sequence token; set eos_token in it.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    base: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
    quantize: str | None = None,
) -> "PreTrainedModel":
    """Load a causal language model for use as a frozen base: evaluation mode, no gradients, sdpa attention.

    Args:
        base: Hub id or local folder.
        revision: Hub revision.
        dtype: A torch dtype by name, or ``auto`` for the checkpoint's own; of a quantised base, of all else.
        device: Where to put it.
        trust_remote_code: Run code that comes with the model.
        quantize: Keep the weights of linear layers in 4 bits (``nf4``) or 8 (``int8``), by bitsandbytes.

    Raises:
        UserError: No such model or dtype, a damaged file, weights that are not all of a causal language model, or no
            bitsandbytes for such weights on this device.
    """
    from transformers import AutoModelForCausalLM

    path = Path(base)
    if path.is_absolute() and not path.exists():
        raise UserError(f"base '{base}' does not exist; give a local folder or a hub id.")
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"'{dtype}' is no torch dtype; give float32, bfloat16, float16 or auto.")
    options = {} if quantize is None else quantised.loading_options(quantize, dtype=dtype, device=device)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(base),
            revision=revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise UserError(f"base '{base}' does not load ({loading_fault(error)}).") from None
    if found["missing_keys"]:
        # transformers would draw them at random and only warn.
        raise UserError(
            f"base '{base}' has no weights for {min(found['missing_keys'])}: it is not a whole causal language model."
        )
    model.requires_grad_(False).eval()
    return model.to(device) if quantize is None else quantised.settle(model)


def position_limit(config: Any) -> int:
    """Return the most tokens that a model takes, from its configuration; no limit where it names none."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        if isinstance(limit := getattr(text, name, None), int) and limit > 0:
            return limit
    return sys.maxsize


def target_layers(model: nn.Module, targets: Sequence[str] | None = None) -> list[str]:
    """Return the names of the linear layers that a LoRA adapts, in the model's order.

    Args:
        model: The base.
        targets: Layer names or endings, as PEFT's ``target_modules``. None takes the attention projections where
            the model has them (the paper's choice), else PEFT's own default for the architecture.

    Raises:
        UserError: Nothing matches; the sentence names what the model has.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    linear = {name: module for name, module in model.named_modules() if _is_linear(module)}
    endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if targets is None:
        kind = getattr(getattr(model, "config", None), "model_type", "")
        targets = [name for name in ATTENTION if name in endings] or list(DEFAULTS.get(kind, []))
    config = LoraConfig(target_modules=list(targets)) if targets else None
    found = [name for name in linear if config is not None and check_target_module_exists(config, name)]
    if not found:
        raise UserError(
            f"no linear layer matches target_modules {list(targets)}; this model has layers ending in "
            f"{', '.join(endings)}."
        )
    return found


def label(base: str) -> str:
    """Return the last part of a hub id or path; of a folder in the hub's cache, the model's name."""
    cached = [part for part in Path(base).parts if part.startswith("models--")]
    return cached[-1].rpartition("--")[2] if cached else Path(base).name


def features(layer: nn.Module) -> tuple[int, int]:
    """Return (in, out) features of a linear layer, also of GPT-2's transposed one and of quantised ones."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return int(weight.shape[0]), int(weight.shape[1])  # Conv1D keeps (in, out)


def fingerprint_weights(model: "PreTrainedModel") -> str | None:
    """Return a hash of a sample of the weights of all linear layers but the output head.

    It says which base this is, whatever layers an adapter has, and is the same whether the checkpoint is loaded in
    its own dtype or in float32.

    None for quantised weights, which have no comparable numbers.
    """
    digest = hashlib.sha256()
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if not _is_linear(module) or module is head:
            continue
        weight = module.weight
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            return None
        if isinstance(weight, DTensor):  # divided among processes, which all come here
            weight = weight.full_tensor()
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
        digest.update(f"{name}{tuple(weight.shape)}".encode() + _rounded(sample))
    return digest.hexdigest()[:16]


def _rounded(sample: torch.Tensor) -> bytes:
    # bfloat16 is the shortest common dtype; what was stored in it, rounds to itself.
    return sample.to(torch.bfloat16).view(torch.int16).numpy().tobytes()


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)
