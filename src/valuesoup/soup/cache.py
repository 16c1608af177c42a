"""Keys and values of the rows now being written, in slots that newcomers take over.

All rows write their next token into one common column, and a newcomer's prompt is placed so that it ends there too:
a step then writes one column and reads one range of columns, without copying what is already there.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from valuesoup.limits import REFUSALS, refusal, scaled_beyond
from valuesoup.soup.quantised import is_exact
from valuesoup.soup.sequences import padded

if TYPE_CHECKING:
    from valuesoup.soup.in_place import Composed
    from valuesoup.soup.soup import Soup

SPARE_COLUMNS = 64
"""Steps between two moves of the cache: a move copies it whole, and columns beyond the longest row lie idle."""
MASKS = ("sdpa", "eager")
"""Implementations of attention that take a mask of numbers, one for each row and column."""
AGREEMENT = {"float32": 1e-3, "16 bit": 0.2}
"""How far logits may be from those of the plain forward pass, in their spread over the vocabulary."""


class _Window:
    """Which columns and rows the layers of one cache read and write in the forward pass now running."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.first = 0
        self.end = 0
        self.width = 0
        self.newcomers: Tensor | None = None


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, width, features) each."""

    is_sliding = False

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate zeros: what a row has not written is masked, but must be a number."""
        self.keys, self.values = (
            new.new_zeros(self.window.rows, new.shape[1], self.window.width, new.shape[3])
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values into their columns and return all that the new tokens may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        window = self.window
        columns = slice(window.end - key_states.shape[2], window.end)
        if window.newcomers is not None:
            self.keys[window.newcomers, :, columns] = key_states
            self.values[window.newcomers, :, columns] = value_states
            return key_states, value_states
        self.keys[:, :, columns] = key_states
        self.values[:, :, columns] = value_states
        return self.keys[:, :, window.first : window.end], self.values[:, :, window.first : window.end]

    def keep(self, rows: Tensor) -> None:
        """Keep these rows alone."""
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            self.keys, self.values = self.keys[rows], self.values[rows]

    def move(self, columns: slice, start: int) -> None:
        """Take over columns into a new allocation, from column ``start`` on."""
        if not self.is_initialized:
            return
        assert self.keys is not None and self.values is not None
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)[:, :, columns]
            new = old.new_empty(self.window.rows, old.shape[1], self.window.width, old.shape[3])
            end = start + old.shape[2]
            new[:, :, start:end] = old
            new[:, :, :start] = 0
            new[:, :, end:] = 0
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that are read and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Return the columns that are read, the new ones not counted."""
        return 0 if self.window.newcomers is not None else self.window.end - self.window.first - 1

    def get_max_length(self) -> int:
        """Return -1: there is no limit."""
        return -1


class SlotCache:
    """A forward pass over rows that start and end at different times."""

    refills = True

    def __init__(self, soup: "Soup | Composed") -> None:
        """Prepare for the soup's base, without slots; see :func:`keeps_slots`."""
        self._soup = soup
        self._device = soup.model.get_input_embeddings().weight.device
        self.open(0)

    def open(self, rows: int) -> None:
        """Start anew with this many empty slots."""
        self._window = _Window(rows)
        layers = DynamicCache(config=self._soup.model.config).layers
        self._cache = Cache(layers=[_Layer(self._window) for _ in layers])
        self._starts = [0] * rows
        self._mask = torch.empty(0)

    def admit(self, slots: Sequence[int], prompts: Sequence[Sequence[int]], weights: Tensor | None) -> Tensor:
        """Read the prompts of rows into slots.

        Args:
            slots: A free one for each prompt.
            prompts: Token ids.
            weights: (prompts, vectors), or None for the base.

        Returns:
            The logits of each row's next token, (prompts, vocabulary).
        """
        window, device = self._window, self._device
        longest = max(map(len, prompts))
        if window.end < longest:
            self._move(longest - (window.end - window.first))
        for slot, prompt in zip(slots, prompts, strict=True):
            self._starts[slot] = window.end - len(prompt)
        # The next step reads their columns too, and until then they move with the others.
        window.first = min(window.first, window.end - longest)
        places = torch.tensor(slots, device=device)
        self._mask[places] = self._row_masks(slots)
        ids, real = (table.to(device) for table in padded(prompts, left=True))
        # Padding sees padding: a row of the mask that is closed throughout would give NaN.
        closed = torch.ones(longest, longest, dtype=torch.bool, device=device).triu(1) | (
            real[:, :, None] & ~real[:, None, :]
        )
        dtype = self._mask.dtype
        window.newcomers = places
        try:
            return self._forward(
                weights,
                ids,
                (real.long().cumsum(1) - 1).clamp(min=0),
                torch.zeros(closed.shape, dtype=dtype, device=device).masked_fill_(closed, torch.finfo(dtype).min)[
                    :, None
                ],
            )
        finally:
            window.newcomers = None

    def step(self, live: Sequence[int], tokens: Tensor, positions: Tensor, weights: Tensor | None) -> Tensor:
        """Read one token of each row.

        Args:
            live: The slots whose rows are still being written.
            tokens: (slots,) the last one of each row.
            positions: (slots,) its place in its row.
            weights: (slots, vectors), or None for the base.

        Returns:
            The logits of each row's next token, (slots, vocabulary); of free slots, anything.
        """
        window = self._window
        window.first = min(self._starts[slot] for slot in live)
        if window.end == window.width:
            self._move(0)
        window.end += 1
        mask = self._mask[:, :, :, window.first : window.end].contiguous()  # some kernels load it in aligned pieces
        return self._forward(weights, tokens[:, None], positions[:, None], mask)

    def keep(self, slots: Sequence[int]) -> None:
        """Drop all other slots; those kept are numbered anew."""
        kept = torch.tensor(slots, device=self._device)
        self._window.rows = len(slots)
        self._starts = [self._starts[slot] for slot in slots]
        self._mask = self._mask[kept]
        for layer in self._layers():
            layer.keep(kept)

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self._cache.layers if isinstance(layer, _Layer)]

    def _move(self, start: int) -> None:
        """Let the columns that are read begin at ``start`` of a new allocation with columns to spare."""
        window = self._window
        columns = slice(window.first, window.end)
        window.first, window.end = start, start + window.end - window.first
        window.width = window.end + SPARE_COLUMNS
        for layer in self._layers():
            layer.move(columns, start)
        self._starts = [place + start - columns.start for place in self._starts]
        self._mask = self._row_masks(range(window.rows))

    def _row_masks(self, slots: Sequence[int]) -> Tensor:
        """Return what is added to the attention scores of a next token, (slots, 1, 1, width): 0 from a row's start."""
        dtype = self._soup.model.dtype
        starts = torch.tensor([self._starts[slot] for slot in slots], device=self._device)
        before = torch.arange(self._window.width, device=self._device) < starts[:, None]
        mask = torch.zeros(before.shape, dtype=dtype, device=self._device)
        return mask.masked_fill_(before, torch.finfo(dtype).min)[:, None, None]

    def _forward(self, weights: Tensor | None, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self._soup(
            weights,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


class BatchCache:
    """The same over transformers' own cache, for bases whose layers keep something else: no newcomers on the way."""

    refills = False

    def __init__(self, soup: "Soup | Composed") -> None:
        """Prepare an empty cache for the soup's base."""
        self._soup = soup
        self._device = soup.model.get_input_embeddings().weight.device
        self._cache: Any = None
        self._mask = torch.empty(0)

    def open(self, rows: int) -> None:
        """Start anew; the rows come with the prompts."""
        if rows and scaled_beyond(self._soup.model.config) is not None:
            # Scaled positions stay at the longest text until they meet a short one.
            self._soup(None, input_ids=torch.zeros(1, 1, dtype=torch.long, device=self._device))

    def admit(self, slots: Sequence[int], prompts: Sequence[Sequence[int]], weights: Tensor | None) -> Tensor:
        """Read the prompts of all rows, as :meth:`SlotCache.admit`."""
        self._cache = DynamicCache(config=self._soup.model.config)
        ids, real = (table.to(self._device) for table in padded(prompts, left=True))
        self._mask = real.long()
        return self._forward(weights, ids, (self._mask.cumsum(1) - 1).clamp(min=0))

    def step(self, live: Sequence[int], tokens: Tensor, positions: Tensor, weights: Tensor | None) -> Tensor:
        """Read one token of each row, as :meth:`SlotCache.step`."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        return self._forward(weights, tokens[:, None], positions[:, None])

    def keep(self, slots: Sequence[int]) -> None:
        """Drop all other rows; those kept are numbered anew."""
        kept = torch.tensor(slots, device=self._mask.device)
        self._cache.batch_select_indices(kept)
        self._mask = self._mask[kept]

    def _forward(self, weights: Tensor | None, ids: Tensor, positions: Tensor) -> Tensor:
        logits: Tensor = self._soup(
            weights,
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


_SLOTS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a base gives the logits of its plain forward pass when its rows lie in slots."""


def keeps_slots(soup: "Soup | Composed", longest: int) -> bool:
    """Return whether a base's layers keep nothing but keys and values and see the whole of each row.

    They must take a mask of numbers, which a few tokens computed both ways tell; a warning says where they do not.

    Args:
        soup: On its device.
        longest: Tokens of the longest prompt with its answer.
    """
    model = soup.model
    config: Any = model.config
    layers = DynamicCache(config=config).layers
    limit = scaled_beyond(config)
    if (
        not layers
        or config._attn_implementation not in MASKS
        or (limit is not None and longest > limit)
        or any(
            type(layer) is not DynamicLayer
            and not (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= longest)
            for layer in layers
        )
    ):
        return False
    if model not in _SLOTS:
        reason = _obstacle(soup)
        _SLOTS[model] = reason is None
        if reason is not None:
            text = f"{config.model_type}: an answer that is done makes no place for the next before all are"
            warnings.warn(f"{text}, because {reason}.", stacklevel=2)
    return _SLOTS[model]


@torch.no_grad()
def _obstacle(soup: "Soup | Composed") -> str | None:
    vocabulary = int(soup.model.config.get_text_config().vocab_size)
    draw = torch.Generator().manual_seed(0)
    first, second, third = (torch.randint(vocabulary, (size,), generator=draw).tolist() for size in (9, 4, 8))
    device = soup.model.get_input_embeddings().weight.device
    plain = [
        soup(None, input_ids=torch.tensor([row], device=device), use_cache=False).logits[0, -1]
        for row in (first[:7], second[:3], first[:8], second, first, third[:7], third)
    ]
    cache = SlotCache(soup)
    cache.open(3)
    try:
        found = [*cache.admit([0, 1], [first[:7], second[:3]], None)]
        found += cache.step([0, 1], *_next([first[7], second[3], 0], [7, 3, 0], device), None)[:2]
        found += cache.step([0], *_next([first[8], 0, 0], [8, 0, 0], device), None)[:1]
        found += cache.admit([2], [third[:7]], None)
        found += cache.step([2], *_next([0, 0, third[7]], [0, 0, 7], device), None)[2:]
    except REFUSALS as error:
        return f"it does not take a mask of its own ({refusal(error)})"
    own = torch.stack(plain).float()
    far = float((torch.stack(found).float() - own).abs().max())
    spread = float(own.std(-1).max())
    if far <= AGREEMENT["float32" if is_exact(soup.model) else "16 bit"] * spread:
        return None
    return f"its logits are then {far:.2g} off, at a spread of {spread:.2g}"


def _next(tokens: list[int], positions: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(tokens, device=device), torch.tensor(positions, device=device)
