"""Whether answers written elsewhere are those of a policy: by its own probabilities, not by comparing texts.

Rounding alone makes two correct generators part ways at the first near tie, so equal texts are too much to ask, and
different texts say little. What is asked instead are two sums over the tokens of answers, read under the policy here:

* **Regret** of greedy answers, Σ_t max_v log π(v | y_<t) − log π(y_t | y_<t): 0 where each token is the likeliest,
  next to 0 where rounding decided a near tie, and large for another policy, prompt or template.
* **Surplus** of answers drawn at a temperature, Σ_t log q(y_t) + H(q), with q the policy's distribution at that
  temperature and H its entropy. Its expectation is 0 for draws from q, whatever the answers' lengths (a martingale); a
  server that leaves out unlikely tokens (top-p, top-k), or takes the likeliest in spite of the temperature, has a
  positive one. A text does not always tell the tokens that it was written with, which makes every draw look less
  likely than it was; so a server's draws are compared with local ones that went through the same text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.soup.sequences import SequenceBatch, batches_by_length, response_logits

if TYPE_CHECKING:
    from valuesoup.soup import Soup


class Reading(NamedTuple):
    """Answers as a policy reads them; sums are over the tokens of each answer, its end counted, in nats.

    Attributes:
        tokens: (rows,) numbers of tokens.
        regret: (rows,) Σ_t max_v log π(v) − log π(y_t).
        surplus: (rows,) Σ_t log q(y_t) + H(q).
        log_probs: log π(y_t) of each token, per row.
    """

    tokens: NDArray[np.int64]
    regret: NDArray[np.float64]
    surplus: NDArray[np.float64]
    log_probs: list[NDArray[np.float64]]

    def regret_per_token(self) -> float:
        """Return the regret of all answers together, in nats per token."""
        return float(self.regret.sum() / self.tokens.sum())


def surplus_difference(one: Reading, other: Reading) -> tuple[float, float]:
    """Return how much likelier the tokens of one are than those of another, beyond what their policies make of them.

    Args:
        one: At least two drawn answers.
        other: At least two as well, read under the same policies.

    Returns:
        The difference of the surpluses in nats per token, and in standard errors (z), those of a ratio of sums over
        answers. An infinite z is one without any spread.
    """
    means, squares = [], 0.0
    for reading in (one, other):
        count, tokens = len(reading.tokens), float(reading.tokens.sum())
        means.append(float(reading.surplus.sum()) / tokens)
        residuals = reading.surplus - means[-1] * reading.tokens
        squares += float((residuals**2).sum()) * count / (count - 1) / tokens**2
    difference = means[0] - means[1]
    if squares == 0.0:
        return difference, 0.0 if difference == 0.0 else float(np.copysign(np.inf, difference))
    return difference, difference / float(np.sqrt(squares))


@torch.no_grad()
def read_answers(
    soup: "Soup",
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    finished: Sequence[bool],
    weights: NDArray[np.float32],
    ends: Sequence[int],
    *,
    temperature: float = 1.0,
    batch_rows: int = 64,
) -> Reading:
    """Read answers under a policy each.

    Args:
        soup: Holds the vectors.
        prompts: Token ids of each row's prompt.
        answers: Token ids of each row's answer without its end; none is empty and unfinished.
        finished: Whether each answer came to its end, which then counts as a token.
        weights: (rows, n).
        ends: Ids of the tokens that end an answer; it does not matter which of them did.
        temperature: Of the surplus; above 0.
        batch_rows: Rows in a forward pass.
    """
    if not ends or temperature <= 0:
        raise ValueError("reading needs an end token and a temperature above 0")
    device = soup.model.get_input_embeddings().weight.device
    whole = [[*answer, ends[0]] if done else [*answer] for answer, done in zip(answers, finished, strict=True)]
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, whole, strict=True)]
    vocabulary = 4 * soup.model.config.get_text_config().vocab_size  # four such tensors at once
    sums = np.zeros((2, len(whole)))
    each: dict[int, NDArray[np.float64]] = {}
    for rows in batches_by_length(lengths, batch_rows, vocabulary):
        batch = SequenceBatch.build([prompts[row] for row in rows], [whole[row] for row in rows]).to(device)
        logits = response_logits(soup, torch.from_numpy(weights[rows]).to(device), batch)
        steps = _steps(logits, batch.responses, ends, temperature)
        sums[:, rows] = (steps[1:] * batch.response_mask).double().sum(-1).cpu().numpy()
        for row, likely, mask in zip(rows, steps[0].double().cpu(), batch.response_mask.cpu(), strict=True):
            each[row] = likely[mask].numpy()
    tokens = np.array([len(answer) for answer in whole], dtype=np.int64)
    return Reading(tokens, sums[0], sums[1], [each[row] for row in range(len(whole))])


def _steps(logits: Tensor, written: Tensor, ends: Sequence[int], temperature: float) -> Tensor:
    """Return log-probability, regret and surplus of each token, (3, rows, width).

    Args:
        logits: (rows, width, vocabulary).
        written: (rows, width) token ids; an end is ``ends[0]``.
        ends: Tokens that count as one.
        temperature: Of the surplus.
    """
    ended = written == ends[0]
    log_probs = logits.log_softmax(-1)
    own = log_probs.gather(2, written[:, :, None])[:, :, 0]
    own = torch.where(ended, log_probs[:, :, list(ends)].amax(-1), own)
    regret = log_probs.amax(-1) - own
    tempered = (logits / temperature).log_softmax(-1)
    together = tempered[:, :, list(ends)].logsumexp(-1)
    tempered[:, :, list(ends)] = -torch.inf
    tempered[:, :, ends[0]] = together
    drawn = tempered.gather(2, written[:, :, None])[:, :, 0]
    share = tempered.exp()
    tempered = tempered.masked_fill(share == 0, 0.0)  # 0 · log 0 = 0
    mean = (share * tempered).sum(-1)
    return torch.stack([own, regret, drawn - mean])
