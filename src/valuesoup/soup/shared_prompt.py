"""Log-probabilities of both responses of a pair, the prompt computed once.

A pair is one row of three parts,

    [stem without its last token | last token of the stem, chosen | last token of the stem, rejected],

where the stem is the prompt and the tokens with which both responses begin, and each response lacks its last token,
which predicts nothing. A mask keeps the rejected part from seeing the chosen part, and its positions start again after
the stem, so every token sees what it would see in a sequence of its own (prefix sharing, arXiv:2410.20305).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from valuesoup.soup.sequences import SequenceBatch, token_log_probs

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the reach of a layer that does not see the whole row."""
AGREEMENT = {"float32": 1e-3, "16 bit": 0.5}
"""How far a token's log-probabilities of the two ways may differ, in nats; a wrong mask shifts some by far more."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs packed into rows, padded on the left, so that the responses of all rows end in one column.

    Attributes:
        tokens: (pairs, width) what the model reads, padded with 0.
        targets: (pairs, response width) the tokens to predict, at the right end: the responses' common start, the rest
            of chosen, the rest of rejected.
        lengths: (pairs, 4) tokens of the prompt and of these three.
    """

    tokens: Tensor
    targets: Tensor
    lengths: Tensor

    @classmethod
    def build(
        cls, prompts: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]], rejected: Sequence[Sequence[int]]
    ) -> "PairBatch":
        """Pack token ids.

        Args:
            prompts: Token ids of each prompt, not empty.
            chosen: Token ids of each chosen response, end of sequence included.
            rejected: The same of each rejected response; not both empty.
        """
        rows, wanted, lengths = [], [], []
        for prompt, first, second in zip(prompts, chosen, rejected, strict=True):
            same = _common(first, second)
            stem = [*prompt, *first[:same]]
            parts = ([stem[-1], *rest[:-1]] if rest else [] for rest in (first[same:], second[same:]))
            rows.append([*stem[:-1], *chain.from_iterable(parts)])
            wanted.append([*first, *second[same:]])
            lengths.append([len(prompt), same, len(first) - same, len(second) - same])
        return cls(_padded(rows), _padded(wanted), torch.tensor(lengths))

    def to(self, device: torch.device | str) -> "PairBatch":
        """Return the batch on a device."""
        return PairBatch(self.tokens.to(device), self.targets.to(device), self.lengths.to(device))

    def starts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns at which each row, its chosen and its rejected part start, (pairs, 1) each."""
        prompt, common, chosen, rejected = self.lengths[:, :, None].unbind(1)
        second = self.tokens.shape[1] - rejected
        first = second - chosen
        return first - (prompt + common - 1), first, second

    def sizes(self) -> Tensor:
        """Return the tokens of each whole response, (2, pairs), chosen and rejected."""
        return self.lengths[:, 1] + self.lengths[:, 2:].T

    def sides(self) -> Tensor:
        """Return which targets belong to chosen and which to rejected, (2, pairs, response width)."""
        _, common, chosen, rejected = self.lengths[:, :, None].unbind(1)
        left = torch.arange(self.targets.shape[1], 0, -1, device=self.targets.device)  # targets from here to the end
        real = left <= common + chosen + rejected
        second = left <= rejected
        return torch.stack([real & ~second, real & (second | (left > chosen + rejected))])

    def positions(self) -> Tensor:
        """Return each token's position in its own sequence, (pairs, width), 0 on padding."""
        start, _, second = self.starts()
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (columns - start - self.lengths[:, 2:3] * (columns >= second)).clamp(min=0)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return what is added to the attention scores, (pairs, 1, width, width): 0 where a token sees another.

        Numbers and not truth values, which eager attention would add as 0 and 1.
        """
        start, first, second = self.starts()
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        # Padding sees padding: a row of the mask that is closed throughout would give NaN.
        padding = (columns >= start)[:, :, None] & (columns < start)[:, None, :]
        other = (columns >= second)[:, :, None] & ((columns >= first) & (columns < second))[:, None, :]
        closed = (columns[:, None] < columns) | padding | other
        return torch.zeros(closed.shape, dtype=dtype, device=closed.device).masked_fill(closed, torch.finfo(dtype).min)[
            :, None
        ]

    def apart(self) -> SequenceBatch:
        """Return the same pairs as sequences of their own, all chosen ones first, the rejected after them."""
        start = self.starts()[0].repeat(2, 1)
        prompt = self.lengths[:, :1].repeat(2, 1)
        sides, sizes = self.sides().flatten(0, 1), self.sizes().flatten()
        left = int(prompt.max())
        responses = self.targets.new_zeros(len(sizes), int(sizes.max()))
        mask = torch.arange(responses.shape[1], device=sizes.device) < sizes[:, None]
        responses[mask] = self.targets.repeat(2, 1)[sides]
        place = torch.arange(left, device=sizes.device) - (left - prompt)
        before = self.tokens.repeat(2, 1).gather(1, (start + place).clamp(min=0)).masked_fill(place < 0, 0)
        attention = torch.cat([place >= 0, mask], 1).long()
        return SequenceBatch(torch.cat([before, responses], 1), attention, responses, mask)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens both begin, each keeping one token at least where it has one."""
    least = max(0, min(len(first), len(second)) - 1)
    return next((place for place in range(least) if first[place] != second[place]), least)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    table = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        table[place, width - len(row) :] = row
    return torch.from_numpy(table)


def response_log_probs(
    soup: "Soup", weights: Tensor | None, batch: PairBatch, *, shared: bool
) -> tuple[Tensor, Tensor]:
    """Return log π(y_w | x) and log π(y_l | x), summed over response tokens, (pairs,) each, in nats.

    Args:
        soup: The soup.
        weights: (pairs, n) or (1, n), or None for the base.
        batch: The pairs.
        shared: Compute the prompt once (see :func:`shares_prompts`), or once for each response.
    """
    if not shared:
        rows = weights.repeat(2, 1) if weights is not None and len(weights) > 1 else weights
        chosen, rejected = token_log_probs(soup, rows, batch.apart()).sum(1).chunk(2)
        return chosen, rejected
    width = batch.targets.shape[1]
    logits: Tensor = soup(
        weights,
        input_ids=batch.tokens,
        attention_mask=batch.mask(soup.model.dtype),
        position_ids=batch.positions(),
        use_cache=False,
        logits_to_keep=width,
    ).logits[:, -width:]
    tokens = -functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
    chosen, rejected = tokens.view(batch.targets.shape).masked_fill(~batch.sides(), 0.0).sum(2)
    return chosen, rejected


def shares_prompts(soup: "Soup", longest: int) -> bool:
    """Return whether this base computes a prompt once for both responses exactly; warns where it does not.

    It must see the whole row in every layer, take a mask of its own and positions that start again: the configuration
    tells the first, a few tokens computed both ways the others.

    Args:
        soup: The soup, on its device.
        longest: Tokens of the longest prompt with its response.
    """
    reason = _obstacle(soup, longest)
    if reason is not None:
        kind = soup.model.config.model_type
        warnings.warn(f"{kind}: prompts are computed once for each response, because {reason}.", stacklevel=2)
    return reason is None


def _obstacle(soup: "Soup", longest: int) -> str | None:
    config: Any = soup.model.config.get_text_config()
    for name in WINDOWS:
        reach = getattr(config, name, None)
        if isinstance(reach, int) and 0 < reach < longest:
            return f"its {name} of {reach} is shorter than a sequence of {longest} tokens"
    draw = torch.Generator().manual_seed(0)
    sizes = ((9, 6, 2), (4, 3, 7))
    parts = [[torch.randint(config.vocab_size, (n,), generator=draw).tolist() for n in pair] for pair in sizes]
    batch = PairBatch.build(*zip(*parts, strict=True)).to(soup.model.get_input_embeddings().weight.device)
    training = soup.training
    soup.eval()
    try:
        with torch.no_grad():
            together, apart = (torch.stack(response_log_probs(soup, None, batch, shared=way)) for way in (True, False))
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"it does not take a mask of its own ({type(error).__name__})"
    finally:
        soup.train(training)
    far = float(((together - apart).abs() / batch.sizes()).max())
    tolerance = AGREEMENT["float32" if soup.model.dtype == torch.float32 else "16 bit"]
    return None if far <= tolerance else f"its log-probabilities are then {far:.2g} nats per token off"
