"""Answers of many candidates in one batch: a row carries its prompt, its weights and its own random draws.

A row's answer does not depend on the rows beside it: its draws come from its own seed, one uniform number per
token, and padding is masked. Finished rows leave the batch, so that a long answer does not make the others wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.errors import UserError

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

RETIRE_BELOW = 0.75
"""Finished rows are dropped from the batch when fewer than this share of it is still writing."""


@dataclass(frozen=True)
class Row:
    """One answer to write.

    Attributes:
        prompt: Token ids, not empty.
        weights: One weight per vector of the soup.
        seed: Of this row's draws.
    """

    prompt: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int


@dataclass(frozen=True)
class Answer:
    """What a row wrote.

    Attributes:
        tokens: Token ids without the end-of-sequence token.
        finished: False where the length limit cut it off.
    """

    tokens: tuple[int, ...]
    finished: bool


def generate(
    soup: "Soup",
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    batch_rows: int = 64,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Write an answer for each row.

    Args:
        soup: The soup; its base's generation settings name the end-of-sequence tokens.
        rows: Prompts with weights and seeds.
        max_new_tokens: The longest answer, end of sequence counted.
        temperature: 0 takes the likeliest token.
        batch_rows: Rows in a forward pass; changes the speed, and an answer only where rounding decides a token.
        on_done: Called with the number of answers finished since the last call.

    Returns:
        The answers, in the order of the rows.

    Raises:
        UserError: A negative temperature, or no tokens to write.
        ValueError: A row without prompt tokens.
    """
    if not temperature >= 0:
        raise UserError(f"temperature must be 0 or more, not {temperature}.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    if any(not row.prompt for row in rows):
        raise ValueError("every row needs at least one prompt token")
    # Rows of similar length share a batch, so that little is spent on padding.
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].prompt))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_rows):
        places = order[start : start + batch_rows]
        batch = _write(soup, [rows[place] for place in places], max_new_tokens, temperature)
        answers.update(zip(places, batch, strict=True))
        on_done(len(places))
    return [answers[place] for place in range(len(rows))]


@torch.inference_mode()
def _write(soup: "Soup", rows: Sequence[Row], max_new_tokens: int, temperature: float) -> list[Answer]:
    from transformers import DynamicCache

    device = soup.model.get_input_embeddings().weight.device
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[0] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
    weights = torch.tensor([row.weights for row in rows], dtype=torch.float32, device=device)
    draws = torch.from_numpy(_draws([row.seed for row in rows], max_new_tokens)).to(device)
    ends = torch.tensor(sorted(_end_tokens(soup)), device=device)

    cache = DynamicCache(config=soup.model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    live = torch.arange(len(rows), device=device)
    written = torch.full((len(rows), max_new_tokens), -1, dtype=torch.long, device=device)
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        output = soup(
            weights,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = _choose(output.logits[:, -1].float(), draws[live, step], temperature)
        writing = ~done[live]
        written[live[writing], step] = chosen[writing]
        done[live] |= torch.isin(chosen, ends)
        left = ~done[live]
        count = int(left.sum())
        if count == 0:
            break
        if count < RETIRE_BELOW * len(live):
            keep = left.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            live, weights, chosen, mask, positions = (
                live[keep],
                weights[keep],
                chosen[keep],
                mask[keep],
                positions[keep],
            )
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        positions = positions[:, -1:] + 1

    stop = set(ends.tolist())
    return [_answer(tokens, stop) for tokens in written.tolist()]


def _choose(logits: Tensor, draw: Tensor, temperature: float) -> Tensor:
    """Take the likeliest token, or the one at which the cumulated probability passes the row's draw."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulated = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    return (cumulated <= draw[:, None] * cumulated[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)


def _draws(seeds: Sequence[int], steps: int) -> NDArray[np.float64]:
    """Return (rows, steps) uniform numbers, each row from its own counter-based generator."""
    return np.stack([np.random.Generator(np.random.Philox(seed)).random(steps) for seed in seeds])


def _end_tokens(soup: "Soup") -> set[int]:
    configured = getattr(soup.model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    if soup.tokenizer is not None:
        ends.add(soup.tokenizer.eos_token_id)
    return {int(token) for token in ends if token is not None}


def _answer(tokens: list[int], ends: set[int]) -> Answer:
    kept: list[int] = []
    for token in tokens:
        if token in ends:
            return Answer(tuple(kept), finished=True)
        if token < 0:
            break
        kept.append(token)
    return Answer(tuple(kept), finished=False)
