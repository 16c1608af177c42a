"""The course of a training: when it logs, validates and saves, and which vectors it keeps."""

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from valuesoup.store.files import write_atomic
from valuesoup.store.team import team
from valuesoup.training.checkpoints import BEST, save_state, seal

if TYPE_CHECKING:
    from valuesoup.store.progress import Task
    from valuesoup.training.preference import PreferenceTrainer


class Flow(TrainerCallback):
    """Decides when to log, validate and save, and keeps the vectors of the best validation loss."""

    def __init__(self, trainer_of: "list[PreferenceTrainer]", every: int, logs: int, best: Path, task: "Task | None"):
        """Prepare.

        Args:
            trainer_of: Will hold the trainer, which needs its callbacks when it is made.
            every: Steps from one validation to the next.
            logs: Steps from one point of the training curves to the next.
            best: Folder for the best vectors.
            task: Shows the steps.
        """
        self.trainer_of = trainer_of
        self.every = every
        self.logs = logs
        self.best = best
        self.task = task

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for what is due after this step, the last step for everything."""
        last = state.global_step >= state.max_steps
        validate = last or state.global_step % self.every == 0
        control.should_log = validate or state.global_step % self.logs == 0
        control.should_evaluate = validate and self.trainer_of[0].eval_dataset is not None
        control.should_save = validate
        if self.task is not None:
            self.task.update(state.global_step)
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Put the best vectors so far into the checkpoint, which is then whole."""
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.best.is_dir():
            shutil.copytree(self.best, checkpoint / BEST, dirs_exist_ok=True)
        seal(checkpoint, keep=1 if team().alone else 2)  # all processes resume from a step that all have saved

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Keep the vectors where their validation loss is the best so far."""
        record = self.best / "best.json"
        known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {"loss": math.inf}
        if metrics["eval_loss"] < known["loss"]:
            trainer = self.trainer_of[0]
            for name in trainer.names:
                save_state(trainer.soup, name, self.best / name)
            write_atomic(record, json.dumps({"step": state.global_step, "loss": metrics["eval_loss"]}))
