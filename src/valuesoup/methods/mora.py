"""MORA: multi-objective reward assimilation by prompt expansion."""

from typing import Literal

from valuesoup.expansion.fusion import Rewriter
from valuesoup.methods.choices import Expanded, Mixed, Sequential, Single
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method

BY_POLICY = Rewriter(policy=True)


@method(
    "mora",
    title="MORA",
    paper="arXiv:2605.11679",
    formula="L_DPO(π; D_i ∪ E),   E = { (fused x, y_w, y_l) : Δr_j > 0 for every j, Σ_j Δr_j/σ_j largest }",
)
def mora(
    rewriter: Rewriter = BY_POLICY,
    mode: Literal["sequential", "simultaneous"] = "sequential",
    prompts: int = 1000,
    rollouts: int = 16,
    thresholds: dict[str, float] | None = None,
    most: int | None = None,
) -> Method:
    """Rewrite prompts that allow only one value into ones that admit all, and train on pairs drawn from them too."""
    pairs = Expanded(rewriter=rewriter, prompts=prompts, rollouts=rollouts, thresholds=thresholds, most=most)
    return Method(pairs=pairs, objective=Sequential() if mode == "sequential" else Mixed(), weights=Single())
