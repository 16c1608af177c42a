"""The rounds of a search: which candidates answer which prompts, and which of them are the frontier.

A candidate leaves when it has clearly lost, and all are done as soon as the frontier is known as well as every
candidate's answers to every prompt would show it. All follows from the scores and the seed: a search that is told the
same scores again takes the same way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from valuesoup.evaluation.frontier import hypervolume, pareto, reference_point
from valuesoup.search import Surface, clearly_beaten, clearly_below, fit_surface, propose, start, start_size

Array = NDArray[np.float64]
Row = tuple[int, int]
"""Places of a candidate and of a prompt."""
Answer = Callable[[Sequence[Row]], tuple[Array, Array]]
"""Lets candidates answer prompts: rows to (rows, n) scores, NaN where a value is not measured, and (rows,) shares of
sound text, NaN where that is not measured."""

BATCH = 4
"""Candidates that are proposed from the same scores."""
POOL = 1000
"""Candidates among which proposals are looked for; where more are left they are drawn."""
DRAWS = 64
"""Of what the expected scores may be, to tell how well the frontier is known."""


@dataclass(frozen=True, eq=False)
class Course:
    """What is searched, and how.

    Attributes:
        points: (K, d) weights of the candidates over the vectors of their stack.
        groups: Places of each method's candidates.
        limits: The most candidates to measure, of the methods that have such a limit.
        always: Places that never leave: those that are scored on test whatever comes out.
        order: Places of the prompts in the order in which they are asked.
        totals: Of these prompts, how many measure each value, (n,).
        ends: How many prompts have been asked after each part; the last is all of them.
        keep: The race ends when the frontier keeps this share of the hypervolume that all answers of the measured
            candidates would find, which is what more answers can bring.
        confidence: With which a candidate of the true frontier stays.
        bound: Least share of sound answers.
        seed: Of draws.
    """

    points: Array
    groups: Mapping[str, Sequence[int]]
    limits: Mapping[str, int]
    always: frozenset[int]
    order: Sequence[int]
    totals: Sequence[int]
    ends: Sequence[int]
    keep: float
    confidence: float
    bound: float
    seed: int


@dataclass(frozen=True)
class Found:
    """What a search found; candidates by place.

    Attributes:
        prompts: How many prompts each measured candidate answered.
        left: The candidates that left, each with the one that clearly dominates it, or None where its text is broken.
        broken: Candidates whose share of sound answers is below the bound.
        frontier: Of each method, by the smoothed means.
        test: Candidates that are scored on test.
        smoothed: Of those that stayed: mean and standard deviation of each value's expected score.
        kept: Of each method with a choice: the expected hypervolume of its frontier, divided by that of the frontier
            that the answers of all its candidates, measured or not, to all prompts would show.
    """

    prompts: dict[int, int]
    left: dict[int, int | None]
    broken: list[int]
    frontier: dict[str, list[int]]
    test: list[int]
    smoothed: dict[int, tuple[list[float], list[float]]]
    kept: dict[str, float]


class Kept(NamedTuple):
    """What a method's frontier is expected to keep of the hypervolume that all answers would find.

    Attributes:
        share: Of that of all its candidates; those that were not measured count by what is expected of them.
        of_measured: Of that of those that were measured.
    """

    share: float
    of_measured: float


def search(course: Course, answer: Answer) -> Found:
    """Let the candidates of a stack answer as many prompts as it takes to know the frontier.

    Args:
        course: What is searched.
        answer: Asked for answers, round after round.
    """
    return _Search(course, answer).run()


class _Search:
    def __init__(self, course: Course, answer: Answer) -> None:
        self.course = course
        self.answer = answer
        prompts, candidates = len(course.order), len(course.points)
        # Prompts in the order of asking: what a candidate has answered is a beginning.
        self.scores = np.full((prompts, candidates, len(course.totals)), np.nan)
        self.sound = np.full((prompts, candidates), np.nan)
        self.counts = np.zeros(candidates, dtype=np.int64)
        self.left: dict[int, int | None] = {}

    def run(self) -> Found:
        first, *later = self.course.ends
        self._explore(first)
        self._drop()
        kept = self._kept()
        for end in later:
            if all(max(of) >= self.course.keep for of in kept.values()):
                break
            # One who left may come back when the one who beat it turns out to write broken text.
            while behind := [place for place in self._staying() if self.counts[place] < end]:
                self._ask(behind, end)
                self._drop()
            kept = self._kept()
        return self._found(kept)

    def _ask(self, places: Sequence[int], end: int) -> None:
        """Have candidates answer the prompts up to ``end`` that they have not answered yet."""
        asked = sorted(set(places))
        rows = [(place, number) for number in range(end) for place in asked if self.counts[place] <= number]
        if not rows:
            return
        scores, sound = self.answer([(place, self.course.order[number]) for place, number in rows])
        where = np.array(rows)
        self.scores[where[:, 1], where[:, 0]] = scores
        self.sound[where[:, 1], where[:, 0]] = sound
        self.counts[asked] = np.maximum(self.counts[asked], end)

    def _explore(self, end: int) -> None:
        """Measure every candidate of the methods without a limit, and as many of the others as the limit allows."""
        course = self.course
        first: list[int] = []
        for name, places in course.groups.items():
            if name in course.limits:
                corners = start(course.points[list(places)], start_size(course.points.shape[1]))
                first += [places[place] for place in corners]
            else:
                first += places
        self._ask(first, end)
        for name, limit in course.limits.items():
            places = list(course.groups[name])
            while (room := limit - int((self.counts[places] > 0).sum())) > 0:
                self._ask(self._proposals(places, min(BATCH, room)), end)

    def _proposals(self, places: Sequence[int], count: int) -> list[int]:
        """Return the next of these places to measure."""
        measured = self._staying()
        left = self._unmeasured(places)
        where = [*measured, *left]
        of_method = set(places)
        own = [number for number, place in enumerate(where) if place in of_method]
        expected = self._surface(where, measured).mean[own]
        reference = reference_point(expected)
        done = range(len(own) - len(left))
        chosen = propose(expected, done, count, lambda scores: hypervolume(scores, reference))
        return [where[own[number]] for number in chosen]

    def _surface(self, places: Sequence[int] | NDArray[np.int64], measured: Sequence[int]) -> Surface:
        """Fit the expected scores of places, of which the measured ones come first."""
        end = int(self.counts[list(measured)].max())
        return fit_surface(self.course.points[list(places)], self.scores[:end, list(measured)], range(len(measured)))

    def _staying(self) -> list[int]:
        return [int(place) for place in np.flatnonzero(self.counts) if int(place) not in self.left]

    def _telling(self) -> list[int]:
        """Return the places whose scores tell of the others: all that were measured, save those of broken text."""
        return [int(place) for place in np.flatnonzero(self.counts) if self.left.get(int(place), 0) is not None]

    def _unmeasured(self, places: Iterable[int]) -> list[int]:
        """Return those of the places that have answered nothing; of very many some, drawn."""
        left = sorted({place for place in places if not self.counts[place]})
        if len(left) > POOL:
            generator = np.random.default_rng([self.course.seed, int(np.count_nonzero(self.counts))])
            left = sorted(generator.choice(left, POOL, replace=False).tolist())
        return left

    def _is_sound(self) -> NDArray[np.bool_]:
        """Return which candidates' share of sound answers is not below the bound, (K,)."""
        answers = np.isfinite(self.sound).sum(axis=0)
        return np.asarray((answers == 0) | (np.nansum(self.sound, axis=0) >= self.course.bound * answers))

    def _drop(self) -> None:
        """Say anew who has clearly lost: by broken text, or to a sound candidate in each of its methods."""
        course, sound = self.course, self._is_sound()
        if len(course.ends) == 1:
            return
        miss = (1 - course.confidence) / len(course.ends)
        broken = clearly_below(self.sound, course.bound, miss)
        beaten: dict[int, list[int]] = {}
        for places in course.groups.values():
            measured = [place for place in places if self.counts[place]]
            by = clearly_beaten(self.scores[:, measured], sound[measured], miss)
            for place, rival in zip(measured, by.tolist(), strict=True):
                beaten.setdefault(place, []).append(-1 if rival < 0 else measured[rival])
        self.left = {
            place: None if broken[place] else rivals[0]
            for place, rivals in sorted(beaten.items())
            if place not in course.always and (broken[place] or min(rivals) >= 0)
        }
        if not self._staying():
            self.left = {}  # all text is broken: there is no frontier, and what rewards alone would choose goes on

    def _kept(self) -> dict[str, Kept]:
        """Return, per method with a choice, what its frontier keeps of the hypervolume."""
        groups, sound, staying = self.course.groups, self._is_sound(), set(self._staying())
        telling = self._telling()
        where = np.array([*telling, *self._unmeasured(place for places in groups.values() for place in places)])
        surface = self._surface(where, telling)
        if not np.isfinite(surface.covariance).all():
            return dict.fromkeys(groups, Kept(0.0, 0.0))
        generator = np.random.default_rng([self.course.seed, int(self.counts.sum())])
        truths = surface.draws(DRAWS, generator)
        # What each candidate's mean over all prompts would be, were it measured.
        plain = truths + surface.noises(DRAWS, generator) / np.sqrt(self.course.totals)
        # Broken text is on no frontier; that of a candidate which has not written any is taken to be sound.
        fine = sound[where]
        kept = {}
        for name, places in groups.items():
            mine = fine & np.isin(where, list(places))
            ours = np.flatnonzero(mine & np.isin(where, list(staying)))
            if mine.sum() > 1 and len(ours) and not self.course.always.issuperset(places):
                found = ours[pareto(surface.mean[ours])]
                theirs = (np.flatnonzero(mine & some) for some in (True, self.counts[where] > 0))
                kept[name] = _kept_volumes(truths, plain, fine, found, *theirs)
        return kept

    def _found(self, kept: Mapping[str, Kept]) -> Found:
        sound = self._is_sound()
        telling = self._telling()
        surface = self._surface(telling, telling)
        smoothed = {
            place: (mean, deviation)
            for place, mean, deviation in zip(telling, surface.mean, surface.deviation, strict=True)
            if place not in self.left
        }
        means = {place: mean for place, (mean, _) in smoothed.items()}
        test, frontier = set(self.course.always), {}
        for name, places in self.course.groups.items():
            own = [place for place in places if place in means]
            frontier[name] = pareto_places(means, [place for place in own if sound[place]])
            test.update(frontier[name], pareto_places(means, own))
        measured = [int(place) for place in np.flatnonzero(self.counts)]
        return Found(
            prompts={place: int(self.counts[place]) for place in measured},
            left=self.left,
            broken=[place for place in measured if not sound[place]],
            frontier=frontier,
            test=sorted(test),
            smoothed={place: (mean.tolist(), deviation.tolist()) for place, (mean, deviation) in smoothed.items()},
            kept={name: of.share for name, of in kept.items()},
        )


def _kept_volumes(
    truths: Array,
    plain: Array,
    fine: NDArray[np.bool_],
    found: NDArray[np.int64],
    every: NDArray[np.int64],
    measured: NDArray[np.int64],
) -> Kept:
    """Return the mean hypervolume of a frontier by that of those that plain means would choose.

    Args:
        truths: (draws, K, n) expected scores as they may be.
        plain: (draws, K, n) means that would be seen.
        fine: (K,), whose scores set the reference point.
        found: Places of the frontier.
        every: Places of all that could be chosen.
        measured: Of these, the ones that were measured.
    """
    ours = of_all = of_measured = 0.0
    for truth, seen in zip(truths, plain, strict=True):
        floor = reference_point(truth[fine])
        ours += hypervolume(truth[found], floor)
        whole = hypervolume(truth[every][pareto(seen[every])], floor)
        of_all += whole
        of_measured += (
            whole if len(every) == len(measured) else hypervolume(truth[measured][pareto(seen[measured])], floor)
        )
    return Kept(ours / of_all, ours / of_measured)


def pareto_places(means: Mapping[int, Array], places: Sequence[int]) -> list[int]:
    """Return those of the places whose means no other of them dominates; ``means`` holds (n,) scores by place."""
    if not places:
        return []
    best = pareto(np.array([means[place] for place in places]))
    return [place for place, good in zip(places, best, strict=True) if good]
