"""Exact composition and the SVD cut against dense float64 algebra."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.soup import Factors, ValueVector, compose, cut


def vector(seed: int, ranks: dict[str, int], scale: float = 1.0, size: tuple[int, int] = (12, 9)) -> ValueVector:
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = size
    return ValueVector(
        {
            name: Factors(
                torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator), scale
            )
            for name, rank in ranks.items()
        }
    )


def dense(made: ValueVector, layer: str) -> torch.Tensor:
    factors = made.layers[layer]
    return factors.scale * factors.B.double() @ factors.A.double()


def test_a_composition_by_hand() -> None:
    first = ValueVector({"l": Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 0.5)})
    second = ValueVector({"l": Factors(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0], [1.0]]), 1.0)})
    mixed = compose({"a": first, "b": second}, {"a": 4.0, "b": -1.0}).layers["l"]
    assert mixed.delta().tolist() == [[4.0, -3.0], [0.0, -3.0]]
    assert (mixed.rank, mixed.scale) == (2, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.floats(0.1, 4), st.floats(-2, 2, width=32)), min_size=1, max_size=5
    ).filter(lambda parts: any(weight for *_, weight in parts))
)
def test_a_composition_is_the_dense_sum_of_any_vectors(parts: list[tuple[int, float, float]]) -> None:
    made = {f"v{i}": vector(i, {"x": rank, "y": 2}, scale) for i, (rank, scale, _) in enumerate(parts)}
    weights = {f"v{i}": weight for i, (*_, weight) in enumerate(parts)}
    mixed = compose(made, weights)
    for layer in ("x", "y"):
        truth = sum(weights[name] * dense(made[name], layer) for name in made)
        torch.testing.assert_close(dense(mixed, layer), truth, rtol=1e-5, atol=1e-4)
    assert mixed.layers["x"].rank == sum(rank for rank, _, weight in parts if weight)


def test_averaging_a_and_b_separately_would_be_another_model() -> None:
    made = {"a": vector(0, {"x": 3}), "b": vector(1, {"x": 3})}
    a, b = (made[name].layers["x"] for name in "ab")
    averaged = (0.5 * (a.B + b.B)) @ (0.5 * (a.A + b.A))
    assert not torch.allclose(compose(made, {"a": 0.5, "b": 0.5}).layers["x"].delta(), averaged, atol=0.1)


def test_only_zero_weights_are_refused() -> None:
    made = {"a": vector(0, {"x": 3}), "b": vector(1, {"x": 3})}
    for weights in ({}, {"a": 0.0}, {"a": 0.0, "b": -0.0}):
        with pytest.raises(UserError, match="every weight is zero"):
            compose(made, weights)
    with pytest.raises(UserError, match="no vector 'helful'; did you mean 'helpful'"):
        compose({"helpful": made["a"]}, {"helful": 1.0})


def test_vectors_of_different_bases_are_not_mixed_and_the_known_base_is_kept() -> None:
    layers = vector(0, {"x": 2}).layers
    a, b, unknown = ValueVector(layers, "org/a", "aa"), ValueVector(layers, "org/b", "bb"), ValueVector(layers)
    with pytest.raises(UserError, match="different bases cannot be mixed: a, b"):
        compose({"a": a, "b": b}, {"a": 1, "b": 1})
    mixed = compose({"u": unknown, "a": a, "b": b}, {"u": 1, "a": 1, "b": 0})
    assert (mixed.base, mixed.base_fingerprint) == ("org/a", "aa")


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_error_of_a_cut_is_the_dense_truth_and_no_rank_does_better(rank: int) -> None:
    made = vector(0, {"x": 6, "y": 5, "z": 1}, scale=2.0)
    small, error = cut(made, rank)
    lost = sum((dense(made, layer) - dense(small, layer)).square().sum() for layer in made.layers)
    whole = sum(dense(made, layer).square().sum() for layer in made.layers)
    assert error == pytest.approx(float((lost / whole).sqrt()), rel=1e-4)
    tails = sum(torch.linalg.svdvals(dense(made, layer))[rank:].square().sum() for layer in made.layers)
    assert error == pytest.approx(float((tails / whole).sqrt()), rel=1e-4)
    assert {layer: factors.rank for layer, factors in small.layers.items()} == {"x": rank, "y": rank, "z": 1}


def test_the_error_falls_with_the_rank_and_full_rank_is_exact() -> None:
    made = compose({"a": vector(0, {"x": 4}), "b": vector(1, {"x": 3})}, {"a": 1, "b": 1})
    errors = [cut(made, rank)[1] for rank in range(1, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0.0
    torch.testing.assert_close(dense(cut(made, 7)[0], "x"), dense(made, "x"), rtol=0, atol=1e-5)


def test_a_stack_that_is_wider_than_the_layer_is_cut_to_the_layer() -> None:
    made = vector(0, {"x": 20}, size=(5, 7))
    small, error = cut(made, 20)
    assert (small.layers["x"].rank, error) == (5, 0.0)
    torch.testing.assert_close(dense(small, "x"), dense(made, "x"), rtol=0, atol=1e-4)


def test_a_zero_vector_cuts_to_zero_and_a_rank_below_one_is_refused() -> None:
    zero = ValueVector({"x": Factors(torch.randn(3, 4), torch.zeros(5, 3), 1.0)})
    assert cut(zero, 1)[1] == 0.0
    with pytest.raises(UserError, match="rank must be at least 1, not 0"):
        cut(zero, 0)
