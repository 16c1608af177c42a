"""Tiny models for tests: random weights, a word tokenizer, no downloads."""

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = 60
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<user> ' + m['content'] + ' ' }}"
    "{% else %}{{ '<asst> ' + m['content'] + ' </s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<asst> ' }}{% endif %}"
)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<user>", "<asst>", "<unk>"] + [f"w{i}" for i in range(WORDS)]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<asst>"]})
    made.chat_template = TEMPLATE
    return made


def llama(seed: int = 0, *, layers: int = 2, hidden: int = 32, vocab: int = WORDS + 5) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def save_base(folder: Path, seed: int = 0) -> Path:
    """Write a tiny base with its tokenizer as a Hugging Face folder."""
    llama(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def random_vector(model: Any, seed: int, *, rank: int = 4, scale: float = 2.0, std: float = 0.2) -> Any:
    """A value vector over the attention projections with random factors."""
    import torch

    from valuesoup.soup import Factors, ValueVector, target_layers
    from valuesoup.soup.base import features

    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name in target_layers(model):
        inputs, outputs = features(model.get_submodule(name))
        layers[name] = Factors(
            std * torch.randn(rank, inputs, generator=generator),
            std * torch.randn(outputs, rank, generator=generator),
            scale,
        )
    return ValueVector(layers)


def family(kind: str, seed: int = 0) -> Any:
    """A tiny random model of a transformers family, with dropout where its configuration has it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    common = {
        "vocab_size": WORDS + 5,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}  # its dropouts are 0.1 by default
    if kind in ("mistral", "gemma2"):
        sizes["sliding_window"] = 6
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **common, **sizes)).eval()


def merged(model: Any, terms: Sequence[tuple[Any, float]]) -> Any:
    """A float64 copy of a model with W + Σ λ s B A, each product formed densely."""
    import torch
    from torch import nn

    dense = copy.deepcopy(model).double()
    with torch.no_grad():
        for vector, weight in terms:
            for name, factors in vector.layers.items():
                layer = dense.get_submodule(name)
                delta = weight * factors.scale * (factors.B.double() @ factors.A.double())
                layer.weight += delta if isinstance(layer, nn.Linear) else delta.T
    return dense


def random_pairs(count: int, seed: int = 0, longest: int = 9) -> Any:
    """Pairs of random words; prompts and answers of ragged lengths, the first chosen answer of one word."""
    from valuesoup.data.pairs import Pairs

    draw = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(1, most)))

    rows = []
    for place in range(count):
        chosen = words(1 if place == 0 else longest)
        rejected = chosen
        while rejected == chosen:
            rejected = words(longest)
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"w{place % WORDS} {words(12)}"}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        )
    return Pairs.from_rows(rows)
