"""Lengths and angles from the factors against dense float64 matrices."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.soup import Factors, ValueVector, geometry


def vector(seed: int, layers: dict[str, int], scale: float) -> ValueVector:
    generator = torch.Generator().manual_seed(seed)
    return ValueVector(
        {
            name: Factors(torch.randn(rank, 6, generator=generator), torch.randn(8, rank, generator=generator), scale)
            for name, rank in layers.items()
        }
    )


def flat(made: ValueVector, layers: list[str]) -> torch.Tensor:
    parts = []
    for layer in layers:
        f = made.layers.get(layer)
        parts.append(f.scale * (f.B.double() @ f.A.double()).flatten() if f else torch.zeros(48, dtype=torch.float64))
    return torch.cat(parts)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 3), st.booleans()), min_size=2, max_size=5))
def test_geometry_equals_dense_float64_for_any_ranks_scales_and_layers(parts: list[tuple[int, float, bool]]) -> None:
    made = {
        f"v{i}": vector(i, {"x": rank, "y": 2} if both else {"x": rank}, scale)
        for i, (rank, scale, both) in enumerate(parts)
    }
    rows = geometry(made)
    for row in rows:
        layers = [row.layer] if row.layer else ["x", "y"]
        a, b = flat(made[row.first], layers), flat(made[row.second], layers)
        assert row.l2 == pytest.approx(float((a - b).norm()), rel=1e-9, abs=1e-7)
        if a.norm() * b.norm() > 0:
            assert row.cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), rel=1e-9, abs=1e-12)
        else:
            assert math.isnan(row.cosine)
    pairs = [(row.first, row.second) for row in rows if row.layer == ""]
    names = list(made)
    assert pairs == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]


def test_angles_by_hand() -> None:
    one = ValueVector({"l": Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]), 3.0)})
    other = ValueVector({"l": Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [2.0]]), 2.0)})
    layer, total = geometry({"a": one, "b": other})
    assert (layer.layer, total.layer) == ("l", "")
    assert (layer.cosine, layer.l2) == (0.0, 5.0)  # 3 and 4 at a right angle
    assert geometry({"a": one, "b": one})[-1].cosine == 1.0
    assert geometry({"a": one, "b": one})[-1].l2 == 0.0


def test_one_vector_has_no_angles_and_a_zero_vector_none_that_is_a_number() -> None:
    one = vector(0, {"x": 2}, 1.0)
    zero = ValueVector({"x": Factors(torch.randn(2, 6), torch.zeros(8, 2), 1.0)})
    assert geometry({"a": one}) == []
    assert math.isnan(geometry({"a": one, "z": zero})[-1].cosine)
    assert geometry({"a": one, "z": zero})[-1].l2 == pytest.approx(float(flat(one, ["x"]).norm()))
