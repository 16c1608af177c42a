"""VC-soup+NLL: what did best here, in no paper: a lenient filter, and a likelihood term against broken text."""

from valuesoup.methods.choices import Consistent, Independent, Simplex, Thresholds
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "vc-soup-nll",
    title="VC-soup+NLL",
    paper="arXiv:2603.18113, with the likelihood term of arXiv:2404.19733",
    formula="VC ≥ τ_i;   θ_i from L_DPO(π_i; kept D_i) + ρ · NLL(y_w) per token;   π_λ = π_0 + Σ λ_i θ_i, Σ λ_i = 1",
)
def vc_soup_nll(tau: Thresholds = "positive", likelihood: float = 0.2, steps: int = 10) -> Method:
    """Keep the pairs that gain on aggregate, train with their chosen responses kept likely, mix linearly."""
    return Method(
        pairs=Consistent(tau=tau),
        objective=Independent(),
        weights=Simplex(steps=steps),
        training={"likelihood": likelihood},
    )
