"""A smooth surface through noisy scores: candidates at neighbouring weights tell of each other.

Expected reward is a smooth function of the weights, and the mean over a few prompts is that function plus noise whose
size the answers themselves tell. A Gaussian process through the means of all candidates therefore knows each of them
better than its own few answers do: a grid needs few prompts per candidate, not many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LENGTHS = (0.3, 0.5, 0.8, 1.3, 2.1)
"""Length scales that are tried, in units of the largest distance of a candidate from the centre."""
BENDS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of the bent part that are tried, in units of the means' variance."""
ODDITIES = (0.0, 0.02, 0.1, 0.5)
"""Variances of what is each candidate's own, in the same units: where it is large, little is smoothed."""
SLOPES = 10.0
"""Variance of the constant and of the linear part, in the same units: hardly a restriction."""
MOST = 300
"""Candidates on which the settings are chosen; the surface itself goes through all."""
JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class Surface:
    """What the answers so far tell of every candidate's expected scores.

    Attributes:
        mean: Posterior means, (K, n).
        covariance: Posterior covariance of each value, (n, K, K).
        noise: Covariance of the candidates' scores on one prompt around their expectation and the prompt's own level,
            (n, K, K).
    """

    mean: Array
    covariance: Array
    noise: Array

    @property
    def deviation(self) -> Array:
        """Standard deviation of each expected score, (K, n)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=1, axis2=2), 0.0)).T

    def draws(self, count: int, generator: np.random.Generator) -> Array:
        """Return expected scores as they may truly be, (count, K, n)."""
        return self.mean + _normal(self.covariance, count, generator)

    def noises(self, count: int, generator: np.random.Generator) -> Array:
        """Return deviations of the candidates' scores on one prompt from their expectation, (count, K, n)."""
        return _normal(self.noise, count, generator)


def fit_surface(points: ArrayLike, scores: ArrayLike, places: Sequence[int] | None = None) -> Surface:
    """Fit a Gaussian process per value: a linear part, a squared exponential, and what is each candidate's own.

    Its settings are those of the largest marginal likelihood (Rasmussen and Williams, 2006, Eq. 2.30) among a few. The
    noise of the means has two parts, both estimated: what is each answer's own, and slopes that each prompt has of its
    own along the weights, an error that neighbours share and no smoothing removes. Candidates that are all equally far
    from each other, such as finished policies, are not smoothed along anything.

    A candidate that has answered fewer prompts than others counts by its differences to those that have answered all.
    Where no two prompts measure a value, nothing is known of it: every deviation is infinite.

    Args:
        points: (K, d) weights of the candidates.
        scores: (P, M, n) scores, each candidate's on a beginning of the prompts, then NaN; NaN for all candidates on
            the prompts on which a value is not measured.
        places: Which M of the candidates have been scored; all by default. The surface goes over all K.

    Raises:
        ValueError: A candidate lacks a score before its last one on a prompt that another one has answered.
    """
    where, table = np.asarray(points, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = np.arange(len(where)) if places is None else np.asarray(places)
    centred = where - where.mean(axis=0)
    centred /= np.sqrt(np.square(centred).sum(axis=1).max()) or 1.0
    squares = np.square(centred).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * centred @ centred.T, 0.0)
    slope = SLOPES * (1.0 + centred @ centred.T)
    fitted = []
    for value in range(table.shape[2]):
        measured = table[np.isfinite(table[:, :, value]).any(axis=1), :, value]
        noise = _noise(centred, known, measured)
        if np.isfinite(noise).all():
            plain, spread = _means(measured, noise[np.ix_(known, known)])
            fitted.append((*_posterior(distances, slope, known, plain, spread), noise))
        else:
            level = measured.mean() if measured.size else 0.0
            fitted.append((np.full(len(where), level), noise, noise))
    means, covariances, noises = zip(*fitted, strict=True)
    return Surface(np.stack(means, axis=1), np.stack(covariances), np.stack(noises))


def _means(scores: Array, noise: Array) -> tuple[Array, Array]:
    """Return the means of M candidates and their covariance, given that of one prompt's scores.

    A mean over a part of the prompts would differ from the others by what these prompts are like. So a candidate's is
    the mean of those that have answered all, plus its mean difference to them on the prompts that it has answered.
    """
    answered = np.isfinite(scores)
    counts = answered.sum(axis=0)
    if not (answered == (np.arange(len(scores))[:, None] < counts)).all():
        raise ValueError("every candidate must have answered a beginning of the prompts")
    whole = counts == len(scores)
    average = whole / whole.sum()
    means, covariance = np.zeros(len(counts)), np.zeros_like(noise)
    ends = np.unique(counts)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        # What the mean of each candidate takes of the scores on each prompt of this part.
        share = np.where(whole[:, None], 0.0, average) / len(scores) + np.diag(whole / len(scores))
        late = ~whole & (counts >= end)
        share[late] += (np.eye(len(counts))[late] - average) / counts[late, None]
        means += share @ np.nan_to_num(scores[begin:end]).sum(axis=0)
        covariance += (end - begin) * share @ noise @ share.T
    return means, covariance


def _noise(centred: Array, known: NDArray[np.int64], scores: Array) -> Array:
    """Return the covariance of one prompt's scores around their expectation and the prompt's own level, (K, K).

    It is estimated on the largest block of answers without a gap: few candidates on many prompts, or more on fewer.

    Args:
        centred: (K, d) weights.
        known: Which M of the candidates have been scored.
        scores: (P, M), each candidate's on a beginning of the prompts.
    """
    counts = np.isfinite(scores).sum(axis=0)
    prompts = max(np.unique(counts), key=lambda end: (end - 1) * ((counts >= end).sum() - 1), default=0)
    if prompts < 2:
        return np.diag(np.full(len(centred), np.inf))
    inside = counts >= prompts
    candidates = int(inside.sum())
    rest = scores[:prompts, inside]
    rest = rest - rest.mean(axis=0)
    rest = rest - rest.mean(axis=1, keepdims=True)
    block = centred[known[inside]]
    axes, sizes, directions = np.linalg.svd(block - block.mean(axis=0), full_matrices=False)
    free = candidates - 1 - int((sizes > 1e-9).sum())
    if free < 1:  # every candidate has a direction of its own: its slope and its noise are one
        own = np.square(rest).sum() / ((prompts - 1) * max(candidates - 1, 1))
        return np.asarray(own * np.eye(len(centred)))
    axes, directions, sizes = axes[:, sizes > 1e-9], directions[sizes > 1e-9], sizes[sizes > 1e-9]
    slopes = rest @ axes
    own = np.square(rest - slopes @ axes.T).sum() / ((prompts - 1) * free)
    shared = slopes.T @ slopes / (prompts - 1) - own * np.eye(axes.shape[1])
    spreads, turned = np.linalg.eigh(shared)
    # Few prompts tell a spread badly: the variance of Student's distribution in place of the normal one's.
    roots = turned * np.sqrt(np.maximum(spreads, 0.0) * (prompts - 1) / max(prompts - 3, 1))
    # The slopes of the block, as slopes along the weights, hold for every candidate.
    shifts = (centred - block.mean(axis=0)) @ (directions.T / sizes) @ roots
    return np.asarray(own * np.eye(len(centred)) + shifts @ shifts.T)


def _posterior(
    distances: Array, slope: Array, known: NDArray[np.int64], means: Array, noise: Array
) -> tuple[Array, Array]:
    """Return mean and covariance of one value."""
    middle = means.mean()
    unit = max(float(means.var()), float(np.diag(noise).mean()), np.finfo(np.float64).tiny)
    heights, spread = (means - middle) / np.sqrt(unit), noise / unit + JITTER * np.eye(len(means))
    some = np.arange(0, len(means), -(-len(means) // MOST))
    few, same = np.ix_(known[some], known[some]), np.ix_(some, some)
    best = max(
        product(LENGTHS, BENDS, ODDITIES),
        key=lambda setting: _likelihood(_prior(distances[few], slope[few], *setting) + spread[same], heights[some]),
    )
    prior = _prior(distances, slope, *best)
    across = prior[known]
    solved = np.linalg.solve(across[:, known] + spread, np.column_stack([heights, across]))
    covariance = prior - across.T @ solved[:, 1:]
    return middle + np.sqrt(unit) * (across.T @ solved[:, 0]), covariance * unit


def _prior(distances: Array, slope: Array, length: float, bend: float, oddity: float) -> Array:
    return slope + bend * np.exp(-distances / (2 * length**2)) + oddity * np.eye(len(distances))


def _likelihood(covariance: Array, heights: Array) -> float:
    lower = np.linalg.cholesky(covariance)
    white = np.linalg.solve(lower, heights)
    return -float(white @ white) / 2 - float(np.log(np.diag(lower)).sum())


def _normal(covariances: Array, count: int, generator: np.random.Generator) -> Array:
    """Return draws of zero mean, (count, K, n)."""
    sizes, directions = np.linalg.eigh((covariances + covariances.swapaxes(1, 2)) / 2)
    roots = directions * np.sqrt(np.maximum(sizes, 0.0))[:, None]
    normal = generator.standard_normal((*sizes.shape, count))
    return np.asarray((roots @ normal).transpose(2, 1, 0))
