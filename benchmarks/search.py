"""Rows that a search generates to find a frontier as good as the whole grid's."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Claim
from valuesoup.evaluation.frontier import hypervolume, pareto, reference_point
from valuesoup.pipeline.rounds import Course, Row, search
from valuesoup.search import parts, simplex_grid
from valuesoup.search.settings import RacingSettings

Array = NDArray[np.float64]

VALUES, STEPS, PROMPTS = 3, 10, 50
EVALUATIONS = 48
KEPT = 0.99
SHAPES = ("linear", "concave", "convex", "saturating")
NOISES = (0.1, 0.3, 1.0)
"""Standard deviations of an answer's score around its expectation; corners differ by 0.5 to 3."""


@dataclass(frozen=True)
class Problem:
    """A stack of value vectors as scores show it.

    Attributes:
        weights: (K, n) of the candidates.
        truth: (K, n) expected scores.
        scores: (P, K, n) of the answers.
    """

    weights: Array
    truth: Array
    scores: Array

    def volume(self, places: Sequence[int] | NDArray[np.intp]) -> float:
        """Return the true hypervolume of candidates as a share of all, above the worst of all and of the base."""
        pooled = np.vstack([self.truth, np.zeros(VALUES)])
        reference = reference_point(pooled)
        return hypervolume(self.truth[places], reference) / hypervolume(self.truth, reference)


def problems(seed: int) -> Iterator[Problem]:
    """Yield a problem of each shape and noise, drawn by the seed.

    A vector gains 1 to 2.5 on its own value and up to half of that, either sign, on the others; the base is at 0. A
    prompt raises or lowers all candidates alike, as the same draws and the same question do, and has a slope of its own
    along the weights; the rest of an answer's noise is its own. Of real runs on three values (HH-RLHF and honest
    answers), the noise is 0.5 to 3 times the range of the candidates' means, and 0.3 of its variance is shared.
    """
    draw = np.random.default_rng(seed)
    weights = simplex_grid(VALUES, STEPS)
    mixed = 1 - np.square(weights).sum(axis=1, keepdims=True)
    for shape in SHAPES:
        for noise in NOISES:
            own = draw.uniform(1.0, 2.5, VALUES)
            gains = draw.uniform(-0.5, 0.5, (VALUES, VALUES)) * own
            np.fill_diagonal(gains, own)
            truth = weights @ gains
            if shape == "concave":
                truth = truth + mixed * own * draw.uniform(0.3, 0.8, VALUES)
            elif shape == "convex":
                truth = truth - mixed * own * draw.uniform(0.1, 0.4, VALUES)
            elif shape == "saturating":
                truth = own * -np.expm1(-2.5 * truth / own) / -np.expm1(-2.5)
            shared = draw.normal(size=(PROMPTS, 1, VALUES)) * np.sqrt(0.3)
            slopes = np.einsum("kd,pdj->pkj", weights, draw.normal(size=(PROMPTS, VALUES, VALUES)) * np.sqrt(0.3))
            alone = draw.normal(size=(PROMPTS, len(weights), VALUES)) * np.sqrt(0.7)
            yield Problem(weights, truth, truth + noise * (shared + slopes + alone))


def claim(repeats: int) -> Claim:
    """Search problems drawn by one seed per repeat.

    Raises:
        AssertionError: A repeat's frontiers keep less than 99 % of the hypervolume of the whole grid's frontiers.
    """
    ratios, kept, told, ours, theirs = [], [], [], [], []
    for repeat in range(repeats):
        asked, found, whole = [], [], []
        for problem in problems(repeat):
            rows, frontier, expected = _searched(problem, repeat)
            asked.append(rows)
            told.append(expected)
            found.append(problem.volume(frontier))
            whole.append(problem.volume(np.flatnonzero(pareto(problem.scores.mean(axis=0)))))
        every = problem.scores.shape[0] * problem.scores.shape[1]
        ratios.append(every / statistics.mean(asked))
        kept.append(statistics.mean(one / other for one, other in zip(found, whole, strict=True)))
        ours.append(statistics.mean(found))
        theirs.append(statistics.mean(whole))
    assert min(kept) >= KEPT, f"only {min(kept):.3f} of the hypervolume is kept"
    sizes = f"n = {VALUES}, {every // PROMPTS} points, {PROMPTS} prompts, {len(asked)} problems a repeat"
    note = f"{sizes}; at most {EVALUATIONS} candidates, race of default settings; true hypervolume of the frontiers "
    note += f"found {statistics.mean(kept):.3f} of that of the whole grid's (least repeat {min(kept):.3f}), where the "
    note += f"searches expected {statistics.mean(told):.3f}; "
    note += f"of what the grid holds {statistics.mean(ours):.3f}, the whole grid's {statistics.mean(theirs):.3f}"
    return Claim(
        "search-rows",
        "every candidate answers every prompt",
        round(statistics.median(ratios), 2),
        round(min(ratios), 2),
        round(max(ratios), 2),
        "generated rows",
        f"{note}; over {repeats} repeats",
    )


def _searched(problem: Problem, seed: int) -> tuple[int, list[int], float]:
    """Return how many rows a search asked for, the places of its frontier, and the share it expects to keep."""
    race = RacingSettings()
    prompts, candidates, _ = problem.scores.shape

    def answer(rows: Sequence[Row]) -> tuple[Array, Array]:
        places = np.array(rows)
        return problem.scores[places[:, 1], places[:, 0]], np.full(len(rows), np.nan)

    course = Course(
        points=problem.weights,
        groups={"mixtures": range(candidates)},
        limits={"mixtures": EVALUATIONS},
        always=frozenset(),
        order=range(prompts),
        totals=[prompts] * VALUES,
        ends=parts(prompts, race.first, race.growth),
        keep=race.keep,
        confidence=race.confidence,
        bound=0.0,
        seed=seed,
    )
    found = search(course, answer)
    return sum(found.prompts.values()), found.frontier["mixtures"], found.kept["mixtures"]
