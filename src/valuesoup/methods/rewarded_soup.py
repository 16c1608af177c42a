"""SOUP: rewarded soups with DPO-trained vectors."""

from valuesoup.methods.choices import All, Independent, Simplex
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "soup",
    title="SOUP",
    paper="arXiv:2306.04488",
    formula="π_λ = π_0 + Σ λ_i θ_i,   θ_i from L_DPO(π_i; D_i), Σ λ_i = 1",
)
def soup(steps: int = 10) -> Method:
    """Train a vector per value on all its pairs, mix them linearly on the simplex."""
    return Method(pairs=All(), objective=Independent(), weights=Simplex(steps=steps))
