"""Log-probabilities of whole documents under many candidates in one pass, the base as a row of zeros."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from valuesoup.soup.base import position_limit
from valuesoup.soup.head import in_pieces, token_scores
from valuesoup.soup.sequences import batches_by_length, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from valuesoup.soup import Soup

LONGEST = 2048
"""Most tokens that a window reads, of a base that takes more."""
ROWS = 64
"""Most rows of a forward pass."""


@dataclass(frozen=True)
class Window:
    """A stretch of a document that is read at once.

    Attributes:
        document: Its place.
        tokens: What is read, and after it the last one to predict.
        scored: How many of the last tokens count; those before are context, which another window has counted.
    """

    document: int
    tokens: tuple[int, ...]
    scored: int


def windows(document: int, tokens: Sequence[int], context: int) -> list[Window]:
    """Cut a document into windows of which each token is predicted in exactly one.

    A window after the first moves on by half a context (its stride), so that every token is predicted from all
    that comes before it in the document, or from at least half a context of it.

    Args:
        document: Its place.
        tokens: Of the document, and before them one that is given and not predicted; at least two.
        context: Most tokens that the model reads, at least 2.
    """
    stride = context // 2
    found = [Window(document, tuple(tokens[: context + 1]), min(len(tokens) - 1, context))]
    done = context + 1
    while done < len(tokens):
        end = min(done + stride, len(tokens))
        found.append(Window(document, tuple(tokens[end - context - 1 : end]), end - done))
        done = end
    return found


def context_of(soup: "Soup") -> int:
    """Return the most tokens that a window reads: as many as the base takes, at most `LONGEST`."""
    return min(LONGEST, position_limit(soup.model.config))


def document_tokens(tokenizer: "PreTrainedTokenizerBase", documents: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each document, after the token that begins a text: so its first token counts too.

    That token is the beginning of sequence, or where a tokenizer has none the end of sequence, after which a text
    begins as well. A document that spells it already does not get it twice.
    """
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    found: list[list[int]] = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    return [ids if ids[:1] == [begin] else [begin, *ids] for ids in found]


@torch.no_grad()
def document_nats(
    soup: "Soup",
    rows: NDArray[np.float32],
    documents: Sequence[Sequence[int]],
    *,
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Return −log π_λ(document) of each candidate and document, (candidates, documents), in nats.

    Args:
        soup: Holds the vectors.
        rows: (candidates, n) weights; zeros are the base.
        documents: Token ids of D documents, as `document_tokens` gives them.
        on_done: Called with the number of windows done since the last call, those of every candidate counted.
    """
    device = soup.model.get_input_embeddings().weight.device
    context = context_of(soup)
    cut = [window for place, tokens in enumerate(documents) for window in windows(place, tokens, context)]
    # Sorting by length is stable, so the candidates of a window share a batch.
    jobs = [(window, candidate) for window in cut for candidate in range(len(rows))]
    vocabulary = 0 if in_pieces(soup) else soup.model.config.get_text_config().vocab_size
    weights = torch.from_numpy(np.asarray(rows, np.float32)).to(device)
    found = np.zeros((len(rows), len(documents)))
    for places in batches_by_length([len(window.tokens) for window, _ in jobs], ROWS, vocabulary):
        batch = [jobs[place] for place in places]
        ids, real = padded([window.tokens for window, _ in batch], left=False)
        scored = torch.tensor([window.scored for window, _ in batch])[:, None]
        # Of the targets, those at the right end of the real ones; padding on the right is never attended to.
        counts = real[:, 1:] & (real[:, 1:].flip(1).cumsum(1).flip(1) <= scored)
        scores = token_scores(
            soup,
            weights[[candidate for _, candidate in batch]],
            ids[:, 1:].to(device),
            counts.to(device),
            input_ids=ids[:, :-1].to(device),
            attention_mask=real[:, :-1].long().to(device),
        )
        sums = scores.double().sum(1).cpu().numpy()
        np.subtract.at(found, ([candidate for _, candidate in batch], [window.document for window, _ in batch]), sums)
        on_done(len(batch))
    return found
