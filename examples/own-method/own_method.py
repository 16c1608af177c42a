"""A method of one's own: keep the most consistent half of the pairs, decorrelate the vectors, extrapolate a little."""

from valuesoup.methods import Consistent, Decorrelated, Method, Simplex, method


@method(
    "half-soup",
    title="Half soup",
    paper="this example",
    formula="the most consistent half of D_i;   Σ_i L_DPO(π_i) + α · Σ HSIC(A_i, A_j);   Σ λ_i in {1, 1.25}",
)
def half_soup(keep: float = 0.5, alpha: float = 10.0, steps: int = 10) -> Method:
    """Keep the most consistent half of the pairs, train vectors away from each other, mix them beyond the simplex."""
    return Method(
        pairs=Consistent(keep=keep, tau=None),
        objective=Decorrelated(alpha=alpha),
        weights=Simplex(steps=steps, totals=(1.0, 1.25)),
    )
