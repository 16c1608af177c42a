"""SOUP: rewarded soups with DPO-trained vectors."""

from valuesoup.methods.choices import All, Independent, Method, Simplex
from valuesoup.methods.registry import method


@method("soup", title="SOUP", paper="arXiv:2306.04488")
def soup(steps: int = 10) -> Method:
    """Train a vector per value on all its pairs, mix them linearly on the simplex."""
    return Method(pairs=All(), objective=Independent(), weights=Simplex(steps=steps))
