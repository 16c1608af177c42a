"""Whether an export answers as the Soup does: log-probabilities of held-out responses, loaded back and compared."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.data.templates import render_answer
from valuesoup.errors import RunError
from valuesoup.pipeline.answering import prompt_tokens
from valuesoup.pipeline.data import load_part, load_prompts
from valuesoup.pipeline.run import Finished
from valuesoup.rewards.classifier import quiet
from valuesoup.shipping.exported import Check
from valuesoup.soup.generation import Row, generate
from valuesoup.soup.sequences import SequenceBatch, batches_by_length, response_logits, token_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from valuesoup.soup import Soup

ROWS = 32
"""Held-out responses that are compared, and held-out prompts that a cut is measured on."""
TOLERANCE = {"float32": 1e-3, "16 bit": 0.25}
"""Largest difference of a response's log-probability per token, in nats; weights rounded to 16 bit differ visibly."""


@dataclass(frozen=True)
class HeldOut:
    """Validation responses as token ids.

    Attributes:
        prompts: Of each row.
        responses: Of each row, end of sequence included.
        skipped: Responses that were passed over because the base cannot read so many tokens.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    skipped: int


def held_out(finished: Finished, tokenizer: "PreTrainedTokenizerBase", limit: int) -> HeldOut:
    """Take validation responses that a policy should find likely, as evenly from every data set as there are.

    Args:
        finished: The run.
        tokenizer: Of the base.
        limit: Most tokens of prompt and response together.

    Raises:
        RunError: None is short enough.
    """
    split = finished.artifacts[finished.plan.split.key]
    values = list(finished.plan.config.values)
    share, skipped = -(-ROWS // len(values)), 0
    found = HeldOut([], [], 0)
    for value in values:
        taken = 0
        for pair in load_part(split, value, "validation"):
            if taken == share:
                break
            texts = render_answer(pair.prompt, pair.chosen, tokenizer)
            prompt, response = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
            if len(prompt) + len(response) > limit:
                skipped += 1
                continue
            found.prompts.append(prompt)
            found.responses.append(response)
            taken += 1
    if not found.prompts:
        raise RunError(f"every validation response is longer than the {limit} tokens that the base reads.")
    return HeldOut(found.prompts, found.responses, skipped)


@torch.no_grad()
def soup_log_probs(soup: "Soup", weights: Mapping[str, float] | None, rows: HeldOut) -> NDArray[np.float64]:
    """Return log π_λ(y | x) of each held-out response under the soup, or under the base, (rows,) in nats."""
    found = np.zeros(len(rows.responses))
    table = None if weights is None else soup.weight_rows(weights, 1)
    for places, batch in _batches(soup, rows.prompts, rows.responses):
        found[places] = token_log_probs(soup, _on(table, batch), batch).double().sum(1).cpu().numpy()
    return found


@torch.no_grad()
def plain_log_probs(model: Any, rows: HeldOut) -> NDArray[np.float64]:
    """Return the same under any causal language model, one response at a time, without padding."""
    device = model.get_input_embeddings().weight.device
    found = []
    for prompt, response in zip(rows.prompts, rows.responses, strict=True):
        ids = torch.tensor([[*prompt, *response]], device=device)
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        each = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        found.append(float(each.double().sum()))
    return np.array(found)


def compare(
    soup: NDArray[np.float64],
    base: NDArray[np.float64],
    loaded: NDArray[np.float64],
    rows: HeldOut,
    tolerance: float,
) -> Check:
    """Compare log-probabilities of the same responses, each (rows,), under the soup, the base and the export."""
    tokens = np.array([len(response) for response in rows.responses])
    each = np.abs(soup - loaded) / tokens
    change = np.abs(soup - base) / tokens
    return Check(len(tokens), rows.skipped, float(each.mean()), float(each.max()), tolerance, float(change.mean()))


def load_adapters(base: str, adapters: Sequence[Path], device: str, **options: Any) -> Iterator[Any]:
    """Yield plain transformers' base with each adapter on it, by PEFT, in float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded: Any = None
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **options).to(device).eval()
    for place, folder in enumerate(adapters):
        name = f"adapter{place}"  # PEFT's names hold no dot
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # which PEFT sets by itself for GPT-2
            if loaded is None:
                loaded = PeftModel.from_pretrained(model, folder, adapter_name=name)
            else:
                loaded.load_adapter(folder, name)
        loaded.set_adapter(name)
        if place:
            loaded.delete_adapter(f"adapter{place - 1}")
        yield loaded.eval()


def load_merged(folder: Path, device: str, trust_remote_code: bool) -> Any:
    """Return a merged model as plain transformers loads it, in float32."""
    from transformers import AutoModelForCausalLM

    with quiet():
        return (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trust_remote_code)
            .to(device)
            .eval()
        )


def cut_divergence(
    finished: Finished, soup: "Soup", exact: Mapping[str, float], cut: Mapping[str, float]
) -> tuple[float, int]:
    """Return KL(π_exact ‖ π_cut) of whole answers in nats, and on how many validation prompts it was measured.

    The answers are drawn from π_exact; each counts the exact divergence of the next-token distributions, summed over
    its tokens and its end, as :mod:`valuesoup.evaluation.divergence` does against the base.

    Args:
        finished: The run, for its prompts and how it generates.
        soup: Holds the vectors of both.
        exact: Weights of the exact mixture.
        cut: Weights of the cut one.
    """
    prompts = load_prompts(finished.artifacts[finished.plan.evaluated[0].validation.prompts.key])[:ROWS]
    asked = [list(prompt_tokens(soup, prompt)) for prompt in prompts]
    settings = finished.plan.config.generation
    row = tuple(soup.weight_rows(exact, 1)[0].tolist())
    answers = generate(
        soup,
        [Row(tuple(ids), row, seed=place) for place, ids in enumerate(asked)],
        max_new_tokens=settings.max_new_tokens,
        temperature=1.0,
        batch_rows=settings.batch_rows,
    )
    return _mean_divergence(soup, asked, [list(answer.tokens) for answer in answers], exact, cut), len(asked)


@torch.no_grad()
def _mean_divergence(
    soup: "Soup",
    prompts: list[list[int]],
    answers: list[list[int]],
    first: Mapping[str, float],
    second: Mapping[str, float],
) -> float:
    end = int(getattr(soup.tokenizer, "eos_token_id", 0) or 0)
    total = 0.0
    rows = [soup.weight_rows(weights, 1) for weights in (first, second)]
    for _, batch in _batches(soup, prompts, [[*answer, end] for answer in answers]):
        one, other = (response_logits(soup, _on(row, batch), batch).log_softmax(-1) for row in rows)
        each = (one.exp() * (one - other)).sum(-1).masked_fill(~batch.response_mask, 0.0)
        total += float(each.double().sum())
    return total / len(prompts)


def _batches(
    soup: "Soup", prompts: list[list[int]], responses: list[list[int]]
) -> Iterator[tuple[list[int], SequenceBatch]]:
    device = soup.model.get_input_embeddings().weight.device
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    vocabulary = 3 * soup.model.config.get_text_config().vocab_size  # three such tensors at once
    for places in batches_by_length(lengths, ROWS, vocabulary):
        chosen = [[of[place] for place in places] for of in (prompts, responses)]
        yield places, SequenceBatch.build(*chosen).to(device)


def _on(row: Tensor | None, batch: SequenceBatch) -> Tensor | None:
    return None if row is None else row.to(batch.input_ids.device).expand(len(batch.input_ids), -1)
