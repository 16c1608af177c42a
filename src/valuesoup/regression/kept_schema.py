"""What ``check.json`` must look like: names, finite numbers, and figures that follow from what was measured."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.written import Part, fault_of

LARGEST = 700.0
"""Greatest logarithm of a ratio, of either sign: e to more is no number of a computer."""

Name = Annotated[str, Field(min_length=1)]


class _Change(Part):
    mean: float = Field(ge=-LARGEST, le=LARGEST)
    low: float | None = Field(ge=-LARGEST, le=LARGEST)
    high: float | None = Field(ge=-LARGEST, le=LARGEST)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends, or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the interval's ends are the wrong way round")
        return self


class _Policy(Part):
    id: Name
    method: Name
    method_title: str
    title: str
    weights: dict[str, float] | None
    key: Name


class _Measured(_Policy):
    perplexity: float | None = Field(default=None, gt=0)
    bits_per_byte: float | None = None
    log_ratio: _Change | None = None
    bits: _Change | None = None


class _Text(Part):
    name: Name
    key: Name
    documents: PositiveInt
    empty: NonNegativeInt
    repeated: NonNegativeInt
    tokens: PositiveInt
    bytes: PositiveInt
    unknown: NonNegativeInt
    cut: NonNegativeInt
    window: PositiveInt
    stride: NonNegativeInt
    policies: list[_Measured]
    nats: dict[str, list[float]]

    @model_validator(mode="after")
    def _follows(self) -> Self:
        _policies_fit(self.policies)
        for key, of in self.nats.items():
            if len(of) > self.documents:
                raise ValueError(f"'{key}' has {len(of)} documents of {self.documents}")
        base = self.policies[0]
        for row in self.policies:
            if row.perplexity is None:
                continue
            self._agree(row, "perplexity", math.log(row.perplexity), self._nats(row) / self.tokens)
            self._agree(row, "bits_per_byte", row.bits_per_byte, self._nats(row) / math.log(2) / self.bytes)
            if row is base:
                continue
            if row.log_ratio is None or row.bits is None:
                raise ValueError(f"'{row.id}' has a perplexity, and no difference to the base")
            if base.perplexity is not None:  # else the base is measured anew, and the differences will be
                gap = self._nats(row) - self._nats(base)
                self._agree(row, "log_ratio", row.log_ratio.mean, gap / self.tokens)
                self._agree(row, "bits", row.bits.mean, gap / math.log(2) / self.bytes)
        return self

    def _nats(self, row: _Measured) -> float:
        found = self.nats.get(row.key, [])
        if len(found) != self.documents:
            raise ValueError(f"'{row.id}' has a perplexity, and not the nats of every document")
        return sum(found)

    def _agree(self, row: _Measured, name: str, told: float | None, found: float) -> None:
        if told is None or not math.isclose(told, found, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"the {name} of '{row.id}' is not what its nats make")


class _Metric(Part):
    model_config = ConfigDict(extra="forbid")

    value: float
    stderr: float | None = Field(default=None, ge=0)
    higher_is_better: bool | None = None


class _Command(Part):
    command: Name
    policies: list[_Policy]
    metrics: dict[str, dict[str, _Metric]]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _policies_fit(self.policies)
        return self


class _Content(Part):
    schema_: Literal[1] = Field(alias="schema")
    level: float = Field(gt=0, lt=1)
    texts: list[_Text]
    commands: list[_Command]

    @model_validator(mode="after")
    def _once(self) -> Self:
        for names in ([of.name for of in self.texts], [of.command for of in self.commands]):
            if len(set(names)) != len(names):
                raise ValueError("a text or a command stands there twice")
        return self


def _policies_fit(policies: Sequence[_Policy]) -> None:
    ids = [row.id for row in policies]
    if not ids or ids[0] != BASE:
        raise ValueError("the base is not the first policy")
    if len(set(ids)) != len(ids):
        raise ValueError("a policy stands there twice")


def kept_fault(content: Any) -> str | None:
    """Say what is wrong with the content of a ``check.json``: ``key: what``; None where nothing is.

    Beside types and names it is held that the figures of a text are those of the log-probabilities kept with them.

    Args:
        content: The parsed file.
    """
    return fault_of(_Content, content)


def strange(content: Mapping[str, Any], keys: Mapping[str, str], candidates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the id of a policy that is told otherwise than the run knows it, None where there is none.

    Args:
        content: Without fault.
        keys: The key of every candidate of the run, by id; rows of other keys are of an earlier configuration.
        candidates: Those of the run's results.
    """
    known = {row["id"]: (row["method"], row["weights"]) for row in candidates}
    for part in ("texts", "commands"):
        for row in (row for entry in content[part] for row in entry["policies"]):
            if row["key"] == keys.get(row["id"]) and (row["method"], row["weights"]) != known.get(row["id"]):
                return str(row["id"])
    return None
