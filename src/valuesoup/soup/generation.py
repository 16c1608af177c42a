"""Answers of many candidates in one queue: a row carries its prompt, its weights and its own random draws.

A row's answer does not depend on the rows beside it: its draws come from its own seed, one uniform number per
token, and what is not its own is masked. A fixed number of rows is written at a time; finished ones make place for
those that wait, so that a long answer does not make the others wait.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from valuesoup.errors import RunError, UserError
from valuesoup.limits import out_of_memory, scaled_beyond
from valuesoup.soup.cache import BatchCache, SlotCache, keeps_slots
from valuesoup.soup.in_place import Composed, composes

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

FREE_SHARE = 0.25
"""Free slots are filled, or dropped where no row waits, when they are this share of all."""
PREFILL_TOKENS = 4096
"""Prompt tokens, padding counted, that newcomers bring into one forward pass."""


@dataclass(frozen=True)
class Row:
    """One answer to write.

    Attributes:
        prompt: Token ids, not empty.
        weights: One weight per vector of the soup.
        seed: Of this row's draws.
    """

    prompt: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int


@dataclass(frozen=True)
class Answer:
    """What a row wrote.

    Attributes:
        tokens: Token ids without the end-of-sequence token.
        finished: False where the length limit cut it off.
    """

    tokens: tuple[int, ...]
    finished: bool


def generate(
    soup: "Soup",
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    batch_rows: int = 96,
    on_done: Callable[[int], None] = lambda _: None,
    on_shrink: Callable[[str], None] = warnings.warn,
) -> list[Answer]:
    """Write an answer for each row.

    Args:
        soup: The soup; its base's generation settings name the end-of-sequence tokens.
        rows: Prompts with weights and seeds.
        max_new_tokens: The longest answer, end of sequence counted.
        temperature: 0 takes the likeliest token.
        batch_rows: Rows in a forward pass, fewer where memory does not suffice; changes the speed, and an answer only
            where rounding decides a token.
        on_done: Called with the number of answers finished since the last call.
        on_shrink: Called with a sentence when fewer rows are written at a time from there on.

    Returns:
        The answers, in the order of the rows.

    Raises:
        UserError: A negative temperature, or no tokens to write.
        RunError: Memory does not suffice for one row.
        ValueError: A row without prompt tokens.
    """
    compose = composes(soup, len(rows) / max(1, len({row.weights for row in rows})))
    # Rows of similar length are written together, so that little is spent on padding.
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].prompt))
    answers: dict[int, Answer] = {}
    written = write(
        soup,
        [rows[place] for place in order],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        batch_rows=batch_rows,
        compose=compose,
        on_shrink=on_shrink,
    )
    for place, answer in written:
        answers[order[place]] = answer
        on_done(1)
    return [answers[place] for place in range(len(rows))]


def write(
    soup: "Soup",
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    temperature: float,
    batch_rows: int,
    compose: bool,
    on_shrink: Callable[[str], None],
) -> Iterator[tuple[int, Answer]]:
    """Write an answer for each row and hand each out when it is done, with its row's place.

    Rows begin in the order given; neighbours of like length cost least, the longest first. With ``compose``, which
    :func:`composes` advises, candidates are multiplied out and written one after the other. The other arguments and
    the errors are those of :func:`generate`.
    """
    if not temperature >= 0:
        raise UserError(f"temperature must be 0 or more, not {temperature}.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    if any(not row.prompt for row in rows):
        raise ValueError("every row needs at least one prompt token")
    limit = scaled_beyond(soup.model.config)
    queues: dict[_Common, list[int]] = {}
    for place, row in enumerate(rows):
        length = len(row.prompt)
        scaled = limit is not None and length + max_new_tokens > limit
        queues.setdefault((row.weights if compose else None, length if scaled else None), []).append(place)
    if any(length is not None for _, length in queues):
        warnings.warn(
            f"{soup.model.config.model_type}: only answers to prompts of equal length are written together, because "
            f"its positions are scaled by the length of a text of more than {limit} tokens.",
            stacklevel=2,
        )
    return _in_turn(soup, rows, queues, max_new_tokens, temperature, batch_rows, on_shrink)


_Common = tuple[tuple[float, ...] | None, int | None]
"""What the rows of a queue have in common: weights to compose, and the length of their prompts."""


def _in_turn(
    soup: "Soup",
    rows: Sequence[Row],
    queues: Mapping[_Common, Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    size: int,
    on_shrink: Callable[[str], None],
) -> Iterator[tuple[int, Answer]]:
    """Write one queue after another, each composed where its rows have weights in common."""
    for (weights, _), places in queues.items():
        mine = [rows[place] for place in places]
        policy = soup if weights is None else Composed(soup, weights)
        queue = _Queue(policy, mine, max_new_tokens, temperature, size, on_shrink)
        for place, answer in queue.answers():
            yield places[place], answer
        size = queue.size  # what did not fit once is not tried again


@dataclass
class _Writing:
    """A row in a slot."""

    place: int
    row: Row
    draws: list[float]
    tokens: list[int] = field(default_factory=list)


class _Queue:
    """Rows that wait, rows being written in slots of one forward pass, and how they move on."""

    def __init__(
        self,
        soup: "Soup | Composed",
        rows: Sequence[Row],
        max_new_tokens: int,
        temperature: float,
        size: int,
        on_shrink: Callable[[str], None],
    ) -> None:
        self.soup = soup
        self.rows = rows
        self.limit = max_new_tokens
        self.temperature = temperature
        self.size = size
        self.on_shrink = on_shrink
        self.ends = _end_tokens(soup)
        self.device = soup.model.get_input_embeddings().weight.device
        longest = max((len(row.prompt) for row in rows), default=0) + max_new_tokens
        try:
            self.cache = (SlotCache if keeps_slots(soup, longest) else BatchCache)(soup)
        except RuntimeError as error:
            if out_of_memory(error):
                raise _too_short(error) from error
            raise
        self.waiting = deque(range(len(rows)))
        self.slots: list[_Writing | None] = []
        self.weights = torch.empty(0)
        self.done: list[tuple[int, Answer]] = []

    def answers(self) -> Iterator[tuple[int, Answer]]:
        told = self.size
        while self.waiting or self.live():
            try:
                self._advance()
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(self.slots) == 1:
                    raise _too_short(error) from error
                self._shrink()
            else:
                if self.size < told:
                    self.on_shrink(f"memory does not suffice for {told} answers at a time: {self.size} from here on")
                    told = self.size
            # What was done before memory ran short counts as well.
            done, self.done = self.done, []
            yield from done

    def live(self) -> list[int]:
        return [slot for slot, writing in enumerate(self.slots) if writing is not None]

    @torch.inference_mode()
    def _advance(self) -> None:
        """Fill or drop free slots when there are enough of them, then write a token of every row."""
        live = self.live()
        if not live:
            self.slots = [None] * min(self.size, len(self.waiting))
            self.cache.open(len(self.slots))
            self.weights = torch.zeros(len(self.slots), len(self.rows[0].weights), device=self.device)
        if len(self.slots) - len(live) >= FREE_SHARE * len(self.slots):
            if self.waiting and (not live or self.cache.refills):
                self._admit([slot for slot, writing in enumerate(self.slots) if writing is None])
                return
            self.cache.keep(live)
            self.weights = self.weights[torch.tensor(live, device=self.device)]
            self.slots = [self.slots[slot] for slot in live]
            live = self.live()
        state = [(w.tokens[-1], len(w.row.prompt) + len(w.tokens) - 1) if w else (0, 0) for w in self.slots]
        tokens, positions = torch.tensor(state, device=self.device).unbind(1)
        self._take(range(len(self.slots)), self.cache.step(live, tokens, positions, self.weights))

    def _admit(self, free: Sequence[int]) -> None:
        """Let waiting rows into free slots."""
        slots = free[: len(self.waiting)]
        for slot in slots:
            place = self.waiting.popleft()
            row = self.rows[place]
            draws: list[float] = []
            if self.temperature > 0:
                draws = np.random.Generator(np.random.Philox(row.seed)).random(self.limit).tolist()
            self.slots[slot] = _Writing(place, row, draws)
        rows = [self._at(slot).row for slot in slots]
        weights = torch.tensor([row.weights for row in rows], dtype=torch.float32, device=self.device)
        self.weights[torch.tensor(slots, device=self.device)] = weights
        longest = max(len(row.prompt) for row in rows)
        size = max(1, PREFILL_TOKENS // longest) if self.cache.refills else len(rows)
        for part in (slice(start, start + size) for start in range(0, len(rows), size)):
            prompts = [row.prompt for row in rows[part]]
            self._take(slots[part], self.cache.admit(slots[part], prompts, weights[part]))

    def _take(self, slots: Sequence[int], logits: Tensor) -> None:
        """Choose the next token of each row from its logits, and let go the answers that are done with it."""
        if self.temperature == 0:
            tokens = logits.argmax(-1).tolist()
        else:
            writings = [self.slots[slot] for slot in slots]
            draws = [w.draws[len(w.tokens)] if w else 0.0 for w in writings]
            tokens = _choose(logits, torch.tensor(draws, dtype=torch.float64, device=self.device), self.temperature)
        for slot, token in zip(slots, tokens, strict=True):
            writing = self.slots[slot]
            if writing is None:
                continue
            finished = token in self.ends
            if not finished:
                writing.tokens.append(token)
            if finished or len(writing.tokens) == self.limit:
                self.done.append((writing.place, Answer(tuple(writing.tokens), finished)))
                self.slots[slot] = None

    def _at(self, slot: int) -> _Writing:
        writing = self.slots[slot]
        assert writing is not None
        return writing

    def _shrink(self) -> None:
        """Halve the number of slots and put the rows under way back where they came from."""
        self.size = len(self.slots) // 2
        self.waiting.extendleft(sorted((self._at(slot).place for slot in self.live()), reverse=True))
        self.slots = []
        self.cache.open(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _choose(logits: Tensor, draws: Tensor, temperature: float) -> list[int]:
    """Take the token at which the cumulated probability passes the row's draw, for each row."""
    cumulated = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True)[:, 0]
    chosen: list[int] = tokens.clamp(max=logits.shape[-1] - 1).tolist()
    return chosen


def _too_short(error: RuntimeError) -> RunError:
    return RunError(f"memory does not suffice to write one answer ({error}).")


def _end_tokens(soup: "Soup | Composed") -> set[int]:
    configured = getattr(soup.model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    if soup.tokenizer is not None:
        ends.add(soup.tokenizer.eos_token_id)
    return {int(token) for token in ends if token is not None}
