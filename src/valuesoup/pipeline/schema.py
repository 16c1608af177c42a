"""What ``results.json`` must look like, so that its readers meet no surprise: names, numbers, what belongs to what.

A run folder may come from somebody else, and a file may be damaged; a reader that takes a missing score for another
one would be worse than none.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.written import Cosine, Count, Part, Share, fault_of

Reward = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A mean reward; with larger ones sums and squares leave the range of numbers."""


class _Interval(Part):
    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("the interval has one end only")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the interval's ends are the wrong way round")
        return self


class _Estimate(_Interval):
    mean: float


class _Score(_Estimate):
    mean: Reward
    low: Reward
    high: Reward


class _Volume(_Interval):
    value: NonNegativeFloat


class _Quality(Part):
    fluency: float | None = None
    kl: float | None = None
    tokens: NonNegativeFloat | None = None
    truncated: Share | None = None
    perplexity: NonNegativeFloat | None = None
    repetition: Share | None = None
    distinct_1: Share | None = None
    distinct_2: Share | None = None


class _Candidate(Part):
    id: str = Field(min_length=1)
    method: str = Field(min_length=1)
    weights: dict[str, float] | None
    outside_simplex: bool
    validation: dict[str, _Score]
    test: dict[str, _Score] | None
    truth: dict[str, float] | None = None
    quality: _Quality | None
    on_frontier: bool
    on_overall_frontier: bool = False
    frontier_probability: Share | None = None
    prompts: Count | None = None
    smoothed: dict[str, _Score] | None = None


class _Optimism(Part):
    drop: dict[str, _Estimate]
    validation: float
    test: float


class _Search(Part):
    candidates: Count
    measured: Count
    left: Count
    answers: Count
    all_answers: Count
    kept: NonNegativeFloat | None


class _Method(Part):
    title: str
    hypervolume: _Volume
    frontier_points: Count
    trainings: Count
    trained_pairs: Count | None
    train_seconds: NonNegativeFloat | None
    expand_seconds: NonNegativeFloat
    evaluate_seconds: NonNegativeFloat | None
    composition_error: NonNegativeFloat | None = None
    optimism: _Optimism | None = None
    search: _Search | None = None


class _RewardModel(Part):
    validation_accuracy: Share | None
    validation_pairs: Count | None = None
    pairs: Count | None


class _Filter(Part):
    tau: float | None
    pairs: Count = Field(ge=1)
    kept: Count
    flipped: Count = 0
    undefined: Count

    @model_validator(mode="after")
    def _of_the_pairs(self) -> Self:
        if max(self.kept, self.undefined) > self.pairs or self.flipped > self.kept:
            raise ValueError("more pairs are kept, flipped or undefined than there are")
        return self


class _Geometry(Part):
    cosine: Cosine | None
    l2: float | None
    hsic: float | None


class _Cosine(_Interval):
    first: str
    second: str
    cosine: Cosine | None
    ceiling: float


class _Conflict(Part):
    pairs: dict[str, Count]
    between: list[_Cosine]


class _Rung(Part):
    weight: float
    loss: float
    gap: _Estimate
    predicted: float


class _Path(Part):
    first: str
    second: str
    squared_distance: float
    curvature: _Estimate
    ladder: list[_Rung]


class _Connectivity(Part):
    pairs: dict[str, Count]
    paths: list[_Path]


class _Correlation(_Interval):
    over: str
    dataset: str | None
    first: str
    second: str
    count: Count
    mean: Cosine


class _Difference(_Interval):
    first: str
    second: str
    value: float
    low: float
    high: float


class _Results(Part):
    schema_: Literal[1] = Field(alias="schema")
    values: list[str] = Field(min_length=1)
    seed: Count
    candidates: list[_Candidate] = Field(min_length=1)
    methods: dict[str, _Method]
    reference_point: dict[str, Reward]
    best_point: dict[str, Reward]
    reward_models: dict[str, _RewardModel] = Field(default={})
    filters: dict[str, dict[str, _Filter]]
    trainings: dict[str, dict[str, dict[str, Any]]] = Field(default={})
    expansions: dict[str, dict[str, dict[str, float]]]
    geometry: dict[str, _Geometry]
    conflict: dict[str, _Conflict] = Field(default={})
    connectivity: dict[str, _Connectivity] = Field(default={})
    correlation: list[_Correlation] = Field(default=[])
    differences: list[_Difference] = Field(default=[])

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        values = set(self.values)
        if len(values) != len(self.values) or "" in values:
            raise ValueError("a value is named twice, or not at all")
        if not values == set(self.reference_point) == set(self.best_point):
            raise ValueError("reference_point and best_point need a number for each of the values")
        for value, worst in self.reference_point.items():
            if not worst < self.best_point[value]:
                raise ValueError(f"the reference_point of '{value}' is not below its best_point")
        seen = set()
        for row in self.candidates:
            if row.id in seen:
                raise ValueError(f"two candidates have the id '{row.id}'")
            seen.add(row.id)
            if row.method not in self.methods:
                raise ValueError(f"candidate '{row.id}' is of the method '{row.method}', which is not among methods")
            for name in ("validation", "test", "smoothed"):
                scores = getattr(row, name)
                if scores is not None and set(scores) != values:
                    raise ValueError(f"candidate '{row.id}' needs in {name} a score for each of the values")
            if row.weights is not None and set(row.weights) != values:
                raise ValueError(f"candidate '{row.id}' needs a weight for each of the values, or null for all")
            if row.id != BASE if row.method == BASE else not row.id.startswith(f"{row.method}/"):
                raise ValueError(f"candidate '{row.id}' is not named after its method '{row.method}'")
        if BASE not in seen:
            raise ValueError(f"there is no candidate '{BASE}'")
        for part in ("filters", "trainings", "expansions", "geometry", "connectivity"):
            if not set(getattr(self, part)) <= set(self.methods):
                raise ValueError(f"{part} tells of what is not among methods")
        if not set(self.reward_models) <= values:
            raise ValueError("reward_models tells of what is none of the values")
        for name, of in self.methods.items():
            if of.optimism is not None and set(of.optimism.drop) != values:
                raise ValueError(f"the optimism of '{name}' needs a drop for each of the values")
        named: list[_Cosine | _Path | _Correlation] = [
            pair for conflict in self.conflict.values() for pair in conflict.between
        ]
        named += [path for of in self.connectivity.values() for path in of.paths]
        named += self.correlation
        for pair in named:
            if not {pair.first, pair.second} <= values:
                raise ValueError(f"'{pair.first}' and '{pair.second}' are not two of the values")
        for difference in self.differences:
            if not {difference.first, difference.second} <= set(self.methods):
                raise ValueError("differences compares what is not among methods")
        return self


def results_fault(content: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the content of a results file: ``key: what``; None where nothing is.

    Args:
        content: The parsed file.
    """
    return fault_of(_Results, content)
