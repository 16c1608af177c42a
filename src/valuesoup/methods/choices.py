"""The three choices that make a method: which pairs, which objective, which weights."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from valuesoup.consistency import Statistics, Threshold, threshold
from valuesoup.errors import UserError
from valuesoup.expansion.fusion import Rewriter
from valuesoup.limits import Amount, Count
from valuesoup.search import start_size

Tau: TypeAlias = Threshold | Literal["auto"]


def _known(tau: Any) -> Any:
    """Check thresholds before their type is, so that a mistake is answered once and not once per type."""
    for one in tau.values() if isinstance(tau, dict) else [tau]:
        if isinstance(one, str):
            with suppress(ValueError):  # 1e-1 is text to YAML
                one = float(one)
        if not isinstance(one, str | int | float):
            raise ValueError("a threshold is a number in [-1, 1] or one of strict, positive, lenient and auto")
        try:
            if one != "auto":
                threshold(one, values=2)  # type: ignore[arg-type]  # a name is what is checked
        except UserError as error:
            raise ValueError(str(error)) from None
    return tau


Thresholds = Annotated[Tau | dict[str, Tau], BeforeValidator(_known)]
"""τ in [−1, 1] or its name (strict √((n−1)/n), positive 0, lenient −1/√n, auto), for every value or per value."""


def _some_orders(orders: Any) -> Any:
    """Check the shape of orders at once, so that a mistake is answered once and not once per type."""
    listed = isinstance(orders, list | tuple) and orders
    if orders not in ("given", "all") and not (
        listed
        and all(isinstance(order, list | tuple) and all(isinstance(one, str) for one in order) for order in listed)
    ):
        raise ValueError("orders are given, all, or a list of orders, each a list of the values")
    return orders


Orders = Annotated[Literal["given", "all"] | tuple[tuple[str, ...], ...], BeforeValidator(_some_orders)]
"""Orders of the values: as the run lists them, all of them (up to three values), or a list."""


class Choice(BaseModel):
    """Base of the choices: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def check(self, values: Sequence[str]) -> None:
        """Check the choice against the values of a run.

        Raises:
            ValueError: It names other values, or does not fit their number.
        """


class All(Choice):
    """Every pair of D_i."""

    kind: Literal["all"] = "all"


class Consistent(Choice):
    """The pairs of D_i on which the values agree: VC ≥ τ_i, or the most consistent share (Eq. 8–14)."""

    kind: Literal["consistent"] = "consistent"
    tau: Thresholds | None = 0.7
    """The threshold: a number or a name, for every value or per value; None where ``keep`` is given."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of a threshold: the share of pairs to keep, the most consistent ones."""
    statistics: Statistics = "dataset"
    """Over which responses σ_j is taken: of the set that is filtered, of D_j, or of all sets."""
    minimum_pairs: Count = 16
    """Fewer pairs left than this is an error."""
    soft: bool = False
    """Beyond the paper: let a kept pair's weight in the loss grow with its consistency."""
    flip: bool = False
    """Beyond the paper: take pairs with VC ≤ −τ as well, with their sides swapped."""
    pooled: bool = False
    """Beyond the paper: let the consistent pairs of every D_j serve every value."""

    @model_validator(mode="before")
    @classmethod
    def _keep_alone(cls, given: Any) -> Any:
        return {"tau": None, **given} if isinstance(given, dict) and given.get("keep") is not None else given

    @model_validator(mode="after")
    def _one_rule(self) -> "Consistent":
        if (self.keep is None) == (self.tau is None):
            raise ValueError("give either tau or keep, not both")
        return self

    def check(self, values: Sequence[str]) -> None:
        """Thresholds per value must name the values, and leave no pair on both sides of a flip."""
        if isinstance(self.tau, dict) and set(self.tau) != set(values):
            raise ValueError(f"tau must name the values {', '.join(values)}")
        for value in values if self.flip and self.tau is not None else ():
            tau = self.tau_of(value)
            if tau != "auto" and not threshold(tau, len(values)) > 0:
                raise ValueError(f"flip needs a tau above 0, not {tau}: else a pair counts on both sides")

    def tau_of(self, value: str) -> Tau:
        """Return τ_i of one value.

        Raises:
            KeyError: ``tau`` is a mapping without that value.
        """
        assert self.tau is not None
        return self.tau[value] if isinstance(self.tau, dict) else self.tau


class Expanded(Choice):
    """The pairs of D_i, and pairs on fused prompts that admit every value (MORA, arXiv:2605.11679)."""

    kind: Literal["expanded"] = "expanded"
    rewriter: Rewriter = Rewriter(policy=True)
    """Who fuses the intents: an endpoint, a Python function, or the policy itself."""
    prompts: Count = 1000
    """At most this many training prompts of a data set are mined."""
    rollouts: Annotated[int, Field(ge=2, le=2**20)] = 16
    """N, answers to each prompt."""
    thresholds: dict[str, float] | None = None
    """κ_j, the reward that passes, per value; by default the median of each reward over all rollouts."""
    most: Count | None = None
    """Add at most this many pairs, those of the largest margin."""
    filter: Consistent | None = None
    """Keep of D_i only the consistent pairs; the fused ones are consistent by construction."""

    def check(self, values: Sequence[str]) -> None:
        """Thresholds must name the values."""
        if self.thresholds is not None and set(self.thresholds) != set(values):
            raise ValueError(f"thresholds must name the values {', '.join(values)}")
        if self.filter is not None:
            self.filter.check(values)


class Independent(Choice):
    """One vector per value, each trained on its own pairs by DPO."""

    kind: Literal["independent"] = "independent"


class Mixed(Choice):
    """One policy trained by DPO on the pairs of all values together."""

    kind: Literal["mixed"] = "mixed"


class Sequential(Choice):
    """One policy trained on value after value; each stage starts from the policy before it and refers to it."""

    kind: Literal["sequential"] = "sequential"
    orders: Orders = "given"
    """Orders of the values, one policy each."""

    def check(self, values: Sequence[str]) -> None:
        """Orders must be orders of the values."""
        if self.orders == "all" and len(values) > 3:
            raise ValueError(f"{len(values)} values have too many orders to train them all; list those you want")
        orders = () if isinstance(self.orders, str) else self.orders
        for place, order in enumerate(orders):
            if sorted(order) != sorted(values):
                raise ValueError(f"an order must hold each of {', '.join(values)} once, not {', '.join(order)}")
            if order in orders[:place]:
                raise ValueError(f"the order {', '.join(order)} is given twice")


class Weighted(Choice):
    """One policy per weight vector λ, trained on all pairs with the loss of D_i's pairs weighted by λ_i."""

    kind: Literal["weighted"] = "weighted"


class Margin(Choice):
    """One policy per weight vector w, trained on the primary value's pairs with the others' rewards as a margin."""

    kind: Literal["margin"] = "margin"
    primary: str | None = None
    """The value k whose pairs are trained on; by default the first."""
    rewards: Literal["implicit", "models"] = "implicit"
    """Where Δr_j comes from: β·log(π_j/π_0) of the DPO-trained policy of value j, or its reward model."""
    normalise: bool = False
    """Divide the reward models' gaps by σ_j."""

    def check(self, values: Sequence[str]) -> None:
        """The primary value must be one of them."""
        if self.primary is not None and self.primary not in values:
            raise ValueError(f"primary '{self.primary}' is none of the values {', '.join(values)}")

    @model_validator(mode="after")
    def _normalise_models(self) -> "Margin":
        if self.normalise and self.rewards == "implicit":
            raise ValueError("normalise divides the rewards of models; implicit rewards share one scale, β")
        return self


class Decorrelated(Choice):
    """One vector per value, with the dependence of their A factors (HSIC) as a penalty."""

    kind: Literal["decorrelated"] = "decorrelated"
    alpha: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """α, the weight of the penalty."""
    mode: Literal["sequential", "joint"] = "sequential"
    """One after the other, each away from all earlier ones, or all in one pass."""


class Single(Choice):
    """Each vector alone, at weight 1."""

    kind: Literal["single"] = "single"


class Grid(Choice):
    """Base of the weight spaces of which a part may be enough."""

    evaluations: Count | None = None
    """Measure at most this many of the points, found by an adaptive search; by default all."""

    def check(self, values: Sequence[str]) -> None:
        """A search must be able to start."""
        if self.evaluations is not None and self.evaluations < start_size(len(values)):
            raise ValueError(
                f"evaluations is {self.evaluations}, and a search over {len(values)} values starts with "
                f"{start_size(len(values))} points; raise it, or leave it out to measure the whole grid"
            )


class Simplex(Grid):
    """Every λ on the simplex in steps of 1/steps, the vectors alone included."""

    kind: Literal["simplex"] = "simplex"
    steps: Count = 10
    """Divisions of an edge."""
    totals: Annotated[tuple[Amount, ...], Field(min_length=1)] = (1.0,)
    """Sums of the weights; a sum above 1 extrapolates (beyond the papers)."""


class Cube(Grid):
    """Every λ of a grid over a cube; the sum may pass 1."""

    kind: Literal["cube"] = "cube"
    levels: Annotated[tuple[float, ...], Field(min_length=1)] = tuple(level / 10 for level in range(1, 11))
    """The weights that each value may take."""


class Sobol(Grid):
    """Sobol points in a cube: as even as the grid, with as many points as wanted for any number of values."""

    kind: Literal["sobol"] = "sobol"
    points: Count = 64
    """How many; powers of two cover best."""
    low: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    """Least weight."""
    high: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    """Greatest weight."""

    @model_validator(mode="after")
    def _ordered(self) -> "Sobol":
        if not self.high > self.low:
            raise ValueError(f"the cube goes from {self.low} to {self.high}; high must be above low")
        return self


class Points(Choice):
    """Weight vectors given one by one."""

    kind: Literal["points"] = "points"
    rows: Annotated[tuple[dict[str, float], ...], Field(min_length=1)]
    """Weight by value; a value left out weighs 0."""

    @model_validator(mode="after")
    def _once(self) -> "Points":
        seen = [{name: weight for name, weight in row.items() if weight} for row in self.rows]
        for place, row in enumerate(seen):
            if row in seen[:place]:
                raise ValueError(f"the point {self.rows[place]} is given twice")
        return self

    def check(self, values: Sequence[str]) -> None:
        """Rows must name the values."""
        for row in self.rows:
            for name in row:
                if name not in values:
                    raise ValueError(f"a point weighs '{name}', which is none of the values {', '.join(values)}")


PairsChoice = Annotated[All | Consistent | Expanded, Field(discriminator="kind")]
ObjectiveChoice = Annotated[
    Independent | Mixed | Sequential | Weighted | Margin | Decorrelated, Field(discriminator="kind")
]
WeightsChoice = Annotated[Single | Simplex | Cube | Sobol | Points, Field(discriminator="kind")]
