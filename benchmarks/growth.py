"""How cost grows with the size of each job: processor seconds and peak memory, each size in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "growth.json"


@dataclass(frozen=True)
class Point:
    """The cost of one job at one size.

    Attributes:
        job: What is done.
        size: How large it is, in words.
        seconds: Of processor time.
        peak: MiB of resident memory beyond what the process held when its input was ready.
    """

    job: str
    size: str
    seconds: float
    peak: float


@dataclass(frozen=True)
class Job:
    """A job that can be prepared at several sizes.

    Attributes:
        title: What is done.
        name: Says a size in words.
        prepare: Makes the input of a size and returns the work to measure.
        sizes: Arguments of ``prepare``.
    """

    title: str
    name: Callable[..., str]
    prepare: Callable[..., Callable[[], object]]
    sizes: tuple[tuple[int, ...], ...]


def _filter(pairs: int, values: int) -> Callable[[], object]:
    import numpy as np

    from valuesoup.consistency import consistent, value_consistency
    from valuesoup.rewards import RewardTable

    names = tuple(f"value {number}" for number in range(values))
    scores = np.random.default_rng(0).normal(size=(pairs, 2, values))
    table = RewardTable(["pair"] * pairs, ("chosen", "rejected"), names, scores)
    return lambda: consistent(value_consistency(table.gaps()), 0.5)


def _frontier(candidates: int, values: int) -> Callable[[], object]:
    import numpy as np

    from valuesoup.evaluation import hypervolume, pareto

    points = np.abs(np.random.default_rng(0).normal(size=(candidates, values)))
    # A little below a sphere, as candidates of a good method lie: many of them are on the frontier.
    points *= np.random.default_rng(1).uniform(0.99, 1.0, (candidates, 1)) / np.linalg.norm(
        points, axis=1, keepdims=True
    )
    return lambda: hypervolume(points[pareto(points)], reference=np.zeros(values))


def _train(prompt: int, vocabulary: int) -> Callable[[], object]:
    """Forward and backward of 8 pairs with prompts of about that length."""
    from benchmarks.training import make_base

    return _step(make_base(vocabulary=vocabulary), prompt)


def _learn(width: int) -> Callable[[], object]:
    """Forward and backward of 8 pairs by a model of that width."""
    from transformers import LlamaForCausalLM

    from benchmarks.training import make_base

    config = make_base(layers=1).config
    config.update({"hidden_size": width, "intermediate_size": width * 11 // 4, "num_hidden_layers": 6, "head_dim": 64})
    config.update({"num_attention_heads": width // 64, "num_key_value_heads": width // 64})
    return _step(LlamaForCausalLM(config).eval(), 100)


def _step(model: Any, prompt: int) -> Callable[[], object]:
    """Return a forward and backward of DPO over 8 pairs."""
    import torch

    from benchmarks.training import make_pairs, make_tokenizer
    from valuesoup.data.pairs import Pairs
    from valuesoup.soup import Soup, target_layers
    from valuesoup.soup.shared_prompt import response_log_probs
    from valuesoup.training.rows import tokenise

    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    soup = Soup(model, tokenizer, layers=target_layers(model))
    soup.add_fresh("value", rank=16, alpha=32.0, seed=0)
    soup.requires_grad_(False)
    for factor in soup.parameters_of(["value"]):
        factor.requires_grad_(True)
    pairs = tokenise(Pairs.from_rows(make_pairs(8, (prompt, prompt))), tokenizer, 2048)

    def step(places: list[int]) -> None:
        chosen, rejected = response_log_probs(soup, torch.ones(1, 1), pairs.batch(places), shared=True)
        loss: Any = (chosen - rejected).sum()
        loss.backward()

    step([0])  # what the first pass sets up is not counted
    return lambda: step(list(range(8)))


def _answer(values: int, prompts: int) -> Callable[[], object]:
    """Let every candidate of a simplex grid in steps of 0.1 answer."""
    import torch

    from benchmarks.candidates import EndingSoup, make_job, with_valuesoup
    from benchmarks.training import make_base

    torch.set_num_threads(1)
    job = make_job(values=values, prompts=prompts)
    soup = EndingSoup.from_adapters(make_base(), job.vectors)
    return lambda: with_valuesoup(soup, job)


def _grid(values: int, prompts: int) -> str:
    from math import comb

    return f"{comb(10 + values - 1, values - 1)} candidates of {values} values × {prompts} prompts"


JOBS = {
    "train": Job(
        "DPO, forward and backward of 8 pairs with responses of 40 to 80 tokens, Llama of 6.9 M parameters",
        lambda prompt, vocabulary: f"prompts of {prompt} tokens, vocabulary of {vocabulary:,}",
        _train,
        ((50, 4096), (100, 4096), (200, 4096), (400, 4096), (800, 4096), (100, 32_768), (100, 131_072)),
    ),
    "learn": Job(
        "DPO, forward and backward of 8 pairs with prompts of 100 tokens, by a Llama of 6 layers",
        lambda width: f"width {width:,}, {(6 * 49 * width * width // 4 + 2 * 4096 * width) / 1e6:.1f} M parameters",
        _learn,
        ((256,), (512,), (1024,)),
    ),
    "answer": Job(
        "candidates answer prompts, 24 tokens in the mean, the same model, rank 16 per value",
        _grid,
        _answer,
        ((2, 6), (2, 24), (3, 4), (4, 1)),
    ),
    "filter": Job(
        "consistency filter from a score table",
        lambda pairs, values: f"{pairs:,} pairs × {values} values",
        _filter,
        ((1_000_000, 3), (3_000_000, 3), (10_000_000, 3), (3_000_000, 2), (3_000_000, 5), (3_000_000, 10)),
    ),
    "frontier": Job(
        "Pareto set and its hypervolume",
        lambda candidates, values: f"{candidates:,} candidates × {values} values",
        _frontier,
        ((1_000, 2), (100_000, 2), (1_000, 3), (100_000, 3), (1_000, 5), (10_000, 5), (100_000, 5), (1_000, 10)),
    ),
}


def measure(name: str, size: tuple[int, ...]) -> Point:
    """Measure a job at one size in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", name, *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Point(JOBS[name].title, JOBS[name].name(*size), **json.loads(done.stdout))


def figures(_: int) -> list[str]:
    """Measure every job at every size once, keep the points, and return them as lines of text."""
    points = [measure(name, size) for name, job in JOBS.items() for size in job.sizes]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n", encoding="utf-8")
    return [f"{point.job}, {point.size}: {point.seconds:.2f} s, {point.peak:.0f} MiB" for point in points]


def memory(what: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (at its peak) of this process, in MiB; Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def main() -> None:
    """Measure one job at one size here."""
    name, *size = sys.argv[1:]
    work = JOBS[name].prepare(*map(int, size))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before, start = memory("VmRSS"), time.process_time()
    work()
    print(json.dumps({"seconds": time.process_time() - start, "peak": memory("VmHWM") - before}))


if __name__ == "__main__":
    main()
