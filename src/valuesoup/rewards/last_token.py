"""Decoders that score a text at its last token: the common beginning of a prompt's texts is computed once.

A decoder's token sees what stands before it and nothing else. So rows padded on the right need no mask, tokens after
the one that is read need not be computed, and texts that begin with the same tokens can share the keys and values of
that beginning (prefix sharing, arXiv:2312.07104). Whether a model is such a decoder is decided by computing a few
random texts both ways, see :meth:`LastToken.of`.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from valuesoup.limits import REFUSALS, refusal, scaled_beyond
from valuesoup.rewards.batching import Budget, Tokens, distinct, in_batches, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

LEAST_PREFIX = 8
"""Tokens of a beginning that is worth a pass of its own; none of 10 or more was measured to be slower."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the reach of a layer that does not see the whole text."""
LAST_STEPS = (".mlp", ".self_attn.o_proj", ".self_attn.dense", ".attn.c_proj", ".attention.dense")
"""What families call the parts of a layer that treat each token by itself, after its attention."""
AGREEMENT = {True: 1e-3, False: 0.2}
"""How far the logits of the two ways may differ, in their spread over texts: in float32 (True), in 16 bits."""


class LastToken:
    """Logits of a decoder's texts, read where its own forward pass reads them."""

    def __init__(self, model: "PreTrainedModel", pad: int, last_steps: Sequence[nn.Module]) -> None:
        """Take a model as it is, see :meth:`of`.

        Args:
            model: With the attributes ``base_model`` and ``score``.
            pad: Its padding token.
            last_steps: Parts of its last layer to compute for the token that is read alone.
        """
        self.model: Any = model
        self.pad = pad
        self._last_steps = last_steps
        # Not the padding token itself, of which models warn where no mask comes with it.
        self._filler = 0 if pad else 1

    @classmethod
    def of(cls, model: "PreTrainedModel", pad: int) -> "LastToken | None":
        """Return the fast way to compute a model's logits, or None where it has to be used as it is.

        Every way is tried on random texts beside the model's own forward pass: prompts of two lengths with answers of
        several, one of which ends in a padding token. Only equal logits are trusted.
        """
        if not hasattr(model, "score") or model.base_model is model:
            return None  # an encoder, which reads its texts otherwise
        if scaled_beyond(model.config) is not None:
            logger.warning(
                "%s: prompts are computed once for each answer, because its positions are scaled by the "
                "length of the text",
                _kind(model),
            )
            return None
        parts = {
            end: part for name, part in model.base_model.named_modules() for end in LAST_STEPS if name.endswith(end)
        }
        reason = ""
        for last_steps in (list(parts.values()), []):
            way = cls(model, pad, last_steps)
            reason = way._fault()
            if not reason:
                return way
        logger.warning("%s: prompts are computed once for each answer, because %s", _kind(model), reason)
        return None

    def takes(self, length: int) -> bool:
        """Return whether every layer sees the whole of a text of so many tokens."""
        config = self.model.config.get_text_config()
        reaches = (getattr(config, name, None) for name in WINDOWS)
        return not any(isinstance(reach, int) and 0 < reach < length for reach in reaches)

    def read(self, ids: Tokens) -> Tokens:
        """Return a text up to the token at which it is read: the last one that is not padding."""
        real = np.flatnonzero(ids != self.pad) if ids[-1] == self.pad else None
        return ids if real is None else ids[: (int(real[-1]) if len(real) else 0) + 1]

    def logits(
        self,
        sequences: Sequence[Tokens],
        prompts: Sequence[Hashable],
        budget: Budget,
        advance: Callable[[int], None],
    ) -> NDArray[np.float64]:
        """Return the logits of each text, (N, logits).

        Args:
            sequences: (N,) texts.
            prompts: (N,) what says which of them have a prompt in common.
            budget: Of a batch.
            advance: Called with the number of texts done since the last call.
        """
        given = [self.read(ids) for ids in sequences]
        first, which = distinct(given)
        texts = [given[place] for place in first]
        advance(len(given) - len(texts))
        found = np.empty((len(texts), self.model.config.num_labels))
        alone, together = _groups(texts, [prompts[place] for place in first])

        def one_pass(places: NDArray[np.int64]) -> None:
            rows = alone[places]
            ids, lengths = self._padded([texts[row] for row in rows])
            found[rows] = _numbers(self._forward(ids, lengths - 1, use_cache=False))
            advance(len(rows))

        def two_passes(places: NDArray[np.int64]) -> None:
            groups = [together[place] for place in places]
            ids, lengths = self._padded([texts[rows[0]][:prefix] for prefix, rows in groups])
            cache = DynamicCache()
            self._forward(ids, torch.zeros_like(lengths), past_key_values=cache, use_cache=True)
            owner = np.repeat(np.arange(len(groups)), [len(rows) for _, rows in groups])
            rows = np.concatenate([rows for _, rows in groups])
            tails = [texts[row][groups[of][0] :] for row, of in zip(rows, owner, strict=True)]

            def second(tail: NDArray[np.int64]) -> None:
                found[rows[tail]] = _numbers(self._after(cache, lengths, owner[tail], [tails[row] for row in tail]))

            in_batches([len(ids) for ids in tails], budget, second, before=ids.shape[1])
            advance(len(rows))

        with torch.inference_mode():
            in_batches([prefix for prefix, _ in together], budget, two_passes)
            in_batches([len(texts[row]) for row in alone], budget, one_pass)
        return found[which]

    def _after(self, cache: DynamicCache, lengths: Tensor, owner: NDArray[np.int64], tails: list[Tokens]) -> Tensor:
        """Return the logits of texts of which the cache holds the beginnings; row i goes on after ``owner[i]``."""
        ids, sizes = self._padded(tails)
        rows = torch.from_numpy(owner).to(ids.device)
        before = lengths[rows, None]
        width = cache.get_seq_length()
        seen = torch.cat([torch.arange(width, device=ids.device) < before, torch.ones_like(ids, dtype=torch.bool)], 1)
        return self._forward(
            ids,
            sizes - 1,
            attention_mask=seen.long(),
            position_ids=before + torch.arange(ids.shape[1], device=ids.device),
            past_key_values=Cache(layers=[_Beginning(layer, rows) for layer in cache.layers]),
            use_cache=True,
        )

    def _forward(self, ids: Tensor, places: Tensor, **inputs: Any) -> Tensor:
        """Return the logits at one place of each row, (rows, logits)."""
        rows = torch.arange(len(ids), device=ids.device)
        with self._narrowed(rows, places):
            hidden = self.model.base_model(input_ids=ids, **inputs).last_hidden_state
        logits: Tensor = self.model.score(hidden[rows, places])
        return logits

    @contextmanager
    def _narrowed(self, rows: Tensor, places: Tensor) -> Iterator[None]:
        """Compute the last steps only where they are read.

        What they add to the other tokens, by broadcasting over the residual stream, is wrong and never read.
        """

        def narrow(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (given[0][rows, places][:, None] if given[0].shape[1] > 1 else given[0],)

        hooks = [part.register_forward_pre_hook(narrow) for part in self._last_steps]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _padded(self, sequences: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        ids, lengths = padded(sequences, self._filler)
        return torch.from_numpy(ids).to(self.model.device), torch.from_numpy(lengths).to(self.model.device)

    def _fault(self) -> str:
        """Say how this way differs from the model's own forward pass, nothing where it does not."""
        # Prompts so different in length that a hole counted as positions moves the logits far, even in 16 bits.
        draw = np.random.default_rng(0)
        size = self.model.config.get_text_config().vocab_size
        prompts = [draw.integers(0, size, length) for length in (9, 9, 9, 25, 25, 25, 3)]
        prompts[1:3], prompts[4:6] = [prompts[0]] * 2, [prompts[3]] * 2
        answers = [draw.integers(0, size, length) for length in (6, 2, 4, 3, 7, 1, 5)]
        answers[2][-1] = self.pad
        texts = [np.concatenate(both).astype(np.int32) for both in zip(prompts, answers, strict=True)]
        ids, lengths = map(torch.from_numpy, padded(texts, self.pad))
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        try:
            with torch.inference_mode():
                device = self.model.device
                own = _numbers(self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits)
            fast = self.logits(texts, [0, 0, 0, 1, 1, 1, 2], Budget(10**6, _kind(self.model)), lambda _: None)
        except REFUSALS as error:
            return f"its forward pass cannot be split ({refusal(error)})"
        far = float(np.abs(fast - own).max(initial=0.0))
        spread = float(own.std(axis=0).max(initial=0.0))
        if far <= AGREEMENT[self.model.dtype == torch.float32] * spread:
            return ""
        return f"its logits are then {far:.2g} off, at a spread of {spread:.2g}"


class _Beginning(DynamicLayer):
    """Keys and values of beginnings in one layer, repeated for the rows that go on after them as they are read."""

    def __init__(self, layer: Any, rows: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = layer.keys, layer.values, True
        self._rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return what the rows see; nothing is kept, for no token follows."""
        return (
            torch.cat([self.keys[self._rows], key_states], dim=-2),
            torch.cat([self.values[self._rows], value_states], dim=-2),
        )


def _groups(
    texts: Sequence[Tokens], prompts: Sequence[Hashable]
) -> tuple[NDArray[np.int64], list[tuple[int, list[int]]]]:
    """Return the texts to compute alone, and the others by their prompts, with the tokens that each group shares."""
    by_prompt: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(row)
    alone: list[int] = []
    together: list[tuple[int, list[int]]] = []
    for rows in by_prompt.values():
        prefix = _common([texts[row] for row in rows]) if len(rows) > 1 else 0
        if prefix < LEAST_PREFIX:
            alone += rows
        else:
            together.append((prefix, rows))
    return np.array(alone, dtype=np.int64), together


def _common(texts: Sequence[Tokens]) -> int:
    """Return with how many equal tokens all texts begin, each keeping one token at least, the one that is read."""
    length = min(map(len, texts)) - 1
    for other in texts[1:]:
        differ = texts[0][:length] != other[:length]
        length = int(differ.argmax()) if differ.any() else length
    return length


def _numbers(logits: Tensor) -> NDArray[np.float64]:
    return np.asarray(logits.double().cpu().numpy(), dtype=np.float64)


def _kind(model: Any) -> str:
    return str(model.config.model_type)
