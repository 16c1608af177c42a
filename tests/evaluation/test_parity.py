"""Whether answers are a policy's own: sums against dense float64, and what a faulty generator does to them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

import tiny
from valuesoup.evaluation.parity import Reading, read_answers, surplus_difference
from valuesoup.soup import Soup
from valuesoup.soup.generation import Answer, Row, generate

PROMPTS = [(5, 6, 7), (8, 9), (10, 11, 12, 13), (5,)]
ANSWERS = [(20, 21, 22), (), (23,), (24, 25, 26, 27, 28)]
FINISHED = [True, True, False, True]
END = 1


@pytest.fixture(scope="module")
def soup() -> Soup:
    return Soup.from_adapters(tiny.llama(), {"v": tiny.random_vector(tiny.llama(), 1)}, tiny.tokenizer())


def written(soup: Soup, weight: float, temperature: float, prompts: int = 64) -> tuple[list[Any], list[Answer]]:
    rows = [Row((5 + place % 50, 7), (weight,), place) for place in range(prompts)]
    return rows, generate(soup, rows, max_new_tokens=24, temperature=temperature)


def read(soup: Soup, weight: float, rows: list[Any], answers: list[Answer], temperature: float = 1.0) -> Reading:
    return read_answers(
        soup,
        [row.prompt for row in rows],
        [answer.tokens for answer in answers],
        [answer.finished for answer in answers],
        np.full((len(rows), 1), weight, dtype=np.float32),
        [END],
        temperature=temperature,
        batch_rows=17,
    )


@pytest.mark.parametrize("ends", [(1,), (1, 3)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_sums_are_those_of_dense_weights_with_all_ends_as_one(
    soup: Soup, ends: tuple[int, ...], temperature: float
) -> None:
    dense = tiny.merged(tiny.llama(), [(tiny.random_vector(tiny.llama(), 1), 0.7)])
    weights = np.full((4, 1), 0.7, dtype=np.float32)
    found = read_answers(soup, PROMPTS, ANSWERS, FINISHED, weights, ends, temperature=temperature, batch_rows=3)
    for row, (prompt, answer, done) in enumerate(zip(PROMPTS, ANSWERS, FINISHED, strict=True)):
        tokens = [*answer, END] if done else [*answer]
        with torch.no_grad():
            logits = dense(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        regret = surplus = 0.0
        own = []
        for step, token in zip(logits, tokens, strict=True):
            plain = log_softmax(step, -1)
            own.append(float(max(plain[end] for end in ends) if token == END else plain[token]))
            regret += float(plain.max()) - own[-1]
            share = log_softmax(step / temperature, -1).exp()
            outcomes = {place: float(of) for place, of in enumerate(share) if place not in ends}
            outcomes[END] = sum(float(share[end]) for end in ends)
            mean = sum(of * math.log(of) for of in outcomes.values())
            surplus += math.log(outcomes[token]) - mean
        assert found.tokens[row] == len(tokens)
        assert found.regret[row] == pytest.approx(regret, rel=1e-4)
        assert found.surplus[row] == pytest.approx(surplus, rel=1e-3, abs=1e-4)
        assert found.log_probs[row] == pytest.approx(own, rel=1e-4)


def test_greedy_answers_have_no_regret_and_those_of_a_neighbour_have(soup: Soup) -> None:
    rows, answers = written(soup, 1.0, 0.0)
    assert read(soup, 1.0, rows, answers).regret_per_token() < 1e-5
    assert read(soup, 0.9, rows, answers).regret_per_token() > 1e-3
    assert read(soup, 0.0, rows, answers).regret_per_token() > 0.5


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_surplus_of_draws_is_zero_but_for_chance(soup: Soup, temperature: float) -> None:
    rows, answers = written(soup, 1.0, temperature, prompts=400)
    reading = read(soup, 1.0, rows, answers, temperature)
    assert abs(reading.surplus.sum()) < 3 * math.sqrt((reading.surplus**2).sum())


@pytest.mark.parametrize(("drawn_at", "sign"), [(0.0, 1), (0.7, 1), (1.4, -1)])
def test_draws_at_another_temperature_differ_beyond_chance(soup: Soup, drawn_at: float, sign: int) -> None:
    faithful = read(soup, 1.0, *written(soup, 1.0, 1.0))
    difference, z = surplus_difference(read(soup, 1.0, *written(soup, 1.0, drawn_at)), faithful)
    assert sign * z > 4
    assert sign * difference > 0.05


def test_other_tokens_of_the_same_texts_make_no_difference_where_both_have_them(soup: Soup) -> None:
    # As if a text told tokens of which every fourth is another one: each surplus is wrong, their difference is not.
    readings = []
    for seed in (0, 1000):
        rows = [Row((5 + place % 50, 7), (1.0,), seed + place) for place in range(200)]
        answers = generate(soup, rows, max_new_tokens=24, temperature=1.0)
        blurred = [Answer(tuple(5 if token % 4 == 0 else token for token in of.tokens), of.finished) for of in answers]
        readings.append(read(soup, 1.0, rows, blurred))
    assert all(reading.surplus.sum() / reading.tokens.sum() < -0.5 for reading in readings)
    assert abs(surplus_difference(*readings)[1]) < 3


def test_hand_worked_sums_per_token() -> None:
    none = np.zeros(2)
    one = Reading(np.array([2, 1]), np.array([0.0, 3.0]), np.array([4.0, -1.0]), [])
    other = Reading(np.array([1, 1]), none, np.array([1.0, -1.0]), [])
    assert one.regret_per_token() == 1
    # Means 1 and 0; residuals (2, -2) and (1, -1); squares 8 · 2 / 3² and 2 · 2 / 2².
    assert surplus_difference(one, other) == pytest.approx((1, 1 / math.sqrt(16 / 9 + 1)))
    alike = Reading(np.array([1, 1]), none, none, [])
    assert surplus_difference(alike, alike) == (0, 0)
    assert surplus_difference(Reading(np.array([1, 2]), none, np.array([1.0, 2.0]), []), alike) == (1, math.inf)


@pytest.mark.parametrize(("ends", "temperature"), [((), 1.0), ((1,), 0.0)])
def test_reading_needs_an_end_and_a_temperature(soup: Soup, ends: tuple[int, ...], temperature: float) -> None:
    with pytest.raises(ValueError, match="needs an end token and a temperature"):
        read_answers(soup, [(5,)], [(6,)], [True], np.ones((1, 1), dtype=np.float32), ends, temperature=temperature)
