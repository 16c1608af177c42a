"""What a report is made of: the parsed results and the tables that the stages of a run left behind.

Everything here is plain data (numbers, text, numpy arrays), so that a report can be drawn again from a run
folder on a machine without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from valuesoup.data.pairs import Message

Weights = Mapping[str, float]


class Estimate(TypedDict):
    """A mean over prompts with the ends of its bootstrap interval, in the reward's own units."""

    mean: float
    low: float | None
    high: float | None


class Volume(TypedDict):
    """A hypervolume with the ends of its bootstrap interval."""

    value: float
    low: float | None
    high: float | None


class Quality(TypedDict):
    """Signs of over-optimisation: fluency in [0, 1], KL from the base in nats per answer, tokens per answer.

    ``perplexity`` is that under the base, ``repetition`` the share of repeated 3-grams within an answer, ``distinct_n``
    the share of different n-grams over all answers.
    """

    fluency: float | None
    kl: float | None
    tokens: float | None
    truncated: NotRequired[float]
    perplexity: NotRequired[float | None]
    repetition: NotRequired[float]
    distinct_1: NotRequired[float | None]
    distinct_2: NotRequired[float | None]


class CandidateResult(TypedDict):
    """One candidate: a row of weights over the adapters of a method, and how it scored.

    ``truth`` is the mean true reward of its test answers, for the values whose truth is known (the embedded
    world's); ``on_frontier`` is about its own method's validation frontier; ``prompts`` is how many validation prompts
    it answered.
    """

    id: str
    method: str
    weights: Weights | None
    outside_simplex: NotRequired[bool]
    validation: Mapping[str, Estimate] | None
    test: NotRequired[Mapping[str, Estimate] | None]
    quality: NotRequired[Quality | None]
    truth: NotRequired[Mapping[str, float] | None]
    on_frontier: bool
    frontier_probability: NotRequired[float | None]
    prompts: NotRequired[int]
    smoothed: NotRequired[Mapping[str, Estimate] | None]


class RewardModelResult(TypedDict):
    """How often a reward model prefers the chosen response on held-out pairs."""

    validation_accuracy: float | None
    validation_pairs: NotRequired[int | None]
    pairs: int | None


class FilterResult(TypedDict):
    """What the consistency filter kept of one data set."""

    tau: float | None
    pairs: int
    kept: int
    flipped: NotRequired[int]
    undefined: int


class SearchResult(TypedDict):
    """What a search took of a method's evaluation: candidates and validation answers, and those of the whole grid.

    ``kept`` is the expected hypervolume of the frontier found, divided by that of the frontier that all answers of all
    candidates would show; None where there was nothing to choose.
    """

    candidates: int
    measured: int
    left: int
    answers: int
    all_answers: int
    kept: float | None


class OptimismResult(TypedDict):
    """A method's frontier where it was chosen and on test: drop per value in units of the box, and hypervolumes.

    A drop has no interval where the candidates were chosen by other figures than means over prompts.
    """

    drop: Mapping[str, Estimate]
    validation: float
    test: float


class MethodResult(TypedDict):
    """What a method reached and what it costs on its own, shared trainings included."""

    hypervolume: Volume | None
    frontier_points: NotRequired[int]
    trainings: NotRequired[int]
    trained_pairs: NotRequired[int | None]
    train_seconds: NotRequired[float | None]
    expand_seconds: NotRequired[float]
    evaluate_seconds: NotRequired[float | None]
    optimism: NotRequired[OptimismResult | None]
    search: NotRequired[SearchResult]


class DifferenceResult(TypedDict):
    """Hypervolume of one method minus that of another, with its paired bootstrap interval."""

    first: str
    second: str
    value: float
    low: float
    high: float


class GeometryResult(TypedDict):
    """Mean cosine and distance between the value vectors of a method, and their HSIC summed over layers."""

    cosine: float | None
    l2: float | None
    hsic: NotRequired[float | None]


class CosineResult(TypedDict):
    """Cosine of two values' DPO gradients at the base; ``ceiling``: what noise leaves of a cosine of 1."""

    first: str
    second: str
    cosine: float | None
    low: float | None
    high: float | None
    ceiling: float


class ConflictResult(TypedDict):
    """Gradient conflict between every two values, and how many pairs of each were taken."""

    pairs: Mapping[str, int]
    between: Sequence[CosineResult]


class RungResult(TypedDict):
    """At ``weight`` λ of the first vector and 1 − λ of the second: loss, merging gap Δ(λ), and its prediction."""

    weight: float
    loss: float
    gap: Estimate
    predicted: float


class PathResult(TypedDict):
    """The loss between two value vectors: ‖d‖², dᵀHd at λ = ½, and the gap at each λ."""

    first: str
    second: str
    squared_distance: float
    curvature: Estimate
    ladder: Sequence[RungResult]


class ConnectivityResult(TypedDict):
    """The loss between every two value vectors of a method, and how many held-out pairs of each value gave it."""

    pairs: Mapping[str, int]
    paths: Sequence[PathResult]


class CorrelationResult(TypedDict):
    """Correlation of two values' rewards over gaps of pairs, test answers, or answers to one prompt."""

    over: str
    dataset: str | None
    first: str
    second: str
    count: int
    mean: float
    low: float | None
    high: float | None


class Results(TypedDict):
    """``results.json``, schema 1."""

    schema: int
    values: Sequence[str]
    seed: NotRequired[int]
    reward_models: NotRequired[Mapping[str, RewardModelResult]]
    filters: NotRequired[Mapping[str, Mapping[str, FilterResult]]]
    candidates: NotRequired[Sequence[CandidateResult]]
    methods: NotRequired[Mapping[str, MethodResult]]
    geometry: NotRequired[Mapping[str, GeometryResult]]
    conflict: NotRequired[Mapping[str, ConflictResult]]
    connectivity: NotRequired[Mapping[str, ConnectivityResult]]
    correlation: NotRequired[Sequence[CorrelationResult]]
    differences: NotRequired[Sequence[DifferenceResult]]


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
        versions: Package name to version.
        gaps: Reward gaps per data set.
        dropped: Per data set, rows dropped on loading by reason.
        sizes: Per data set, pairs per split ("train", "validation", "test").
        answers: Sample answers of the shown candidates.
        geometry: Per method, one entry per adapted matrix and pair of values.
        dependence: Per method, one entry per layer and pair of values.
        expansions: Per method, its prompt expansions by what they expand.
        curves: Per training, named "method/value" or anything else, its logged steps.
        conflicts: Per data set, its most conflicting pairs, most conflicting first.
        fluency_bound: Fluency below this is marked as low; fluency is a share in [0, 1].
        judged: The content of ``judge.json``; empty where no judge was asked.
    """

    results: Results
    title: str = "valuesoup report"
    created: str = ""
    config_yaml: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, GapTable] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    answers: Sequence[SampleAnswers] = ()
    geometry: Mapping[str, Sequence[LayerGeometry]] = field(default_factory=dict)
    dependence: Mapping[str, Sequence[LayerDependence]] = field(default_factory=dict)
    expansions: Mapping[str, Mapping[str, Expansion]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    conflicts: Mapping[str, Sequence[ConflictPair]] = field(default_factory=dict)
    fluency_bound: float = 0.8
    judged: Mapping[str, Any] = field(default_factory=dict)


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
