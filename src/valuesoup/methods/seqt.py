"""SeqT: sequential training."""

from valuesoup.methods.choices import All, Orders, Sequential, Single
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method("seqt", title="SeqT", paper="arXiv:2511.17579", formula="π_k = argmin L_DPO(π; D_k, π_ref = π_{k−1})")
def seqt(orders: Orders = "given") -> Method:
    """Train one policy on value after value; each stage starts from the policy before it and refers to it."""
    return Method(pairs=All(), objective=Sequential(orders=orders), weights=Single())
