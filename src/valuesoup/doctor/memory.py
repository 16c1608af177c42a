"""Memory and disk that the stages of a run need, by the sizes of its models; estimates, none is measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from valuesoup.config import RunConfig
from valuesoup.doctor.machine import free_bytes, hub_cache
from valuesoup.doctor.models import trainings
from valuesoup.doctor.pairs import Counts
from valuesoup.doctor.report import Machine, Need, Problem
from valuesoup.doctor.sizes import BYTES, Size
from valuesoup.pipeline.inputs import device_of
from valuesoup.soup.head import PIECE
from valuesoup.store import Node

ADAM = 16
"""Bytes of a trained float32 parameter: itself, its gradient, and AdamW's two moments."""
PROCESS = {"cpu": 600_000_000, "cuda": 500_000_000}
"""Bytes of a process with its libraries; on a GPU those of its context."""
WRITING = "answers at a time"
GENEROUS = 1.25
"""What comes and goes takes more than is in use: allocators keep some."""


def memory_needs(
    config: RunConfig,
    base: Size,
    rewards: Mapping[str, Size | None],
    counts: Mapping[str, Counts],
    machine: Machine,
    jobs: int,
) -> list[Need]:
    """Return what each kind of work needs at its peak, on the device where it is done."""
    device = device_of(config.base.device).partition(":")[0]
    place, free = ("GPU", machine.gpus[0].free) if device == "cuda" and machine.gpus else ("RAM", machine.memory_free)
    own = PROCESS["cuda" if device == "cuda" else "cpu"]
    dtype = base.dtype if config.base.dtype == "auto" else config.base.dtype
    weights = base.weights(dtype, config.base.quantize)
    settings = config.training
    # Activations are in the narrower of the weights' and the autocast's type.
    each = 2 if settings.autocasts(device) else BYTES.get(dtype, 4)
    longest = _longest(config, base, counts)
    parts: dict[str, tuple[int, int]] = {}
    if (pretrain := config.base.pretrain) is not None:
        tokens = pretrain.batch_size * pretrain.context
        parts["pretraining the base"] = base.parameters * ADAM, activations(base, tokens, 4) + logits(base, tokens)
    lora = base.lora(max(of.rank for of in trainings(config)))
    tokens = settings.batch_size // settings.accumulate * 2 * longest
    kept = activations(base, tokens, each)
    if settings.gradient_checkpointing:
        kept = kept // base.layers + base.layers * tokens * base.hidden * each
    parts["training a vector"] = weights + lora * ADAM, kept + min(logits(base, tokens), 3 * 4 * PIECE)
    rows = config.generation.batch_rows
    texts = rows * (config.generation.max_prompt_tokens + config.generation.max_new_tokens)
    stacked = 2 * 4 * lora * len(config.values)
    cache = texts * base.kv * base.layers * BYTES.get(dtype, 4)
    parts[f"{rows} {WRITING}"] = weights + stacked, cache + logits(base, rows)
    for value, of in config.values.items():
        train, size = of.reward.train, rewards.get(value)
        if train is not None:
            tokens = 2 * train.batch_size * min(train.max_length or longest, longest)
            held = base.parameters * (ADAM if train.rank is None else 4)
            kept = activations(base, tokens, 2 if device == "cuda" else 4)
            parts[f"training the reward model of {value}"] = held, kept
        elif size is not None:
            parts[f"the reward model of {value}"] = size.parameters * BYTES.get(size.dtype, 4), 0
    needs = [Need(what, place, round(own + held + GENEROUS * kept), free) for what, (held, kept) in parts.items()]
    if jobs > 1:
        most = max(need.bytes for need in needs)
        needs.append(Need(f"{jobs} stages side by side, at most", place, jobs * most, free))
    return needs


def disk_needs(config: RunConfig, base: Size | None, made: Sequence[Node], downloads: int, run: Path) -> list[Need]:
    """Return the bytes that downloads and results take."""
    needs = [Need("downloads", str(hub_cache()), downloads, free_bytes(hub_cache()))] if downloads else []
    if base is not None:
        rank = config.training.rank
        # A vector is kept once, and beside it, while it trains, a checkpoint with the optimiser's state.
        size = len(made) * base.lora(rank) * 4 + base.lora(rank) * ADAM
        size += 4 * base.parameters * (config.base.pretrain is not None)
        size += 4 * base.parameters * sum(of.reward.train is not None for of in config.values.values())
        needs.append(Need("models and results", str(run), size + 50_000_000, free_bytes(run)))
    return needs


def shortages(memory: Sequence[Need], disk: Sequence[Need]) -> list[Problem]:
    """Return a problem for each need that has no room."""
    found = []
    for need in memory:
        if need.fits is False:
            text = f"{need.what} takes about {gigabytes(need.bytes)} of {need.place}, of which "
            text += f"{gigabytes(need.free or 0)} are free; {_advice(need)}."
            # An estimate may be wrong by half, and answers are written fewer at a time where memory is short.
            stops = need.bytes > 1.5 * (need.free or 0) and not need.what.endswith(WRITING)
            found.append(Problem("memory", text, stops))
    for need in disk:
        if need.fits is False:
            text = f"{need.what} take about {gigabytes(need.bytes)} in {need.place}, where "
            found.append(Problem("disk", f"{text}{gigabytes(need.free or 0)} are free."))
    return found


def activations(size: Size, tokens: int, each: int) -> int:
    """Return the bytes that a forward pass of so many tokens keeps for the backward pass.

    Per token and layer the inputs of the norms and of the products are kept: about ten times the width and four times
    the inner width (after Korthikanti et al., arXiv:2205.05198, with fused attention).
    """
    return size.layers * tokens * (10 * size.hidden + 4 * size.inner) * each


def logits(size: Size, tokens: int) -> int:
    """Return the bytes of float32 logits, their logarithm and its gradient."""
    return 3 * 4 * tokens * size.vocabulary


def gigabytes(number: float) -> str:
    """Return bytes as a person reads them, in units of 10⁹ or 10⁶."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"


def _longest(config: RunConfig, base: Size, counts: Mapping[str, Counts]) -> int:
    """Return the most tokens of a text that is trained on."""
    limit = min(config.training.max_length, base.positions)
    known = [of.longest for of in counts.values()]
    return limit if None in known else min(limit, max(length for length in known if length is not None))


def _advice(need: Need) -> str:
    if need.what.startswith("training a vector"):
        return "raise training.accumulate, set gradient_checkpointing, or lower max_length"
    if need.what.startswith("training the reward"):
        return "give reward.train a rank (LoRA), a smaller batch_size or max_length"
    if need.what.endswith(WRITING):
        return "lower generation.batch_rows (else the run does so by itself)"
    if "side by side" in need.what:
        return "lower --jobs"
    return "use a smaller model, dtype: bfloat16, or quantize: nf4"
