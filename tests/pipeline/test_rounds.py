"""The rounds of a search on scores that are known: what is asked, who leaves and returns, and what is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from valuesoup.evaluation.frontier import hypervolume, pareto, reference_point
from valuesoup.pipeline import rounds
from valuesoup.pipeline.rounds import Course, Found, Row, search
from valuesoup.search import cube_grid, parts, simplex_grid, sobol, start_size


class Oracle:
    """Answers with known scores, and remembers what it was asked."""

    def __init__(self, scores: Any, sound: Any = None) -> None:
        self.scores = np.asarray(scores)
        self.sound = np.full(self.scores.shape[:2], np.nan) if sound is None else np.asarray(sound)
        self.rounds: list[list[Row]] = []

    def __call__(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        self.rounds.append(list(rows))
        places, prompts = np.array(rows).T
        return self.scores[prompts, places], self.sound[prompts, places]

    @property
    def rows(self) -> list[Row]:
        return [row for asked in self.rounds for row in asked]


def course(points: Any, prompts: int, n: int, **changes: Any) -> Course:
    points = np.asarray(points, dtype=np.float64)
    given: dict[str, Any] = {
        "points": points,
        "groups": {"mixtures": range(len(points))},
        "limits": {},
        "always": frozenset(),
        "order": range(prompts),
        "totals": [prompts] * n,
        "ends": parts(prompts, 8, 2.0),
        "keep": 0.99,
        "confidence": 0.95,
        "bound": 0.0,
        "seed": 0,
    }
    return Course(**{**given, **changes})


def problem(n: int, seed: int = 0, noise: float = 0.3, prompts: int = 40, points: Any = None) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    if points is None:
        points = simplex_grid(n, {1: 4, 2: 20, 3: 8, 5: 4}[n])
    gains = rng.uniform(-0.5, 0.5, size=(n, n)) + 1.5 * np.eye(n)
    truth = points @ gains + (1 - (points**2).sum(axis=1, keepdims=True)) * rng.uniform(0.3, 0.8, size=n)
    scores = truth + rng.normal(size=(prompts, 1, n)) + noise * rng.normal(size=(prompts, *truth.shape))
    return points, truth, scores


def check(found: Found, oracle: Oracle, of: Course) -> None:
    """Check what holds for every search."""
    assert len(set(oracle.rows)) == len(oracle.rows), "no row is asked twice"
    answered: dict[int, list[int]] = {}
    for place, prompt in oracle.rows:
        answered.setdefault(place, []).append(prompt)
    for prompts in answered.values():
        assert prompts == list(of.order)[: len(prompts)], "everyone answers a beginning of the same order"
    assert found.prompts == {place: len(prompts) for place, prompts in sorted(answered.items())}
    staying = set(found.prompts) - set(found.left)
    assert len({found.prompts[place] for place in staying}) == 1
    assert set(found.smoothed) == staying
    for name, places in of.groups.items():
        assert set(found.frontier[name]) <= staying & set(places) - set(found.broken)
        assert set(found.frontier[name]) <= set(found.test)
        if name in of.limits:
            assert sum(place in found.prompts for place in places) <= of.limits[name]
    assert set(of.always) <= set(found.test)
    assert not set(of.always) & set(found.left)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("limited", [False, True])
def test_a_search_keeps_the_hypervolume_with_a_part_of_the_answers(n: int, limited: bool) -> None:
    points = cube_grid(n, [0.1, 0.4, 0.7, 1.0])[: 4 ** min(n, 3)] if n in (1, 5) else None
    points, truth, scores = problem(n, points=points)
    limit = max(start_size(n), (7 * len(points)) // 10)
    limits = {"mixtures": limit} if limited and limit < len(points) else {}
    of, oracle = course(points, len(scores), n, limits=limits), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert len(oracle.rows) <= scores.shape[0] * scores.shape[1] / 2
    reference = reference_point(truth)
    plain = hypervolume(truth[pareto(scores.mean(axis=0))], reference)
    assert hypervolume(truth[found.frontier["mixtures"]], reference) > (0.95 if limits else 0.98) * plain


def test_the_same_scores_take_the_same_way() -> None:
    points, _, scores = problem(3, noise=1.0)
    one, other = Oracle(scores), Oracle(scores)
    of = course(points, len(scores), 3, limits={"mixtures": 20})
    assert search(of, one) == search(of, other)
    assert one.rounds == other.rounds


@pytest.mark.parametrize(("limit", "near"), [(7, 0.12), (24, 0.05), (48, 0.03)])
def test_what_is_kept_counts_the_candidates_that_were_not_measured(limit: int, near: float) -> None:
    points = simplex_grid(3, 10)
    truth = np.sqrt(points)
    told, true = [], []
    for seed in range(3):
        scores = truth + 0.3 * np.random.default_rng(seed).normal(size=(64, 66, 3))
        of = course(points, 64, 3, limits={"mixtures": limit}, ends=parts(64, 16, 2.0), seed=seed)
        found = search(of, Oracle(scores))
        reference = reference_point(truth)
        whole = hypervolume(truth[pareto(scores.mean(axis=0))], reference)
        told.append(found.kept["mixtures"])
        true.append(hypervolume(truth[found.frontier["mixtures"]], reference) / whole)
        assert set(found.prompts.values()) == {16}, "more answers of those measured would not bring what is missing"
    assert np.mean(told) == pytest.approx(np.mean(true), abs=near)


def test_those_that_left_count_in_what_is_kept() -> None:
    scores = np.array([[2.0, 2.0], [0.0, 0.0]]) + 0.1 * np.random.default_rng(0).normal(size=(32, 2, 2))
    found = search(course(np.eye(2), 32, 2), Oracle(scores))
    assert found.left == {1: 0}
    assert found.kept["mixtures"] == pytest.approx(1.0)


def test_a_race_goes_on_while_a_value_is_measured_on_one_prompt() -> None:
    points, _, scores = problem(2, noise=0.01, prompts=32)
    scores[:7, :, 1] = np.nan
    of, oracle = course(points, 32, 2, totals=[32, 25]), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert max(found.prompts.values()) == 16
    assert 0 < found.kept["mixtures"] <= 1.05


def test_without_a_race_the_measured_answer_every_prompt_and_nobody_leaves() -> None:
    points, _, scores = problem(3, noise=0.01)
    of = course(points, len(scores), 3, limits={"mixtures": 15}, ends=[len(scores)], keep=0.0, confidence=0.0)
    oracle = Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert list(found.prompts.values()) == [len(scores)] * 15
    assert found.left == {}
    assert len(oracle.rounds) == 1 + 2  # the start of 7, then 4 and 4 proposals from all scores so far


def test_one_that_is_clearly_dominated_leaves_and_the_others_go_on() -> None:
    # Policies, so that nothing is smoothed: the third loses everywhere, the first two are hard to tell apart.
    rng = np.random.default_rng(0)
    scores = np.array([[1.0, 0.0], [0.98, 0.02], [0.0, -1.0]]) + rng.normal(size=(64, 1, 2))
    scores = scores + 0.3 * rng.normal(size=scores.shape)
    of, oracle = course(np.eye(3), 64, 2, keep=1.5), Oracle(scores)  # a share that is never reached
    found = search(of, oracle)
    check(found, oracle, of)
    assert found.left.keys() == {2}
    assert found.left[2] in (0, 1)
    assert found.prompts == {0: 64, 1: 64, 2: 8}
    assert [len(asked) for asked in oracle.rounds] == [3 * 8, 2 * 8, 2 * 16, 2 * 32]


def test_those_that_are_scored_anyway_stay() -> None:
    scores = np.array([[1.0], [0.0]]) + 0.01 * np.random.default_rng(0).normal(size=(32, 2, 1))
    of, oracle = course(np.eye(2), 32, 1, always=frozenset({1}), keep=1.5), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert found.left == {}
    assert found.frontier["mixtures"] == [0]
    assert found.test == [0, 1]


def test_a_candidate_of_two_methods_leaves_when_it_has_lost_in_both() -> None:
    scores = np.array([[2.0], [1.0], [0.0]]) + 0.01 * np.random.default_rng(0).normal(size=(32, 3, 1))
    groups: Mapping[str, Sequence[int]] = {"one": [0, 1], "other": [1, 2]}
    of, oracle = course(np.eye(3), 32, 1, groups=groups, keep=1.5), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert found.left == {2: 1}
    assert found.frontier == {"one": [0], "other": [1]}


def test_broken_text_leaves_and_is_on_no_frontier() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([[3.0, 3.0], [1.0, 0.0], [0.0, 1.0]]) + 0.1 * rng.normal(size=(32, 3, 2))
    sound = np.ones((32, 3))
    sound[:, 0] = 0.0
    of, oracle = course(np.eye(3), 32, 2, bound=0.8, keep=1.5), Oracle(scores, sound)
    found = search(of, oracle)
    check(found, oracle, of)
    assert found.left == {0: None}
    assert found.broken == [0]
    assert found.prompts == {0: 8, 1: 32, 2: 32}
    assert found.frontier["mixtures"] == [1, 2]


def test_one_that_was_beaten_by_broken_text_comes_back_and_catches_up() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([[3.0, 3.0], [1.0, 0.0], [0.0, 1.0], [5.0, -5.0]]) + 0.1 * rng.normal(size=(32, 4, 2))
    sound = np.ones((32, 4))
    sound[8:, 0] = 0.0  # its first answers are sound, so at first it beats two of the others
    of, oracle = course(np.eye(4), 32, 2, bound=0.8, keep=1.5), Oracle(scores, sound)
    found = search(of, oracle)
    assert [place for place, _ in oracle.rounds[1]] == [0, 3] * 8
    assert found.left == {0: None}
    assert found.prompts == {0: 16, 1: 32, 2: 32, 3: 32}
    assert found.frontier["mixtures"] == [1, 2, 3]


@pytest.mark.parametrize("always", [frozenset(), frozenset({0})])
def test_where_all_text_is_broken_there_is_no_frontier_but_something_to_look_at(always: frozenset[int]) -> None:
    scores = np.random.default_rng(0).normal(size=(32, 3, 2))
    of, oracle = course(np.eye(3), 32, 2, bound=0.8, always=always), Oracle(scores, np.zeros((32, 3)))
    found = search(of, oracle)
    check(found, oracle, of)
    assert found.frontier == {"mixtures": []}
    assert found.broken == [0, 1, 2]
    assert found.test
    assert found.prompts == {0: 8, 1: 8, 2: 8}


def test_values_on_prompts_of_their_own_are_compared_on_those() -> None:
    points, truth, scores = problem(2, noise=0.1, prompts=48)
    scores[::2, :, 0] = np.nan
    scores[1::2, :, 1] = np.nan
    of, oracle = course(points, 48, 2, totals=[24, 24], ends=parts(48, 16, 2.0)), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    reference = reference_point(truth)
    assert hypervolume(truth[found.frontier["mixtures"]], reference) > 0.97 * hypervolume(truth, reference)


def test_one_methods_limit_leaves_the_others_whole() -> None:
    points, _, scores = problem(3, points=np.concatenate([simplex_grid(3, 6), sobol(3, 16)]))
    groups: Mapping[str, Sequence[int]] = {"grid": range(28), "cloud": range(28, 44)}
    of, oracle = course(points, 40, 3, groups=groups, limits={"grid": 12}), Oracle(scores)
    found = search(of, oracle)
    check(found, oracle, of)
    assert sum(place < 28 for place in found.prompts) == 12
    assert sum(place >= 28 for place in found.prompts) == 16
    assert set(found.kept) == {"grid", "cloud"}


@pytest.mark.parametrize("pool", [3, 1000])
def test_a_grid_too_large_to_look_at_whole_is_drawn_from(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "POOL", pool)
    points = cube_grid(4, [0.1 * level for level in range(1, 7)])  # 1296
    gains = np.eye(4)[:, :2]
    oracle = Oracle((points @ gains)[None] + 0.1 * np.random.default_rng(0).normal(size=(16, 1, 2)))
    of = course(points, 16, 2, limits={"mixtures": 14})
    found = search(of, oracle)
    check(found, oracle, of)
    assert len(found.prompts) == 14
