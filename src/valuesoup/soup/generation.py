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
        policy = soup if weights is None else Composed(soup, weights)
        longest = max(len(rows[place].prompt) for place in places) + max_new_tokens
        queue = Queue(policy, longest, size, on_shrink)
        for place in places:
            queue.join(Writing(place, rows[place], max_new_tokens, temperature))
        while queue.busy():
            yield from queue.advance()
        size = queue.size  # what did not fit once is not tried again


@dataclass
class Writing:
    """A row on its way: it waits, or is being written in a slot.

    Attributes:
        place: By which its answer is known; of rows put back for lack of memory, lower ones begin first.
        row: What to answer.
        limit: The longest answer, in tokens.
        temperature: 0 takes the likeliest token.
        tokens: Written so far.
    """

    place: int
    row: Row
    limit: int
    temperature: float
    tokens: list[int] = field(default_factory=list)
    draws: list[float] = field(default_factory=list, repr=False)

    def begin(self) -> None:
        """Start at the first token, with the row's own draws."""
        self.tokens, self.draws = [], []
        if self.temperature > 0:
            self.draws = np.random.Generator(np.random.Philox(self.row.seed)).random(self.limit).tolist()


class Queue:
    """Rows that wait, rows being written in slots of one forward pass, and how they move on.

    Rows may join and leave between two steps. Whoever uses it calls :meth:`advance` while it is :meth:`busy`.
    """

    def __init__(
        self, soup: "Soup | Composed", longest: int, size: int, on_shrink: Callable[[str], None] = warnings.warn
    ) -> None:
        """Make an empty queue.

        Args:
            soup: The soup, or a composed one.
            longest: Tokens of the longest prompt with its answer that will join.
            size: Rows in a forward pass.
            on_shrink: Called with a sentence when fewer rows are written at a time from there on.

        Raises:
            RunError: Memory does not suffice for one row.
        """
        self.soup = soup
        self.size = size
        self.on_shrink = on_shrink
        self.ends = end_tokens(soup)
        self.device = soup.model.get_input_embeddings().weight.device
        try:
            self.cache = (SlotCache if keeps_slots(soup, longest) else BatchCache)(soup)
        except RuntimeError as error:
            if out_of_memory(error):
                raise _too_short(error) from error
            raise
        self.waiting: deque[Writing] = deque()
        self.slots: list[Writing | None] = []
        self.weights = torch.empty(0)
        self._told = size
        self._done: list[tuple[int, Answer]] = []

    def join(self, writing: Writing) -> None:
        """Let a row wait for a slot."""
        self.waiting.append(writing)

    def leave(self, place: int) -> None:
        """Let go of a row, waiting or being written; its slot is free from here on."""
        self.waiting = deque(writing for writing in self.waiting if writing.place != place)
        self.slots = [None if writing is not None and writing.place == place else writing for writing in self.slots]

    def busy(self) -> bool:
        """Return whether any row waits or is being written."""
        return bool(self.waiting or self.live())

    def live(self) -> list[int]:
        """Return the slots whose rows are being written."""
        return [slot for slot, writing in enumerate(self.slots) if writing is not None]

    def advance(self) -> list[tuple[int, Answer]]:
        """Let rows into free slots, or write a token of every row; return the answers done with it, by place.

        Raises:
            RunError: Memory does not suffice for one row.
        """
        try:
            self._advance()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(self.slots) == 1:
                raise _too_short(error) from error
            self._shrink()
        else:
            if self.size < self._told:
                self.on_shrink(f"memory does not suffice for {self._told} answers at a time: {self.size} from here on")
                self._told = self.size
        # What was done before memory ran short counts as well.
        done, self._done = self._done, []
        return done

    @torch.inference_mode()
    def _advance(self) -> None:
        """Fill, add or drop slots when there is reason to, else write a token of every row."""
        live = self.live()
        if not live:
            self.slots = [None] * min(self.size, len(self.waiting))
            self.cache.open(len(self.slots))
            self.weights = torch.zeros(len(self.slots), len(self.waiting[0].row.weights), device=self.device)
        elif self.cache.refills and self.waiting and len(self.slots) < self.size:
            self._keep(live, min(len(self.waiting), self.size - len(live)))
            live = self.live()
        if len(self.slots) - len(live) >= FREE_SHARE * len(self.slots):
            if self.waiting and (not live or self.cache.refills):
                self._admit([slot for slot, writing in enumerate(self.slots) if writing is None])
                return
            self._keep(live)
            live = self.live()
        state = [(w.tokens[-1], len(w.row.prompt) + len(w.tokens) - 1) if w else (0, 0) for w in self.slots]
        tokens, positions = torch.tensor(state, device=self.device).unbind(1)
        self._take(range(len(self.slots)), self.cache.step(live, tokens, positions, self.weights))

    def _keep(self, live: Sequence[int], free: int = 0) -> None:
        """Drop all slots but the live ones, which come first, and add free ones."""
        slots = [*live, *([live[0]] * free)]  # a free slot may hold anything
        self.cache.keep(slots)
        self.weights = self.weights[torch.tensor(slots, device=self.device)]
        self.slots = [*(self.slots[slot] for slot in live), *[None] * free]

    def _admit(self, free: Sequence[int]) -> None:
        """Let waiting rows into free slots."""
        slots = free[: len(self.waiting)]
        for slot in slots:
            writing = self.waiting.popleft()
            writing.begin()
            self.slots[slot] = writing
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
        temperatures = {writing.temperature for slot in slots if (writing := self.slots[slot]) is not None}
        for temperature in temperatures:
            mine = [
                at
                for at, slot in enumerate(slots)
                if (writing := self.slots[slot]) is not None and writing.temperature == temperature
            ]
            self._go_on([slots[at] for at in mine], logits if len(mine) == len(slots) else logits[mine], temperature)

    def _go_on(self, slots: Sequence[int], logits: Tensor, temperature: float) -> None:
        if temperature == 0:
            tokens = logits.argmax(-1).tolist()
        else:
            writings = [self._at(slot) for slot in slots]
            draws = [writing.draws[len(writing.tokens)] for writing in writings]
            tokens = _choose(logits, torch.tensor(draws, dtype=torch.float64, device=self.device), temperature)
        for slot, token in zip(slots, tokens, strict=True):
            writing = self._at(slot)
            finished = token in self.ends
            if not finished:
                writing.tokens.append(token)
            if finished or len(writing.tokens) == writing.limit:
                self._done.append((writing.place, Answer(tuple(writing.tokens), finished)))
                self.slots[slot] = None

    def _at(self, slot: int) -> Writing:
        writing = self.slots[slot]
        assert writing is not None
        return writing

    def _shrink(self) -> None:
        """Halve the number of slots and put the rows under way back where they came from."""
        self.size = len(self.slots) // 2
        back = sorted((self._at(slot) for slot in self.live()), key=lambda writing: writing.place, reverse=True)
        self.waiting.extendleft(back)
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


def end_tokens(soup: "Soup | Composed") -> set[int]:
    """Return the tokens that end an answer: the tokenizer's end of sequence and those of the generation settings."""
    configured = getattr(soup.model.generation_config, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    if soup.tokenizer is not None:
        ends.add(soup.tokenizer.eos_token_id)
    return {int(token) for token in ends if token is not None}
