"""DPO, one policy per value."""

from valuesoup.methods.choices import All, Independent, Single
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "dpo",
    title="DPO",
    paper="arXiv:2305.18290",
    formula="L_DPO(π_i; D_i) = −log σ( β·[log π/π_0 (y_w) − log π/π_0 (y_l)] )",
)
def dpo() -> Method:
    """Train one policy per value on all its pairs; no trade-off between them."""
    return Method(pairs=All(), objective=Independent(), weights=Single())
