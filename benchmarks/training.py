"""A pass of DPO over pairs with long prompts, forward and backward, against TRL's DPOTrainer with a live reference."""

import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Claim, compare
from valuesoup.data.pairs import Pairs
from valuesoup.soup import Soup, target_layers
from valuesoup.training.preference import PreferenceTrainer
from valuesoup.training.pretrain import build_tokenizer
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import LengthGroups, TrainingRows, tokenise
from valuesoup.training.settings import PretrainSettings, TrainingSettings

WORDS = 4000
BATCH = 8
RANK = 16
Result = tuple[float, list[Tensor]]
"""The mean loss of a pass and its gradient for every factor."""


def claim(repeats: int, pairs: int = 64, prompt: tuple[int, int] = (100, 150)) -> Claim:
    """Train on pairs of 40 to 80 response tokens: batches, losses and gradients of one epoch, each in its own way."""
    return _claim("dpo-train-fp32", repeats, pairs, prompt, bf16=False)


def bf16(repeats: int, pairs: int = 64, prompt: tuple[int, int] = (100, 150)) -> Claim:
    """Do the same in bfloat16 autocast; losses and gradients are then equal within its rounding."""
    return _claim("dpo-train-bf16", repeats, pairs, prompt, bf16=True)


def _claim(name: str, repeats: int, pairs: int, prompt: tuple[int, int], *, bf16: bool) -> Claim:
    torch.set_num_threads(1)
    data = make_pairs(pairs, prompt)
    tokenizer = make_tokenizer()
    ours, reference = _valuesoup(data, tokenizer, bf16=bf16)
    compared = compare(ours, _trl(data, tokenizer, bf16=bf16), partial(_check, bf16=bf16), repeats)
    note = (
        f"{pairs} pairs in batches of {BATCH}, prompts of {prompt[0]} to {prompt[1]} tokens, Llama of 6.9 M parameters,"
        f" {'bfloat16 autocast without checkpointing' if bf16 else 'float32'}; losses and gradients equal"
        f"{' within its rounding' if bf16 else ''}; the stored reference took {reference:.2f} s, once for all trainings"
    )
    return compared.claim(name, f"trl {version('trl')} DPOTrainer, live reference", note)


def make_tokenizer() -> Any:
    """Return a tokenizer of whole words."""
    return build_tokenizer(
        [[{"role": "user", "content": " ".join(f"w{word}" for word in range(WORDS))}]],
        PretrainSettings(tokenizer="words", vocabulary=WORDS + 96),
    )


def make_pairs(count: int, prompt: tuple[int, int], seed: int = 0) -> list[dict[str, Any]]:
    """Return pairs of random words, as TRL's conversational rows."""
    draw = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(least, most)))

    turns = (("prompt", "user", prompt), ("chosen", "assistant", (40, 80)), ("rejected", "assistant", (40, 80)))
    return [{key: [{"role": role, "content": words(*sizes)}] for key, role, sizes in turns} for _ in range(count)]


def make_base(layers: int = 6, vocabulary: int = 4096) -> Any:
    """Return a Llama, always the same; by default it has 6.9 M parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=4,
        initializer_range=0.05,
        pad_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def _fill(factors: list[Any]) -> None:
    """Give A and B the same numbers on both sides; B is not zero, so that A has a gradient too."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in factors:
            factor.copy_(0.02 * torch.randn(factor.shape, generator=draw))
            factor.requires_grad_(True)


def _valuesoup(data: list[dict[str, Any]], tokenizer: Any, *, bf16: bool) -> tuple[Callable[[], Result], float]:
    from transformers import TrainingArguments

    model = make_base()
    soup = Soup(model, tokenizer, layers=target_layers(model))
    soup.add_fresh("value", rank=RANK, alpha=2.0 * RANK, seed=0)
    tokens = tokenise(Pairs.from_rows(data), tokenizer, 1024)
    start = time.process_time()
    rows = TrainingRows.plain(tokens, pair_log_probs(soup, None, tokens, batch_pairs=BATCH))
    seconds = time.process_time() - start
    factors: list[Any] = soup.parameters_of(["value"])
    _fill(factors)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, use_cpu=True, bf16=bf16, report_to="none")
        trainer = PreferenceTrainer(soup, rows, ["value"], TrainingSettings(rank=RANK), args=arguments)
    order = list(LengthGroups(rows.lengths(), BATCH, seed=0))
    return partial(_epoch, trainer, soup, rows.collate, order, factors), seconds


def _trl(data: list[dict[str, Any]], tokenizer: Any, *, bf16: bool) -> Callable[[], Result]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    base = make_base()
    layers = target_layers(base)
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=base,
            args=DPOConfig(
                output_dir=folder,
                beta=TrainingSettings().beta,
                max_length=None,
                bf16=bf16,
                gradient_checkpointing=False,
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=layers),
        )
    named = dict(trainer.model.named_parameters())
    factors = [named[f"base_model.model.{layer}.lora_{side}.default.weight"] for layer in layers for side in "AB"]
    _fill(factors)

    def collate(places: list[int]) -> Any:
        return trainer.data_collator([trainer.train_dataset[place] for place in places])

    # As Trainer.train does: puts the forward pass under autocast where that is asked for.
    model = trainer.accelerator.prepare_model(trainer.model)
    return partial(_epoch, trainer, model, collate, list(range(len(data))), factors)


def _epoch(
    trainer: Any, model: Any, collate: Callable[[list[int]], Any], order: list[int], factors: list[Any]
) -> Result:
    model.train()
    model.zero_grad()
    total = 0.0
    for start in range(0, len(order), BATCH):
        loss = trainer.compute_loss(model, collate(order[start : start + BATCH]))
        loss.backward()
        total += loss.item() * BATCH / len(order)
    return total, [factor.grad.clone() for factor in factors]


def _check(ours: Result, theirs: Result, *, bf16: bool) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=5e-3 if bf16 else 1e-5)
    for one, other in zip(ours[1], theirs[1], strict=True):
        if bf16:
            assert (one - other).norm() < 0.05 * other.norm()
        else:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
