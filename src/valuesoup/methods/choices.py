"""The three choices that make a method: which pairs, which objective, which weights."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from valuesoup.consistency import Statistics, Threshold, threshold
from valuesoup.errors import UserError


def _known(tau: Threshold | dict[str, Threshold]) -> Threshold | dict[str, Threshold]:
    for one in tau.values() if isinstance(tau, dict) else [tau]:
        try:
            threshold(one, values=2)
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from None
    return tau


Thresholds = Annotated[Threshold | dict[str, Threshold], AfterValidator(_known)]
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
    tau: Thresholds = 0.7
    """The threshold: a number or a name, for every value or per value."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of a threshold: the share of pairs to keep, the most consistent ones."""
    statistics: Statistics = "dataset"
    """Over which responses σ_j is taken: of the set that is filtered, of D_j, or of all sets."""
    minimum_pairs: PositiveInt = 16
    """Fewer pairs left than this is an error."""

    @model_validator(mode="after")
    def _one_rule(self) -> "Consistent":
        if self.keep is not None and "tau" in self.model_fields_set:
            raise ValueError("give either tau or keep, not both")
        return self

    def tau_of(self, value: str) -> Threshold:
        """Return τ_i of one value.

        Raises:
            KeyError: ``tau`` is a mapping without that value.
        """
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
