"""The schema of ``results.json``, version 1: what a run found, as plain JSON."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict


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
    weights: Mapping[str, float] | None
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
