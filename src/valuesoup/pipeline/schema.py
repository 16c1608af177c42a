"""What ``results.json`` must look like, so that its readers meet no surprise: names, numbers, what belongs to what.

A run folder may come from somebody else, and a file may be damaged; a reader that takes a missing score for another
one would be worse than none.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from valuesoup.pipeline.written import Part, fault_of


class _Estimate(Part):
    mean: float
    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the interval's ends are the wrong way round")
        return self


class _Volume(Part):
    value: float
    low: float | None
    high: float | None


class _Quality(Part):
    fluency: float | None = None
    kl: float | None = None
    tokens: float | None = None
    truncated: float | None = None
    perplexity: float | None = None
    repetition: float | None = None
    distinct_1: float | None = None
    distinct_2: float | None = None


class _Candidate(Part):
    id: str = Field(min_length=1)
    method: str = Field(min_length=1)
    weights: dict[str, float] | None
    outside_simplex: bool
    validation: dict[str, _Estimate] | None
    test: dict[str, _Estimate] | None
    truth: dict[str, float] | None = None
    quality: _Quality | None
    on_frontier: bool
    on_overall_frontier: bool = False
    frontier_probability: float | None = None
    prompts: NonNegativeInt | None = None
    smoothed: dict[str, _Estimate] | None = None


class _Optimism(Part):
    drop: dict[str, _Estimate]
    validation: float
    test: float


class _Search(Part):
    candidates: int
    measured: int
    left: int
    answers: int
    all_answers: int
    kept: float | None


class _Method(Part):
    title: str
    hypervolume: _Volume | None
    frontier_points: NonNegativeInt
    trainings: NonNegativeInt
    trained_pairs: NonNegativeInt | None
    train_seconds: float | None
    expand_seconds: float
    evaluate_seconds: float | None
    composition_error: float | None = None
    optimism: _Optimism | None = None
    search: _Search | None = None


class _RewardModel(Part):
    validation_accuracy: float | None
    validation_pairs: NonNegativeInt | None = None
    pairs: NonNegativeInt | None


class _Filter(Part):
    tau: float | None
    pairs: NonNegativeInt
    kept: NonNegativeInt
    flipped: NonNegativeInt = 0
    undefined: NonNegativeInt


class _Geometry(Part):
    cosine: float | None
    l2: float | None
    hsic: float | None


class _Cosine(Part):
    first: str
    second: str
    cosine: float | None
    low: float | None
    high: float | None
    ceiling: float


class _Conflict(Part):
    pairs: dict[str, NonNegativeInt]
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
    pairs: dict[str, NonNegativeInt]
    paths: list[_Path]


class _Correlation(Part):
    over: str
    dataset: str | None
    first: str
    second: str
    count: NonNegativeInt
    mean: float
    low: float | None
    high: float | None


class _Difference(Part):
    first: str
    second: str
    value: float
    low: float
    high: float


class _Results(Part):
    schema_: Literal[1] = Field(alias="schema")
    values: list[str] = Field(min_length=1)
    seed: NonNegativeInt
    candidates: list[_Candidate]
    methods: dict[str, _Method]
    reference_point: dict[str, float]
    best_point: dict[str, float]
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
            if not set(row.weights or ()) <= values:
                raise ValueError(f"candidate '{row.id}' has a weight for what is none of the values")
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
