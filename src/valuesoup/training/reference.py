"""Log-probabilities of the reference policy: one pass per base, data and template, shared by everything that trains."""

import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.errors import RunError
from valuesoup.limits import out_of_memory
from valuesoup.soup.shared_prompt import pair_batches, response_log_probs, shares_prompts
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
    bf16: bool = False,
    on_done: Callable[[int], None] = lambda _: None,
    say: Callable[[str], None] = warnings.warn,
) -> NDArray[np.float64]:
    """Return log π(y_w | x) and log π(y_l | x) of each pair, summed over response tokens.

    Args:
        soup: The soup.
        weights: (1, n) of the policy, or None for the base, the reference of DPO.
        pairs: Token ids.
        batch_pairs: Most pairs in a forward pass; pairs of similar length share one.
        bf16: Compute in bfloat16 autocast, as the training does whose reference this is.
        on_done: Called with the number of pairs done since the last call.
        say: Told, in a sentence, when memory does not suffice for a batch.

    Returns:
        (N, 2) chosen and rejected, in nats.

    Raises:
        RunError: Memory does not suffice for one pair.
    """
    device = soup.model.get_input_embeddings().weight.device
    shared = shares_prompts(soup, pairs.longest())
    found = np.empty((len(pairs), 2))
    batches = deque(pair_batches(soup, pairs.lengths().tolist(), batch_pairs, shared=shared))
    halved = False
    while batches:
        places = batches.popleft()
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                sums = response_log_probs(soup, weights, pairs.batch(places).to(device), shared=shared)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(places) == 1:
                raise RunError(f"memory does not suffice for one pair ({error}); lower max_length.") from error
            torch.cuda.empty_cache()
            batches.extendleft((places[len(places) // 2 :], places[: len(places) // 2]))
            if not halved:
                say(f"memory does not suffice for {len(places)} pairs at a time: such batches are halved")
            halved = True
            continue
        found[places] = torch.stack(sums, 1).double().cpu().numpy()
        on_done(len(places))
    return found
