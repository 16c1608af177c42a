"""Training rows: token ids of pairs with what the loss wants to know of each, in flat arrays, and their batches."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from valuesoup.soup.shared_prompt import PairBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from valuesoup.data.pairs import Pairs

AT_ONCE = 1024
"""Pairs rendered and tokenised at a time: texts and lists of ids take a hundred times the memory of flat arrays."""


@dataclass(frozen=True)
class Ragged:
    """Sequences of token ids in one flat array.

    Attributes:
        tokens: All ids, one sequence after the other.
        starts: (sequences + 1,) where each begins, and the end.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]]) -> "Ragged":
        """Flatten sequences of ids, of which no more than one need be in memory at a time."""
        growing = _Growing()
        for ids in sequences:
            growing.add(ids)
        return growing.done()

    def __getitem__(self, place: int) -> list[int]:
        ids: list[int] = self.tokens[self.starts[place] : self.starts[place + 1]].tolist()
        return ids

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each sequence."""
        return np.diff(self.starts)

    @classmethod
    def concat(cls, parts: "Sequence[Ragged]") -> "Ragged":
        """Return the sequences of all parts, one part after the other."""
        lengths = np.concatenate([part.lengths() for part in parts])
        return cls(np.concatenate([part.tokens for part in parts]), np.concatenate([[0], lengths.cumsum()]))

    def common(self, other: "Ragged") -> NDArray[np.int64]:
        """Return with how many equal tokens the sequences at the same place begin, each keeping one token at least."""
        most = np.minimum(self.lengths(), other.lengths()) - 1
        found = np.zeros(len(self), np.int64)
        alive = np.flatnonzero(most > 0)
        while len(alive):
            here, there = self.starts[alive] + found[alive], other.starts[alive] + found[alive]
            alive = alive[self.tokens[here] == other.tokens[there]]
            found[alive] += 1
            alive = alive[found[alive] < most[alive]]
        return found

    def where(self, mask: NDArray[np.bool_], other: "Ragged") -> "Ragged":
        """Return these sequences where ``mask`` holds, and those of ``other`` elsewhere."""
        return Ragged.of((self if mine else other)[place] for place, mine in enumerate(mask))


class _Growing:
    """Sequences of token ids on their way into flat arrays, which are not copied at the end."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._starts = array("q", [0])

    def add(self, ids: Sequence[int]) -> None:
        self._tokens.extend(ids)
        self._starts.append(len(self._tokens))

    def done(self) -> Ragged:
        return Ragged(np.asarray(self._tokens), np.asarray(self._starts))


@dataclass(frozen=True)
class TokenPairs:
    """Pairs as token ids.

    Attributes:
        ids: Pair ids.
        places: (N,) where each pair stands among those given; the others are too long.
        prompts: Prompt tokens, the assistant's opening included.
        chosen: Response tokens, end of sequence included.
        rejected: Response tokens, end of sequence included.
    """

    ids: list[str]
    places: NDArray[np.int64]
    prompts: Ragged
    chosen: Ragged
    rejected: Ragged

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each prompt with both its responses, what these begin with in common counted once."""
        both = self.chosen.lengths() + self.rejected.lengths()
        return np.asarray(self.prompts.lengths() + both - self.chosen.common(self.rejected))

    def longest(self) -> int:
        """Return the tokens of the longest prompt with one of its responses, 0 without pairs."""
        longer = np.maximum(self.chosen.lengths(), self.rejected.lengths())
        return int((self.prompts.lengths() + longer).max(initial=0))

    def batch(self, places: Sequence[int]) -> PairBatch:
        """Return these pairs side by side."""
        each = ([part[place] for place in places] for part in (self.prompts, self.chosen, self.rejected))
        return PairBatch.build(*each)


def tokenise(pairs: "Pairs", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TokenPairs:
    """Render pairs with the policy's template and turn them into token ids.

    A pair of which either side passes ``max_length`` tokens with its prompt is left out (see ``places``): a cut
    response is another response.
    """
    ids: list[str] = []
    places: list[int] = []
    prompts, chosen, rejected = _Growing(), _Growing(), _Growing()
    for place, (name, prompt, one, other) in enumerate(_encoded(pairs, tokenizer)):
        if len(prompt) + max(len(one), len(other)) > max_length:
            continue
        ids.append(name)
        places.append(place)
        prompts.add(prompt)
        chosen.add(one)
        rejected.add(other)
    return TokenPairs(ids, np.asarray(places, np.int64), prompts.done(), chosen.done(), rejected.done())


def _encoded(
    pairs: "Pairs", tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[str, list[int], list[int], list[int]]]:
    """Yield the id of each pair and the token ids of its prompt, chosen and rejected response."""
    from valuesoup.data.templates import render_answer

    for start in range(0, len(pairs), AT_ONCE):
        part = list(pairs.slice(start, AT_ONCE))
        first = [render_answer(pair.prompt, pair.chosen, tokenizer) for pair in part]
        second = [render_answer(pair.prompt, pair.rejected, tokenizer) for pair in part]
        texts = ([text for text, _ in first], [text for _, text in first], [text for _, text in second])
        yield from zip((pair.id for pair in part), *(encode(tokenizer, of) for of in texts), strict=True)


def encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """Return the token ids of rendered texts, to which nothing is added."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


@dataclass(frozen=True)
class TrainingRows(Dataset[dict[str, Tensor]]):
    """Pairs with the reference's log-probabilities and the loss's weight, scale, margin and vector of each row.

    A data loader gets whole batches of it (``__getitems__``), so that no other rows' tokens can be put into them.

    Attributes:
        pairs: Token ids.
        reference: (N, 2) log π_ref of chosen and rejected.
        weight: (N,) w.
        scale: (N,) c.
        margin: (N,) m.
        vector: (N,) index of the vector that the row trains.
    """

    pairs: TokenPairs
    reference: NDArray[np.float64]
    weight: NDArray[np.float64]
    scale: NDArray[np.float64]
    margin: NDArray[np.float64]
    vector: NDArray[np.int64] = field(repr=False)

    @classmethod
    def plain(cls, pairs: TokenPairs, reference: NDArray[np.float64], vector: int = 0) -> "TrainingRows":
        """DPO's rows: weight and scale 1, margin 0."""
        one = np.ones(len(pairs))
        return cls(pairs, reference, one, one, np.zeros(len(pairs)), np.full(len(pairs), vector))

    @classmethod
    def concat(cls, parts: "Sequence[TrainingRows]") -> "TrainingRows":
        """Return the rows of all parts, one part after the other; ``pairs.places`` then counts within each part."""
        pairs = TokenPairs(
            ids=[identity for part in parts for identity in part.pairs.ids],
            places=np.concatenate([part.pairs.places for part in parts]),
            prompts=Ragged.concat([part.pairs.prompts for part in parts]),
            chosen=Ragged.concat([part.pairs.chosen for part in parts]),
            rejected=Ragged.concat([part.pairs.rejected for part in parts]),
        )
        arrays = ("reference", "weight", "scale", "margin", "vector")
        return cls(pairs, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays})

    def swapped(self, mask: NDArray[np.bool_]) -> "TrainingRows":
        """Return the rows with chosen and rejected swapped where ``mask`` (N,) holds."""
        if not mask.any():
            return self
        pairs = replace(
            self.pairs,
            chosen=self.pairs.rejected.where(mask, self.pairs.chosen),
            rejected=self.pairs.chosen.where(mask, self.pairs.rejected),
        )
        reference = np.where(mask[:, None], self.reference[:, ::-1], self.reference)
        return replace(self, pairs=pairs, reference=reference, margin=np.where(mask, -self.margin, self.margin))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return self.collate([place])

    def __getitems__(self, places: Sequence[int]) -> dict[str, Tensor]:
        return self.collate(places)

    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each row: its prompt and both responses."""
        return self.pairs.lengths()

    def collate(self, places: Sequence[int]) -> dict[str, Tensor]:
        """Build the batch of these rows; a place of len(self) or more is a filler (see ``training/sharing.py``)."""
        index = np.asarray(places) % len(self)
        batch = self.pairs.batch(index.tolist())
        return {
            "row": torch.as_tensor(places),
            "reference": torch.as_tensor(self.reference[index], dtype=torch.float32),
            "weight": torch.as_tensor(self.weight[index], dtype=torch.float32),
            "scale": torch.as_tensor(self.scale[index], dtype=torch.float32),
            "margin": torch.as_tensor(self.margin[index], dtype=torch.float32),
            "vector": torch.as_tensor(self.vector[index]),
            "tokens": batch.tokens,
            "targets": batch.targets,
            "lengths": batch.lengths,
        }


class LengthGroups(Sampler[int]):
    """Draws rows in a random order in which the rows of a batch have about the same length, so that little is padding.

    Each epoch shuffles all rows, sorts them by length within stretches of ``STRETCH`` batches, and shuffles the
    batches; a last, short batch stays last. The order depends on the seed and the epoch alone.
    """

    STRETCH = 50

    def __init__(self, lengths: NDArray[np.int64], batch: int, seed: int) -> None:
        """Prepare.

        Args:
            lengths: Of each row.
            batch: Rows of a batch.
            seed: Of the order.
        """
        self.lengths_of_rows = lengths
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the data loader calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths_of_rows)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self))
        size = self.batch * self.STRETCH
        for start in range(0, len(order), size):
            stretch = order[start : start + size]
            order[start : start + size] = stretch[np.argsort(self.lengths_of_rows[stretch], kind="stable")]
        whole = len(order) // self.batch * self.batch
        # A short batch is made of rows drawn at random, not of the longest ones of the last stretch.
        rest = random.choice(len(order), len(order) - whole, replace=False)
        batches = np.delete(order, rest).reshape(-1, self.batch)
        yield from batches[random.permutation(len(batches))].reshape(-1).tolist()
        yield from order[rest].tolist()


class SideBySide(Sampler[int]):
    """Draws the rows of several vectors, equally many of each, so that each vector has its own batches.

    A step holds, for every vector in turn, the batch that :class:`LengthGroups` gives it when it trains alone; so
    vectors trained in one pass see what they would see one after the other.
    """

    def __init__(self, lengths: NDArray[np.int64], vector: NDArray[np.int64], batch: int, seed: int) -> None:
        """Prepare.

        Args:
            lengths: Of each row.
            vector: Of each row.
            batch: Rows of a batch of one vector.
            seed: Of the order.

        Raises:
            ValueError: The vectors have not equally many rows.
        """
        self.places = [np.flatnonzero(vector == one) for one in np.unique(vector)]
        if len({len(places) for places in self.places}) > 1:
            raise ValueError("the vectors have not equally many rows")
        self.groups = [LengthGroups(lengths[places], batch, seed) for places in self.places]
        self.batch = batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the data loader calls it."""
        for groups in self.groups:
            groups.set_epoch(epoch)

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __iter__(self) -> Iterator[int]:
        orders = [places[list(groups)] for places, groups in zip(self.places, self.groups, strict=True)]
        for start in range(0, len(orders[0]), self.batch):
            for order in orders:
                yield from order[start : start + self.batch].tolist()


def pair_batch(inputs: dict[str, Any]) -> PairBatch:
    """Return the token part of a collated batch."""
    return PairBatch(inputs["tokens"], inputs["targets"], inputs["lengths"])
