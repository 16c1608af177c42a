"""A composed candidate: the same logits and answers as per-row weights, and a base that stays as it is."""

import copy
import math
from typing import Any

import pytest
import torch

import tiny
from valuesoup.soup import Soup
from valuesoup.soup.generation import Row, generate, write
from valuesoup.soup.in_place import Composed, composes

IDS = torch.tensor([[7, 8, 9, 20, 31]])


def soup_of(kind: str, **vector: Any) -> Soup:
    model = tiny.family(kind)
    made = {name: tiny.random_vector(model, place, **vector) for place, name in enumerate("abc")}
    return Soup.from_adapters(copy.deepcopy(model), made, tiny.tokenizer())


def rows_of(candidates: int, each: int) -> list[Row]:
    draw = torch.Generator().manual_seed(0)
    return [
        Row(
            tuple(torch.randint(5, 65, (int(torch.randint(1, 9, (), generator=draw)),), generator=draw).tolist()),
            (place / candidates, 0.0, 1.0),
            seed=number,
        )
        for number in range(each)
        for place in range(candidates)
    ]


def state(soup: Soup) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in soup.state_dict().items()}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.2, -0.7, 1.3)])
def test_a_composed_candidate_is_the_mixed_one(kind: str, weights: tuple[float, ...]) -> None:
    soup = soup_of(kind)
    before = state(soup)
    with torch.no_grad():
        found = Composed(soup, weights)(torch.empty(0), input_ids=IDS).logits
        torch.testing.assert_close(found, soup(torch.tensor([weights]), input_ids=IDS).logits, rtol=0, atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in soup.state_dict().items())


def test_answers_are_the_same_composed_or_mixed() -> None:
    soup, rows = soup_of("llama"), rows_of(3, 12)
    found = {}
    for compose in (False, True):
        options: Any = {"max_new_tokens": 12, "temperature": 1.0, "batch_rows": 5, "on_shrink": print}
        found[compose] = dict(write(soup, rows, compose=compose, **options))
    assert found[True] == found[False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_base_is_as_before_after_a_failure_in_the_middle(error: type[BaseException]) -> None:
    soup, calls = soup_of("llama"), []
    before = state(soup)
    with torch.no_grad():
        wanted = soup(torch.tensor([[0.5, 0.5, 0.0]]), input_ids=IDS).logits

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 7:
            raise error

    handle = soup.model.model.layers[1].register_forward_hook(fail)
    options: Any = {"max_new_tokens": 12, "temperature": 1.0, "batch_rows": 5, "on_shrink": print}
    with pytest.raises(error):
        list(write(soup, rows_of(2, 9), compose=True, **options))
    handle.remove()
    assert all(torch.equal(before[name], tensor) for name, tensor in soup.state_dict().items())
    with torch.no_grad():
        assert torch.equal(soup(torch.tensor([[0.5, 0.5, 0.0]]), input_ids=IDS).logits, wanted)


def test_short_memory_is_told_once_for_all_candidates() -> None:
    soup, rows = soup_of("llama"), rows_of(3, 12)
    wanted = generate(soup, rows, max_new_tokens=6)

    def check(_: Any, __: Any, named: Any) -> None:
        if len(named["input_ids"]) > 4:
            torch.empty(1 << 50)  # fails as any allocation does for which there is no memory

    soup.model.register_forward_pre_hook(check, with_kwargs=True)
    said: list[str] = []
    options: Any = {"max_new_tokens": 6, "temperature": 1.0, "batch_rows": 8, "on_shrink": said.append}
    found = dict(write(soup, rows, compose=True, **options))
    assert [found[place] for place in range(len(rows))] == wanted
    assert len(said) == 1


def test_composing_is_for_many_rows_and_large_factors_on_a_float32_base() -> None:
    soup = soup_of("llama", rank=16)  # 3 · 16 · 2 · (32 + 32 + 32 + 32 - 16 - 16) · 2 layers against 20,000 or so
    assert composes(soup, 200)
    assert composes(soup, math.inf)
    assert not composes(soup, 50)
    assert not composes(soup_of("llama", rank=1), 200)
    assert not composes(Soup(tiny.llama(), layers=soup.layer_names), 200)
    half = soup_of("llama", rank=16)
    half.model.to(torch.bfloat16)
    assert not composes(half, 200)


@pytest.mark.parametrize("tied", [False, True])
def test_the_share_counts_the_multiplications_of_a_token(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=10, intermediate_size=20, num_hidden_layers=1, num_attention_heads=1,
        tie_word_embeddings=tied,
    )  # fmt: skip
    base = 4 * 10 * 10 + 3 * 10 * 20 + 100 * 10  # projections, three of the MLP, the head: 2000
    for rank, enough in ((3, False), (4, True)):  # 4 · 20 · rank against 15 % of 2000 = 300
        model = LlamaForCausalLM(config).eval()
        assert (4 * 20 * rank >= 0.15 * base) == enough
        soup = Soup.from_adapters(model, {"a": tiny.random_vector(model, 0, rank=rank)})
        assert composes(soup, 128) == enough
