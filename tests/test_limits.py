"""Short memory told from other failures, and where positions begin to depend on a text's length."""

from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig, Phi3Config

from valuesoup.limits import out_of_memory, refusal, scaled_beyond

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 48,
    "long_factor": [2.0] * 48,
    "original_max_position_embeddings": 4096,
}


def test_memory_is_short_where_an_allocation_fails_and_nowhere_else() -> None:
    with pytest.raises(RuntimeError) as short:
        torch.empty(1 << 50)
    assert out_of_memory(short.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as wrong:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not out_of_memory(wrong.value)
    assert refusal(wrong.value) == "RuntimeError"
    with pytest.raises(RuntimeError, match="memory"):
        refusal(short.value)


def test_positions_are_scaled_beyond_the_length_that_the_base_was_first_trained_on() -> None:
    assert scaled_beyond(LlamaConfig()) is None
    assert scaled_beyond(LlamaConfig(rope_parameters=YARN, max_position_embeddings=64)) is None
    assert scaled_beyond(LlamaConfig(rope_parameters=DYNAMIC, max_position_embeddings=2048)) == 2048
    phi = Phi3Config(max_position_embeddings=131072, original_max_position_embeddings=4096, rope_parameters=LONG)
    assert scaled_beyond(phi) == 4096
    by_layer = {"full_attention": DYNAMIC, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    assert scaled_beyond(Gemma3TextConfig(rope_parameters=by_layer, max_position_embeddings=512)) == 512
