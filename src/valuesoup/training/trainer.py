"""A training: value vectors of a soup under the one loss, from their first step or a checkpoint to the best of them."""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainingArguments

from valuesoup.errors import UserError
from valuesoup.soup.vector import ValueVector
from valuesoup.store.team import team
from valuesoup.training.checkpoints import BEST, last_checkpoint, load_state
from valuesoup.training.flow import Flow
from valuesoup.training.preference import PreferenceTrainer
from valuesoup.training.rows import TrainingRows
from valuesoup.training.settings import TrainingSettings

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup
    from valuesoup.store.progress import Task
    from valuesoup.training.decorrelation import Decorrelation

LOGS_PER_EPOCH = 10
"""Points of the training curves between two validations."""


@dataclass(frozen=True)
class Trained:
    """What a training found.

    Attributes:
        vectors: The vectors of the best validation loss, by name.
        curves: One row per logged step: step, loss, chosen, rejected, margin, accuracy, or eval_loss and so on.
        best_step: The step of the vectors kept.
        best_loss: Their validation loss, NaN without validation rows.
    """

    vectors: Mapping[str, ValueVector]
    curves: Sequence[Mapping[str, float]]
    best_step: int
    best_loss: float


def train_vectors(
    soup: "Soup",
    rows: TrainingRows,
    validation: TrainingRows | None,
    settings: TrainingSettings,
    *,
    names: Sequence[str],
    work: Path,
    seed: int,
    task: "Task | None" = None,
    penalty: "Decorrelation | None" = None,
    say: Callable[[str], None] = warnings.warn,
) -> Trained:
    """Train vectors of a soup and return those of the best validation loss.

    Interrupted and called again with the same arguments, it continues from its last checkpoint in ``work`` and ends
    in the same vectors.

    Args:
        soup: Holds the vectors to train, and perhaps frozen ones; changed in place.
        rows: Training rows; ``rows.vector`` counts in ``names``.
        validation: Rows for the validation loss; None or empty keeps the last step's vectors.
        settings: Hyper-parameters.
        names: The vectors to train.
        work: Folder for checkpoints; its content is of no use afterwards.
        seed: Of the order of the rows and of the dropout.
        task: Shows the steps.
        penalty: Added to the loss: the dependence between vectors.
        say: Told when fewer pairs are computed at a time, because memory is short; the gradients stay the same.

    Raises:
        UserError: The processes of a team cannot share out a step's rows.
        RunError: The loss became NaN (the step and the pairs are named), the stored reference log-probabilities are
            not those of this base, or memory does not suffice for one pair.
    """
    _check_shares(settings)
    soup.requires_grad_(False)
    for parameter in soup.parameters_of(names):
        parameter.requires_grad_(True)
    if settings.gradient_checkpointing:
        soup.checkpoint_activations()
    steps, best = settings.steps(len(rows)), work / BEST
    every, logs = _pace(settings, len(rows))
    holder: list[PreferenceTrainer] = []
    trainer = PreferenceTrainer(
        soup,
        rows,
        names,
        settings,
        penalty,
        say,
        args=_arguments(soup, settings, steps, work, seed),
        eval_dataset=validation if validation is not None and len(validation) else None,
        callbacks=[Flow(holder, every, logs, best, task)],
    )
    holder.append(trainer)
    _silence(trainer)
    if not team().leads:
        torch.manual_seed(seed + team().rank)  # of the dropout, which else would repeat itself in every process
    checkpoint = last_checkpoint(work, team())
    shutil.rmtree(best, ignore_errors=True)  # which a later step may have written
    if checkpoint is not None and (checkpoint / BEST).is_dir():
        shutil.copytree(checkpoint / BEST, best)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best_step, best_loss = _take_best(soup, names, best) or (steps, math.nan)
    soup.requires_grad_(False)
    soup.eval()
    return Trained(
        vectors={name: soup.vector(name) for name in names},
        curves=[_curve(row) for row in trainer.state.log_history if "loss" in row or "eval_loss" in row],
        best_step=best_step,
        best_loss=best_loss,
    )


def _check_shares(settings: TrainingSettings) -> None:
    processes = team().size
    if processes > 1 and settings.batch_size % (settings.accumulate * processes):
        raise UserError(
            f"{processes} processes cannot share out a step's {settings.batch_size} pairs in {settings.accumulate} "
            f"forward passes; make training.batch_size a multiple of {processes} x accumulate."
        )


def _pace(settings: TrainingSettings, rows: int) -> tuple[int, int]:
    """Return the steps from one validation to the next, and from one point of the training curves to the next."""
    per_epoch = math.ceil(rows / settings.batch_size)
    logs = max(1, per_epoch // (settings.evaluations * LOGS_PER_EPOCH))
    # Validations fall on logged steps: a checkpoint then never splits a window of the training curves.
    return math.ceil(per_epoch / settings.evaluations / logs) * logs, logs


def _arguments(soup: "Soup", settings: TrainingSettings, steps: int, work: Path, seed: int) -> TrainingArguments:
    """Return the settings as transformers.Trainer takes them, without its own output and schedule of saving."""
    processes = team().size
    device = soup.model.get_input_embeddings().weight.device
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=max(1, settings.batch_size // (settings.accumulate * processes)),
        per_device_eval_batch_size=max(16, settings.batch_size),
        gradient_accumulation_steps=settings.accumulate,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup * steps),
        weight_decay=0.0,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.autocasts(device.type),
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=(team().leads and list(settings.report_to)) or "none",
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=True,
        log_level="error",
        seed=seed,
        data_seed=seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
    )
    arguments._n_gpu = 1  # DataParallel would split the rows, but not their weights; several GPUs need accelerate
    return arguments


def _silence(trainer: PreferenceTrainer) -> None:
    """Take away what prints beside the run's own progress."""
    for callback in ("PrinterCallback", "ProgressCallback"):
        for found in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == callback]:
            trainer.remove_callback(found)


def _take_best(soup: "Soup", names: Sequence[str], best: Path) -> tuple[int, float] | None:
    """Load the vectors of the best validation loss and return its step and that loss; None without validation."""
    if not (best / "best.json").is_file():
        return None
    record = json.loads((best / "best.json").read_text(encoding="utf-8"))
    for name in names:
        load_state(soup, name, best / name)
    return int(record["step"]), float(record["loss"])


def _curve(row: Mapping[str, float]) -> dict[str, float]:
    kept = ("step", "epoch", "loss", "chosen", "rejected", "margin", "accuracy", "learning_rate", "grad_norm")
    return {
        key: float(value)
        for key, value in row.items()
        if key in kept or (key.startswith("eval_") and key.removeprefix("eval_") in kept)
    }
