"""What a machine or a model cannot do: memory that is short, refused ways to compute, positions that are scaled."""

from typing import Any

REFUSALS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a model raises that cannot be computed in a way that is tried on it."""


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
    """Return in words why a model's files do not load; what is no fault of theirs is raised again.

    Args:
        error: What transformers raised.
    """
    from safetensors import SafetensorError

    if type(error).__name__ == "UnpicklingError":  # torch's advice would be to run what the file holds
        return "a torch file of it is damaged or holds more than weights, and nothing else is loaded"
    if not isinstance(error, OSError | ValueError | KeyError | RuntimeError | SafetensorError) or out_of_memory(error):
        raise error
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
