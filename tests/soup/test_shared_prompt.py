"""Pairs in one row each: the layout by hand, equality with sequences of their own, and where a base cannot do it."""

import copy
import random
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from valuesoup.soup import Soup, target_layers
from valuesoup.soup.sequences import SequenceBatch, token_log_probs
from valuesoup.soup.shared_prompt import PairBatch, response_log_probs, shares_prompts

FAMILIES = [
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral", "gpt2", "gpt_neox", "cohere", "granite",
    "phi3",
]  # fmt: skip
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def base(kind: str, attention: str | None = None, **changes: Any) -> Any:
    """A tiny random base whose layers see whole rows, unless its configuration is changed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = copy.deepcopy(tiny.family(kind).config) if kind in ("gpt2", "llama") else None
    if config is None:
        common = {"vocab_size": tiny.WORDS + 5, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1}
        config = AutoConfig.for_model(kind, **common, **SIZES, num_key_value_heads=2, head_dim=8, eos_token_id=1)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def stirred(model: Any, names: str = "ab") -> Soup:
    return Soup.from_adapters(model, {name: tiny.random_vector(model, place) for place, name in enumerate(names)})


def random_pairs(count: int, seed: int = 0) -> list[tuple[list[int], list[int], list[int]]]:
    """Ragged pairs, among them prompts of one token, responses of none or one, and responses with a common start."""
    draw = random.Random(seed)

    def ids(least: int, most: int) -> list[int]:
        return [draw.randrange(2, tiny.WORDS) for _ in range(draw.randint(least, most))]

    pairs = [([5], [6, 1], [7]), ([8, 9], [10, 11, 12, 1], [10, 11, 1]), ([8], [10, 11, 12], [10, 11]), ([9], [], [1])]
    return [*pairs, *((ids(1, 12), ids(1, 9), ids(1, 9)) for _ in range(count - len(pairs)))]


def packed(pairs: list[tuple[list[int], list[int], list[int]]]) -> PairBatch:
    prompts, chosen, rejected = zip(*pairs, strict=True)
    return PairBatch.build(prompts, chosen, rejected)


def two_sequences(pairs: list[tuple[list[int], list[int], list[int]]]) -> SequenceBatch:
    prompts, chosen, rejected = zip(*pairs, strict=True)
    return SequenceBatch.build(prompts * 2, chosen + rejected)


def test_a_row_by_hand() -> None:
    batch = packed([([5, 6, 7], [8, 1], [9, 10, 1]), ([5], [6, 7, 1], [6, 1])])
    # 5 6 | 7 8 | 7 9 10, and 5 | 6 7 | 6 behind the common start 6
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 7, 9, 10], [0, 0, 0, 5, 6, 7, 6]]
    assert batch.targets.tolist() == [[8, 1, 9, 10, 1], [0, 6, 7, 1, 1]]
    assert batch.lengths.tolist() == [[3, 0, 2, 3], [1, 1, 2, 1]]
    assert batch.positions().tolist() == [[0, 1, 2, 3, 2, 3, 4], [0, 0, 0, 0, 1, 2, 1]]
    assert batch.sizes().tolist() == [[2, 3], [3, 2]]
    chosen, rejected = batch.sides().int().tolist()
    assert chosen == [[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]
    assert rejected == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 1]]
    seen = (batch.mask(torch.float32)[0, 0] == 0).int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 1],
    ]
    padded = (batch.mask(torch.float32)[1, 0] == 0).int().tolist()
    assert padded[2] == [1, 1, 1, 0, 0, 0, 0]  # padding sees padding, so that no row is closed throughout
    assert padded[3:] == [[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1]]


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=5)
perhaps_none = st.lists(st.integers(0, 3), max_size=5)


@given(st.lists(st.tuples(tokens, tokens, perhaps_none), min_size=1, max_size=4))
def test_any_pairs_come_apart_as_they_were(pairs: list[tuple[list[int], list[int], list[int]]]) -> None:
    found, wanted = packed(pairs).apart(), two_sequences(pairs)
    for name in ("input_ids", "attention_mask", "responses", "response_mask"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


@pytest.mark.parametrize("kind", FAMILIES)
def test_sums_and_gradients_equal_those_of_two_sequences_at_each_rows_weights(kind: str) -> None:
    soup = stirred(base(kind))
    pairs = random_pairs(9)
    weights = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)) - 0.3
    factors = soup.parameters_of("ab")
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shares_prompts(soup, 30)
    for shared in (True, False):
        soup.requires_grad_(False)
        soup.zero_grad()
        for factor in factors:
            factor.requires_grad_(True)
        chosen, rejected = response_log_probs(soup, weights, packed(pairs), shared=shared)
        torch.nn.functional.softplus(-0.1 * (chosen - rejected)).mean().backward()
        found.append([torch.stack([chosen, rejected]).detach(), *(factor.grad.clone() for factor in factors)])
    plain = token_log_probs(soup, weights.repeat(2, 1), two_sequences(pairs)).sum(1).view(2, -1)
    torch.testing.assert_close(found[0][0], plain.detach(), rtol=1e-6, atol=1e-5)
    for one, other in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_pair_does_not_depend_on_the_pairs_beside_it() -> None:
    soup, pairs = stirred(base("llama")), random_pairs(6)
    weights = torch.rand(6, 2)
    with torch.no_grad():
        together = torch.stack(response_log_probs(soup, weights, packed(pairs), shared=True))
        for place, pair in enumerate(pairs):
            one = response_log_probs(soup, weights[place : place + 1], packed([pair]), shared=True)
            torch.testing.assert_close(together[:, place], torch.cat(one), rtol=1e-6, atol=1e-5)


@given(st.lists(st.tuples(tokens, tokens, perhaps_none), min_size=1, max_size=4), st.data())
def test_any_pairs_taken_from_a_batch_are_as_if_packed_by_themselves(
    pairs: list[tuple[list[int], list[int], list[int]]], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(pairs))), min_size=1, unique=True))
    found, wanted = packed(pairs).take(rows), packed([pairs[row] for row in rows])
    for name in ("tokens", "targets", "lengths"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12))
def test_groups_hold_every_row_once_and_little_padding(sizes: list[tuple[int, int, int]]) -> None:
    batch = packed([([5] * n, [6] * a, [7] * b) for n, a, b in sizes])
    groups = batch.groups()
    assert sorted(row for group in groups for row in group) == list(range(len(sizes)))
    for group in groups:
        lengths = [sum(sizes[row]) - 1 for row in group]
        assert batch.take(group).tokens.shape[1] == max(lengths)
        assert 10 * sum(lengths) >= 9 * len(group) * max(lengths)
    if len({sum(size) for size in sizes}) == 1:
        assert len(groups) == 1


def test_rows_of_very_different_lengths_take_passes_of_their_own_and_keep_their_order_and_weights() -> None:
    soup = stirred(base("llama"))
    draw = random.Random(3)
    pairs = [([draw.randrange(2, 50) for _ in range(n)], [6 + n, 1], [7, 8, 1]) for n in (40, 2, 38, 3, 15)]
    weights = torch.rand(5, 2)
    read: list[int] = []
    soup.model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    with torch.no_grad():
        together = torch.stack(response_log_probs(soup, weights, packed(pairs), shared=True))
        assert read[-3:] == [2 * (40 + 2 + 3 - 1), 15 + 2 + 3 - 1, 2 * (3 + 2 + 3 - 1)]
        for place, pair in enumerate(pairs):
            one = response_log_probs(soup, weights[place : place + 1], packed([pair]), shared=True)
            torch.testing.assert_close(together[:, place], torch.cat(one), rtol=1e-6, atol=1e-5)


def test_the_base_and_one_row_of_weights_serve_all_pairs() -> None:
    soup, pairs = stirred(base("llama")), random_pairs(5)
    with torch.no_grad():
        for shared in (True, False):
            base_of = torch.stack(response_log_probs(soup, None, packed(pairs), shared=shared))
            zero = torch.stack(response_log_probs(soup, torch.zeros(1, 2), packed(pairs), shared=shared))
            torch.testing.assert_close(base_of, zero)
            one = torch.stack(response_log_probs(soup, torch.ones(1, 2), packed(pairs), shared=shared))
            each = torch.stack(response_log_probs(soup, torch.ones(5, 2), packed(pairs), shared=shared))
            torch.testing.assert_close(one, each)


def test_a_row_may_be_longer_than_the_positions_of_the_base_when_its_sequences_are_not() -> None:
    soup = stirred(base("gpt2", n_positions=20))
    pairs = [([5] * 8, [*range(10, 21), 1], [*range(30, 41), 1]), ([5], [6, 1], [7, 1])]
    with torch.no_grad():
        together, apart = (
            torch.stack(response_log_probs(soup, torch.ones(1, 2), packed(pairs), shared=way)) for way in (True, False)
        )
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_eager_attention_takes_the_mask_too(kind: str) -> None:
    assert shares_prompts(Soup(base(kind, "eager"), layers=[]), 30)


@pytest.mark.parametrize("kind", ["mistral", "phi3", "gemma2", "gemma3_text", "qwen2", "cohere2", "olmo3"])
@pytest.mark.parametrize("window", [3, 8])
def test_windows_shorter_than_a_row_are_masks_of_their_own(kind: str, window: int) -> None:
    alternating = {} if kind in ("mistral", "phi3") else {"layer_types": ["sliding_attention", "full_attention"]}
    soup = stirred(base(kind, sliding_window=window, **alternating))
    pairs = random_pairs(9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shares_prompts(soup, 30)
    assert soup.model.config.sliding_window == window
    with torch.no_grad():
        together, apart = (
            torch.stack(response_log_probs(soup, torch.ones(1, 2), packed(pairs), shared=way)) for way in (True, False)
        )
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-5)
        soup.model.config.sliding_window = 64  # and the window does change what the model says
        whole = torch.stack(response_log_probs(soup, torch.ones(1, 2), packed(pairs), shared=True))
    assert (whole - together).abs().max() > 1e-2


def test_a_window_by_hand() -> None:
    batch = packed([([5, 6, 7], [8, 1], [9, 10, 1])])  # 5 6 | 7 8 | 7 9 10 at positions 0 1 | 2 3 | 2 3 4
    assert (batch.mask(torch.float32, 2)[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_a_reach_for_which_there_is_no_mask_needs_sequences_of_their_own() -> None:
    soup = stirred(base("llama"))
    soup.model.config.attention_chunk_size = 16
    assert shares_prompts(soup, 16)
    with pytest.warns(UserWarning, match="prompts are computed once for each response.*attention_chunk_size of 16"):
        assert not shares_prompts(soup, 17)


def gpt_neo(kinds: list[str]) -> Soup:
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": tiny.WORDS + 5, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    reach: dict[str, Any] = {"attention_types": [[kinds, 1]], "window_size": 24, "max_position_embeddings": 30}
    config = GPTNeoConfig(**sizes, **reach, intermediate_size=64, initializer_range=0.2, bos_token_id=1, eos_token_id=1)
    return stirred(GPTNeoForCausalLM(config).eval())


def test_a_window_that_is_counted_in_columns_must_hold_a_row_of_both_responses() -> None:
    soup = gpt_neo(["global", "local"])
    fitting = [([5], [*range(10, 21), 1], [*range(30, 41), 1])]  # 13 tokens each, a row of 24
    wider = [([5, 6], [*range(10, 21), 1], [*range(30, 41), 1])]
    assert shares_prompts(soup, 13)
    with pytest.warns(UserWarning, match="its window_size of 24 is shorter than a row of both responses of 26 tokens"):
        assert not shares_prompts(soup, 14)
    with torch.no_grad():
        for pairs, same in ((fitting, True), (wider, False)):
            together, apart = (
                torch.stack(response_log_probs(soup, None, packed(pairs), shared=way)) for way in (True, False)
            )
            assert torch.allclose(together, apart, rtol=1e-6, atol=1e-5) == same


def test_causal_masks_that_a_base_keeps_must_hold_a_row_of_both_responses() -> None:
    soup = gpt_neo(["global", "global"])
    soup.model.config.window_size = 256
    assert shares_prompts(soup, 16)
    with pytest.warns(UserWarning, match="its causal masks of 30 tokens are shorter than a row .* of 32 tokens"):
        assert not shares_prompts(soup, 17)
    pairs = packed([([5], [*range(10, 25), 1], [*range(30, 46), 1])])
    with torch.no_grad():
        response_log_probs(soup, None, pairs, shared=False)
        with pytest.raises(RuntimeError):
            response_log_probs(soup, None, pairs, shared=True)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "factor": 8.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_positions_scaled_by_the_length_of_a_text_are_shared_only_where_no_text_is_so_long(
    rope: dict[str, Any],
) -> None:
    soup = stirred(base("llama", max_position_embeddings=32, rope_parameters=rope))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shares_prompts(soup, 32)
    with pytest.warns(UserWarning, match="its positions are scaled by the length of a text of more than 32 tokens"):
        assert not shares_prompts(soup, 33)


def test_short_memory_is_not_taken_for_a_mask_that_a_base_does_not_take() -> None:
    soup = Soup(base("llama"), layers=[])

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = soup.model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        shares_prompts(soup, 20)
    hook.remove()
    assert shares_prompts(soup, 20)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
        ("mamba", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
    ids=["bloom", "mpt", "mamba", "lfm2"],
)
def test_positions_by_distance_and_recurrent_layers_are_found_out(kind: str, changes: dict[str, Any]) -> None:
    soup = Soup(base(kind, **changes), layers=[])
    with pytest.warns(UserWarning, match="it does not take a mask of its own|nats per token off"):
        assert not shares_prompts(soup, 20)


def test_an_attention_that_ignores_the_mask_is_found_out() -> None:
    from transformers import AttentionInterface

    def blind(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **rest: Any) -> Any:
        sdpa = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, None, **{**rest, "is_causal": True})

    AttentionInterface.register("blind", blind)
    soup = Soup(base("llama", "blind"), layers=[])
    with pytest.warns(UserWarning, match="nats per token off"):
        assert not shares_prompts(soup, 20)


def test_the_check_changes_neither_the_mode_nor_the_random_numbers() -> None:
    model = base("llama")
    soup = Soup(model, layers=target_layers(model), dropout=0.5)
    soup.add_fresh("a", rank=2, alpha=4, seed=0)
    for mode in (True, False):
        soup.train(mode)
        before = torch.get_rng_state()
        assert shares_prompts(soup, 20)
        assert torch.equal(torch.get_rng_state(), before)
        assert soup.training == mode
        assert all(module.dropout.training == mode for module in soup.modules() if hasattr(module, "dropout"))
