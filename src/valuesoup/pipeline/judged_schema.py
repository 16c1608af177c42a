"""What ``judge.json`` must look like, so that the report and the tables meet no surprise."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)


class _Share(_Part):
    value: float
    low: float | None
    high: float | None


class _Counts(_Part):
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


class _Policy(_Part):
    id: str
    method: str
    weights: dict[str, float] | None
    answers: str


class _Judge(_Part):
    url: str
    model: str


class _Judged(_Part):
    schema_: Literal[1]
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


def is_judged(content: Any) -> bool:
    """Return whether this is the parsed content of a whole ``judge.json`` of a run."""
    if not isinstance(content, Mapping):
        return False
    try:
        # pydantic has a method of the name of the key.
        judged = _Judged.model_validate({**content, "schema_": content.get("schema")})
    except ValidationError:
        return False
    told = [row.value for row in judged.comparisons]
    return set(told) <= set(judged.values) and set(judged.judges) <= set(judged.values)
