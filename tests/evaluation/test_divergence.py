"""How far answers are from the base, and how likely it finds them: against dense float64."""

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

import tiny
from valuesoup.evaluation.divergence import answer_divergence, perplexity
from valuesoup.soup import Soup

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [5]]
ANSWERS = [[20, 21, 22], [], [23], [24, 25, 26, 27, 28]]


def test_both_figures_are_those_of_dense_weights_and_the_end_counts_for_the_divergence_alone() -> None:
    model = tiny.llama()
    vector = tiny.random_vector(model, 1, scale=1.0)
    base, moved = tiny.merged(model, []), tiny.merged(model, [(vector, 0.7)])
    soup = Soup.from_adapters(model, {"v": vector}, tiny.tokenizer())
    weights = np.full((4, 1), 0.7, dtype=np.float32)
    found = answer_divergence(soup, PROMPTS, ANSWERS, weights, batch_rows=3)
    end = soup.tokenizer.eos_token_id  # type: ignore[union-attr]
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        with torch.no_grad():
            mine, theirs = (
                log_softmax(of(torch.tensor([[*prompt, *answer, end]])).logits[0], -1)[len(prompt) - 1 : -1]
                for of in (moved, base)
            )
        assert found.kl[row] == pytest.approx(float((mine.exp() * (mine - theirs)).sum()), rel=1e-4)
        likely = theirs[: len(answer)].gather(1, torch.tensor(answer, dtype=torch.int64)[:, None])
        assert found.base_log_probs[row] == pytest.approx(float(likely.sum()), rel=1e-5, abs=1e-9)


def test_perplexity_is_per_token_of_all_answers_together() -> None:
    # Four tokens of probability ½ and two of ¼: 2^((4 + 4) / 6).
    assert perplexity(np.log([0.5**4, 0.25**2]), np.array([4, 2])) == pytest.approx(2 ** (8 / 6))
    assert perplexity(np.array([0.0, np.log(0.1)]), np.array([0, 1])) == pytest.approx(10)
    assert perplexity(np.zeros(2), np.zeros(2, dtype=np.int64)) is None
