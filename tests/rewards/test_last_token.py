"""Shared prompts: scores as each family's own forward pass gives them, whatever the answers; else the plain way."""

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers as hf

from valuesoup.rewards.batching import Budget, padded_logits
from valuesoup.rewards.last_token import LastToken, _common, _groups

VOCABULARY, PAD = 40, 0
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_labels": 2,
}
OLD = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": PAD}
FAMILIES = {
    "Llama": (hf.LlamaForSequenceClassification, hf.LlamaConfig(**SMALL)),
    "Qwen2": (hf.Qwen2ForSequenceClassification, hf.Qwen2Config(**SMALL)),
    "Qwen3": (hf.Qwen3ForSequenceClassification, hf.Qwen3Config(**SMALL)),
    "Gemma": (hf.GemmaForSequenceClassification, hf.GemmaConfig(**SMALL)),
    "Gemma2": (hf.Gemma2ForSequenceClassification, hf.Gemma2Config(**SMALL, sliding_window=64)),
    "Mistral": (hf.MistralForSequenceClassification, hf.MistralConfig(**SMALL, sliding_window=64)),
    "Mixtral": (hf.MixtralForSequenceClassification, hf.MixtralConfig(**SMALL, num_local_experts=4)),
    "Phi": (hf.PhiForSequenceClassification, hf.PhiConfig(**OLD)),
    "GPT-2": (hf.GPT2ForSequenceClassification, hf.GPT2Config(**GPT2, num_labels=2, initializer_range=0.3)),
    "NeoX": (hf.GPTNeoXForSequenceClassification, hf.GPTNeoXConfig(**OLD)),
}
ENCODERS = {
    "BERT": (hf.BertForSequenceClassification, hf.BertConfig(**OLD)),
    "DeBERTa": (hf.DebertaV2ForSequenceClassification, hf.DebertaV2Config(**OLD)),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def model_of(kind, config):
    torch.manual_seed(0)
    return kind(config).eval()


def texts(rng):
    """Ragged answers to four prompts: several, one alone, one that another begins with, empty ones, a repeated one."""
    prompts = [rng.integers(3, VOCABULARY, size) for size in (20, 13, 9, 25)]
    answers = [[7, 1, 12, 3], [4], [2, 5, 5], [0, 9, 0]]
    found, whose = [], []
    for place, (prompt, sizes) in enumerate(zip(prompts, answers, strict=True)):
        for size in sizes:
            found.append(np.concatenate([prompt, rng.integers(3, VOCABULARY, size)]).astype(np.int32))
            whose.append(place)
    found[6] = np.concatenate([found[5], found[6][-2:]])
    found.append(np.append(found[0], PAD).astype(np.int32))  # ends as padding does
    return found, [*whose, 0]


def alone(model, ids):
    """The classifier's own logits of one text, unpadded."""
    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0].double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [30, 10_000])
def test_scores_with_shared_prompts_are_the_classifiers_own(family, tokens):
    model = model_of(*FAMILIES[family])
    way = LastToken.of(model, PAD)
    assert way is not None
    given, whose = texts(np.random.default_rng(0))
    expected = np.stack([alone(model, ids) for ids in given])
    done = []
    got = way.logits(given, whose, Budget(tokens, family), done.append)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * expected.std(axis=0).min())
    assert sum(done) == len(given)


def test_a_prompt_is_computed_once_for_all_its_answers():
    model = model_of(*FAMILIES["Llama"])
    way = LastToken.of(model, PAD)
    rng = np.random.default_rng(1)
    prompt = rng.integers(3, VOCABULARY, 30)
    given = [np.concatenate([prompt, rng.integers(3, VOCABULARY, 5)]).astype(np.int32) for _ in range(6)]
    read, ended = [], []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: read.append(ids[0].numel()))
    for part in (model.model.layers[-1].self_attn.o_proj, model.model.layers[-1].mlp):
        part.register_forward_hook(lambda _, __, out: ended.append(out.shape[:2].numel()))
    way.logits([*given, *given], [0] * 12, Budget(10_000, "m"), lambda _: None)
    assert read == [30, 6 * 5]
    assert ended == [1, 1, 6, 6], "nobody reads the other tokens of the last layer"


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_are_read_as_they_are_without_a_word(family, caplog):
    model = model_of(*ENCODERS[family])
    with caplog.at_level(logging.WARNING):
        assert LastToken.of(model, PAD) is None
    assert not caplog.records
    given, _ = texts(np.random.default_rng(0))
    given = given[:-1]
    expected = np.stack([alone(model, ids) for ids in given])
    got = padded_logits(model, PAD, given, Budget(60, family), lambda _: None)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * expected.std(axis=0).min())


def test_a_text_longer_than_a_sliding_window_is_not_shared():
    way = LastToken.of(model_of(*FAMILIES["Mistral"]), PAD)
    assert way.takes(64)
    assert not way.takes(65)
    assert LastToken.of(model_of(*FAMILIES["Llama"]), PAD).takes(10**6)


class LooksAhead(hf.LlamaForSequenceClassification):
    """A classifier whose tokens see those after them."""

    def __init__(self, config):
        super().__init__(config)
        self.model.norm.register_forward_pre_hook(lambda _, hidden: (hidden[0] + hidden[0].mean(1, keepdim=True),))


class ReadsFirst(hf.LlamaForSequenceClassification):
    """A classifier that reads its score elsewhere."""

    def forward(self, input_ids, attention_mask=None):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return hf.modeling_outputs.SequenceClassifierOutput(logits=self.score(hidden)[:, 3])


class NoPositions(hf.LlamaForSequenceClassification):
    """A classifier whose decoder takes no positions of its own."""

    def __init__(self, config):
        super().__init__(config)
        inner = self.model.forward

        def forward(input_ids, attention_mask=None, past_key_values=None, use_cache=None, **rest):
            if "position_ids" in rest and rest["position_ids"] is not None:
                raise TypeError("no positions")
            return inner(input_ids, attention_mask, past_key_values=past_key_values, use_cache=use_cache)

        self.model.forward = forward


@pytest.mark.parametrize("kind", [LooksAhead, ReadsFirst, NoPositions])
def test_a_model_that_cannot_be_split_is_found_out_and_said(kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert LastToken.of(model_of(kind, FAMILIES["Llama"][1]), PAD) is None
    assert "llama: prompts are computed once for each answer, because" in caplog.text


def test_short_memory_is_not_taken_for_a_model_that_cannot_be_split():
    model = model_of(*FAMILIES["Llama"])

    def fail(*_):
        raise torch.OutOfMemoryError

    hook = model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        LastToken.of(model, PAD)
    hook.remove()
    assert LastToken.of(model, PAD) is not None


def test_positions_that_change_with_the_length_are_not_shared(caplog):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = model_of(hf.LlamaForSequenceClassification, hf.LlamaConfig(**SMALL, rope_parameters=rope))
    with caplog.at_level(logging.WARNING):
        assert LastToken.of(model, PAD) is None
    assert "scaled by the length" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_16_bits_share_too(dtype):
    model = model_of(*FAMILIES["Llama"]).to(dtype)
    way = LastToken.of(model, PAD)
    assert way is not None
    given, whose = texts(np.random.default_rng(0))
    expected = np.stack([alone(model, ids) for ids in given])
    got = way.logits(given, whose, Budget(100, "m"), lambda _: None)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.1 * expected.std(axis=0).min())


def test_a_text_is_read_at_its_last_token_that_is_no_padding():
    way = LastToken(model_of(*FAMILIES["Llama"]), PAD, [])
    for ids, expected in (([5, 0, 6], [5, 0, 6]), ([5, 6, 0, 0], [5, 6]), ([0, 0], [0])):
        assert way.read(np.array(ids, dtype=np.int32)).tolist() == expected


def test_only_texts_of_one_prompt_with_a_beginning_of_some_length_are_put_together():
    rng = np.random.default_rng(0)
    long, short = rng.integers(3, VOCABULARY, 20), rng.integers(3, VOCABULARY, 5)
    given = [np.append(long, 1), np.append(short, 1), np.append(long, [2, 2]), np.append(short, 2), np.append(long, 3)]
    single, together = _groups(given, ["a", "b", "a", "b", "c"])
    assert sorted(single.tolist()) == [1, 3, 4]
    assert together == [(20, [0, 2])]


def test_a_common_beginning_leaves_every_text_its_last_token():
    parts = [np.arange(6), np.arange(4), np.append(np.arange(5), 9)]
    assert _common(parts) == 3
    assert [_common(list(two)) for two in pairwise(parts)] == [3, 3]
    assert _common([np.array([1, 2]), np.array([3, 4])]) == 0
