"""Tiny random models of one word per token, and pairs whose better answer is easy to learn."""

import random

import pytest

from valuesoup.data.pairs import Pairs

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "user:", "bot:", "sys:", "good", "bad", *(f"w{i}" for i in range(30))]
CHAT = (
    "{% for m in messages %}{{ {'user': 'user: ', 'assistant': 'bot: '}[m['role']] + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
)


def word_tokenizer(pad="<pad>", eos="</s>", bos=None, chat=CHAT):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    if bos:
        inner.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, WORDS.index(bos))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=pad, eos_token=eos, bos_token=bos, unk_token="<unk>"
    )
    tokenizer.chat_template = chat
    return tokenizer


def llama_config(**changes):
    from transformers import LlamaConfig

    defaults = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    return LlamaConfig(**(defaults | changes))


def save(folder, model, tokenizer=None):
    model.save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A random classifier with three logits."""
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(0)
    model = LlamaForSequenceClassification(llama_config(num_labels=3))
    return save(tmp_path_factory.mktemp("classifier"), model)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A random causal language model."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    return save(tmp_path_factory.mktemp("base"), LlamaForCausalLM(llama_config(initializer_range=0.1)))


def words(rng, low, high):
    return " ".join(f"w{rng.randrange(30)}" for _ in range(rng.randint(low, high)))


def easy_pairs(count, seed=0):
    """Chosen answers end in ``good``, rejected ones in ``bad``; all else is noise."""
    rng = random.Random(seed)
    return Pairs.from_rows(
        {"prompt": words(rng, 1, 6), "chosen": words(rng, 1, 6) + " good", "rejected": words(rng, 1, 6) + " bad"}
        for _ in range(count)
    )


@pytest.fixture(scope="session")
def easy():
    return easy_pairs


@pytest.fixture(scope="session")
def make():
    """Write a random classifier whose tokenizer has the given special tokens."""
    import torch
    from transformers import LlamaForSequenceClassification

    def build(folder, pad_id=0, **tokens):
        torch.manual_seed(2)
        model = LlamaForSequenceClassification(llama_config(num_labels=1, pad_token_id=pad_id))
        return save(folder, model, word_tokenizer(**tokens))

    build.tokenizer = word_tokenizer
    return build
