"""Log-probabilities from a base's last hidden states, in pieces: the logits of a big vocabulary would fill memory.

A token's log-probability depends on one hidden state alone. So each piece of positions can also give, while its logits
are there, what the backward pass needs: the slope of each log-probability in its hidden state, as large as that state.
Logits are then never kept, and nothing is computed twice.
"""

import copy
import warnings
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from valuesoup.limits import REFUSALS, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from valuesoup.soup.soup import Soup

PIECE = 1 << 25
"""Most logits held at once: 128 MiB in float32, and some copies of them."""
SAME = 1e-3
"""How far logits of the head by itself may be from the model's, which come from the same operations."""


def in_pieces(soup: "Soup") -> bool:
    """Return whether :func:`token_scores` makes a soup's logits in pieces, however large the batch."""
    return _own_head(soup) is not None


def token_scores(soup: "Soup", weights: Tensor | None, targets: Tensor, real: Tensor, **inputs: Any) -> Tensor:
    """Return log π(target | before) where ``real`` holds and 0 elsewhere, (rows, width), float32, in nats.

    Args:
        soup: The soup; its base is frozen.
        weights: (rows, n) or (1, n), or None for the base.
        targets: (rows, width) token ids, predicted by the last ``width`` tokens that the model reads.
        real: The same shape.
        inputs: What the base's forward takes.
    """
    width = targets.shape[1]
    head = _own_head(soup)
    if head is None:
        logits = soup(weights, **inputs, use_cache=False, logits_to_keep=width).logits[:, -width:]
        scores = -functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return scores.view(targets.shape).masked_fill(~real, 0.0)
    soup.row_weights.set(weights)
    hidden = soup.model.base_model(**inputs, use_cache=False).last_hidden_state[:, -width:][real]
    wanted = targets[real]
    if torch.is_grad_enabled() and hidden.requires_grad:
        scores = cast("Tensor", _Scores.apply(hidden, wanted, head))  # type: ignore[no-untyped-call]
    else:
        scores = torch.cat([head.scores(*piece) for piece in head.pieces(hidden, wanted)])
    return scores.new_zeros(targets.shape).masked_scatter(real, scores)


class Head:
    """What a causal language model does after its last hidden states: the output layer, logit scales, soft caps.

    It is the model's own forward on a copy in which the layers below are replaced by hidden states given to it.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        """Take the head of a model, whose weights it shares.

        Raises:
            ValueError: The model does not tell its layers from its head.
        """
        self.given = _Given()
        self.model = copy.copy(model)
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        prefix = model.base_model_prefix
        if prefix not in model._modules:
            raise ValueError(f"no module '{prefix}'")
        self.model._modules = {**model._modules, prefix: self.given}

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits, (rows, width, vocabulary), of hidden states (rows, width, features)."""
        self.given.hidden = hidden
        try:
            # The class's forward: an instance's may be a wrapper around that of the whole model.
            found: Tensor = type(self.model).forward(self.model, inputs_embeds=hidden, use_cache=False).logits
        finally:
            self.given.hidden = None
        return found

    def scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log-probabilities, (positions,), of targets (positions,) at hidden states (positions, features)."""
        return -functional.cross_entropy(self.logits(hidden[None])[0].float(), targets, reduction="none")

    def pieces(self, hidden: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return positions in pieces of at most ``PIECE`` logits."""
        size = max(1, PIECE // self.vocabulary)
        return list(zip(torch.split(hidden, size), torch.split(targets, size), strict=True))


class _Given(nn.Module):
    """Stands in for the layers of a model: returns hidden states that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> "_Output":
        return _Output(self.hidden)


class _Output:
    """What a model's layers return, in any of its classes: hidden states, and None for all else."""

    def __init__(self, hidden: Tensor | None) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: int) -> Tensor | None:
        return self.last_hidden_state if place == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


class _Scores(torch.autograd.Function):
    """Log-probabilities of targets, with their slopes in the hidden states taken at once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        scores: list[Tensor] = []
        slopes: list[Tensor] = []
        for states, wanted in head.pieces(hidden, targets):
            with torch.enable_grad():
                states = states.detach().requires_grad_(True)
                found = head.scores(states, wanted)
                slopes += torch.autograd.grad(found.sum(), states)
            scores.append(found.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(scores)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradients[0][:, None] * slopes).to(slopes.dtype), None, None


_EXACT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model's head by itself gives the model's logits; False of an output layer that a soup adapts."""


def _own_head(soup: "Soup") -> Head | None:
    """Return the head of a soup's base; None, and a warning once, where it is not the model's way to logits."""
    from valuesoup.soup.soup import SoupLinear

    model = soup.model
    output = model.get_output_embeddings()
    adapted = isinstance(output, SoupLinear)
    # The head is the model's, but whether its output layer is adapted, with weights per row, is the soup's.
    known: nn.Module = output if adapted else model
    if known not in _EXACT:
        reason = "its output layer is adapted, with weights per row" if adapted else _obstacle(soup)
        _EXACT[known] = reason is None
        if reason is not None:
            kind = model.config.model_type
            warnings.warn(f"{kind}: logits are computed whole, not in pieces, because {reason}.", stacklevel=3)
    return Head(model) if _EXACT[known] else None


@torch.no_grad()
def _obstacle(soup: "Soup") -> str | None:
    model = soup.model
    device = model.get_input_embeddings().weight.device
    few = int(model.config.get_text_config().vocab_size)
    tokens = torch.arange(7, device=device)[None] % few
    training = soup.training
    soup.eval()
    soup.row_weights.set(None)
    try:
        whole = model(input_ids=tokens, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        own = Head(model).logits(hidden).float()
    except REFUSALS as error:
        return f"its head does not run by itself ({refusal(error)})"
    finally:
        soup.train(training)
    same = whole.shape == own.shape and torch.allclose(whole, own, rtol=SAME, atol=SAME)
    return None if same else "its head gives other logits by itself"
