"""transformers.Trainer for preferences: the one loss on the vectors of a soup, and checkpoints that hold only these."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer

from valuesoup.errors import RunError
from valuesoup.soup.quantised import is_exact
from valuesoup.soup.shared_prompt import response_log_probs, shares_prompts
from valuesoup.store.team import team
from valuesoup.training.checkpoints import load_state, save_state
from valuesoup.training.fitting import Fitting, Undo, remember_gradients
from valuesoup.training.loss import implicit_margin, likelihood_loss, preference_loss
from valuesoup.training.rows import LengthGroups, SideBySide, TrainingRows, pair_batch
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.sharing import Share, sum_gradients

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup
    from valuesoup.training.decorrelation import Decorrelation

START_TOLERANCE = {"float32": 0.002, "16 bit": 0.3}
"""How far log π may be from log π_ref before the first step, in nats times √tokens, as rounding errors add up."""
TIE = 1e-5
"""An implicit margin smaller than this is a tie: before the first step every margin is zero but for rounding."""


class PreferenceTrainer(Trainer):
    """transformers.Trainer for the vectors of a :class:`Soup`: the loss, and checkpoints that hold only the vectors."""

    def __init__(
        self,
        soup: "Soup",
        rows: TrainingRows,
        names: Sequence[str],
        settings: TrainingSettings,
        penalty: "Decorrelation | None" = None,
        say: Callable[[str], None] = warnings.warn,
        **rest: Any,
    ):
        """Prepare.

        Args:
            soup: Holds the vectors; those named are trained.
            rows: The training rows.
            names: The vectors that ``rows.vector`` counts.
            settings: Of the loss: β and ρ.
            penalty: Added to the loss: the dependence between vectors.
            say: Told when fewer rows are computed at a time, because memory is short.
            rest: What transformers.Trainer takes.
        """
        # Training and validation rows each make their own batches.
        super().__init__(model=soup, train_dataset=rows, data_collator=lambda batch: batch, **rest)
        self.soup = soup
        self.names = list(names)
        self.beta = settings.beta
        self.rho = settings.likelihood
        self.penalty = penalty
        self.team = team()
        self.step_rows = settings.batch_size
        self.fitting = Fitting(say, divisible=not self.team.divided)
        # The loss divides by the rows of the whole step itself (see get_batch_samples), so Trainer must not.
        self.model_accepts_loss_kwargs = True
        self._sums: dict[str, list[float]] = {"train": [], "eval": []}
        self._seen = {"train": 0, "eval": 0}
        one_hot = torch.zeros(len(self.names), len(soup.names))
        for place, name in enumerate(self.names):
            one_hot[place, soup.names.index(name)] = 1.0
        self._one_hot = one_hot
        parts = [cast("TrainingRows", part) for part in (self.train_dataset, self.eval_dataset) if part is not None]
        self.shared = shares_prompts(soup, max(part.pairs.longest() for part in parts))

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroups | SideBySide | Share:
        rows = cast("TrainingRows", train_dataset or self.train_dataset)
        step, seed = self.step_rows, self.args.data_seed
        counts = np.bincount(rows.vector, minlength=len(self.names))
        order: LengthGroups | SideBySide
        if len(counts) > 1 and len(set(counts)) == 1 and step % len(counts) == 0:
            order = SideBySide(rows.lengths(), rows.vector, step // len(counts), seed)
        else:
            order = LengthGroups(rows.lengths(), step, seed)
        return order if self.team.alone else Share(order, step, self.team)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip the gradients of each vector as if it trained alone, and return the norm of all before that."""
        sum_gradients(self.soup.parameters_of(self.names), self.team)
        most = self.args.max_grad_norm
        norms = [self.accelerator.clip_grad_norm_(self.soup.parameters_of([name]), most) for name in self.names]
        whole: Tensor = torch.linalg.vector_norm(torch.stack([torch.as_tensor(norm) for norm in norms]))
        return whole

    def _get_eval_sampler(self, eval_dataset: Any) -> list[int]:
        order: list[int] = np.argsort(eval_dataset.lengths(), kind="stable").tolist()
        return order if self.team.alone else list(Share(order, len(order), self.team))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], int]:
        """Return the batches of a step and the number of their rows: a short last batch then has no more weight."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = sum(int((inputs["row"] < len(self._dataset("train"))).sum()) for inputs in samples)
        return samples, round(self.team.total([rows])[0])

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add the gradients of a batch and return its share of the step's loss."""
        step = super().training_step
        found = self.fitting.each(inputs, lambda piece: step(model, piece, num_items_in_batch), self._remember)
        return torch.stack([loss for _, loss in found]).sum()

    def _remember(self) -> Undo:
        sums, seen = dict(self._sums), dict(self._seen)
        gradients = remember_gradients(self.soup.parameters_of(self.names))

        def undo() -> None:
            self._sums, self._seen = sums, seen
            gradients()

        return undo

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the one loss, summed over the batch's rows and divided by the step's (by the batch's without)."""
        batch = pair_batch(inputs)
        weights = self._one_hot.to(batch.tokens.device)[inputs["vector"]]
        with self.accelerator.autocast():
            chosen, rejected = response_log_probs(cast("Soup", model), weights, batch, shared=self.shared)
        reference_chosen, reference_rejected = inputs["reference"].unbind(1)
        losses = preference_loss(
            chosen,
            rejected,
            reference_chosen,
            reference_rejected,
            beta=self.beta,
            weight=inputs["weight"],
            scale=inputs["scale"],
            margin=inputs["margin"],
        )
        lengths = batch.sizes()[0]
        if self.rho:
            losses = losses + self.rho * likelihood_loss(chosen[:, None], lengths)
        part = "train" if torch.is_grad_enabled() else "eval"
        real = inputs["row"] < len(self._dataset(part))
        if not self.team.alone:
            losses = losses * real
        # Vectors in training share the step's rows, and each has the mean loss of its own as when it trains alone.
        share = len(losses) / (num_items_in_batch or len(losses))
        loss = share * losses.mean()
        if torch.is_grad_enabled():
            loss = loss * len(self.names)
            if self.penalty is not None:
                counted = share if self.team.alone else share * real.float().mean()
                loss = loss + counted * self.penalty.penalty(self.soup)
        self._check(losses, inputs, chosen - reference_chosen, lengths, part)
        margin = implicit_margin(chosen, rejected, reference_chosen, reference_rejected, self.beta)
        seen = (losses, chosen, rejected, margin)
        self._count(part, *(seen if self.team.alone else (of[real] for of in seen)))
        return (loss, None) if return_outputs else loss

    def _dataset(self, part: str) -> TrainingRows:
        return cast("TrainingRows", self.train_dataset if part == "train" else self.eval_dataset)

    def _check(self, losses: Tensor, inputs: dict[str, Tensor], moved: Tensor, lengths: Tensor, part: str) -> None:
        if not torch.isfinite(losses).all():
            dataset = self._dataset(part)
            rows = (inputs["row"][~torch.isfinite(losses)] % len(dataset)).tolist()
            ids = ", ".join(dataset.pairs.ids[row] for row in rows[:5])
            raise RunError(
                f"the loss became NaN or infinite at step {self.state.global_step + 1}, on pairs {ids}; "
                "lower learning_rate, or look at those pairs."
            )
        if part == "train" and self.state.global_step == 0 and self._starts_at_base:
            exact = is_exact(self.soup.model) and not self.args.bf16
            far = moved.detach().abs()
            if (far > START_TOLERANCE["float32" if exact else "16 bit"] * lengths.sqrt()).any():
                raise RunError(
                    f"before the first step log π is up to {far.max().item():.3g} nats away from the stored log π_ref, "
                    "so the first loss is not ln 2; the reference belongs to another base, template or data set."
                )

    @property
    def _starts_at_base(self) -> bool:
        # A vector that goes on from another policy sees its adapters' dropout before the first step.
        factors = self.soup.parameters_of(self.names)[1::2]
        return not any(B.detach().any() for B in factors)

    def _count(self, part: str, losses: Tensor, chosen: Tensor, rejected: Tensor, margin: Tensor) -> None:
        ties = margin.abs() < TIE
        won = (margin > 0).masked_fill(ties, False).sum() + 0.5 * ties.sum()
        sums = torch.stack([losses.sum(), chosen.sum(), rejected.sum(), margin.sum(), won])
        found = sums.detach().double().tolist()
        old = self._sums[part] or [0.0] * len(found)
        self._sums[part] = [a + b for a, b in zip(old, found, strict=True)]
        self._seen[part] += len(losses)

    def take_means(self, part: str) -> dict[str, float]:
        """Return the means since the last call: loss, log-probabilities, implicit reward margin, accuracy."""
        names = ("loss", "chosen", "rejected", "margin", "accuracy")
        *sums, seen = self.team.total([*(self._sums[part] or [0.0] * len(names)), self._seen[part]])
        self._sums[part], self._seen[part] = [], 0
        if not seen:
            return {}
        mark = "" if part == "train" else "eval_"
        return {mark + name: total / seen for name, total in zip(names, sums, strict=True)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the log-probabilities, margins and accuracies to what Trainer logs."""
        if "eval_loss" in logs:
            logs = {**logs, **self.take_means("eval")}
        elif "loss" in logs:
            logs = {**logs, **self.take_means("train")}
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """Return the loss of a validation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            found = self.fitting.each(inputs, lambda piece: self.compute_loss(model, piece).detach(), self._remember)
        return torch.stack([size / len(inputs["row"]) * loss for size, loss in found]).sum(), None, None

    def evaluation_loop(self, *arguments: Any, **rest: Any) -> Any:
        """Return the validation loss over the rows of all processes."""
        found = super().evaluation_loop(*arguments, **rest)
        if not self.team.alone and found.metrics:
            total, seen = self.team.total([self._sums["eval"][0], self._seen["eval"]])
            found.metrics["eval_loss"] = total / seen
        return found

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave the soup where it is: its base may be spread over devices or processes."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        for name in self.names:
            save_state(self.soup, name, folder / name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        for name in self.names:
            load_state(self.soup, name, Path(resume_from_checkpoint) / name)
