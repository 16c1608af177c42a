"""The check of an export: two independent ways to the same log-probabilities, and a divergence worked out densely."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from valuesoup.errors import RunError
from valuesoup.pipeline.run import Finished
from valuesoup.shipping.check import (
    HeldOut,
    _mean_divergence,
    compare,
    held_out,
    load_adapters,
    plain_log_probs,
    soup_log_probs,
)
from valuesoup.soup import Soup

ROWS = HeldOut([[2, 7], [2, 9, 11, 5], [3]], [[8, 1], [12, 1], [6, 7, 8, 9, 1]], 0)


def soup_of(kind: str, folder: Path) -> tuple[Any, Soup, dict[str, Any]]:
    base = tiny.family(kind)
    base.save_pretrained(folder)
    vectors = {name: tiny.random_vector(base, seed) for seed, name in enumerate("ab")}
    return base, Soup.from_adapters(tiny.family(kind), vectors, tiny.tokenizer()), vectors


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_soup_the_dense_model_and_adapters_loaded_by_peft_agree(kind: str, tmp_path: Path) -> None:
    base, soup, vectors = soup_of(kind, tmp_path / "base")
    settings = [{"a": 0.6, "b": 0.7}, {"b": 1.0}]
    for place, weights in enumerate(settings):
        soup.adapter(weights).save_pretrained(tmp_path / f"adapter-{place}")
    folders = [tmp_path / f"adapter-{place}" for place in range(2)]
    for weights, loaded in zip(settings, load_adapters(str(tmp_path / "base"), folders, "cpu"), strict=True):
        ours = soup_log_probs(soup, weights, ROWS)
        dense = tiny.merged(base, [(vectors[name], weight) for name, weight in weights.items()])
        assert ours == pytest.approx(plain_log_probs(dense, ROWS), abs=1e-3)
        assert ours == pytest.approx(plain_log_probs(loaded, ROWS), abs=1e-4)
    assert soup_log_probs(soup, None, ROWS) == pytest.approx(plain_log_probs(base, ROWS), abs=1e-4)


def test_a_comparison_by_hand_counts_per_token() -> None:
    soup, base, loaded = np.array([-4.0, -6.0, -10.0]), np.array([-2.0, -6.0, -15.0]), np.array([-4.2, -6.0, -9.5])
    found = compare(soup, base, loaded, ROWS, 0.1)
    assert (found.mean, found.max) == (pytest.approx(0.2 / 3), pytest.approx(0.1))
    assert found.change == pytest.approx((1 + 0 + 1) / 3)
    assert compare(soup, base, loaded, ROWS, 0.11).passed
    assert not compare(soup, base, loaded - 1, ROWS, 0.11).passed
    assert not compare(soup, base, loaded * np.nan, ROWS, 0.11).passed


def test_the_divergence_of_a_cut_is_the_dense_one_and_none_from_itself(tmp_path: Path) -> None:
    base, soup, vectors = soup_of("llama", tmp_path / "base")
    first, second = {"a": 1.0}, {"a": 0.5, "b": 0.2}
    prompts, answers = ROWS.prompts, [answer[:-1] for answer in ROWS.responses]
    assert _mean_divergence(soup, prompts, answers, first, first) == pytest.approx(0.0, abs=1e-9)
    models = [tiny.merged(base, [(vectors[name], weight) for name, weight in of.items()]) for of in (first, second)]
    total = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            one, other = (model(input_ids=ids).logits[0, len(prompt) - 1 :].log_softmax(-1) for model in models)
        total += float((one.exp() * (one - other)).sum())
    assert _mean_divergence(soup, prompts, answers, first, second) == pytest.approx(total / 3, rel=1e-3)


def test_what_the_base_cannot_read_is_passed_over_and_counted(finished: Finished) -> None:
    tokenizer = finished.soup("soup").tokenizer
    assert tokenizer is not None
    whole = held_out(finished, tokenizer, 10_000)
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(whole.prompts, whole.responses, strict=True)]
    limit = sorted(lengths)[len(lengths) // 2]
    some = held_out(finished, tokenizer, limit)
    assert whole.skipped == 0
    assert some.skipped == sum(length > limit for length in lengths) > 0
    assert len(some.prompts) + some.skipped == len(whole.prompts)
    with pytest.raises(RunError, match="every validation response is longer than the 2 tokens"):
        held_out(finished, tokenizer, 2)
