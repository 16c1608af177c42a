"""What ``judge.json`` must look like, so that the report and the tables meet no surprise."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from valuesoup.pipeline.written import Count, Part, Share, fault_of

ROUNDING = 1e-9


class _Share(Part):
    value: Share
    low: Share | None
    high: Share | None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        if not low - ROUNDING <= self.value <= high + ROUNDING:
            raise ValueError("the share lies outside its interval")
        return self


class _Counts(Part):
    wins: Count
    ties: Count
    losses: Count
    identical: Count
    invalid: Count
    unanswered: Count
    ordered: Count
    agreed: Count
    decisive: Count
    first: Count
    rewarded: Count
    reward_agreed: Count
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
    limit: Count | None
    templates: dict[str, str]
    prompts: dict[str, Count]
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
