"""Reward models trained here: a classifier with one logit on preference pairs, by TRL's RewardTrainer."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict

from valuesoup.data.pairs import Messages, Pairs
from valuesoup.errors import RunError, UserError
from valuesoup.limits import Amount, Batch, Count, Rank, Seed, loading_fault
from valuesoup.rewards.classifier import ClassifierReward, length_limit, load_tokenizer, pad_token, quiet
from valuesoup.rewards.rendering import Renderer, check_template
from valuesoup.store.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RewardConfig


def _known_template(template: str | None) -> str | None:
    try:
        check_template(template)
    except UserError as error:
        raise ValueError(str(error)) from None
    return template


class RewardTraining(BaseModel):
    """Settings of a reward model's training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: Amount = 1.0
    """Passes over the training pairs; may be a fraction."""
    learning_rate: Amount = 1e-4
    """Peak rate of AdamW, falling linearly to zero after a tenth of the steps."""
    batch_size: Batch = 16
    """Pairs per step."""
    max_length: Count | None = None
    """Most tokens of prompt and response together, at most the model's own limit (None takes that); a pair with a
    longer side is dropped and counted, never cut."""
    seed: Seed | None = None
    """Seed of the new head and of the order of the pairs; None takes 0, and in a run the run's own."""
    rank: Rank | None = None
    """Rank of a LoRA on all linear layers, merged when training ends; None trains all weights."""
    template: Annotated[str | None, AfterValidator(_known_template)] = None
    """How prompt and response are rendered, see `rendering.Renderer`."""


@dataclass(frozen=True)
class RewardReport:
    """What came of training a reward model.

    Attributes:
        validation_accuracy: Share of the validation pairs whose chosen response scores higher; a tie counts half.
            NaN without validation pairs.
        validation_pairs: How many pairs that is measured on.
        pairs: How many pairs were trained on.
        too_long: Training and validation pairs that were left out because a side exceeds the length limit.
        train_loss: Mean loss over the training.
        train_seconds: Time of the training alone.
    """

    validation_accuracy: float
    validation_pairs: int
    pairs: int
    too_long: int
    train_loss: float
    train_seconds: float


def train_reward_model(
    base: str | Path,
    train: Pairs,
    validation: Pairs,
    out: Path,
    settings: RewardTraining | None = None,
    progress: Progress | None = None,
    label: str = "train a reward model",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
) -> RewardReport:
    """Train a reward model on preference pairs and save it as a folder that `ClassifierReward` loads.

    Minimises the Bradley-Terry loss -log sigmoid(r(x, y_w) - r(x, y_l)) (arXiv:2203.02155, Eq. 1). The same base,
    pairs and settings give the same model on the same machine.

    Args:
        base: Hub id or folder of a causal language model with its tokenizer.
        train: Pairs to train on.
        validation: Pairs to measure the accuracy on; may be empty.
        out: Folder to write the model and its tokenizer into; made where absent.
        settings: See `RewardTraining`; defaults when None.
        progress: Where to show the steps; nowhere when None.
        label: What to call the work there.
        revision: Hub revision of the base.
        trust_remote_code: Run code that comes with the base.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None takes the GPU where there is one.

    Raises:
        UserError: The base or its tokenizer does not load, has no padding token, or no training pair fits the limit.
        RunError: The loss is no longer a number.
    """
    settings = settings or RewardTraining()
    from transformers import set_seed

    tokenizer = load_tokenizer(str(base), revision, trust_remote_code)
    # The new head is drawn at random when the model is loaded.
    set_seed(settings.seed or 0)
    with quiet():
        model = _load_base(base, tokenizer, revision, trust_remote_code)
    renderer = Renderer(tokenizer, settings.template)
    limit = length_limit(model.config, tokenizer)
    limit = min(limit, settings.max_length or limit)
    rows, fits = _encode(renderer, train, limit)
    if not len(rows["chosen_ids"]):
        raise UserError(
            f"None of the {len(train)} training pairs fits the {limit} tokens that the reward model takes; raise "
            "max_length or give shorter pairs."
        )
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        model, loss, seconds = _train(model, tokenizer, rows, settings, progress or Progress(), label, device)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    _, valid = _encode(renderer, validation, limit)
    measured = validation.filter(valid)
    return RewardReport(
        validation_accuracy=accuracy(ClassifierReward(out, template=settings.template, device=device), measured),
        validation_pairs=len(measured),
        pairs=int(fits.sum()),
        too_long=int((~fits).sum() + (~valid).sum()),
        train_loss=loss,
        train_seconds=seconds,
    )


def accuracy(reward: ClassifierReward, pairs: Pairs) -> float:
    """Return the share of pairs whose chosen response the reward scores higher; ties count half, NaN for no pair.

    Raises:
        UserError: As `ClassifierReward.score`.
    """
    if not len(pairs):
        return math.nan
    prompts, answers = _flat(pairs)
    chosen, rejected = reward.score(prompts, answers).reshape(-1, 2).T
    return float(np.mean(chosen > rejected) + 0.5 * np.mean(chosen == rejected))


def _load_base(
    base: str | Path, tokenizer: "PreTrainedTokenizerBase", revision: str | None, trust_remote_code: bool
) -> "PreTrainedModel":
    from transformers import AutoModelForSequenceClassification

    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            str(base), num_labels=1, dtype="float32", revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise UserError(f"The base '{base}' of a reward model does not load ({loading_fault(error)}).") from None
    tokenizer.pad_token_id = pad_token(model.config, tokenizer)
    return model


def _flat(pairs: Pairs) -> tuple[list[Messages], list[str]]:
    """Return prompts and answers of both sides, chosen and rejected in turn."""
    prompts: list[Messages] = []
    answers: list[str] = []
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            prompts.append((*pair.prompt, *response[:-1]))
            answers.append(response[-1]["content"])
    return prompts, answers


def _encode(
    renderer: Renderer, pairs: Pairs, limit: int
) -> tuple[dict[str, list[NDArray[np.int32]]], NDArray[np.bool_]]:
    """Return the columns that TRL trains on, and which of the pairs they are: those within the limit."""
    ids = renderer.encode(*_flat(pairs))
    sides = list(zip(ids[::2], ids[1::2], strict=True))
    fits = np.array([max(len(chosen), len(rejected)) <= limit for chosen, rejected in sides], dtype=np.bool_)
    kept = [side for side, fit in zip(sides, fits, strict=True) if fit]
    return {"chosen_ids": [chosen for chosen, _ in kept], "rejected_ids": [rejected for _, rejected in kept]}, fits


def _train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: dict[str, list[NDArray[np.int32]]],
    settings: RewardTraining,
    progress: Progress,
    label: str,
    device: str | None,
) -> tuple["PreTrainedModel", float, float]:
    """Return the trained model (LoRA merged), its mean loss, and the seconds that took."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback, TrainerState
    from trl import RewardTrainer

    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda and device and ":" in device:
        torch.cuda.set_device(device)  # the trainer takes the current one
    lora = None
    if settings.rank is not None:
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=settings.rank,
            lora_alpha=2 * settings.rank,
            target_modules="all-linear",
            modules_to_save=["score"],
        )
    lengths = [max(len(side) for side in pair) for pair in zip(*rows.values(), strict=True)]
    with _scratch() as folder:
        trainer = RewardTrainer(
            model=model,
            args=_arguments(settings, folder, cuda),
            train_dataset=Dataset.from_dict({**rows, "length": lengths}),
            processing_class=tokenizer,
            peft_config=lora,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        steps = math.ceil(math.ceil(len(lengths) / settings.batch_size) * settings.epochs)
        with progress.task(label, steps, "steps") as task:

            class Steps(TrainerCallback):
                def on_step_end(self, args: object, state: TrainerState, control: object, **_: object) -> None:
                    task.update(state.global_step)

            trainer.add_callback(Steps)
            loss = float(trainer.train().training_loss)
        seconds = time.perf_counter() - start
        trained = trainer.accelerator.unwrap_model(trainer.model)
    if not math.isfinite(loss):
        raise RunError(
            f"The loss of the reward model became {loss} at learning rate {settings.learning_rate:g}; lower it."
        )
    if lora is not None:
        trained = trained.merge_and_unload()
    return trained, loss, seconds


def _arguments(settings: RewardTraining, folder: Path, cuda: bool) -> "RewardConfig":
    """Return TRL's arguments: nothing is saved or logged, and one process trains on one GPU at most."""
    import torch
    from trl import RewardConfig

    arguments = RewardConfig(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        max_length=None,
        seed=settings.seed or 0,
        data_seed=settings.seed or 0,
        # Pairs of similar length share a batch, which saves padding; their batches come in random order.
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        gradient_checkpointing=False,
        dataloader_pin_memory=cuda,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # TRL refuses torch's DataParallel
    return arguments


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give the trainer a folder that disappears, although it writes nothing that is asked for."""
    folder = Path(tempfile.mkdtemp(prefix="valuesoup-reward-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
