"""Scores of a reward model: texts of mixed length against file order, answers to shared prompts against no sharing."""

import random
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import Claim, compare
from valuesoup.data.pairs import Messages
from valuesoup.rewards import ClassifierReward
from valuesoup.rewards.classifier import quiet
from valuesoup.training.pretrain import build_tokenizer
from valuesoup.training.settings import PretrainSettings

WORDS = 4000
ROWS = 16
TEMPLATE = "{prompt} {response}"
Scores = NDArray[np.float64]
Texts = Sequence[tuple[str, str]]
"""Prompts and responses."""


def score(repeats: int, texts: int = 240) -> Claim:
    """Score texts of 15 to 400 tokens, log-normal around 100: tokenised, padded, computed, each in its own way."""
    draw = random.Random(0)
    sizes = [int(min(400, max(15, draw.lognormvariate(4.6, 0.7)))) for _ in range(texts)]
    data = [(words(draw, size // 2), words(draw, size - size // 2)) for size in sizes]
    with tempfile.TemporaryDirectory() as folder:
        ours, model, tokenizer = models(Path(folder))
        theirs = partial(in_batches, model, tokenizer, range(texts))
        compared = compare(partial(with_valuesoup, ours, data), partial(theirs, data), _check, repeats)
    note = f"{texts} texts of 15 to 400 tokens, mean {np.mean(sizes):.0f}, Llama of 5.9 M parameters, float32; {_SAME}"
    return compared.claim("score", f"transformers {version('transformers')}, batches of {ROWS} in file order", note)


def score_shared_prompt(repeats: int, prompts: int = 16, answers: int = 11) -> Claim:
    """Score several answers of 40 to 80 tokens to each prompt of 100 to 150 tokens."""
    draw = random.Random(1)
    asked = [words(draw, draw.randint(100, 150)) for _ in range(prompts)]
    data = [(prompt, words(draw, draw.randint(40, 80))) for prompt in asked for _ in range(answers)]
    order = sorted(range(len(data)), key=lambda row: -sum(text.count(" ") for text in data[row]))
    with tempfile.TemporaryDirectory() as folder:
        ours, model, tokenizer = models(Path(folder))
        theirs = partial(in_batches, model, tokenizer, order)
        compared = compare(partial(with_valuesoup, ours, data), partial(theirs, data), _check, repeats)
    note = (
        f"{answers} answers of 40 to 80 tokens to each of {prompts} prompts of 100 to 150 tokens, Llama of 5.9 M "
        f"parameters, float32; {_SAME}"
    )
    opponent = f"transformers {version('transformers')}, batches of {ROWS} sorted by length"
    return compared.claim("score-shared-prompt", opponent, note)


_SAME = "tokenising included; scores equal to 1e-4 of their spread"


def words(draw: random.Random, count: int) -> str:
    return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(count))


def models(folder: Path, device: str = "cpu", **size: Any) -> tuple[ClassifierReward, Any, Any]:
    """Write a classifier of random weights; return it as both sides load it, ours warm as theirs is.

    Args:
        folder: Where to write it.
        device: Where it runs.
        size: What its configuration has beside the small one's.
    """
    from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(
        [[{"role": "user", "content": " ".join(f"w{word}" for word in range(WORDS))}]],
        PretrainSettings(tokenizer="words", vocabulary=WORDS + 96),
    )
    small = {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
    }
    config = LlamaConfig(
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
        **small | size,
    )
    with quiet():
        LlamaForSequenceClassification(config).to(config.dtype or torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        theirs = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    ours = ClassifierReward(folder, template=TEMPLATE, device=device)
    with_valuesoup(ours, [("w1", "w2")])
    return ours, theirs, tokenizer


def with_valuesoup(reward: ClassifierReward, data: Texts) -> Scores:
    prompts: list[Messages] = [[{"role": "user", "content": prompt}] for prompt, _ in data]
    return reward.score(prompts, [response for _, response in data])


def in_batches(model: Any, tokenizer: Any, order: Sequence[int], data: Texts) -> Scores:
    """Score batches of 16 texts, tokenised together and padded to the longest of them."""
    scores = np.empty(len(data))
    with torch.inference_mode():
        for start in range(0, len(order), ROWS):
            rows = list(order[start : start + ROWS])
            texts = [TEMPLATE.format(prompt=data[row][0], response=data[row][1]) for row in rows]
            batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
            found = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits[:, 0]
            scores[rows] = found.double().cpu()
    return scores


def _check(ours: Scores, theirs: Scores) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * float(theirs.std()))
