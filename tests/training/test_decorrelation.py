"""MVA's penalty against a dense float64 HSIC, finite differences, and hand-worked kernels."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.soup import Factors, Soup, ValueVector
from valuesoup.training.decorrelation import Decorrelation, hsic, layer_hsic, vector_hsic

NAMES = ("a", "b", "c", "d", "e")


def dense(first: torch.Tensor, second: torch.Tensor) -> float:
    """tr(K H L H) / r² as the formula is written, with every matrix formed in float64."""

    def kernel(rows: np.ndarray) -> np.ndarray:
        return np.exp(-((rows[:, None] - rows[None]) ** 2).sum(2) / 2)

    K, L = kernel(first.detach().double().numpy()), kernel(second.detach().double().numpy())
    r = len(K)
    H = np.eye(r) - 1 / r
    return float(np.trace(K @ H @ L @ H) / r**2)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from([1e-3, 0.05, 0.3, 1.0, 10.0]), st.integers(0, 99))
def test_hsic_equals_the_dense_float64_formula(rank: int, width: int, size: float, seed: int) -> None:
    first, second = size * draw(seed, rank, width), size * draw(seed + 100, rank, width + 3)
    found = float(hsic(first, second))
    assert found == pytest.approx(dense(first, second), abs=1e-6)
    assert found == pytest.approx(float(hsic(second, first)), abs=1e-7)
    assert float(hsic(first.double(), second.double())) == pytest.approx(dense(first, second), rel=1e-8, abs=1e-13)
    assert -1e-7 <= found <= 0.25 + 1e-6


def test_two_rows_by_hand() -> None:
    # Rows at distance √2 have the kernel e⁻¹, those at distance 2 e⁻²: HKH is (1 − k)/2 · [[1, −1], [−1, 1]].
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[2.0], [0.0]])
    assert float(hsic(first, second)) == pytest.approx((1 - math.exp(-1)) * (1 - math.exp(-2)) / 4, abs=1e-7)
    far = 100 * first
    assert float(hsic(far, far)) == pytest.approx(0.25)


def test_a_batch_is_its_members_one_by_one() -> None:
    first, second = draw(0, 3, 2, 5, 7), draw(1, 3, 2, 5, 4)
    found = hsic(first, second)
    assert found.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        assert float(found[i, j]) == pytest.approx(dense(first[i, j], second[i, j]), abs=1e-6)


@pytest.mark.parametrize("rank", [1, 4])
def test_constant_rows_are_independent_of_everything(rank: int) -> None:
    constant = draw(0, 1, 6).repeat(rank, 1)
    assert float(hsic(constant, draw(1, rank, 6))) == pytest.approx(0.0, abs=1e-8)
    assert float(hsic(constant, constant)) == pytest.approx(0.0, abs=1e-8)


def test_rows_far_from_the_origin_lose_no_digits() -> None:
    first, second = 1000 + 0.3 * draw(0, 8, 64), -500 + 0.3 * draw(1, 8, 64)
    assert float(hsic(first, second)) == pytest.approx(dense(first, second), abs=1e-6)


def test_half_precision_and_autocast_compute_in_float32() -> None:
    first, second = draw(0, 8, 64), draw(1, 8, 64)
    plain = hsic(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hsic(first, second), plain)
    rounded = first.bfloat16(), second.bfloat16()
    assert hsic(*rounded).dtype == torch.float32
    assert float(hsic(*rounded)) == pytest.approx(dense(*rounded), abs=1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    first, second = (draw(seed, 2, 4, 5, dtype=torch.float64).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(hsic, (first, second))
    mixed = [draw(seed, *shape, dtype=torch.float64).requires_grad_() for seed, shape in enumerate([(3, 4), (2, 5)])]
    other = [draw(seed + 9, *shape, dtype=torch.float64) for seed, shape in enumerate([(3, 4), (2, 5)])]
    assert torch.autograd.gradcheck(lambda *factors: layer_hsic(factors, other), mixed)


def test_the_gradient_at_coinciding_rows_and_factors_is_a_number() -> None:
    rows = draw(0, 4, 6)
    rows[1] = rows[0]
    for start in (rows, torch.zeros(4, 6), 1e4 * rows):
        first = start.clone().requires_grad_()
        hsic(first, first).backward()
        assert first.grad is not None and torch.isfinite(first.grad).all()
    exact = rows.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda first: hsic(first, rows.double()), (exact,))


def test_layers_of_different_widths_and_ranks_keep_their_order() -> None:
    shapes = [(4, 6), (4, 9), (3, 6), (4, 6), (4, 9)]
    first = [draw(place, *shape) for place, shape in enumerate(shapes)]
    second = [draw(place + 50, *shape) for place, shape in enumerate(shapes)]
    truth = [dense(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(layer_hsic(first, second), truth, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="zip"):
        layer_hsic(first, second[:-1])


def test_different_ranks_are_refused() -> None:
    with pytest.raises(UserError, match="not of ranks 4 and 3"):
        hsic(draw(0, 4, 6), draw(1, 3, 6))
    with pytest.raises(UserError, match="not of ranks 2 and 3"):
        layer_hsic([draw(0, 4, 6), draw(0, 2, 6)], [draw(1, 4, 6), draw(1, 3, 6)])


def spread(soup: Soup, names: tuple[str, ...]) -> Soup:
    """Give every vector factors of its own, of the size in which the kernels tell rows apart."""
    with torch.no_grad():
        for place, name in enumerate(names):
            for layer, parameter in enumerate(soup.parameters_of([name])):
                parameter.copy_(0.2 * draw(1000 * place + layer, *parameter.shape))
    return soup


def factors_of(soup: Soup, name: str) -> list[torch.Tensor]:
    vector = soup.vector(name)
    return [vector.layers[layer].A for layer in soup.layer_names]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_joint_penalty_is_alpha_times_the_sum_over_pairs_and_layers(n: int, fresh: Callable[..., Soup]) -> None:
    soup = spread(fresh(*NAMES[:n]), NAMES[:n])
    made = Decorrelation(NAMES[:n], alpha=3.0)
    truth = {
        (layer, i, j): dense(soup.vector(i).layers[layer].A, soup.vector(j).layers[layer].A)
        for i, j in combinations(NAMES[:n], 2)
        for layer in soup.layer_names
    }
    assert made.penalty(soup).shape == ()
    assert float(made.penalty(soup)) == pytest.approx(3 * sum(truth.values()), abs=1e-5)
    rows = made.per_layer(soup)
    assert [(row.layer, row.first, row.second) for row in rows] == list(truth)
    np.testing.assert_allclose([row.hsic for row in rows], list(truth.values()), rtol=0, atol=1e-6)
    assert rows == made.per_layer(soup)
    finished = vector_hsic({name: soup.vector(name) for name in NAMES[:n]})
    assert [(row.layer, row.first, row.second) for row in finished] == list(truth)
    np.testing.assert_allclose([row.hsic for row in finished], list(truth.values()), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_trained_one_after_the_other_every_pair_of_the_joint_mode_comes_once(
    n: int, fresh: Callable[..., Soup]
) -> None:
    names = NAMES[:n]
    soup = spread(fresh(*names), names)
    steps = [
        Decorrelation([name], 10.0, {old: factors_of(soup, old) for old in names[:place]})
        for place, name in enumerate(names)
    ]
    assert float(steps[0].penalty(soup)) == 0.0 and steps[0].per_layer(soup) == []
    joint = Decorrelation(names, 10.0)
    assert sum(float(step.penalty(soup)) for step in steps) == pytest.approx(float(joint.penalty(soup)), rel=1e-5)
    rows = {(row.layer, row.first, row.second): row.hsic for step in steps for row in step.per_layer(soup)}
    assert rows == {(row.layer, row.first, row.second): row.hsic for row in joint.per_layer(soup)}


def test_gradients_reach_the_a_factors_in_training_and_nothing_else(fresh: Callable[..., Soup]) -> None:
    names = NAMES[:3]
    soup = spread(fresh(*names), names)
    made = Decorrelation(["b", "c"], 2.0, {"a": factors_of(soup, "a")})
    for parameter in soup.parameters_of(names):
        parameter.requires_grad_(True)
    made.penalty(soup).backward()
    for name in ("b", "c"):
        assert all(A.grad is not None and A.grad.abs().max() > 0 for A in soup.parameters_of([name])[::2])
        assert all(B.grad is None for B in soup.parameters_of([name])[1::2])
    assert all(p.grad is None for p in soup.parameters_of(["a"]))

    A = soup.parameters_of(["b"])[2]
    assert A.grad is not None
    direction = A.grad / A.grad.norm()
    step = 0.02
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            A.add_(sign * step * direction)
            values.append(float(made.penalty(soup)))
            A.sub_(sign * step * direction)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(A.grad.norm()), rel=0.02)


def test_the_penalty_follows_the_trained_factors_and_descends(fresh: Callable[..., Soup]) -> None:
    soup = fresh("a", "b")  # both vectors of one seed start from the same A, so their dependence starts high
    made = Decorrelation(["b"], 10.0, {"a": factors_of(soup, "a")})
    with torch.inference_mode():
        made.per_layer(soup)  # a report in between does not stop the training
    parameters = soup.parameters_of(["b"])[::2]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    values = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = made.penalty(soup)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_vectors_of_other_ranks_are_refused_by_name_and_layer(fresh: Callable[..., Soup]) -> None:
    soup = fresh("a")
    soup.add_fresh("wide", rank=6, alpha=6, seed=0)
    for made in (Decorrelation(["a", "wide"]), Decorrelation(["wide"], against={"a": factors_of(soup, "a")})):
        for ask in (made.penalty, made.per_layer):
            with pytest.raises(
                UserError, match=r"'a' has rank 4 and 'wide' rank 6 in layer model\.layers\.0\..*q_proj"
            ):
                ask(soup)


def test_a_vector_is_not_trained_and_frozen_at_once(fresh: Callable[..., Soup]) -> None:
    with pytest.raises(ValueError, match="not both: a"):
        Decorrelation(["a", "b"], against={"a": factors_of(fresh("a"), "a")})


def test_finished_vectors_are_compared_only_where_both_have_equal_ranks() -> None:
    def vector(seed: int, **ranks: int) -> ValueVector:
        return ValueVector(
            {name: Factors(draw(seed, rank, 6), draw(seed, 8, rank), 2.0) for name, rank in ranks.items()}
        )

    made = {"a": vector(0, x=3, y=4), "b": vector(1, y=4, x=2), "c": vector(2, y=4, z=1), "d": vector(3, z=2)}
    rows = vector_hsic(made)
    assert [(row.layer, row.first, row.second) for row in rows] == [("y", "a", "b"), ("y", "a", "c"), ("y", "b", "c")]
    assert rows[1].hsic == pytest.approx(dense(made["a"].layers["y"].A, made["c"].layers["y"].A), rel=1e-9)
    assert vector_hsic({"a": made["a"]}) == []
