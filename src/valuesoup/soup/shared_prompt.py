"""Log-probabilities of both responses of a pair, the prompt computed once.

A pair is one row of three parts,

    [stem without its last token | last token of the stem, chosen | last token of the stem, rejected],

where the stem is the prompt and the tokens with which both responses begin, and each response lacks its last token,
which predicts nothing. A mask keeps the rejected part from seeing the chosen part, and its positions start again after
the stem, so every token sees what it would see in a sequence of its own (prefix sharing, arXiv:2410.20305).
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from valuesoup.limits import REFUSALS, refusal, scaled_beyond
from valuesoup.soup.base import position_limit
from valuesoup.soup.head import in_pieces, token_scores
from valuesoup.soup.quantised import is_exact
from valuesoup.soup.sequences import SequenceBatch, batches_by_length, padded, token_log_probs

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

CHUNKS = ("attention_chunk_size",)
"""What configurations call the reach of a layer for which no mask is made here."""
COLUMN_WINDOWS = ("window_size",)
"""What configurations call a reach that layers count in columns of a batch, and not in positions."""
SLIDING = "sliding_attention"
"""What configurations call a layer that sees a window of the last tokens."""
CHECKED_WINDOW = 5
"""With which window a base is checked that has one, as its own would take long sequences."""
PADDING = 0.1
"""Most of a forward pass that is padding: rows of a batch that differ more in length take one each."""
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
        return cls(padded(rows, left=True)[0], padded(wanted, left=True)[0], torch.tensor(lengths))

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

    def mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """Return what is added to the attention scores, (pairs, 1, width, width): 0 where a token sees another.

        Numbers and not truth values, which eager attention would add as 0 and 1.

        Args:
            dtype: Of the numbers.
            window: How many of the last tokens of its own sequence a token sees, itself included; None: all.
        """
        start, first, second = self.starts()
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        # Padding sees padding: a row of the mask that is closed throughout would give NaN.
        padding = (columns >= start)[:, :, None] & (columns < start)[:, None, :]
        other = (columns >= second)[:, :, None] & ((columns >= first) & (columns < second))[:, None, :]
        closed = (columns[:, None] < columns) | padding | other
        if window is not None:
            positions = self.positions()
            closed |= positions[:, :, None] - positions[:, None, :] >= window
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

    def take(self, rows: Sequence[int]) -> "PairBatch":
        """Return these pairs, padded no more than they need."""
        lengths = self.lengths[rows]
        tokens, targets = int(lengths.sum(1).max()) - 1, int(lengths[:, 1:].sum(1).max())
        return PairBatch(self.tokens[rows, -tokens:], self.targets[rows, -targets:], lengths)

    def groups(self) -> list[list[int]]:
        """Return the rows in groups of similar length, of each of which at most ``PADDING`` is padding."""
        sizes = (self.lengths.sum(1) - 1).tolist()
        return _groups(sorted(range(len(sizes)), key=lambda row: (-sizes[row], row)), sizes)


def _groups(rows: list[int], sizes: Sequence[int]) -> list[list[int]]:
    """Cut rows, the longest first, where that leaves the least padding, until it is little."""
    whole = len(rows) * sizes[rows[0]]
    if whole - sum(sizes[row] for row in rows) <= PADDING * whole:
        return [rows]
    cut = min(range(1, len(rows)), key=lambda at: at * sizes[rows[0]] + (len(rows) - at) * sizes[rows[at]])
    return [*_groups(rows[:cut], sizes), *_groups(rows[cut:], sizes)]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens both begin, each keeping one token at least where it has one."""
    least = max(0, min(len(first), len(second)) - 1)
    return next((place for place in range(least) if first[place] != second[place]), least)


def pair_batches(soup: "Soup", lengths: Sequence[int], most: int, *, shared: bool) -> Iterator[list[int]]:
    """Yield the places of pairs in batches of similar length that fit into memory, for :func:`response_log_probs`.

    Args:
        soup: The soup that reads them.
        lengths: Of each pair's row with the prompt shared, in tokens.
        most: Pairs of a batch at most.
        shared: Whether the prompt is computed once; apart, a pair is two sequences, each at most as long as that row.
    """
    vocabulary = 0 if in_pieces(soup) else soup.model.config.get_text_config().vocab_size
    return batches_by_length([(1 if shared else 2) * length for length in lengths], most, vocabulary)


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
    # Checkpointing runs layers again in the backward pass, with the rows' weights of the last forward pass.
    checkpoints = any(getattr(module, "gradient_checkpointing", False) for module in soup.model.modules())
    # Of a base that is divided among processes (FSDP2), all of them run the same number of passes.
    divided = hasattr(soup.model.base_model, "set_reshard_after_forward")
    groups = [] if checkpoints or divided else batch.groups()
    if len(groups) < 2:
        return _log_probs(soup, weights, batch, shared=shared)
    found = []
    for rows in groups:
        own = weights[rows] if weights is not None and len(weights) > 1 else weights
        found.append(_log_probs(soup, own, batch.take(rows), shared=shared))
    back = np.argsort([row for rows in groups for row in rows]).tolist()
    chosen, rejected = (torch.cat(side)[back] for side in zip(*found, strict=True))
    return chosen, rejected


def _log_probs(soup: "Soup", weights: Tensor | None, batch: PairBatch, *, shared: bool) -> tuple[Tensor, Tensor]:
    if not shared:
        rows = weights.repeat(2, 1) if weights is not None and len(weights) > 1 else weights
        chosen, rejected = token_log_probs(soup, rows, batch.apart()).sum(1).chunk(2)
        return chosen, rejected
    sides = batch.sides()
    tokens = token_scores(
        soup,
        weights,
        batch.targets,
        sides.any(0),
        input_ids=batch.tokens,
        attention_mask=_masks(soup, batch),
        position_ids=batch.positions(),
    )
    chosen, rejected = tokens.masked_fill(~sides, 0.0).sum(2)
    return chosen, rejected


def _masks(soup: "Soup", batch: PairBatch) -> Tensor | dict[str, Tensor]:
    """Return the mask of all layers, or one by kind of layer where some see a window that is shorter than the rows."""
    config: Any = soup.model.config.get_text_config()
    window = _window(config)
    if window is None or batch.tokens.shape[1] <= window:
        return batch.mask(soup.model.dtype)
    kinds = sorted(set(getattr(config, "layer_types", None) or [SLIDING]))
    masks = {kind: batch.mask(soup.model.dtype, window if kind == SLIDING else None) for kind in kinds}
    return masks if len(masks) > 1 else masks[kinds[0]]


def _window(config: Any) -> int | None:
    window = getattr(config, "sliding_window", None)
    return window if isinstance(window, int) and window > 0 else None


def shares_prompts(soup: "Soup", longest: int) -> bool:
    """Return whether this base computes a prompt once for both responses exactly; warns where it does not.

    It must take masks of its own, for each kind of layer where some see a window, and positions that start again,
    which a few tokens computed both ways tell.

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
    limit = scaled_beyond(config)
    if limit is not None and longest > limit:
        return f"its positions are scaled by the length of a text of more than {limit} tokens"
    widest = max(longest, 2 * longest - 2)  # of a row whose prompt is one token
    for names, width, what in ((CHUNKS, longest, "a sequence"), (COLUMN_WINDOWS, widest, "a row of both responses")):
        for name in names:
            reach = getattr(config, name, None)
            if isinstance(reach, int) and 0 < reach < width:
                return f"its {name} of {reach} is shorter than {what} of {width} tokens"
    positions = position_limit(config)
    if positions < widest and any(tuple(table.shape[-2:]) == (positions,) * 2 for table in soup.model.buffers()):
        return f"its causal masks of {positions} tokens are shorter than a row of both responses of {widest} tokens"
    draw = torch.Generator().manual_seed(0)
    sizes = ((9, 6, 2), (4, 3, 7))
    parts = [[torch.randint(config.vocab_size, (n,), generator=draw).tolist() for n in pair] for pair in sizes]
    batch = PairBatch.build(*zip(*parts, strict=True)).to(soup.model.get_input_embeddings().weight.device)
    training, window = soup.training, _window(config)
    windowed = window is not None and window < longest
    soup.eval()
    try:
        far = _far(soup, batch)
        if windowed:
            config.sliding_window = CHECKED_WINDOW
            far = max(far, _far(soup, batch))
    except REFUSALS as error:
        return f"it does not take a mask of its own ({refusal(error)})"
    finally:
        soup.train(training)
        if windowed:
            config.sliding_window = window
    tolerance = AGREEMENT["float32" if is_exact(soup.model) else "16 bit"]
    return None if far <= tolerance else f"its log-probabilities are then {far:.2g} nats per token off"


@torch.no_grad()
def _far(soup: "Soup", batch: PairBatch) -> float:
    """Return how far the two ways are apart, in nats per token."""
    together, apart = (torch.stack(response_log_probs(soup, None, batch, shared=way)) for way in (True, False))
    return float(((together - apart).abs() / batch.sizes()).max())
