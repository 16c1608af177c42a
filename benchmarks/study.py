"""The trainings of a whole VC-soup study, references counted, against a run of TRL's DPOTrainer for each."""

import copy
import gc
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Claim, compare
from benchmarks.training import RANK, make_base, make_pairs, make_tokenizer
from valuesoup.data.pairs import Pairs
from valuesoup.soup import Soup, target_layers
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import LengthGroups, TrainingRows, tokenise
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import train_vectors

VALUES = 3
SHARES = (1.0, 0.6, 0.3)
"""How much of a value's pairs each threshold keeps."""
SEED = 0
SETTINGS = TrainingSettings(rank=RANK, dropout=0.0, learning_rate=1e-4, batch_size=8, epochs=1.0, bf16=False)
PROMPT = (100, 150)
Rows = list[dict[str, Any]]
Study = dict[tuple[int, float], list[Tensor]]
"""The factors that each training ends in, by value and share."""


def claim(repeats: int, pairs: int = 16) -> Claim:
    """Train a vector per value and threshold, one epoch each, from the same start in the same order of pairs."""
    torch.set_num_threads(1)
    data = [make_pairs(pairs, PROMPT, seed=value) for value in range(VALUES)]
    tokenizer, base = make_tokenizer(), make_base(layers=3)
    # Every training collects garbage as it starts: what lies here from imports would weigh much in such small ones.
    gc.freeze()
    seeds = count()  # TRL keeps reference log-probabilities by the adapter's random start: none is found again
    compared = compare(
        partial(_valuesoup, data, tokenizer, base), partial(_trl, data, tokenizer, base, seeds), _check, repeats
    )
    note = (
        f"{VALUES} values of {pairs} pairs, thresholds that keep {', '.join(f'{share:.0%}' for share in SHARES)}: "
        f"{VALUES * len(SHARES)} trainings of one epoch in batches of {SETTINGS.batch_size}, prompts of {PROMPT[0]} to "
        f"{PROMPT[1]} tokens, Llama of 3 layers, float32; the vectors are equal"
    )
    return compared.claim("study-train", f"trl {version('trl')} DPOTrainer, precompute_ref_log_probs", note)


def _kept(data: Rows, share: float) -> Rows:
    return data[: round(share * len(data))]


def _fresh(base: Any, tokenizer: Any) -> Soup:
    model = copy.deepcopy(base)
    soup = Soup(model, tokenizer, layers=target_layers(model))
    soup.add_fresh("value", rank=RANK, alpha=SETTINGS.lora_alpha, seed=SEED)
    return soup


def _valuesoup(data: list[Rows], tokenizer: Any, base: Any) -> Study:
    found = {}
    for value, given in enumerate(data):
        pairs = Pairs.from_rows(given)
        tokens = tokenise(pairs, tokenizer, SETTINGS.max_length)
        reference = pair_log_probs(_fresh(base, tokenizer), None, tokens)
        for share in SHARES:
            kept = range(len(_kept(given, share)))
            rows = TrainingRows.plain(tokenise(pairs.take(kept), tokenizer, SETTINGS.max_length), reference[kept])
            soup = _fresh(base, tokenizer)
            with tempfile.TemporaryDirectory() as folder:
                train_vectors(soup, rows, None, SETTINGS, names=["value"], work=Path(folder), seed=SEED)
            found[value, share] = [factor.detach() for factor in soup.parameters_of(["value"])]
    return found


def _trl(data: list[Rows], tokenizer: Any, base: Any, seeds: "count[int]") -> Study:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    found = {}
    for value, given in enumerate(data):
        for share in SHARES:
            kept = _kept(given, share)
            lengths = tokenise(Pairs.from_rows(kept), tokenizer, SETTINGS.max_length).lengths()
            order = LengthGroups(lengths, SETTINGS.batch_size, SEED)
            soup = _fresh(base, tokenizer)
            model = copy.deepcopy(base)
            with tempfile.TemporaryDirectory() as folder:
                trainer = DPOTrainer(
                    model=model,
                    args=DPOConfig(
                        output_dir=folder,
                        beta=SETTINGS.beta,
                        precompute_ref_log_probs=True,
                        per_device_train_batch_size=SETTINGS.batch_size,
                        num_train_epochs=SETTINGS.epochs,
                        learning_rate=SETTINGS.learning_rate,
                        train_sampling_strategy="sequential",
                        seed=next(seeds),
                        max_length=None,
                        bf16=False,
                        gradient_checkpointing=False,
                        use_cpu=True,
                        save_strategy="no",
                        logging_strategy="no",
                        report_to="none",
                        disable_tqdm=True,
                    ),
                    train_dataset=Dataset.from_list([kept[place] for place in order]),
                    processing_class=tokenizer,
                    peft_config=LoraConfig(
                        r=RANK, lora_alpha=SETTINGS.lora_alpha, lora_dropout=0.0, target_modules=soup.layer_names
                    ),
                )
                named: Mapping[str, Any] = dict(trainer.model.named_parameters())
                factors = [
                    named[f"base_model.model.{layer}.lora_{side}.default.weight"]
                    for layer in soup.layer_names
                    for side in "AB"
                ]
                with torch.no_grad():
                    for factor, start in zip(factors, soup.parameters_of(["value"]), strict=True):
                        factor.copy_(start)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
            found[value, share] = [factor.detach() for factor in factors]
    return found


def _check(ours: Study, theirs: Study) -> None:
    assert ours.keys() == theirs.keys()
    for key, factors in ours.items():
        one, other = (torch.cat([factor.flatten() for factor in of]) for of in (factors, theirs[key]))
        # Adam's first step is a sign, which rounding may turn where a gradient is nearly zero.
        assert ((one - other).abs() > 0.01 * SETTINGS.learning_rate).double().mean() < 1e-3
