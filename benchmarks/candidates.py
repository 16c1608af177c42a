"""Answers of many candidates to held-out prompts, against merging each candidate and generating with transformers."""

import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Claim, Comparison, compare
from benchmarks.training import RANK, make_base
from valuesoup.search import simplex_grid
from valuesoup.soup import Factors, Soup, ValueVector, target_layers
from valuesoup.soup.generation import Row, generate

LONGEST = 64
"""New tokens at most, end of sequence counted."""
END = 1
SAME = 0.98
"""The least share of answers that are equal token by token; the rest differs where two tokens are as likely."""
Answers = dict[tuple[int, int], list[int]]
"""Token ids without the end of sequence, by candidate and prompt."""


@dataclass(frozen=True)
class Job:
    """What both sides are given: vectors, candidates, prompts, and the new tokens of each answer, per candidate."""

    vectors: dict[str, ValueVector]
    candidates: list[list[float]]
    prompts: list[list[int]]
    lengths: list[list[int]]

    def note(self) -> str:
        """Say how large it is."""
        flat = [length for row in self.lengths for length in row]
        return (
            f"{len(self.candidates)} candidates of {len(self.vectors)} values at rank {RANK}, {len(self.prompts)} "
            f"prompts of 40 to 80 tokens, answers of {statistics.mean(flat):.0f} tokens in the mean and {max(flat)} at "
            f"most, Llama of 6.9 M parameters, float32, greedy"
        )


def k11(repeats: int) -> Claim:
    """Mix two values at 11 weights and answer 50 prompts each; the opponent merges into the base's own layers."""
    return _against_merging("candidates-k11", make_job(values=2, prompts=50), repeats)


def k66_few_prompts(repeats: int, prompts: int = 4) -> Claim:
    """Mix three values at 66 weights and answer 4 prompts each; the opponent merges into the base's own layers."""
    return _against_merging("candidates-k66-few-prompts", make_job(values=3, prompts=prompts), repeats)


def k11_published(repeats: int, weights: int = 2, prompts: int = 6) -> Claim:
    """Mix two values at 11 weights as published scripts do: load and merge each, answer one prompt at a time.

    The opponent does a part, which is scaled up: loading by candidates, writing by new tokens.
    """
    job = make_job(values=2, prompts=50)
    soup = EndingSoup.from_adapters(make_base(), job.vectors)
    draw = random.Random(4)
    mine: list[float] = []
    others: list[float] = []
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        make_base().save_pretrained(f"{folder}/base")
        for name, vector in job.vectors.items():
            vector.save_pretrained(f"{folder}/{name}")
        for _ in range(repeats):
            start = time.process_time()
            written = with_valuesoup(soup, job)
            mine.append(time.process_time() - start)
            places = draw.sample(range(len(job.candidates)), weights)
            loading, writing, found = 0.0, 0.0, {}
            for place in places:
                start = time.process_time()
                model = _published(folder, job, place)
                loading += time.process_time() - start
                start = time.process_time()
                for number in draw.sample(range(len(job.prompts)), prompts):
                    found.update(with_transformers(model, job, place, [number]))
                writing += time.process_time() - start
            part = sum(job.lengths[place][number] for place, number in found)
            whole = sum(map(sum, job.lengths))
            others.append(loading / weights * len(job.candidates) + writing / part * whole)
            shares.append(_same(written, found))
    note = (
        f"{job.note()}; the opponent measured on {weights} candidates with {prompts} prompts each and scaled up; "
        f"{min(shares):.1%} of these answers equal"
    )
    opponent = f"peft {version('peft')} load and merge, transformers {version('transformers')} one prompt at a time"
    return Comparison(tuple(mine), tuple(others)).claim("candidates-k11-published", opponent, note)


def _against_merging(name: str, job: Job, repeats: int) -> Claim:
    shares: list[float] = []
    model = make_base()
    theirs = partial(with_merging, model, job)
    compared = compare(
        partial(with_valuesoup, EndingSoup.from_adapters(make_base(), job.vectors), job),
        theirs,
        lambda one, other: shares.append(_same(one, other)),
        repeats,
    )
    far = max(_logit_gap(job, place) for place in (0, len(job.candidates) // 2, len(job.candidates) - 1))
    assert far <= 1e-3, far
    note = f"{job.note()}; logits of the same tokens differ by {far:.0e}, {min(shares):.1%} of the answers are equal"
    return compared.claim(name, f"merge in place, transformers {version('transformers')} generate in batches", note)


def make_job(values: int, prompts: int, base: Any = None) -> Job:
    """Draw vectors of a base (by default the small one of all benchmarks), prompts, and how long each answer is."""
    draw, noise = random.Random(3), torch.Generator().manual_seed(1)
    base = base or make_base()

    def vector() -> ValueVector:
        layers = {}
        for name in target_layers(base):
            size = base.get_submodule(name).weight.shape
            A, B = (0.05 * torch.randn(shape, generator=noise) for shape in ((RANK, size[1]), (size[0], RANK)))
            layers[name] = Factors(A, B, 2.0)
        return ValueVector(layers)

    candidates = simplex_grid(values, 10).tolist()
    return Job(
        {f"v{place}": vector() for place in range(values)},
        candidates,
        [[draw.randrange(2, base.config.vocab_size) for _ in range(draw.randint(40, 80))] for _ in range(prompts)],
        [[max(2, min(LONGEST, int(draw.lognormvariate(3.0, 0.6)))) for _ in range(prompts)] for _ in candidates],
    )


class EndingSoup(Soup):
    """A soup whose last weight is no vector's: it is the position at which the row ends."""

    def forward(self, weights: Tensor | None, **inputs: Any) -> Any:
        """Answer as the soup does, but end where the last weight says."""
        if weights is None:
            return super().forward(None, **inputs)
        output = super().forward(weights[:, :-1], **inputs)
        over = inputs["position_ids"][:, -1] >= weights[:, -1]
        output.logits[:, -1, END] = torch.where(over, torch.inf, -torch.inf)
        return output


def with_valuesoup(soup: Soup, job: Job) -> Answers:
    queue = [(place, number) for number in range(len(job.prompts)) for place in range(len(job.candidates))]
    rows = [
        Row(
            tuple(job.prompts[number]),
            (*job.candidates[place], len(job.prompts[number]) + job.lengths[place][number] - 2.0),
            seed=0,
        )
        for place, number in queue
    ]
    answers = generate(soup, rows, max_new_tokens=LONGEST, temperature=0)
    return {row: list(answer.tokens) for row, answer in zip(queue, answers, strict=True)}


def with_merging(model: Any, job: Job) -> Answers:
    """Write each candidate's weights into the base's layers and answer all prompts in one batch."""
    weights = {name: model.get_submodule(name).weight for name in next(iter(job.vectors.values())).layers}
    base = {name: weight.detach().clone() for name, weight in weights.items()}
    deltas = {
        name: [vector.layers[name].delta().to(weight) for vector in job.vectors.values()]
        for name, weight in weights.items()
    }
    found: Answers = {}
    for place, candidate in enumerate(job.candidates):
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(base[name])
                for share, delta in zip(candidate, deltas[name], strict=True):
                    weight.add_(delta, alpha=share)
        found.update(with_transformers(model, job, place, list(range(len(job.prompts)))))
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(base[name])
    return found


def _published(folder: str, job: Job, place: int) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    first, *others = job.vectors
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(f"{folder}/base"), f"{folder}/{first}", first
    )
    for name in others:
        model.load_adapter(f"{folder}/{name}", name)
    model.add_weighted_adapter(list(job.vectors), job.candidates[place], "mix", combination_type="cat")
    model.set_adapter("mix")
    return model.merge_and_unload().eval()


def with_transformers(model: Any, job: Job, place: int, numbers: list[int]) -> Answers:
    """Answer prompts in one batch, each ending where its row shall."""
    prompts = [job.prompts[number] for number in numbers]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    lengths = torch.tensor([job.lengths[place][number] for number in numbers], device=model.device)

    def end(so_far: Tensor, scores: Tensor) -> Tensor:
        scores[:, END] = torch.where(so_far.shape[1] - width + 1 >= lengths, torch.inf, -torch.inf)
        return scores

    written = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=LONGEST,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
        logits_processor=[end],
    )[:, width:].tolist()
    return {
        (place, number): tokens[: tokens.index(END) if END in tokens else None]
        for number, tokens in zip(numbers, written, strict=True)
    }


def _same(ours: Answers, theirs: Answers) -> float:
    """Return the share of equal answers among those of the other side."""
    share = statistics.mean(ours[row] == tokens for row, tokens in theirs.items())
    assert share >= SAME, share
    return share


@torch.no_grad()
def _logit_gap(job: Job, place: int) -> float:
    """Return how far the logits of a candidate's prompts are from those of the model with merged weights."""
    soup, merged = Soup.from_adapters(make_base(), job.vectors), make_base()
    names = dict(zip(job.vectors, job.candidates[place], strict=True))
    for layer, factors in soup.adapter(names).layers.items():
        merged.get_submodule(layer).weight += factors.delta()
    weights = torch.tensor([job.candidates[place]])
    gaps: list[float] = []
    for prompt in job.prompts[:8]:
        ids = torch.tensor([prompt])
        gaps.append((soup(weights, input_ids=ids).logits - merged(input_ids=ids).logits).abs().max().item())
    return max(gaps)
