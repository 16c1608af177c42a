"""Gradient conflict at the base: the gradient itself against dense float64, and the cosine against what it must be."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax, logsigmoid

import tiny
from valuesoup.soup import Soup
from valuesoup.training.conflict import block_gradients, conflicts
from valuesoup.training.rows import TokenPairs, tokenise

Fresh = Callable[..., Soup]


def pairs_of(count: int, seed: int = 0) -> TokenPairs:
    return tokenise(tiny.random_pairs(count, seed), tiny.tokenizer(), 64)


def blocks(count: int, size: int) -> list[list[int]]:
    return [places.tolist() for places in np.array_split(np.arange(count), size)]


def gradients(soup: Soup, pairs: TokenPairs, sign: float = 1.0, count: int = 4) -> Any:
    return block_gradients(soup, pairs, np.full(len(pairs), sign), blocks(len(pairs), count), batch_pairs=3)


def dense_gradient(model: Any, soup: Soup, pairs: TokenPairs, weight: list[float]) -> torch.Tensor:
    """Σ of the DPO losses' gradient in s·B, divided by β: of dense float64 weights through the chain rule G·Aᵀ."""
    beta = 0.1
    dense = tiny.merged(model, [])
    adapted = [dense.get_submodule(name) for name in soup.layer_names]
    loss = torch.zeros((), dtype=torch.float64)
    for place, share in enumerate(weight):
        sides = []
        for response in (pairs.chosen[place], pairs.rejected[place]):
            prompt = pairs.prompts[place]
            logits = dense(torch.tensor([prompt + response])).logits[0]
            each = log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])
            sides.append(each.sum())
        margin = beta * ((sides[0] - sides[0].detach()) - (sides[1] - sides[1].detach()))  # π_ref is the base itself
        # A negative weight swaps the sides.
        loss = loss - abs(share) * logsigmoid(math.copysign(1.0, share) * margin)
    whole = torch.autograd.grad(loss, [layer.weight.requires_grad_(True) for layer in adapted])
    vector = soup.vector(soup.names[0])
    return torch.cat(
        [
            (factors.scale * gradient @ factors.A.double().T).flatten() / beta
            for gradient, factors in zip(whole, (vector.layers[name] for name in soup.layer_names), strict=True)
        ]
    )


def dense_model(fresh_model: Any) -> Any:
    for parameter in fresh_model.parameters():
        parameter.requires_grad_(True)
    return fresh_model


def test_the_gradient_is_that_of_the_dpo_loss_at_the_base_projected_by_a(
    fresh: Fresh, model_of: Callable[[str], Any]
) -> None:
    soup, pairs = fresh("policy"), pairs_of(5)
    weight = [1.0, -1.0, 0.25, 1.0, 2.0]
    found = block_gradients(soup, pairs, np.array(weight), [[0, 1, 2], [3, 4]], batch_pairs=2)
    assert found.shape == (2, sum(p.numel() for p in soup.parameters_of(["policy"])[1::2]))
    for block, places in enumerate(([0, 1, 2], [3, 4])):
        given = [share if place in places else 0.0 for place, share in enumerate(weight)]
        truth = dense_gradient(dense_model(model_of("llama")), soup, pairs, given)
        np.testing.assert_allclose(found[block].numpy(), truth.numpy(), atol=2e-5 * float(truth.abs().max()))
    assert not any(parameter.requires_grad for parameter in soup.parameters())


def test_equal_data_have_cosine_one_and_swapped_pairs_minus_one(fresh: Fresh) -> None:
    soup, pairs = fresh("policy"), pairs_of(12)
    same, other = gradients(soup, pairs), gradients(soup, pairs, -1.0)
    found = {(row.first, row.second): row for row in conflicts({"a": same, "b": same, "c": other})}
    assert found["a", "b"].cosine == pytest.approx(1.0, abs=1e-12)
    assert found["a", "b"].error == pytest.approx(0.0, abs=1e-7)
    assert found["a", "c"].cosine == found["b", "c"].cosine == pytest.approx(-1.0, abs=1e-12)


def test_batches_blocks_and_checkpointing_do_not_change_the_gradient(fresh: Fresh) -> None:
    pairs = pairs_of(9)
    whole = block_gradients(fresh("policy"), pairs, np.ones(9), [list(range(9))], batch_pairs=9)
    parts = gradients(fresh("policy"), pairs, count=4)
    torch.testing.assert_close(parts.sum(0), whole[0], atol=1e-5, rtol=1e-4)
    saving = fresh("policy")
    saving.checkpoint_activations()
    saving.train()
    torch.testing.assert_close(gradients(saving, pairs), parts, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_two_values_are_compared_once(n: int) -> None:
    torch.manual_seed(0)
    given = {f"v{place}": torch.randn(4, 7) for place in range(n)}
    found = conflicts(given)
    names = list(given)
    assert [(row.first, row.second) for row in found] == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    for row in found:
        a, b = (given[name].double().sum(0) for name in (row.first, row.second))
        assert row.cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-12)


def test_cosine_error_and_ceiling_are_those_of_a_hand_worked_case() -> None:
    # Blocks (1, 0), (1, 0) against (1, 0), (0, 1): the sums are (2, 0) and (1, 1).
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    (row,) = conflicts({"a": first, "b": second})
    assert row.cosine == pytest.approx(math.sqrt(0.5))
    # Without the first block the cosine is 0, without the second 1: √((K − 1)/K · Σ (c − ½)²) = √(½ · ½).
    assert row.error == pytest.approx(0.5)
    assert row.ceiling == 0.0, "the blocks of the second value share nothing, so its mean is all noise"
    (row,) = conflicts({"a": first, "b": torch.tensor([[1.0, 0.5], [1.0, -0.5]])})
    # ‖sum‖² = 4, of which the blocks' own squares are 2.5: 2 · (1 − 2.5/4) = 0.75; the first value has no noise.
    assert row.ceiling == pytest.approx(math.sqrt(0.75))


def test_the_ceiling_is_what_noise_leaves_of_a_cosine_of_one() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(4000, generator=generator)
    noisy = [truth + 4.0 * torch.randn(16, 4000, generator=generator) for _ in range(2)]
    (row,) = conflicts({"a": noisy[0], "b": noisy[1]})
    assert row.cosine < 0.6
    assert row.ceiling == pytest.approx(row.cosine, abs=0.05)


def test_the_error_is_the_spread_that_fresh_samples_show() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.6, 0.8, 0.0])

    def sample(mean: torch.Tensor) -> torch.Tensor:
        return mean + torch.randn(16, 3, generator=generator)

    rows = [conflicts({"a": sample(a), "b": sample(b)})[0] for _ in range(300)]
    spread = float(np.std([row.cosine for row in rows]))
    assert float(np.mean([row.error for row in rows])) == pytest.approx(spread, rel=0.2)


def test_a_zero_gradient_has_no_cosine() -> None:
    (row,) = conflicts({"a": torch.zeros(2, 3), "b": torch.ones(2, 3)})
    assert math.isnan(row.cosine)
    assert row.ceiling == 0.0


@pytest.mark.parametrize("counts", [(2, 3), (1, 1)])
def test_unequal_or_single_blocks_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="equally many blocks"):
        conflicts({"a": torch.ones(counts[0], 2), "b": torch.ones(counts[1], 2)})
