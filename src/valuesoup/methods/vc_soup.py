"""VC-soup (Algorithm 1 of the paper)."""

from valuesoup.consistency import Statistics
from valuesoup.methods.choices import Consistent, Independent, Method, Simplex, Thresholds
from valuesoup.methods.registry import method

PAPER_TAU = 0.7


@method("vc-soup", title="VC-soup", paper="arXiv:2603.18113")
def vc_soup(
    tau: Thresholds = PAPER_TAU,
    keep: float | None = None,
    statistics: Statistics = "dataset",
    minimum_pairs: int = 16,
    steps: int = 10,
) -> Method:
    """Keep the pairs on which the values agree, train a vector per value, mix them linearly."""
    rule = {"keep": keep} if keep is not None and tau == PAPER_TAU else {"tau": tau, "keep": keep}
    pairs = Consistent.model_validate({**rule, "statistics": statistics, "minimum_pairs": minimum_pairs})
    return Method(pairs=pairs, objective=Independent(), weights=Simplex(steps=steps))
