"""How long a token takes on this machine: a few real steps of the run's own work, or a product of matrices."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.config import RunConfig
from valuesoup.data import Pairs
from valuesoup.doctor.costs import Rates
from valuesoup.doctor.sizes import BYTES, Size
from valuesoup.pipeline.inputs import device_of
from valuesoup.rewards.classifier import quiet
from valuesoup.store import Progress, Task, usable_cpus

if TYPE_CHECKING:
    from valuesoup.training.rows import TokenPairs

SECONDS = 3.0
"""Of each kind of work that is measured."""
STEP_LIMIT = 1.5
"""A step that takes longer by the formula is not measured."""
EFFICIENCY = {"train": 0.4, "forward": 0.5, "write": 0.1}
"""Of the rate of a plain product of matrices, what training, reading and writing reach."""
USUAL = {"cpu": 2.5e10, "cuda": 1.5e14}
"""Operations per second where nothing is measured: of a CPU core, and of a GPU of a data centre."""
START = 0.15
"""Seconds of a stage that opens a small model."""
READ_BYTES = 1e9
"""Bytes of weights read per second."""


def formula(config: RunConfig, base: Size, speed: float) -> Rates:
    """Return rates by the number of operations.

    A forward pass takes two operations per weight, the backward pass through a frozen base as many again, and through
    one that is trained four.

    Args:
        config: Of the run.
        base: Its size.
        speed: Operations per second in a product of matrices.
    """
    training = speed * EFFICIENCY["train"]
    recompute = base.flops if config.training.gradient_checkpointing else 0.0
    lora = 6.0 * base.lora(config.training.rank)
    weights = base.parameters * BYTES.get(base.dtype, 4)
    return Rates(
        train=(2 * base.flops + recompute + lora) / training,
        forward=base.flops / (speed * EFFICIENCY["forward"]),
        write=base.flops / (speed * EFFICIENCY["write"]),
        reward=3 * base.flops / training,
        pretrain=3 * base.flops / training,
        start=START + weights / READ_BYTES,
        measured=False,
    )


def speed_of(device: str, dtype: str, jobs: int, *, measure: bool) -> float:
    """Return the operations per second of a product of matrices, measured for a quarter of a second or as usual."""
    kind = device.partition(":")[0]
    if not measure:
        return USUAL["cuda"] if kind == "cuda" else USUAL["cpu"] * max(1, usable_cpus() // jobs)
    import torch

    size = 4096 if kind == "cuda" else 768
    made = torch.randn(size, size, device=device, dtype=getattr(torch, dtype if kind == "cuda" else "float32"))
    times: list[float] = []
    end = time.perf_counter() + 0.25
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        product = made @ made
        float(product[0, 0])  # waits for a GPU
        times.append(time.perf_counter() - started)
    return 2.0 * size**3 / sorted(times)[len(times) // 2]


class Clock(Progress):
    """A display that shows nothing and notes when each step of a task was done."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, float]] = []

    def _show(self, task: Task) -> None:
        self.steps.append((task.done, time.perf_counter()))
        if self.steps[-1][1] - self.steps[0][1] > SECONDS:
            raise _EnoughError

    def per_step(self) -> float | None:
        """Return the seconds per step, the first left out; None where there was only one."""
        if len(self.steps) < 2:
            return None
        (first, start), (last, end) = self.steps[0], self.steps[-1]
        return (end - start) / (last - first) if last > first else None


class _EnoughError(Exception):
    """The time for a measurement is over."""


def measured(
    config: RunConfig,
    base: Size,
    folder: str | None,
    pairs: Sequence[Pairs],
    by_formula: Rates,
    jobs: int,
) -> Rates | None:
    """Return rates from a few real steps, or None where a step would take too long or the base is not here.

    Args:
        config: Of the run.
        base: Size of the base.
        folder: Where it is; None where it is made here.
        pairs: Of the values.
        by_formula: To know beforehand what is too long.
        jobs: Stages side by side, which share the CPUs.
    """
    settings = config.training
    step = settings.batch_size * by_formula.train * 300
    if step > STEP_LIMIT or (folder is None and config.base.pretrain is None) or not pairs:
        return None
    pretrain = config.base.pretrain
    if pretrain is not None and pretrain.batch_size * pretrain.context * by_formula.pretrain > STEP_LIMIT:
        return None
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, max(1, usable_cpus() // jobs)))
    try:
        with tempfile.TemporaryDirectory(prefix="valuesoup-doctor-") as scratch, quiet():
            return _Measuring(config, base, pairs, by_formula, Path(scratch)).rates(folder)
    finally:
        torch.set_num_threads(threads)


class _Measuring:
    def __init__(self, config: RunConfig, base: Size, pairs: Sequence[Pairs], by_formula: Rates, scratch: Path) -> None:
        self.config = config
        self.base = base
        self.formula = by_formula
        self.scratch = scratch
        self.device = device_of(config.base.device)
        self.sample = Pairs.concat([_spread(of, 200) for of in pairs])

    def rates(self, folder: str | None) -> Rates:
        pretrain = None
        if folder is None:
            folder, pretrain = self._pretrain()
        from valuesoup.soup import Soup, load_model, load_tokenizer, target_layers

        config = self.config.base
        started = time.perf_counter()
        tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
        model = load_model(
            folder,
            dtype=config.dtype,
            device=self.device,
            trust_remote_code=config.trust_remote_code,
            quantize=config.quantize,
        )
        opened = time.perf_counter() - started
        settings = self.config.training
        layers = target_layers(model, settings.target_modules)
        soup = Soup(model, tokenizer, layers=layers, dropout=settings.dropout)
        soup.add_fresh("policy", rank=settings.rank, alpha=settings.lora_alpha, seed=0)
        from valuesoup.training.rows import tokenise

        tokens = tokenise(self.sample, tokenizer, min(settings.max_length, self.base.positions))
        forward, reference = self._forward(soup, tokens)
        return Rates(
            train=self._train(soup, tokens, reference) or self.formula.train,
            forward=forward,
            write=self._write(soup, tokens),
            reward=self._reward(folder, tokens) or self.formula.reward,
            pretrain=pretrain or self.formula.pretrain,
            start=START + opened,
            measured=True,
        )

    def _pretrain(self) -> tuple[str, float | None]:
        """Make a base in a few steps; its weights are of no use, its speed is that of the whole one."""
        from valuesoup.training.pretrain import pretrain

        settings = self.config.base.pretrain
        assert settings is not None
        texts = [[*pair.prompt, *side] for pair in self.sample for side in (pair.chosen, pair.rejected)]
        most = settings.batch_size * settings.context
        short = settings.model_copy(update={"steps": 8})
        clock = Clock()
        # As many texts as a batch needs, however short they are.
        texts *= 1 + most // max(1, sum(len(turn["content"].split()) for text in texts for turn in text))
        with clock.task("pretrain", 8) as task:
            try:
                pretrain(texts, short, self.scratch / "base", seed=0, device=self.device, task=task)
            except _EnoughError:
                one = settings.model_copy(update={"steps": 1})
                pretrain(texts, one, self.scratch / "base", seed=0, device=self.device, task=None)
        step = clock.per_step()
        return str(self.scratch / "base"), None if step is None else step / most

    def _forward(self, soup: Any, tokens: "TokenPairs") -> tuple[float, Any]:
        """Return seconds per token of the reference's pass, and the log-probabilities themselves."""
        from valuesoup.training.reference import pair_log_probs

        bf16 = self.config.training.autocasts(self.device.partition(":")[0])
        started = time.perf_counter()
        found = pair_log_probs(soup, None, tokens, bf16=bf16)
        return (time.perf_counter() - started) / _count(tokens), found

    def _train(self, soup: Any, tokens: "TokenPairs", reference: Any) -> float | None:
        from valuesoup.training.rows import TrainingRows
        from valuesoup.training.trainer import train_vectors

        clock = Clock()
        rows = TrainingRows.plain(tokens, reference)
        settings = self.config.training.model_copy(update={"report_to": (), "epochs": 3.0})
        with clock.task("train", settings.steps(len(rows))) as task, suppress(_EnoughError):
            train_vectors(soup, rows, None, settings, names=["policy"], work=self.scratch / "train", seed=0, task=task)
        step = clock.per_step()
        return None if step is None else step / (settings.batch_size * _count(tokens) / len(tokens))

    def _write(self, soup: Any, tokens: "TokenPairs") -> float:
        """Return seconds per token of an answer, with as many rows at a time as the run has."""
        from valuesoup.soup.generation import Row, generate

        wanted = self.config.generation
        mean = (tokens.chosen.lengths().mean() + tokens.rejected.lengths().mean()) / 2
        length = max(1, min(wanted.max_new_tokens, round(float(mean))))
        count = wanted.batch_rows
        spent = written = 0.0
        began = time.perf_counter()
        while spent == 0.0 or time.perf_counter() - began < SECONDS / 2:
            rows = [Row(tuple(tokens.prompts[place % len(tokens)]), (1.0,), place) for place in range(count)]
            started = time.perf_counter()
            answers = generate(soup, rows, max_new_tokens=length, batch_rows=wanted.batch_rows)
            spent += time.perf_counter() - started
            written += sum(max(1, len(answer.tokens)) for answer in answers)
        return spent / written

    def _reward(self, folder: str, tokens: "TokenPairs") -> float | None:
        trained = [of.reward.train for of in self.config.values.values() if of.reward.train is not None]
        if not trained:
            return None
        from valuesoup.rewards import train_reward_model

        settings, clock = trained[0].model_copy(update={"epochs": 3.0}), Clock()
        out = self.scratch / "reward"
        with suppress(_EnoughError):
            train_reward_model(folder, self.sample, self.sample.take([0]), out, settings, clock, "", device=self.device)
        step = clock.per_step()
        sides = _count(tokens) + float(tokens.prompts.lengths().sum())  # each side has its prompt
        return None if step is None else step / (settings.batch_size * sides / len(tokens))


def _spread(pairs: Pairs, most: int) -> Pairs:
    return pairs.take(list(range(0, len(pairs), max(1, len(pairs) // most)))[:most])


def _count(tokens: "TokenPairs") -> float:
    return float((tokens.prompts.lengths() + tokens.chosen.lengths() + tokens.rejected.lengths()).sum())
