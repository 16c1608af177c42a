"""Log-probabilities of the reference policy: one pass per base, data and template, shared by everything that trains."""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valuesoup.errors import RunError
from valuesoup.limits import out_of_memory
from valuesoup.soup.shared_prompt import pair_batches, response_log_probs, shares_prompts
from valuesoup.store.team import team
from valuesoup.training.rows import TokenPairs
from valuesoup.training.sharing import rounds

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
        RunError: Memory does not suffice for one pair, or for a batch where the base is divided.
    """
    shared = shares_prompts(soup, pairs.longest())
    found = np.zeros((len(pairs), 2))
    todo = _Passes(soup, weights, pairs, shared, bf16, say)
    for mine, dealt in rounds(list(pair_batches(soup, pairs.lengths().tolist(), batch_pairs, shared=shared)), team()):
        if mine is not None:
            todo.run(mine, found)
        elif team().divided:  # the others' layers are gathered from this process too
            todo.run(dealt[0], np.empty_like(found))
        on_done(sum(map(len, dealt)))
    everywhere = torch.as_tensor(found)
    team().add(everywhere)  # each row is 0 in all processes but one
    return everywhere.numpy()


@dataclass
class _Passes:
    """Forward passes over batches of pairs, halved where memory does not suffice."""

    soup: "Soup"
    weights: Tensor | None
    pairs: TokenPairs
    shared: bool
    bf16: bool
    say: Callable[[str], None]
    halved: bool = False

    def run(self, places: Sequence[int], found: NDArray[np.float64]) -> None:
        """Write the log-probabilities of the pairs at these places into ``found`` (N, 2)."""
        device = self.soup.model.get_input_embeddings().weight.device
        batches = deque([places])
        while batches:
            places = batches.popleft()
            batch = self.pairs.batch(places).to(device)
            try:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                    sums = response_log_probs(self.soup, self.weights, batch, shared=self.shared)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(places) == 1 or team().divided:
                    what = "one pair" if len(places) == 1 else f"{len(places)} pairs at a time"
                    raise RunError(f"memory does not suffice for {what} ({error}); lower max_length.") from error
                torch.cuda.empty_cache()
                batches.extendleft((places[len(places) // 2 :], places[: len(places) // 2]))
                if not self.halved:
                    self.say(f"memory does not suffice for {len(places)} pairs at a time: such batches are halved")
                self.halved = True
                continue
            found[places] = torch.stack(sums, 1).double().cpu().numpy()
