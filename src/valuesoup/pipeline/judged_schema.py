"""What ``judge.json`` must look like, so that the report and the tables meet no surprise."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from valuesoup.pipeline.written import Part, fault_of


class _Share(Part):
    value: float
    low: float | None
    high: float | None


class _Counts(Part):
    wins: NonNegativeInt
    ties: NonNegativeInt
    losses: NonNegativeInt
    identical: NonNegativeInt
    invalid: NonNegativeInt
    unanswered: NonNegativeInt
    ordered: NonNegativeInt
    agreed: NonNegativeInt
    decisive: NonNegativeInt
    first: NonNegativeInt
    rewarded: NonNegativeInt
    reward_agreed: NonNegativeInt
    win_rate: _Share | None
    orders_agreement: _Share | None
    first_share: _Share | None
    reward_agreement: _Share | None


class _Comparison(_Counts):
    value: str
    method: str
    baseline: str
    policy_title: str
    baseline_title: str


class _Policy(Part):
    id: str
    method: str
    weights: dict[str, float] | None
    answers: str


class _Judge(Part):
    url: str
    model: str


class _Judged(Part):
    schema_: Literal[1] = Field(alias="schema")
    values: list[str]
    judge: _Judge
    level: float = Field(gt=0, lt=1)
    limit: NonNegativeInt | None
    templates: dict[str, str]
    prompts: dict[str, NonNegativeInt]
    policies: dict[str, _Policy]
    comparisons: list[_Comparison]
    judges: dict[str, _Counts]
    left_out: dict[str, str]

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        told = {row.value for row in self.comparisons}
        if not told | set(self.judges) <= set(self.values):
            raise ValueError("something is told of what is none of the values")
        return self


def is_judged(content: Any) -> bool:
    """Return whether this is the parsed content of a whole ``judge.json`` of a run."""
    return fault_of(_Judged, content) is None
