"""How far a candidate has moved from the base, on its own answers, and how likely the base finds them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from valuesoup.soup.sequences import SequenceBatch, batches_by_length, response_logits

if TYPE_CHECKING:
    from valuesoup.soup import Soup


class Divergence(NamedTuple):
    """What one pass over answers tells of them.

    Attributes:
        kl: (rows,) Σ_t KL(π_λ(· | x, y_<t) ‖ π_0(· | x, y_<t)) of each answer, in nats.
        base_log_probs: (rows,) log π_0(y | x) of each answer, the end of sequence not counted; 0 for an empty one.
    """

    kl: NDArray[np.float64]
    base_log_probs: NDArray[np.float64]


def perplexity(log_probs: NDArray[np.float64], tokens: NDArray[np.int64]) -> float | None:
    """Return exp(−Σ log π(y | x) / Σ |y|), the perplexity per token of answers together; None without any token.

    Args:
        log_probs: (rows,) of whole answers, in nats.
        tokens: (rows,) of each answer.
    """
    count = int(tokens.sum())
    return float(np.exp(-log_probs.sum() / count)) if count else None


@torch.no_grad()
def answer_divergence(
    soup: "Soup",
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    weights: NDArray[np.float32],
    *,
    batch_rows: int = 64,
    on_done: Callable[[int], None] = lambda _: None,
) -> Divergence:
    """Return the divergence of each answer from the base, and its log-probability under the base, from one pass.

    Averaged over answers drawn from π_λ at temperature 1, the divergence estimates KL(π_λ ‖ π_0) of whole answers, with
    less variance than the log-ratio of the drawn tokens. An empty answer counts the divergence of its first token.

    Args:
        soup: Holds the vectors.
        prompts: Token ids of each row's prompt.
        answers: Token ids of each row's answer.
        weights: (rows, n).
        batch_rows: Rows in a forward pass.
        on_done: Called with the number of rows done since the last call.
    """
    device = soup.model.get_input_embeddings().weight.device
    found = np.zeros((2, len(answers)))
    lengths = [len(prompt) + len(answer) + 1 for prompt, answer in zip(prompts, answers, strict=True)]
    vocabulary = 3 * soup.model.config.get_text_config().vocab_size  # three such tensors at once
    end = int(getattr(soup.tokenizer, "eos_token_id", 0) or 0)
    for rows in batches_by_length(lengths, batch_rows, vocabulary):
        batch = SequenceBatch.build([prompts[row] for row in rows], [[*answers[row], end] for row in rows]).to(device)
        moved = response_logits(soup, torch.from_numpy(weights[rows]).to(device), batch).log_softmax(-1)
        still = response_logits(soup, None, batch).log_softmax(-1)
        each = (moved.exp() * (moved - still)).sum(-1).masked_fill(~batch.response_mask, 0.0)
        likely = still.gather(2, batch.responses[:, :, None])[:, :, 0]
        # The last token of a row is the end that was added to it.
        own = batch.response_mask & (batch.response_mask.cumsum(1) < batch.response_mask.sum(1, keepdim=True))
        sums = torch.stack([each.sum(1), likely.masked_fill(~own, 0.0).sum(1)])
        found[:, rows] = sums.double().cpu().numpy()
        on_done(len(rows))
    return Divergence(*found)
