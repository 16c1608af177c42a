"""Every other way to compose against a dense float64 reference that is written from its paper's description."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from valuesoup.errors import UserError
from valuesoup.methods.compositions import CompositionChoice
from valuesoup.soup import Factors, ValueVector, compose
from valuesoup.soup.merging import dare, factorwise, magnitude, merge, slerp, ties

Array = NDArray[np.float64]
NAMES = ("a", "b", "c", "d", "e")
SHAPES = {"x": (9, 12), "y": (12, 9), "z": (6, 6)}
"""(out, in) of the layers."""
TRIMMING: tuple[Callable[..., ValueVector], ...] = (ties, dare, magnitude)
EVERY = ("factorwise", "ties", "dare", "slerp", "magnitude", "svd", "linear")


def vector(seed: int, *, rank: int = 3, scale: float = 2.0, layers: str = "xyz") -> ValueVector:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in layers:
        outputs, inputs = SHAPES[name]
        A, B = torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator)
        made[name] = Factors(A, B, scale)
    return ValueVector(made, "org/base", "f00d")


def several(n: int, **options: Any) -> dict[str, ValueVector]:
    return {name: vector(place, **options) for place, name in enumerate(NAMES[:n])}


def weights_of(n: int, seed: int = 0) -> dict[str, float]:
    row = np.random.default_rng(seed).dirichlet(np.ones(n))
    return dict(zip(NAMES[:n], row.tolist(), strict=True))


def dense(made: ValueVector, layer: str) -> Array:
    if layer not in made.layers:
        return np.zeros(SHAPES[layer])
    factors = made.layers[layer]
    found: Array = factors.scale * factors.B.double().numpy() @ factors.A.double().numpy()
    return found


def assert_is(made: ValueVector, truth: Mapping[str, Array], tolerance: float = 2e-5) -> None:
    assert set(made.layers) == set(truth)
    for layer, expected in truth.items():
        np.testing.assert_allclose(dense(made, layer), expected, rtol=0, atol=tolerance * max(1, abs(expected).max()))


def same(one: ValueVector, other: ValueVector) -> bool:
    return set(one.layers) == set(other.layers) and all(
        np.allclose(dense(one, layer), dense(other, layer), rtol=1e-6, atol=1e-6) for layer in one.layers
    )


def trimmed(delta: Array, density: float) -> Array:
    """Zero all but the int(density · entries) entries of largest magnitude."""
    kept = np.zeros(delta.size)
    order = np.argsort(-abs(delta).ravel(), kind="stable")[: int(density * delta.size)]
    kept[order] = delta.ravel()[order]
    return kept.reshape(delta.shape)


def ties_by_entry(deltas: list[Array], weights: list[float], density: float) -> Array:
    """Trim, elect and merge one entry at a time."""
    small = [trimmed(delta, density) for delta in deltas]
    merged = np.zeros(deltas[0].shape)
    for place in np.ndindex(merged.shape):
        entries = [(float(delta[place]), weight) for delta, weight in zip(small, weights, strict=True)]
        sign = 1 if sum(weight * entry for entry, weight in entries) >= 0 else -1
        agree = [(entry, weight) for entry, weight in entries if entry * sign > 0 and weight > 0]
        if agree:
            merged[place] = sum(weight * entry for entry, weight in agree) / sum(weight for _, weight in agree)
    return merged


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_trims_elects_and_averages_those_who_agree(n: int, density: float) -> None:
    made, weights = several(n), weights_of(n)
    truth = {
        layer: ties_by_entry([dense(one, layer) for one in made.values()], list(weights.values()), density)
        for layer in SHAPES
    }
    assert_is(ties(made, weights, density=density), truth)


def rows(*numbers: float) -> ValueVector:
    """A vector of one layer whose ΔW is this one row."""
    return ValueVector({"l": Factors(torch.tensor([list(numbers)]), torch.ones(1, 1), 1.0)})


def test_ties_by_hand() -> None:
    # Of four entries the two largest stay. First entry: 0.7·4 against 0.3·8, plus wins, so 4 alone. Second: only
    # the second vector has it. Third: the first vector's alone. Fourth: nobody's.
    made = {"a": rows(4.0, 0.1, -2.0, 0.3), "b": rows(-8.0, 3.0, 1.0, 0.2)}
    assert ties(made, {"a": 0.7, "b": 0.3}, density=0.5).layers["l"].delta().tolist() == [[4.0, 3.0, -2.0, 0.0]]
    assert ties(made, {"a": 0.5, "b": 0.5}, density=0.5).layers["l"].delta().tolist() == [[-8.0, 3.0, -2.0, 0.0]]
    both = {"a": rows(4.0), "b": rows(1.0)}
    assert float(ties(both, {"a": 0.25, "b": 0.75}).layers["l"].rank) == 1
    assert float(ties(both, {"a": 0.25, "b": 0.75}, density=1.0).layers["l"].delta()) == 1.75


def test_ties_knows_only_the_ratios_of_the_weights_and_refuses_negative_ones() -> None:
    made = several(3)
    once, twice = ({name: size * weight for name, weight in weights_of(3).items()} for size in (1.0, 2.0))
    assert same(ties(made, once), ties(made, twice))
    with pytest.raises(UserError, match=r"weight of 'b' must be 0 or more, not -0\.5"):
        ties(made, {"a": 1.0, "b": -0.5})


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_magnitude_adds_up_the_largest_entries(n: int, density: float) -> None:
    made, weights = several(n), weights_of(n)
    truth = {
        layer: sum(weights[name] * trimmed(dense(one, layer), density) for name, one in made.items())
        for layer in SHAPES
    }
    assert_is(magnitude(made, weights, density=density), truth)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_dare_adds_up_what_stays_over_the_density(n: int) -> None:
    made, weights, density = several(n), weights_of(n), 0.3
    alone = {name: dare(made, {name: 1.0}, density=density, seed=4) for name in made}
    for name, one in alone.items():
        for layer in SHAPES:
            found, whole = dense(one, layer), dense(made[name], layer)
            stays = found != 0
            np.testing.assert_allclose(found[stays], whole[stays] / density, rtol=1e-5, atol=1e-5)
    assert_is(
        dare(made, weights, density=density, seed=4),
        {layer: sum(weights[name] * dense(one, layer) for name, one in alone.items()) for layer in SHAPES},
    )


def test_dare_keeps_the_share_it_says_and_is_linear_on_average() -> None:
    made, weights = several(2), weights_of(2)
    found = [dare(made, weights, density=0.5, seed=seed) for seed in range(400)]
    kept = np.mean([dense(dare(made, {"a": 1.0}, density=0.3, seed=seed), "x") != 0 for seed in range(60)])
    assert kept == pytest.approx(0.3, abs=0.02)
    linear = compose(made, weights)
    for layer in SHAPES:
        samples = np.stack([dense(one, layer) for one in found])
        error = samples.std(0) / len(found) ** 0.5
        assert (abs(samples.mean(0) - dense(linear, layer)) <= 5 * error + 1e-5).all()


def test_dare_draws_by_seed_vector_and_layer_alone() -> None:
    made = several(3)
    one = dare(made, {"b": 1.0}, seed=7)
    assert same(one, dare({"b": made["b"]}, {"b": 1.0}, seed=7))
    assert same(one, dare(dict(reversed(made.items())), {"b": 1.0}, seed=7))
    assert not same(one, dare(made, {"b": 1.0}, seed=8))
    twins = {"a": made["a"], "b": made["a"]}
    assert not same(dare(twins, {"a": 1.0}), dare(twins, {"b": 1.0}))
    factors = made["a"].layers["x"]
    twice = dare({"a": ValueVector({"q": factors, "k": factors})}, {"a": 1.0}).layers
    assert not torch.equal(twice["q"].delta(), twice["k"].delta())


def flat(made: ValueVector) -> Array:
    return np.concatenate([dense(made, layer).ravel() for layer in SHAPES])


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 20), st.floats(0.1, 4))
def test_slerp_is_the_arc_between_two_vectors_over_all_layers(share: float, seed: int, scale: float) -> None:
    made = {"a": vector(seed, layers="xy"), "b": vector(seed + 100, rank=2, scale=scale)}
    first, second = flat(made["a"]), flat(made["b"])
    angle = np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    truth = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)
    found = slerp(made, {"a": 1 - share, "b": share})
    np.testing.assert_allclose(flat(found), truth, rtol=0, atol=1e-4 * max(1.0, abs(truth).max()))


def test_on_the_arc_between_vectors_of_one_length_every_vector_has_it() -> None:
    first, second = rows(3.0, 0.0), rows(0.0, 3.0)
    for share in (0.1, 0.5, 0.8):
        found = slerp({"a": first, "b": second}, {"a": 1 - share, "b": share}).layers["l"].delta()
        assert float(found.norm()) == pytest.approx(3.0)
    half = slerp({"a": first, "b": second}, {"a": 0.5, "b": 0.5}).layers["l"].delta()
    np.testing.assert_allclose(half, [[3 / 2**0.5, 3 / 2**0.5]], rtol=1e-6)


@pytest.mark.parametrize("second", [(2.0, 0.0), (1.0, 0.01), (-1.0, 0.0), (0.0, 0.0)])
def test_slerp_without_an_arc_is_linear(second: tuple[float, float]) -> None:
    made, weights = {"a": rows(1.0, 0.0), "b": rows(*second)}, {"a": 0.25, "b": 0.75}
    assert same(slerp(made, weights), compose(made, weights))


@pytest.mark.parametrize("n", [1, 3, 5])
def test_slerp_refuses_other_than_two_vectors(n: int) -> None:
    with pytest.raises(UserError, match=f"between two vectors, not {n}"):
        slerp(several(n), {"a": 1.0})


@pytest.mark.parametrize("weights", [{"a": 0.6, "b": 0.6}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_slerp_refuses_weights_off_the_simplex(weights: dict[str, float]) -> None:
    with pytest.raises(UserError, match="sum to 1, not"):
        slerp(several(2), weights)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_factorwise_multiplies_the_averages_of_the_factors(n: int) -> None:
    made, weights = several(n), weights_of(n, seed=1)
    truth = {}
    for layer in SHAPES:
        A = sum(weights[name] * one.layers[layer].A.double().numpy() for name, one in made.items())
        B = sum(weights[name] * one.layers[layer].B.double().numpy() for name, one in made.items())
        truth[layer] = 2.0 * B @ A
    found = factorwise(made, weights)
    assert_is(found, truth)
    assert found.rank == 3
    assert same(found, compose(made, weights)) == (n == 1)


def test_factorwise_by_hand_has_the_cross_terms() -> None:
    one = ValueVector({"l": Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]), 1.0)})
    other = ValueVector({"l": Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [1.0]]), 1.0)})
    half = {"a": 0.5, "b": 0.5}
    assert factorwise({"a": one, "b": other}, half).layers["l"].delta().tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert compose({"a": one, "b": other}, half).layers["l"].delta().tolist() == [[0.5, 0.0], [0.0, 0.5]]


def test_factorwise_refuses_other_ranks_and_scales_but_not_of_vectors_that_weigh_nothing() -> None:
    made = {"a": vector(0), "b": vector(1, rank=2), "c": vector(2, scale=1.0)}
    with pytest.raises(UserError, match="ranks are equal; in layer x they are 'a' 3, 'b' 2"):
        factorwise(made, {"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="scales are equal; in layer x they are 'a' 2, 'c' 1"):
        factorwise(made, {"a": 0.5, "c": 0.5})
    assert same(factorwise(made, {"a": 1.0, "b": 0.0}), made["a"])


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_vector_alone_is_itself_where_nothing_is_trimmed(kind: str, n: int) -> None:
    if kind == "slerp" and n != 2:
        return  # refused, as tested above
    made = several(n)
    given = {"density": 1.0} if kind in ("ties", "dare", "magnitude") else {}
    for name in made:
        found, error = merge(made, {other: float(other == name) for other in made}, kind, **given)
        assert error == 0.0
        assert_is(found, {layer: dense(made[name], layer) for layer in SHAPES})


@pytest.mark.parametrize("kind", EVERY)
def test_what_compose_refuses_every_way_refuses_alike(kind: str) -> None:
    made = several(2)
    for weights in ({}, {"a": 0.0, "b": 0.0}):
        with pytest.raises(UserError, match="every weight is zero: that soup is the base model itself"):
            merge(made, weights, kind)
    with pytest.raises(UserError, match="no vector 'aa'; did you mean 'a'"):
        merge(made, {"aa": 1.0}, kind)
    with pytest.raises(UserError, match="finite number"):
        merge(made, {"a": float("nan"), "b": 1.0}, kind)
    other = {"a": made["a"], "b": ValueVector(made["b"].layers, "org/other", "beef")}
    with pytest.raises(UserError, match="different bases"):
        merge(other, {"a": 0.5, "b": 0.5}, kind)


@pytest.mark.parametrize("kind", EVERY)
def test_the_base_is_kept_and_a_layer_that_a_vector_misses_counts_as_zero(kind: str) -> None:
    made = {"a": vector(0, layers="xy"), "b": vector(1, layers="yz")}
    whole = {
        name: ValueVector(
            {
                layer: one.layers.get(layer, Factors(torch.zeros(3, shape[1]), torch.zeros(shape[0], 3), 2.0))
                for layer, shape in SHAPES.items()
            }
        )
        for name, one in made.items()
    }
    weights = {"a": 0.3, "b": 0.7}
    found, error = merge(made, weights, kind)
    truth, other = merge(whole, weights, kind)
    assert_is(found, {layer: dense(truth, layer) for layer in SHAPES})
    assert error == pytest.approx(other, abs=1e-6)
    assert (found.base, found.base_fingerprint) == ("org/base", "f00d")


@pytest.mark.parametrize("kind", ["ties", "dare", "magnitude"])
def test_a_dense_result_has_the_layers_full_rank_and_a_cut_says_its_error(kind: str) -> None:
    made, weights = several(3), weights_of(3)
    whole, none = merge(made, weights, kind)
    assert none == 0.0
    assert {layer: factors.rank for layer, factors in whole.layers.items()} == {"x": 9, "y": 9, "z": 6}
    small, error = merge(made, weights, kind, rank=4)
    values = {layer: np.linalg.svd(dense(whole, layer), compute_uv=False) for layer in SHAPES}
    lost = sum((tail[4:] ** 2).sum() for tail in values.values()) / sum((all_**2).sum() for all_ in values.values())
    assert error == pytest.approx(lost**0.5, rel=1e-4)
    gap = sum(((dense(whole, layer) - dense(small, layer)) ** 2).sum() for layer in SHAPES)
    assert gap / sum((dense(whole, layer) ** 2).sum() for layer in SHAPES) == pytest.approx(lost, rel=1e-3)
    assert small.rank == 4


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_svd_cuts_the_linear_sum_to_the_rank_of_the_vectors(n: int) -> None:
    made, weights = several(n, layers="xy"), weights_of(n)
    found, error = merge(made, weights, "svd")
    truth, lost, whole = {}, 0.0, 0.0
    for layer in "xy":
        U, S, V = np.linalg.svd(sum(weights[name] * dense(one, layer) for name, one in made.items()))
        truth[layer] = (U[:, :3] * S[:3]) @ V[:3]
        lost, whole = lost + (S[3:] ** 2).sum(), whole + (S**2).sum()
    assert_is(found, truth, 1e-4)
    assert error == pytest.approx((lost / whole) ** 0.5, rel=1e-4, abs=1e-6)
    assert found.rank == 3
    assert merge(made, weights, "svd", rank=1)[0].rank == 1
    assert merge({**made, "wide": vector(9, rank=5)}, {**weights, "wide": 0.1}, "svd")[0].rank == 5


@pytest.mark.parametrize("way", TRIMMING)
@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, float("nan")])
def test_a_density_out_of_range_is_refused(way: Callable[..., ValueVector], density: float) -> None:
    with pytest.raises(UserError, match=r"above 0 and at most 1, not"):
        way(several(2), {"a": 1.0}, density=density)


def test_an_unknown_way_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no way to compose called 'tiess'; did you mean 'ties'"):
        merge(several(2), {"a": 1.0}, "tiess")


def test_every_choice_of_a_configuration_is_a_way_to_merge() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(CompositionChoice)
    choices = [choice() for choice in get_args(get_args(CompositionChoice)[0])]
    assert {choice.kind for choice in choices} == set(EVERY)
    made, weights = several(2), weights_of(2)
    for choice in choices:
        assert adapter.validate_python({"kind": choice.kind}) == choice
        found, error = merge(made, weights, **choice.model_dump())
        assert set(found.layers) == set(SHAPES)
        assert (error > 0) == (choice.kind == "svd")
        choice.check(["a", "b"])
    with pytest.raises(ValueError, match="two vectors, and there are 3 values: a, b, c"):
        adapter.validate_python({"kind": "slerp"}).check(["a", "b", "c"])
    for wrong in ({"kind": "ties", "density": 0}, {"kind": "slerp", "rank": 3}, {"kind": "svd", "rank": 0}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
