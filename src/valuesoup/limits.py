"""What cannot be: numbers and places that a setting may not name, what a machine or a model cannot do."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

REFUSALS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a model raises that cannot be computed in a way that is tried on it."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_address(path: str) -> bool:
    """Tell whether a text is a URL, which nothing is read from, and which may hold a key."""
    return _ADDRESS.match(path) is not None


def _no_address(path: str) -> str:
    if is_address(path):
        raise ValueError("give a folder, a file or a hub id, not an address")
    return path


Location = Annotated[str, AfterValidator(_no_address)]
"""A folder, a file or a hub id."""
Count = Annotated[int, Field(gt=0, le=10**9)]
"""How many there are of rows, prompts, tokens, words or steps; beyond it a number is a slip of the hand."""
Amount = Annotated[float, Field(gt=0, le=1e6)]
"""A factor, a rate or a time in seconds."""
Batch = Annotated[int, Field(gt=0, le=2**20)]
"""Rows computed at once."""
Rank = Annotated[int, Field(gt=0, le=2**16)]
"""Rank of a LoRA."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every generator of random numbers takes."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory is short, on a GPU or (there it has no class of its own) on a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def refusal(error: Exception) -> str:
    """Return what to call one of ``REFUSALS``; memory that is short says nothing of a model, and is raised again."""
    if out_of_memory(error):
        raise error
    return type(error).__name__


def loading_fault(error: Exception) -> str:
    """Return in words why a model's files do not load; memory that is short is no fault of theirs, and is raised again.

    Args:
        error: What transformers raised, and it raises whatever a damaged configuration makes Python raise.
    """
    if type(error).__name__ == "UnpicklingError":  # torch's advice would be to run what the file holds
        return "a torch file of it is damaged or holds more than weights, and nothing else is loaded"
    if isinstance(error, MemoryError) or out_of_memory(error):
        raise error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    kind = type(error).__name__
    if isinstance(error, AttributeError | LookupError | TypeError):  # of Python, which say little by themselves
        return f"{kind}: {told}" if told else kind
    return told or kind


def scaled_beyond(config: Any) -> int | None:
    """Return the tokens beyond which rotary embeddings depend on the length of the whole text; None: they never do.

    Of such a text no beginning stands for itself, and in a batch the longest text decides for all
    (``transformers.modeling_rope_utils.dynamic_rope_update``).

    Args:
        config: Of a model.
    """
    text = config.get_text_config()
    found = getattr(text, "rope_parameters", None) or {}
    # One setting for all layers, or one by their type.
    settings = [found, *(one for one in found.values() if isinstance(one, dict))]
    scaled = [one for one in settings if "dynamic" in str(one.get("rope_type")) or one.get("rope_type") == "longrope"]
    if not scaled:
        return None
    whole = getattr(text, "max_position_embeddings", None)
    given = [limit for one in scaled for limit in (one.get("original_max_position_embeddings"), whole)]
    return min((limit for limit in given if isinstance(limit, int)), default=0)
