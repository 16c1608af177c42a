"""Dropout from 16 random bits an element: how many are dropped, what the others become, and where it does nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.soup.dropout import Dropout


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.9])
def test_elements_are_dropped_with_their_probability_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    count = 1_000_000
    found = Dropout(p)(torch.ones(count))
    dropped = int((found == 0).sum())
    assert dropped == pytest.approx(count * p, abs=5 * (count * p * (1 - p)) ** 0.5)
    assert found.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert found.unique().numel() == 2


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.3)(torch.ones(400_000)) == 0).float().view(-1, 8)
    together = dropped.T @ dropped / len(dropped)
    apart = together[~torch.eye(8, dtype=torch.bool)]
    assert apart.sub(0.09).abs().max() < 0.008  # the deviation of a mean over 50,000 is 0.0013


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.sampled_from([0.0, 1e-9, 0.5, 0.99999999]))
def test_any_shape_and_any_probability(shape: list[int], p: float) -> None:
    x = torch.ones(shape, requires_grad=True)
    found = Dropout(p)(x)
    found.sum().backward()
    assert found.shape == x.shape
    assert torch.isfinite(found).all()
    assert torch.equal(x.grad, found.detach())  # of a one, the factor is the gradient
    if p < 0.1:
        assert torch.equal(found, x)


def test_the_seed_gives_the_mask_and_evaluation_mode_changes_nothing() -> None:
    dropout, x = Dropout(0.5), torch.randn(7, 3)
    torch.manual_seed(1)
    one = dropout(x)
    assert not torch.equal(dropout(x), one)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), one)
    assert dropout.eval()(x) is x


def test_half_precision_keeps_its_dtype() -> None:
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16
