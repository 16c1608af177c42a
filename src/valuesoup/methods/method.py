"""A method: its three choices, how its vectors are composed, and what it changes in the training settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, JsonValue, model_validator

from valuesoup.methods.choices import (
    All,
    Choice,
    Consistent,
    Cube,
    Decorrelated,
    Expanded,
    Independent,
    Margin,
    Mixed,
    ObjectiveChoice,
    PairsChoice,
    Points,
    Sequential,
    Simplex,
    Single,
    Sobol,
    Weighted,
    WeightsChoice,
)
from valuesoup.methods.compositions import CompositionChoice, Linear, Slerp
from valuesoup.search import cube_grid, simplex_grid, sobol

_FINISHED = (Mixed, Sequential)
"""Objectives that yield finished policies, with nothing to weigh."""
_PER_VALUE = (Independent, Decorrelated)
"""Objectives that yield a vector per value, to be mixed."""


class Method(Choice):
    """A method is its three choices; nothing else of the pipeline asks what it is called."""

    pairs: PairsChoice = All()
    """Which pairs."""
    objective: ObjectiveChoice = Independent()
    """Which objective."""
    weights: WeightsChoice = Simplex()
    """Which weights: of the mixtures, or of the trainings where each weight vector needs its own."""
    composition: CompositionChoice = Linear()
    """How vectors are mixed; the papers' way is linear."""
    training: Mapping[str, JsonValue] = Field(default={})
    """Settings of the training in which this method differs from the run's, such as ``likelihood`` (ρ)."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_weigh(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "weights" not in given:
            objective = given.get("objective")
            kind = objective.get("kind") if isinstance(objective, Mapping) else getattr(objective, "kind", None)
            if kind in {choice.model_fields["kind"].default for choice in _FINISHED}:
                return {**given, "weights": Single()}
        return given

    @model_validator(mode="after")
    def _fits(self) -> "Method":
        kind = self.objective.kind
        if isinstance(self.objective, _FINISHED) and not isinstance(self.weights, Single):
            raise ValueError(f"objective '{kind}' yields finished policies, so its weights are 'single'")
        if isinstance(self.objective, Margin) and isinstance(self.weights, Single):
            raise ValueError(f"objective '{kind}' needs a weight above 0 for the primary value: give it a grid")
        if not isinstance(self.objective, _PER_VALUE) and not isinstance(self.composition, Linear):
            raise ValueError(f"objective '{kind}' has no vectors per value that could be composed in another way")
        rule = self.pairs.filter if isinstance(self.pairs, Expanded) else self.pairs
        if isinstance(rule, Consistent) and rule.pooled and not isinstance(self.objective, (*_PER_VALUE, Margin)):
            raise ValueError(f"objective '{kind}' trains on the pairs of all values already; leave pooled out")
        return self

    def check(self, values: Sequence[str]) -> None:
        """Check every choice against the values of a run.

        Raises:
            ValueError: One does not fit.
            UserError: The weight space has repeated levels, or too many points.
        """
        for choice in (self.pairs, self.objective, self.weights, self.composition):
            choice.check(values)
        rows = self.rows(values)
        if isinstance(self.objective, Weighted | Margin):
            self._check_trained_rows(values, rows)
        for row in rows if not isinstance(self.composition, Linear) else ():
            if min(row) < 0 or not any(row):
                raise ValueError(f"composition '{self.composition.kind}' takes weights of 0 or more, not {list(row)}")
            if isinstance(self.composition, Slerp) and abs(sum(row) - 1) > 1e-9:
                raise ValueError(f"composition 'slerp' takes weights on the simplex, not {list(row)}")

    def _check_trained_rows(self, values: Sequence[str], rows: Sequence[tuple[float, ...]]) -> None:
        primary = self.objective.primary or values[0] if isinstance(self.objective, Margin) else None
        for row in rows:
            if min(row) < 0 or not any(row):
                weighed = f"a training cannot weigh its pairs by {list(row)}"
                raise ValueError(f"{weighed}: weights are 0 or more, and one at least is above 0")
            if isinstance(self.weights, Points) and primary and not row[list(values).index(primary)] > 0:
                raise ValueError(f"the weight of the primary value '{primary}' must be above 0 in every point")

    def rows(self, values: Sequence[str]) -> list[tuple[float, ...]]:
        """Return the weight vectors, one tuple of n each, in the order of ``values``."""
        n = len(values)
        match self.weights:
            case Single():
                grid = simplex_grid(n, 1).tolist()
            case Simplex(steps=steps, totals=totals):
                grid = [[total * share for share in row] for total in totals for row in simplex_grid(n, steps).tolist()]
            case Cube(levels=levels):
                grid = cube_grid(n, levels).tolist()
            case Sobol(points=points, low=low, high=high):
                grid = sobol(n, points, low, high).tolist()
            case Points(rows=given):
                grid = [[row.get(value, 0.0) for value in values] for row in given]
        return list(dict.fromkeys(tuple(map(float, row)) for row in grid))
