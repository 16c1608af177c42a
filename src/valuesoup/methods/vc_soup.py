"""VC-soup (Algorithm 1 of the paper)."""

from valuesoup.consistency import Statistics
from valuesoup.methods.choices import Consistent, Independent, Simplex, Thresholds
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method

PAPER_TAU = 0.7


@method(
    "vc-soup",
    title="VC-soup",
    paper="arXiv:2603.18113",
    formula="VC = Σ_j g_j / (‖g‖·√n) ≥ τ_i;   π_λ = π_0 + Σ λ_i θ_i,   θ_i from L_DPO(π_i; kept D_i), Σ λ_i = 1",
)
def vc_soup(
    tau: Thresholds = PAPER_TAU,
    keep: float | None = None,
    statistics: Statistics = "dataset",
    minimum_pairs: int = 16,
    soft: bool = False,
    flip: bool = False,
    pooled: bool = False,
    steps: int = 10,
) -> Method:
    """Keep the pairs on which the values agree, train a vector per value, mix them linearly.

    ``soft``, ``flip`` and ``pooled`` go beyond the paper.
    """
    rule = {"keep": keep} if keep is not None and tau == PAPER_TAU else {"tau": tau, "keep": keep}
    beyond = {"soft": soft, "flip": flip, "pooled": pooled}
    pairs = Consistent.model_validate({**rule, **beyond, "statistics": statistics, "minimum_pairs": minimum_pairs})
    return Method(pairs=pairs, objective=Independent(), weights=Simplex(steps=steps))
