"""Answers of many candidates in one batch: as if each were alone, as transformers writes them, as the softmax says."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from valuesoup.errors import UserError
from valuesoup.soup import Soup
from valuesoup.soup.generation import Row, generate

KINDS = ["llama", "gpt2", "qwen2", "qwen3", "gemma2", "mistral"]
LENGTHS = (1, 40, 4, 12, 2, 7, 23)
WEIGHTS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (-1.0, 0.3), (2.0, 0.0), (0.1, 0.1))


def soup_of(model: Any) -> Soup:
    made = {"a": tiny.random_vector(model, 0), "b": tiny.random_vector(model, 1)}
    return Soup.from_adapters(copy.deepcopy(model), made, tiny.tokenizer())


def ragged_rows(seed: int = 0) -> list[Row]:
    draw = torch.Generator().manual_seed(seed)
    return [
        Row(tuple(torch.randint(5, 65, (length,), generator=draw).tolist()), weights, seed=100 * seed + place)
        for place, (length, weights) in enumerate(zip(LENGTHS, WEIGHTS, strict=True))
    ]


LLAMA = tiny.llama()
SOUP = soup_of(LLAMA)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_transformers_own_on_a_dense_merge(kind: str) -> None:
    model = tiny.family(kind)
    soup = soup_of(model)
    rows = ragged_rows()
    answers = generate(soup, rows, max_new_tokens=20, temperature=0)
    for row, answer in zip(rows, answers, strict=True):
        whole = tiny.merged(model, list(zip(map(soup.vector, "ab"), row.weights, strict=True)))
        prompt = torch.tensor([row.prompt])
        found = whole.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20, pad_token_id=0
        )[0, len(row.prompt) :].tolist()
        ended = 1 in found
        assert list(answer.tokens) == (found[: found.index(1)] if ended else found)
        assert answer.finished == ended


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_rows_draws_depend_on_neither_batch_size_nor_neighbours_nor_order(kind: str) -> None:
    soup = soup_of(tiny.family(kind))
    rows = [*ragged_rows(0), *ragged_rows(1)]
    first = generate(soup, rows, max_new_tokens=25)
    assert len({answer.finished for answer in first}) == 2  # some rows leave the batch early, some do not
    for size in (1, 3, 64):
        assert generate(soup, rows, max_new_tokens=25, batch_rows=size) == first
    assert generate(soup, rows[::-1], max_new_tokens=25)[::-1] == first
    assert [generate(soup, [row], max_new_tokens=25)[0] for row in rows[:3]] == first[:3]


def test_a_longer_limit_only_goes_on_where_the_shorter_one_cut() -> None:
    short = generate(SOUP, ragged_rows(), max_new_tokens=5)
    long = generate(SOUP, ragged_rows(), max_new_tokens=30)
    for a, b in zip(short, long, strict=True):
        assert b.tokens[: len(a.tokens)] == a.tokens
        assert a == b or not a.finished


def test_sampled_tokens_follow_the_softmax_at_any_temperature() -> None:
    prompt, draws = (7, 20, 33), 6000
    for weights, temperature in (((0.6, 0.4), 1.0), ((0.0, 1.0), 0.5), ((0.0, 0.0), 2.0)):
        rows = [Row(prompt, weights, seed=seed) for seed in range(draws)]
        answers = generate(SOUP, rows, max_new_tokens=1, temperature=temperature, batch_rows=draws)
        found = np.bincount([answer.tokens[0] if answer.tokens else 1 for answer in answers], minlength=65)
        with torch.no_grad():
            logits = SOUP(torch.tensor([weights]), input_ids=torch.tensor([prompt])).logits[0, -1].double()
        wanted = torch.softmax(logits / temperature, -1).numpy()
        error = (found / draws - wanted) / np.sqrt(wanted * (1 - wanted) / draws + 1e-12)
        assert np.abs(error[wanted * draws > 10]).max() < 4
        assert found[wanted * draws < 1e-3].sum() == 0


def test_an_answer_stops_at_the_end_of_sequence_and_holds_no_token_of_it() -> None:
    soup = soup_of(LLAMA)
    with torch.no_grad():
        soup.model.get_output_embeddings().weight.zero_()  # every token is equally likely
    rows = [Row((7,), (0.0, 0.0), seed=seed) for seed in range(200)]
    answers = generate(soup, rows, max_new_tokens=40)
    assert all(1 not in answer.tokens for answer in answers)
    assert all(len(answer.tokens) == 40 for answer in answers if not answer.finished)
    stopped = [len(answer.tokens) for answer in answers if answer.finished]
    assert 60 <= len(stopped) <= 125  # 1 - (64/65)^40 = 46 % of 200, ± 4 sigma
    soup.model.generation_config.eos_token_id = [1, 9]  # Llama 3 has several ends
    assert not any(9 in answer.tokens for answer in generate(soup, rows, max_new_tokens=40))


def test_one_token_is_written_when_one_is_asked_for() -> None:
    answers = generate(SOUP, ragged_rows(), max_new_tokens=1, temperature=0)
    long = generate(SOUP, ragged_rows(), max_new_tokens=6, temperature=0)
    assert [answer.tokens for answer in answers] == [answer.tokens[:1] for answer in long]


def test_progress_counts_every_answer_once() -> None:
    counted: list[int] = []
    generate(SOUP, ragged_rows(), max_new_tokens=2, batch_rows=3, on_done=counted.append)
    assert sum(counted) == 7
    assert max(counted) <= 3
    assert generate(SOUP, [], max_new_tokens=2) == []


def test_settings_that_make_no_sense_are_refused() -> None:
    for temperature in (-0.1, float("nan")):
        with pytest.raises(UserError, match="temperature must be 0 or more"):
            generate(SOUP, ragged_rows(), max_new_tokens=2, temperature=temperature)
    with pytest.raises(UserError, match="max_new_tokens must be at least 1, not 0"):
        generate(SOUP, ragged_rows(), max_new_tokens=0)
    with pytest.raises(ValueError, match="at least one prompt token"):
        generate(SOUP, [Row((), (0.0, 0.0), 0)], max_new_tokens=2)


PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11"]


def test_one_mapping_answers_all_prompts_and_a_list_answers_each_at_its_own() -> None:
    mixed = [{"a": 1.0}, {}, {"a": 0.5, "b": 0.5}]
    each = SOUP.generate(PROMPTS, mixed, max_new_tokens=12)
    for place, weights in enumerate(mixed):
        assert SOUP.generate(PROMPTS, weights, max_new_tokens=12)[place] == each[place]
    assert SOUP.generate([], {"a": 1.0}) == []


def test_a_prompt_is_one_user_turn_or_a_conversation() -> None:
    turn = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    weights = {"a": 0.5}
    assert SOUP.generate(turn, weights, max_new_tokens=8) == SOUP.generate(PROMPTS, weights, max_new_tokens=8)
    longer = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}, *turn[0]]
    assert SOUP.generate([longer], {}, max_new_tokens=8) != SOUP.generate(PROMPTS[:1], {}, max_new_tokens=8)


def test_seeds_repeat_and_differ_and_temperature_zero_needs_none() -> None:
    def texts(**options: Any) -> list[str]:
        return SOUP.generate(PROMPTS, {"a": 0.5}, max_new_tokens=12, **options)

    assert texts(seed=1) == texts(seed=1)
    assert texts(seed=1) != texts(seed=2)
    assert texts(seed=1, temperature=0) == texts(seed=2, temperature=0)
    same = SOUP.generate(["w1"] * 8, {"a": 0.5}, max_new_tokens=12)
    assert len(set(same)) > 1  # equal prompts draw for themselves


def test_wrong_weights_and_a_missing_tokenizer_are_refused() -> None:
    with pytest.raises(UserError, match="2 mappings of weights were given for 3 prompts"):
        SOUP.generate(PROMPTS, [{"a": 1.0}] * 2)
    with pytest.raises(UserError, match="the soup has no vector 'c'"):
        SOUP.generate(PROMPTS, {"c": 1.0})
    silent = Soup.from_adapters(copy.deepcopy(LLAMA), {"a": tiny.random_vector(LLAMA, 0)})
    with pytest.raises(UserError, match="no tokenizer"):
        silent.generate(PROMPTS, {"a": 1.0})
