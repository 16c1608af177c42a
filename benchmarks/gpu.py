"""The claims on a GPU, in one call under nine minutes; without a GPU the same jobs run small, to show that they work.

    python -m benchmarks.gpu

A Llama of random weights in bfloat16 (1.1 billion parameters on a GPU). Times are of the clock, after a warm-up, with
the device synchronised. Written to ``benchmarks/results/gpu.json`` on a GPU only.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import candidates, scoring
from benchmarks.page import write_page
from benchmarks.training import RANK, make_pairs, make_tokenizer
from valuesoup.data.pairs import Pairs
from valuesoup.soup import Soup, target_layers
from valuesoup.soup.shared_prompt import response_log_probs
from valuesoup.training.loss import preference_loss
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TrainingRows, pair_batch, tokenise

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPE = torch.bfloat16 if GPU else torch.float32
SIZE: dict[str, int] = (
    {
        "vocab_size": 32_000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    }
    if GPU
    else {
        "vocab_size": 4096,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
)
BATCH, PAIRS = 8, 64 if GPU else 16
VECTORS = ("one", "two", "three")


@dataclass(frozen=True)
class Entry:
    """One comparison: opponent's time / valuesoup's time, and what else was measured."""

    name: str
    opponent: str
    ratio: float
    note: str


def make_base() -> Any:
    """Return the Llama of all jobs, always the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, initializer_range=0.02, pad_token_id=0, eos_token_id=1)
    return LlamaForCausalLM(config).to(DTYPE).to(DEVICE).eval()


def clock(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least seconds of a repeat, after one that is not counted."""
    seconds = []
    for repeat in range(repeats + 1):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        if repeat:
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def _wait() -> None:
    if GPU:
        torch.cuda.synchronize()


def _peak(work: Callable[[], object]) -> float:
    """Return the peak memory of the work in GiB, 0 without a GPU."""
    if not GPU:
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / 2**30


def matrix_peak() -> float:
    """Return the floating-point operations per second of a large matrix product."""
    size = 8192 if GPU else 512
    one, other = (torch.randn(size, size, dtype=DTYPE, device=DEVICE) for _ in range(2))
    return 2 * size**3 / clock(lambda: one @ other, 10)


def _rows() -> tuple[Soup, TrainingRows]:
    model, tokenizer = make_base(), make_tokenizer()
    soup = Soup(model, tokenizer, layers=target_layers(model))
    for place, name in enumerate(VECTORS):
        soup.add_fresh(name, rank=RANK, alpha=2.0 * RANK, seed=place)
    tokens = tokenise(Pairs.from_rows(make_pairs(PAIRS, (100, 150))), tokenizer, 1024)
    rows = TrainingRows.plain(tokens, pair_log_probs(soup, None, tokens))
    soup.requires_grad_(False)
    for factor in soup.parameters_of(VECTORS):
        factor.requires_grad_(True)
    return soup, rows


def _pass(soup: Soup, rows: TrainingRows, places: list[int], vectors: list[int]) -> None:
    """Forward and backward of pairs, each training one vector."""
    inputs = {name: tensor.to(DEVICE) for name, tensor in rows.collate(places).items()}
    weights = torch.eye(len(VECTORS), device=DEVICE)[torch.tensor(vectors, device=DEVICE)]
    chosen, rejected = response_log_probs(soup, weights, pair_batch(inputs), shared=True)
    loss: Any = preference_loss(chosen, rejected, *inputs["reference"].unbind(1), beta=0.1).mean()
    loss.backward()


def dpo() -> Entry:
    """Forward and backward of all pairs against TRL's DPOTrainer with a live reference."""
    soup, rows = _rows()

    def ours() -> None:
        for start in range(0, PAIRS, BATCH):
            _pass(soup, rows, list(range(start, start + BATCH)), [0] * BATCH)

    seconds, memory = clock(ours), _peak(ours)
    parameters = sum(p.numel() for p in soup.model.parameters())
    # Forward, and backward through the activations alone: the base is frozen.
    used = 4 * parameters * int(rows.lengths().sum()) / seconds / matrix_peak()
    theirs = _trl()
    other, other_memory = clock(theirs), _peak(theirs)
    note = (
        f"{parameters / 1e9:.2f} B parameters, {DTYPE}, batches of {BATCH}, prompts of 100 to 150 tokens: "
        f"{PAIRS / seconds:.0f} pairs/s against {PAIRS / other:.0f}; peak memory {memory:.1f} GiB against "
        f"{other_memory:.1f}; {used:.0%} of the measured matrix peak"
    )
    return Entry("DPO, forward and backward", "TRL DPOTrainer, live reference", other / seconds, note)


def _trl() -> Callable[[], None]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    base = make_base()
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=base,
            args=DPOConfig(
                output_dir=folder,
                max_length=None,
                bf16=GPU,
                gradient_checkpointing=False,
                use_cpu=not GPU,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(make_pairs(PAIRS, (100, 150))),
            processing_class=make_tokenizer(),
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=target_layers(base)),
        )
    model = trainer.accelerator.prepare_model(trainer.model).train()

    def epoch() -> None:
        for start in range(0, PAIRS, BATCH):
            batch = trainer.data_collator([trainer.train_dataset[place] for place in range(start, start + BATCH)])
            batch = {name: part.to(DEVICE) if hasattr(part, "to") else part for name, part in batch.items()}
            trainer.compute_loss(model, batch).backward()

    return epoch


def joint(each: int = 2) -> Entry:
    """Train three vectors in one pass of one-hot rows against a pass for each."""
    soup, rows = _rows()
    n = len(VECTORS)

    def together() -> None:
        for start in range(0, PAIRS - n * each + 1, n * each):
            _pass(soup, rows, list(range(start, start + n * each)), [place // each for place in range(n * each)])

    def apart() -> None:
        for start in range(0, PAIRS - n * each + 1, n * each):
            for vector in range(n):
                first = start + vector * each
                _pass(soup, rows, list(range(first, first + each)), [vector] * each)

    ratio = clock(apart) / clock(together)
    return Entry("three values in one pass", "a pass per value", ratio, f"{each} pairs per value and step")


def answers(values: int, prompts: int) -> list[Entry]:
    """Let the candidates of a simplex grid answer, against merging each one in place, and one prompt at a time."""
    base = make_base()
    job = candidates.make_job(values=values, prompts=prompts, base=base)
    merging = clock(partial(candidates.with_merging, base, job), 1)
    part = random.Random(0).sample(range(prompts), min(3, prompts))
    alone = clock(lambda: [candidates.with_transformers(base, job, 0, [number]) for number in part], 1)
    alone *= len(job.candidates) * prompts / len(part)
    soup = candidates.EndingSoup.from_adapters(base, job.vectors)
    seconds = clock(partial(candidates.with_valuesoup, soup, job), 1)
    note = (
        f"{len(job.candidates)} candidates × {prompts} prompts: {len(job.candidates) * prompts / seconds:.0f} answers/s"
    )
    return [
        Entry("candidates answer", "merge in place, generate in batches", merging / seconds, note),
        Entry("candidates answer", "one prompt at a time, scaled up, merging not counted", alone / seconds, note),
    ]


def scores(texts: int = 512 if GPU else 32) -> Entry:
    """Score texts of 15 to 400 tokens against batches of 16 in file order."""
    draw = random.Random(0)
    sizes = [int(min(400, max(15, draw.lognormvariate(4.6, 0.7)))) for _ in range(texts)]
    data = [(scoring.words(draw, size // 2), scoring.words(draw, size - size // 2)) for size in sizes]
    size = {**SIZE, "dtype": str(DTYPE).rpartition(".")[2]}
    with tempfile.TemporaryDirectory() as folder:
        ours, model, tokenizer = scoring.models(Path(folder), DEVICE, **size)
        theirs = clock(partial(scoring.in_batches, model, tokenizer, range(texts), data), 1)
        seconds = clock(partial(scoring.with_valuesoup, ours, data), 1)
    return Entry("scoring texts of mixed length", "batches of 16 in file order", theirs / seconds, f"{texts} texts")


def main() -> None:
    """Measure everything and keep it where there is a GPU."""
    where = torch.cuda.get_device_name() if GPU else "CPU, small sizes"
    print(f"{where}: a matrix product reaches {matrix_peak() / 1e12:.1f} TFLOP/s")
    entries: list[Entry] = []
    prompts = (50, 8) if GPU else (4, 1)
    for work in (dpo, joint, partial(answers, 2, prompts[0]), partial(answers, 3, prompts[1]), scores):
        start = time.perf_counter()
        found = work()
        for entry in found if isinstance(found, list) else [found]:
            entries.append(entry)
            print(f"{entry.name} against {entry.opponent}: {entry.ratio:.2f} ({entry.note})", flush=True)
        print(f"    {time.perf_counter() - start:.0f} s", flush=True)
        if GPU:
            torch.cuda.empty_cache()
    if GPU:
        rows = [{**asdict(entry), "note": f"{entry.note}; {where}"} for entry in entries]
        (RESULTS / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_page(RESULTS, PAGE)


if __name__ == "__main__":
    main()
