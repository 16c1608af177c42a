"""The one loss against numbers worked by hand and a plain computation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.training.loss import implicit_margin, likelihood_loss, preference_loss


def loss(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, **options: float) -> float:
    given = [torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected, ref_chosen, ref_rejected)]
    return float(preference_loss(*given, **options))


def test_dpo_by_hand() -> None:
    # log ratios: chosen +2, rejected -3; beta 0.1: a margin of 0.5; -log sigmoid(0.5) = ln(1 + e^-0.5)
    assert loss(-8, -15, -10, -12, beta=0.1) == pytest.approx(math.log1p(math.exp(-0.5)))
    assert loss(-8, -15, -10, -12, beta=0.1) == pytest.approx(0.4740769841801067)


def test_weight_scale_and_margin_by_hand() -> None:
    # (0.5 - 0.2) / 0.25 = 1.2; 3 * ln(1 + e^-1.2)
    found = loss(-8, -15, -10, -12, beta=0.1, weight=3.0, scale=0.25, margin=0.2)
    assert found == pytest.approx(3 * math.log1p(math.exp(-1.2)))
    assert found == pytest.approx(0.7898469, abs=1e-6)


def test_the_loss_of_the_reference_itself_is_ln_2() -> None:
    assert loss(-8, -15, -8, -15, beta=0.7) == pytest.approx(math.log(2))


number = st.floats(-50, 50)


@given(number, number, number, number, st.floats(0.01, 2), st.floats(0.1, 1), number)
def test_modpos_released_form_is_the_same_loss(
    a: float, b: float, c: float, d: float, beta: float, w: float, m: float
) -> None:
    # The released code: (1/w)·(β·log ratio − Σ w_j r_j) of chosen minus that of rejected.
    chosen, rejected = (beta * (a - c) - m) / w, (beta * (b - d)) / w
    truth = float(-torch.nn.functional.logsigmoid(torch.tensor(chosen - rejected, dtype=torch.float64)))
    assert loss(a, b, c, d, beta=beta, scale=w, margin=m) == pytest.approx(truth, rel=1e-6, abs=1e-9)


def test_rows_keep_their_own_weight_scale_and_margin() -> None:
    rows = torch.tensor([[-8.0, -15, -10, -12], [-1, -2, -3, -4]]).T
    found = preference_loss(
        *rows,
        beta=0.1,
        weight=torch.tensor([3.0, 1.0]),
        scale=torch.tensor([0.25, 1.0]),
        margin=torch.tensor([0.2, 0.0]),
    )
    assert found.tolist() == pytest.approx([0.7898469, math.log(2)], abs=1e-6)


def test_a_hopeless_pair_has_a_finite_loss_and_gradient() -> None:
    chosen = torch.tensor([-1e4], requires_grad=True)
    found = preference_loss(chosen, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=0.1)
    found.backward()
    assert found.item() == pytest.approx(1000)
    assert chosen.grad is not None and chosen.grad.item() == pytest.approx(-0.1)


def test_the_implicit_margin_and_the_likelihood_by_hand() -> None:
    one = [torch.tensor([x]) for x in (-8.0, -15.0, -10.0, -12.0)]
    assert implicit_margin(*one, beta=0.1).tolist() == pytest.approx([0.5])
    tokens = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]])
    assert likelihood_loss(tokens, torch.tensor([3, 1])).tolist() == [2.0, 4.0]
