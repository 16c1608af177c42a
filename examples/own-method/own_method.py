"""A method of one's own: keep the pairs that gain on aggregate, train with a little likelihood, mix on the simplex."""

from valuesoup.methods import Consistent, Independent, Method, Simplex, Thresholds, method


@method(
    "gentle-soup",
    title="Gentle soup",
    paper="this example",
    formula="VC ≥ τ;   θ_i from L_DPO(π_i; kept D_i) + ρ·NLL(y_w);   π_λ = π_0 + Σ λ_i θ_i",
)
def gentle_soup(tau: Thresholds = "positive", rho: float = 0.2, steps: int = 10) -> Method:
    """Keep the pairs that gain on aggregate, keep their chosen responses likely, mix the vectors on the simplex."""
    return Method(
        pairs=Consistent(tau=tau),
        objective=Independent(),
        weights=Simplex(steps=steps),
        training={"likelihood": rho},
    )
