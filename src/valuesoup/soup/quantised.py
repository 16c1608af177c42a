"""A base whose frozen weights bitsandbytes keeps in 4 bits (nf4, as QLoRA) or 8 (int8, as LLM.int8()).

Only the weights of linear layers below the output head are quantised; embeddings, norms, biases and the head are not.
The vectors on top are float32 as ever.
"""

import logging
from typing import TYPE_CHECKING, Any

import torch

from valuesoup.errors import UserError, did_you_mean
from valuesoup.limits import REFUSALS, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("nf4", "int8")
"""4-bit NormalFloat with double quantisation (Dettmers et al., arXiv:2305.14314), and 8-bit integers with activation
outliers apart (Dettmers et al., arXiv:2208.07339)."""
BLOCK = 64
"""Weights with a scale of their own, of nf4."""


def loading_options(kind: str, *, dtype: str, device: str | torch.device) -> dict[str, Any]:
    """Return what transformers' ``from_pretrained`` takes to quantise while it reads: one weight at a time, in place.

    Args:
        kind: One of ``KINDS``.
        dtype: Of what is not quantised, by name. nf4's products are computed in float16 where this is float16, else
            in bfloat16, as in QLoRA; int8's are those of integers.
        device: Where to put the model; it cannot be moved afterwards.

    Raises:
        UserError: No such kind, or bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"weights cannot be quantised as '{kind}'{did_you_mean(kind, KINDS)}")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise UserError(f"quantize: {kind} needs the package bitsandbytes: pip install 'valuesoup[qlora]'.") from None
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float16 if dtype == "float16" else torch.bfloat16,
        )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def settle(model: "PreTrainedModel") -> "PreTrainedModel":
    """Make a model that was loaded with :func:`loading_options` fit to train on, in place.

    Raises:
        UserError: Its files were quantised already, or bitsandbytes does not compute it on this device, or wrongly.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    name, device = model.name_or_path, model.device.type
    if model.hf_quantizer.pre_quantized:
        raise UserError(f"base '{name}' is stored quantised already; leave quantize out.")
    # int8 products tell each time that they round their input to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, Linear4bit | Linear8bitLt)}
    for path, layer in layers.items():
        if isinstance(layer, Linear4bit):
            # Seen with bitsandbytes 0.50: widths of 32, 96 or 1376 come out with a quarter of error and more.
            if device == "cpu" and layer.in_features % BLOCK:
                raise UserError(
                    f"layer {path} of base '{name}' is {layer.in_features} wide, and on a CPU bitsandbytes computes "
                    f"nf4 right only in multiples of {BLOCK}; leave quantize out, or take int8."
                )
            # On CPUs with bfloat16 instructions a pass without gradients would repack the weights for a product that
            # has no gradient: the layers below would not be trained any more, and nothing would say so.
            layer.support_avx512bf16_for_cpu = False
    for layer in [*layers.values()][:1]:
        try:
            with torch.no_grad():
                layer(torch.ones(1, 2, layer.in_features, dtype=model.dtype, device=model.device))
        except REFUSALS as error:
            raise UserError(
                f"quantised layers of base '{name}' do not run on {device} here ({refusal(error)}: "
                f"{str(error).partition(chr(10))[0]}); leave quantize out, or take another device."
            ) from None
    return model


def is_exact(model: "PreTrainedModel") -> bool:
    """Return whether a base computes in float32: what should agree then agrees closely, else only to 16 bits."""
    return bool(model.dtype == torch.float32 and not getattr(model, "is_quantized", False))
