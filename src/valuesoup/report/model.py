"""What a report is made of: the parsed results and the tables that the stages of a run left behind.

Everything here is plain data (numbers, text, numpy arrays), so that a report can be drawn again from a run
folder on a machine without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from valuesoup.data.pairs import Message
from valuesoup.report.schema import CandidateResult, Estimate, Results

Weights = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class GapTable:
    """Reward gaps of one data set of N pairs under n values.

    Attributes:
        gaps: (N, n) normalised gaps, chosen minus rejected, columns in the order of ``results["values"]``.
        consistency: (N,) value consistency in [-1, 1], NaN where it is undefined.
        thresholds: The tau of each method that filtered this data set.

    Raises:
        ValueError: The two arrays do not have the same number of rows.
    """

    gaps: NDArray[np.float64]
    consistency: NDArray[np.float64]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gaps.ndim != 2 or self.consistency.shape != self.gaps.shape[:1]:
            raise ValueError(f"gaps {self.gaps.shape} and consistency {self.consistency.shape} do not match")


@dataclass(frozen=True)
class ConflictPair:
    """A pair on which the values disagree, with its texts, for the audit."""

    id: str
    prompt: Sequence[Message]
    chosen: str
    rejected: str
    gaps: Mapping[str, float]
    consistency: float


@dataclass(frozen=True)
class Answer:
    """One candidate's answer and its score under each value."""

    text: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SampleAnswers:
    """A prompt and what the shown candidates (by id) answered."""

    prompt: Sequence[Message]
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class LayerGeometry:
    """Cosine and distance of two value vectors in one adapted matrix; ``layer`` None means all of them."""

    layer: str | None
    first: str
    second: str
    cosine: float
    l2: float


@dataclass(frozen=True)
class LayerDependence:
    """HSIC of the A factors of two value vectors in one layer at the end; ``before``: at the start of a training
    that was penalised for it, None for a method that was not.
    """

    layer: str
    first: str
    second: str
    after: float
    before: float | None = None


class PassRate(TypedDict):
    """Share of prompts of a kind (a data set's name, ``single-reward`` or ``fused``) of which one of n answers passes
    the threshold of a value, or of all values at once (value ``joint``), with its interval over ``size`` prompts.
    """

    prompts: str
    value: str
    n: int
    size: int
    low: float
    high: float


class RewardBin(TypedDict):
    """Share of answers to prompts of a kind (``single-reward`` before, ``fused`` after) whose reward is in a bin."""

    prompts: str
    value: str
    low: float
    high: float
    share: float


@dataclass(frozen=True)
class Expansion:
    """One prompt expansion of a method: its counts at each step, pass@N, and rewards before and after fusion.

    ``profile`` rows hold the share itself under ``pass``, which is no name of a field in Python.
    """

    counts: Mapping[str, int]
    rollouts: int
    thresholds: Mapping[str, float]
    profile: Sequence[PassRate]
    distribution: Sequence[RewardBin]


@dataclass(frozen=True)
class CurvePoint:
    """One logged step of a training; log-probabilities are summed over the tokens of a response."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None
    chosen: float | None = None
    rejected: float | None = None
    margin: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class ReportData:
    """All that a report or an audit shows; a part that is empty is left out with a sentence that says so.

    Attributes:
        results: The parsed ``results.json``; an audit needs only ``schema`` and ``values``.
        title: Heading of the page.
        created: When, as text.
        config_yaml: The resolved configuration, shown folded.
        made_with: With what the run was made, heading to text, shown folded.
        gaps: Reward gaps per data set.
        dropped: Per data set, rows dropped on loading by reason.
        sizes: Per data set, pairs per split ("train", "validation", "test").
        answers: Sample answers.
        representatives: Ids of the candidates whose answers stand side by side on the page; none: all that answered.
        geometry: Per method, one entry per adapted matrix and pair of values.
        dependence: Per method, one entry per layer and pair of values.
        expansions: Per method, its prompt expansions by what they expand.
        curves: Per training, named "method/value" or anything else, its logged steps.
        conflicts: Per data set, its most conflicting pairs, most conflicting first.
        fluency_bound: Fluency below this is marked as low; fluency is a share in [0, 1].
        judged: The content of ``judge.json``; empty where no judge was asked.
        checked: What alignment cost the base, see `valuesoup.regression.checked_run`; empty where nothing was checked.
    """

    results: Results
    title: str = "valuesoup report"
    created: str = ""
    config_yaml: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, GapTable] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    answers: Sequence[SampleAnswers] = ()
    representatives: Sequence[str] = ()
    geometry: Mapping[str, Sequence[LayerGeometry]] = field(default_factory=dict)
    dependence: Mapping[str, Sequence[LayerDependence]] = field(default_factory=dict)
    expansions: Mapping[str, Mapping[str, Expansion]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    conflicts: Mapping[str, Sequence[ConflictPair]] = field(default_factory=dict)
    fluency_bound: float = 0.8
    judged: Mapping[str, Any] = field(default_factory=dict)
    checked: Mapping[str, Any] = field(default_factory=dict)


def is_base(candidate: CandidateResult) -> bool:
    """True for the base model itself: the method is called "base", or every weight is zero."""
    weights = candidate["weights"]
    return candidate["method"] == "base" or bool(weights and not any(weights.values()))


def shown_scores(candidate: CandidateResult) -> tuple[str, Mapping[str, Estimate]]:
    """The scores to show and the split they are from: test where there are any, else validation, else none."""
    if test := candidate.get("test"):
        return "test", test
    return "validation", candidate.get("validation") or {}


def fluency_of(candidate: CandidateResult) -> float | None:
    """The candidate's fluency, None where it was not measured."""
    quality = candidate.get("quality")
    return quality.get("fluency") if quality else None


def method_names(results: Results) -> list[str]:
    """All methods except the base, in the order of the results, so that each keeps its colour everywhere."""
    candidates = results.get("candidates") or ()
    named = [*(results.get("methods") or ()), *(c["method"] for c in candidates if not is_base(c))]
    return [name for name in dict.fromkeys(named) if name != "base"]


def weights_text(weights: Weights | None) -> str:
    """``{"helpful": 0.5, "harmless": 0.5}`` as "helpful 0.5 · harmless 0.5"; "" for None."""
    return " · ".join(f"{name} {weight:.3g}" for name, weight in (weights or {}).items())
