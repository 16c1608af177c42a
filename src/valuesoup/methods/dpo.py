"""DPO, one policy per value."""

from valuesoup.methods.choices import All, Independent, Method, Single
from valuesoup.methods.registry import method


@method("dpo", title="DPO", paper="arXiv:2305.18290")
def dpo() -> Method:
    """Train one policy per value on all its pairs; no trade-off between them."""
    return Method(pairs=All(), objective=Independent(), weights=Single())
