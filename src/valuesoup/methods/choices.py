"""The three choices that make a method: which pairs, which objective, which weights."""

from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from valuesoup.consistency import Statistics, Threshold, threshold
from valuesoup.errors import UserError


def _known(tau: Any) -> Any:
    """Check thresholds before their type is, so that a mistake is answered once and not once per type."""
    for one in tau.values() if isinstance(tau, dict) else [tau]:
        if isinstance(one, str):
            with suppress(ValueError):  # 1e-1 is text to YAML
                one = float(one)
        if not isinstance(one, str | int | float):
            raise ValueError("a threshold is a number in [-1, 1] or one of strict, positive and lenient")
        try:
            threshold(one, values=2)  # type: ignore[arg-type]  # a name is what is checked
        except UserError as error:
            raise ValueError(str(error)) from None
    return tau


Thresholds = Annotated[Threshold | dict[str, Threshold], BeforeValidator(_known)]
"""τ in [−1, 1] or its name (strict √((n−1)/n), positive 0, lenient −1/√n), for every value or per value."""


class Choice(BaseModel):
    """Base of the choices: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    minimum_pairs: PositiveInt = 16
    """Fewer pairs left than this is an error."""

    @model_validator(mode="before")
    @classmethod
    def _keep_alone(cls, given: Any) -> Any:
        return {"tau": None, **given} if isinstance(given, dict) and given.get("keep") is not None else given

    @model_validator(mode="after")
    def _one_rule(self) -> "Consistent":
        if (self.keep is None) == (self.tau is None):
            raise ValueError("give either tau or keep, not both")
        return self

    def tau_of(self, value: str) -> Threshold:
        """Return τ_i of one value.

        Raises:
            KeyError: ``tau`` is a mapping without that value.
        """
        assert self.tau is not None
        return self.tau[value] if isinstance(self.tau, dict) else self.tau


class Independent(Choice):
    """One vector per value, each trained on its own pairs by DPO."""

    kind: Literal["independent"] = "independent"


class Single(Choice):
    """Each vector alone, at weight 1."""

    kind: Literal["single"] = "single"


class Simplex(Choice):
    """Every λ on the simplex in steps of 1/steps, the vectors alone included."""

    kind: Literal["simplex"] = "simplex"
    steps: PositiveInt = 10
    """Divisions of an edge."""


PairsChoice = Annotated[All | Consistent, Field(discriminator="kind")]
ObjectiveChoice = Independent
WeightsChoice = Annotated[Single | Simplex, Field(discriminator="kind")]


class Method(Choice):
    """A method is its three choices; nothing else of the pipeline asks what it is called."""

    pairs: PairsChoice = All()
    """Which pairs."""
    objective: ObjectiveChoice = Independent()
    """Which objective."""
    weights: WeightsChoice = Simplex()
    """Which weights."""
