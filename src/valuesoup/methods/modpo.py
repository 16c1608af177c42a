"""MODPO: multi-objective DPO with margins from the other values' rewards."""

from typing import Literal

from valuesoup.methods.choices import All, Margin, Simplex
from valuesoup.methods.method import Method
from valuesoup.methods.registry import method


@method(
    "modpo",
    title="MODPO",
    paper="arXiv:2310.03708",
    formula="−log σ( (1/w_k)·( β·[log π/π_ref (y_w) − log π/π_ref (y_l)] − Σ_{j≠k} w_j·Δr_j ) )",
)
def modpo(
    primary: str | None = None,
    rewards: Literal["implicit", "models"] = "implicit",
    normalise: bool = False,
    steps: int = 10,
) -> Method:
    """Train one policy per weight vector on the primary value's pairs, the other values' rewards as a margin.

    Weight vectors with w_k = 0 are not trained: the loss divides by w_k.
    """
    objective = Margin(primary=primary, rewards=rewards, normalise=normalise)
    return Method(pairs=All(), objective=objective, weights=Simplex(steps=steps))
