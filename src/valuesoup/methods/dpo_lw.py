"""DPO-LW: loss weighting."""

from valuesoup.methods.choices import All, Simplex, Weighted
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "dpo-lw",
    title="DPO-LW",
    paper="arXiv:2310.03708",
    formula="mean over the pairs of all D_i: λ_i · −log σ( β·[log π/π_0 (y_w) − log π/π_0 (y_l)] )",
)
def dpo_lw(steps: int = 10) -> Method:
    """Train one policy per weight vector on all pairs, the loss of D_i's pairs weighted by λ_i."""
    return Method(pairs=All(), objective=Weighted(), weights=Simplex(steps=steps))
