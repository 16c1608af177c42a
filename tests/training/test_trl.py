"""The loss and its gradients equal those of TRL's DPOTrainer on the same rows."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from valuesoup.soup import Soup, head
from valuesoup.training.preference import PreferenceTrainer
from valuesoup.training.rows import TrainingRows
from valuesoup.training.settings import TrainingSettings

BETA = 0.3


def trl_trainer(model: Any, soup: Soup, count: int, folder: Path) -> Any:
    """TRL's trainer on the same base, with the soup's factors copied into PEFT's adapter."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    pairs = [
        {"prompt": list(pair.prompt), "chosen": list(pair.chosen), "rejected": list(pair.rejected)}
        for pair in tiny.random_pairs(count)
    ]
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(folder), beta=BETA, max_length=None, bf16=False, use_cpu=True, report_to="none",
            gradient_checkpointing=False, disable_dropout=True, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tiny.tokenizer(),
        peft_config=LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=soup.layer_names),
    )  # fmt: skip
    parameters = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for layer in soup.layer_names:
            for side, factor in zip("AB", soup.parameters_of(["a"])[_place(soup, layer)], strict=True):
                parameters[f"base_model.model.{layer}.lora_{side}.default.weight"].copy_(factor)
    return trainer


def _place(soup: Soup, layer: str) -> slice:
    start = 2 * soup.layer_names.index(layer)
    return slice(start, start + 2)


FAMILIES = [
    "llama", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma", "gemma2", "gemma2-window-64", "gemma3_text",
    "gemma3_text-window-6", "mistral", "mistral-window-64", "phi", "phi3", "olmo2", "granite", "cohere", "cohere2",
]  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)  # mistral's and gemma2's windows are shorter than the sequences
def test_loss_and_gradients_equal_trls_on_ragged_batches(
    kind: str,
    model_of: Callable[[str], Any],
    fresh: Callable[..., Soup],
    rows: Callable[..., TrainingRows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warnings.filterwarnings("error", ".*(prompts are computed once|logits are computed whole)")
    monkeypatch.setattr(head, "PIECE", 5 * (tiny.WORDS + 5))  # five positions at a time
    from transformers import TrainingArguments

    soup = fresh("a", kind=kind)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():  # somewhere inside a training: B is not zero, so that A has a gradient too
        for factor in soup.parameters_of(["a"])[1::2]:
            factor.copy_(0.1 * torch.randn(factor.shape, generator=draw))
    training = rows(12, kind=kind)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    mine = PreferenceTrainer(soup, training, ["a"], TrainingSettings(beta=BETA), args=arguments)
    theirs = trl_trainer(model_of(kind), soup, 12, tmp_path)
    for factor in soup.parameters_of(["a"]):
        factor.requires_grad_(True)

    for places in ([0], [1, 2], [0, 3, 4, 5, 6], list(range(12))):
        examples = [theirs.train_dataset[place] for place in places]
        for place, example in zip(places, examples, strict=True):
            assert example["prompt_ids"] == training.pairs.prompts[place]
            assert example["chosen_ids"] == training.pairs.chosen[place]
            assert example["rejected_ids"] == training.pairs.rejected[place]
        theirs.model.zero_grad()
        theirs.model.train()
        their_loss = theirs.compute_loss(theirs.model, theirs.data_collator(examples))
        their_loss.backward()
        soup.zero_grad()
        soup.train()
        my_loss = mine.compute_loss(soup, training.collate(places))
        my_loss.backward()

        assert my_loss.item() == pytest.approx(their_loss.item(), abs=1e-5)
        parameters = dict(theirs.model.named_parameters())
        for layer in soup.layer_names:
            for side, factor in zip("AB", soup.parameters_of(["a"])[_place(soup, layer)], strict=True):
                wanted = parameters[f"base_model.model.{layer}.lora_{side}.default.weight"].grad
                assert factor.grad is not None and factor.grad.any()
                torch.testing.assert_close(factor.grad, wanted, rtol=1e-5, atol=1e-5)
