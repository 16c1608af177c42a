"""MVA: multi-value alignment by value decorrelation and extrapolation."""

from typing import Literal

from valuesoup.methods.choices import All, Cube, Decorrelated, Sobol
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "mva",
    title="MVA",
    paper="arXiv:2511.17579",
    formula="Σ_i L_DPO(π_i; D_i) + α · Σ_layers Σ_{i<j} HSIC(A_i, A_j);   π_λ = π_0 + Σ λ_i θ_i, λ in {0.1 … 1}^n",
)
def mva(
    alpha: float = 10.0,
    mode: Literal["sequential", "joint"] = "sequential",
    levels: tuple[float, ...] = Cube().levels,
    points: int | None = None,
) -> Method:
    """Train a vector per value with the dependence of their factors as a penalty, mix them over a cube of weights.

    The cube is a grid of ``levels``; with ``points`` it is covered by that many Sobol points instead.
    """
    if points is not None and levels != Cube().levels:
        raise ValueError("give either levels or points, not both")
    weights = Cube(levels=levels) if points is None else Sobol(points=points, low=0.0, high=1.0)
    return Method(pairs=All(), objective=Decorrelated(alpha=alpha, mode=mode), weights=weights)
