"""Log-probabilities of responses under a soup, each row at its own weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from valuesoup.soup.head import token_scores

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

LOGIT_BUDGET = 1 << 28
"""Most logits held at once: 1 GiB in float32."""
TOKEN_BUDGET = 1 << 14
"""Most tokens of a batch, padding counted."""


@dataclass(frozen=True)
class SequenceBatch:
    """Prompts padded on the left and responses on the right, so that all responses start in one column.

    Attributes:
        input_ids: (rows, prompt width + response width).
        attention_mask: The same shape, 1 on real tokens.
        responses: (rows, response width) token ids, padded with 0.
        response_mask: The same shape, True on real tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    responses: Tensor
    response_mask: Tensor

    @classmethod
    def build(cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> "SequenceBatch":
        """Pad token ids into a batch.

        Args:
            prompts: Token ids of each prompt, not empty.
            responses: Token ids of each response, end of sequence included.
        """
        before, given = padded(prompts, left=True)
        after, wanted = padded(responses, left=False)
        return cls(torch.cat([before, after], 1), torch.cat([given, wanted], 1).long(), after, wanted)

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """Return the batch on a device."""
        return SequenceBatch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.responses.to(device),
            self.response_mask.to(device),
        )

    def position_ids(self) -> Tensor:
        """Return each token's position in its sequence, the shape of ``input_ids``, 0 on padding to the left."""
        return (self.attention_mask.cumsum(1) - 1).clamp(min=0)


def padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Return token ids padded with 0, on the left or on the right, and where they are real, (rows, width) each."""
    lengths = np.array([len(row) for row in rows])
    columns = np.arange(lengths.max())
    real = (columns >= len(columns) - lengths[:, None]) if left else (columns < lengths[:, None])
    ids = np.zeros(real.shape, np.int64)
    ids[real] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    return torch.from_numpy(ids), torch.from_numpy(real)


def batches_by_length(lengths: Sequence[int], rows: int, vocabulary: int) -> Iterator[list[int]]:
    """Yield the places of sequences in batches of similar length.

    A batch has at most ``rows`` sequences, ``TOKEN_BUDGET`` tokens and ``LOGIT_BUDGET`` logits.

    Args:
        lengths: Of each sequence, in tokens.
        rows: Most sequences of a batch.
        vocabulary: Logits of a token that are held until the batch is done; 0 where they are made in pieces.
    """
    most = min(TOKEN_BUDGET, LOGIT_BUDGET // vocabulary) if vocabulary else TOKEN_BUDGET
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        # Ascending order: the new sequence is the widest.
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[place] > most):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def response_logits(soup: "Soup", weights: Tensor | None, batch: SequenceBatch) -> Tensor:
    """Return the logits that predict each response token, (rows, response width, vocabulary), in float32.

    The output head runs on the responses' positions only.
    """
    width = batch.responses.shape[1]
    output = soup(
        weights,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids(),
        use_cache=False,
        logits_to_keep=width + 1,
    )
    logits: Tensor = output.logits[:, -width - 1 : -1].float()
    return logits


def token_log_probs(soup: "Soup", weights: Tensor | None, batch: SequenceBatch) -> Tensor:
    """Return log π(token | before) of each response token, (rows, response width), 0 on padding."""
    # The last token of a row predicts nothing that is wanted.
    return token_scores(
        soup,
        weights,
        batch.responses,
        batch.response_mask,
        input_ids=batch.input_ids[:, :-1],
        attention_mask=batch.attention_mask[:, :-1],
        position_ids=batch.position_ids()[:, :-1],
    )
