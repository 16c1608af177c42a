"""Figures of the base-model check: perplexities, their ratios paired over documents, differences of metrics."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.regression.outputs import Metric


class Change(NamedTuple):
    """A difference to the base with the ends of its interval, None where there is none."""

    mean: float
    low: float | None
    high: float | None


class Perplexity(NamedTuple):
    """What a model makes of D documents.

    Attributes:
        perplexity: exp(Σ nats / Σ tokens), per token.
        bits_per_byte: Σ nats / ln 2 / Σ bytes of the UTF-8 text, which does not depend on the tokenizer.
        log_ratio: log(perplexity / that of the base), in nats per token.
        bits: The same difference in bits per byte.
    """

    perplexity: float
    bits_per_byte: float
    log_ratio: Change
    bits: Change


def perplexity(
    nats: ArrayLike,
    base: ArrayLike,
    tokens: NDArray[np.int64],
    sizes: NDArray[np.int64],
    draws: NDArray[np.int64],
    level: float,
) -> Perplexity:
    """Return the perplexity of a candidate and its ratio to that of the base, paired over documents.

    The interval is the percentile interval of a bootstrap: each resample draws documents, and both models are summed
    over the same ones (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). One has no interval.

    Args:
        nats: (D,) −log π(document) of the candidate.
        base: (D,) of the base.
        tokens: (D,) of each document, at least one.
        sizes: (D,) bytes of each document.
        draws: (times, D) places of documents.
        level: Of the interval, in (0, 1).
    """
    own = np.asarray(nats, np.float64)
    gap = own - np.asarray(base, np.float64)
    return Perplexity(
        math.exp(own.sum() / tokens.sum()),
        float(own.sum() / math.log(2) / sizes.sum()),
        _ratio(gap, tokens, draws, level),
        _ratio(gap / math.log(2), sizes, draws, level),
    )


def _ratio(numbers: NDArray[np.float64], units: NDArray[np.int64], draws: NDArray[np.int64], level: float) -> Change:
    mean = float(numbers.sum() / units.sum())
    if len(numbers) < 2:
        return Change(mean, None, None)
    ratios = numbers[draws].sum(1) / units[draws].sum(1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Change(mean, float(low), float(high))


def difference(candidate: Metric, base: Metric, level: float) -> Change:
    """Return a metric's difference to the base, with the normal interval of two independent estimates.

    Both models answer the same questions, which the interval does not know: a paired one would be narrower.

    Args:
        candidate: Of the candidate.
        base: The same metric of the base.
        level: Of the interval; there is none where a standard error is not known.
    """
    mean = candidate.value - base.value
    if candidate.stderr is None or base.stderr is None:
        return Change(mean, None, None)
    half = NormalDist().inv_cdf((1 + level) / 2) * math.hypot(candidate.stderr, base.stderr)
    return Change(mean, mean - half, mean + half)
