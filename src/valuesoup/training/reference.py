"""Log-probabilities of the reference policy: one pass per base, data and template, shared by everything that trains."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.soup.sequences import SequenceBatch, batches_by_length, token_log_probs
from valuesoup.training.rows import TokenPairs

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup


@torch.no_grad()
def pair_log_probs(
    soup: "Soup",
    weights: Tensor | None,
    pairs: TokenPairs,
    *,
    batch_pairs: int = 32,
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Return log π(y_w | x) and log π(y_l | x) of each pair, summed over response tokens.

    Args:
        soup: The soup.
        weights: (1, n) of the policy, or None for the base, the reference of DPO.
        pairs: Token ids.
        batch_pairs: Pairs in a forward pass; pairs of similar length share one.
        on_done: Called with the number of pairs done since the last call.

    Returns:
        (N, 2) chosen and rejected, in nats.
    """
    device = soup.model.get_input_embeddings().weight.device
    longest = pairs.prompts.lengths() + np.maximum(pairs.chosen.lengths(), pairs.rejected.lengths())
    found = np.empty((len(pairs), 2))
    # Both responses of a pair share a batch, so a pair counts as two sequences.
    vocabulary = 2 * soup.model.config.get_text_config().vocab_size
    for places in batches_by_length(longest.tolist(), batch_pairs, vocabulary):
        prompts = [pairs.prompts[place] for place in places]
        answers = [pairs.chosen[place] for place in places] + [pairs.rejected[place] for place in places]
        batch = SequenceBatch.build(prompts * 2, answers).to(device)
        sums = token_log_probs(soup, weights, batch).double().sum(1).cpu().numpy()
        found[places] = sums.reshape(2, len(places)).T
        on_done(len(places))
    return found
