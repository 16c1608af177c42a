"""Statistics of verdicts: hand-worked counts, and what must hold whatever a judge says."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuesoup.evaluation.judge import Opinion, Verdict
from valuesoup.evaluation.statistics import wilson_interval
from valuesoup.evaluation.verdicts import Heard, Tally, combine_judged, tally


def heard(forward: Verdict | None, backward: Verdict | None, reward: float = 0.0) -> Heard:
    return Heard(Opinion(forward), Opinion(backward), reward)


SAME = Heard(None, None, 0.0)


@pytest.mark.parametrize(
    ("forward", "backward", "outcome"),
    [
        ("A", "B", "win"),  # backward shows the baseline first: B is the policy's answer
        ("B", "A", "loss"),
        ("A", "A", "tie"),  # for whatever stands first
        ("B", "B", "tie"),
        ("A", "tie", "tie"),  # not the same in both orders
        ("tie", "B", "tie"),
        ("B", "tie", "tie"),
        ("tie", "A", "tie"),
        ("tie", "tie", "tie"),
        (None, "B", "invalid"),
        ("A", None, "invalid"),
        (None, None, "invalid"),
    ],
)
def test_the_two_orders_settle_an_outcome(forward: Any, backward: Any, outcome: str) -> None:
    assert heard(forward, backward).outcome() == outcome


def test_identical_answers_are_a_tie_and_a_missing_answer_is_no_outcome() -> None:
    assert SAME.outcome() == "tie"
    assert Heard(Opinion(None, failure="status 500"), Opinion("A"), 0.0).outcome() == "unanswered"
    assert Heard(Opinion(None), Opinion(None, failure="status 500"), 0.0).outcome() == "unanswered"


def test_a_tally_worked_by_hand() -> None:
    pairs = [
        heard("A", "B", 1.0),  # win, agreed, reward agrees
        heard("A", "B", -2.0),  # win, agreed, reward disagrees
        heard("A", "tie", 1.0),  # a winner in one order alone: a tie
        heard("B", "A", -0.5),  # loss, agreed, reward agrees
        heard("A", "A", 3.0),  # contradicted
        heard("tie", "tie", 3.0),  # agreed
        heard("A", "B", 0.0),  # win, agreed, the reward says nothing
        heard(None, "A"),
        SAME,
        SAME,
    ]
    found = tally(pairs)
    assert found == Tally(
        wins=3, ties=5, losses=1, identical=2, invalid=1, unanswered=0, ordered=7, agreed=5,
        decisive=11, first=7, rewarded=3, reward_agreed=2,
    )  # fmt: skip
    summary = found.summary(0.95)
    assert summary["win_rate"] == wilson_interval(5.5, 9)._asdict()
    assert summary["win_rate"]["value"] == pytest.approx(5.5 / 9)
    assert summary["orders_agreement"]["value"] == pytest.approx(5 / 7)
    assert summary["first_share"]["value"] == pytest.approx(7 / 11)
    assert summary["reward_agreement"]["value"] == pytest.approx(2 / 3)
    assert Tally.of(summary) == found


def test_a_share_of_nothing_is_nothing() -> None:
    summary = tally([heard(None, None)]).summary(0.95)
    assert [summary[name] for name in ("win_rate", "orders_agreement", "first_share", "reward_agreement")] == [None] * 4


OPINIONS = st.sampled_from(["A", "B", "tie", None])
PAIRS = st.lists(st.builds(heard, OPINIONS, OPINIONS, st.floats(-2, 2)), max_size=30)


@given(PAIRS)
def test_every_pair_counts_once_and_trading_places_mirrors_the_outcome(pairs: list[Heard]) -> None:
    found = tally(pairs)
    mirrored = tally([Heard(pair.backward, pair.forward, -pair.reward) for pair in pairs])
    assert found.wins + found.ties + found.losses + found.invalid + found.unanswered == len(pairs)
    assert (mirrored.wins, mirrored.ties, mirrored.losses) == (found.losses, found.ties, found.wins)
    for name in ("agreed", "ordered", "first", "decisive", "rewarded", "reward_agreed", "invalid"):
        assert getattr(mirrored, name) == getattr(found, name)
    rate, other = found.summary(0.9)["win_rate"], mirrored.summary(0.9)["win_rate"]
    assert (rate is None) == (other is None)
    if rate is not None:
        assert rate["low"] <= rate["value"] <= rate["high"]
        assert rate["value"] + other["value"] == pytest.approx(1)


@given(PAIRS, PAIRS)
def test_tallies_add_up(one: list[Heard], other: list[Heard]) -> None:
    assert tally(one) + tally(other) == tally(one + other)


def judged(rate: tuple[int, int], baselines: tuple[str, ...] = ("base",), **changes: Any) -> dict[str, Any]:
    """Return a judge.json in which the policy won and lost so often under its one value."""
    counts = Tally(wins=rate[0], losses=rate[1], ordered=sum(rate), agreed=sum(rate), decisive=2 * sum(rate))
    titles = {"policy_title": "P", "baseline_title": "B"}
    rows = [{"value": "kind", "method": "p", "baseline": name, **titles, **counts.summary(0.95)} for name in baselines]
    fixed = {"schema": 1, "values": ["kind"], "judge": {"url": "u", "model": "m"}, "level": 0.95, "limit": None}
    return {
        **fixed,
        "templates": {"kind": "t"},
        "prompts": {"kind": 10},
        "comparisons": rows,
        "left_out": {},
        **changes,
    }


def test_over_seeds_counts_are_summed_and_the_win_rate_has_a_student_interval() -> None:
    combined = combine_judged([judged((6, 4)), judged((8, 2))], [3, 4])
    (row,) = combined["comparisons"]
    assert (row["wins"], row["losses"]) == (14, 6)
    assert row["win_rate"]["each"] == [0.6, 0.8]
    assert row["win_rate"]["value"] == pytest.approx(0.7)
    assert row["orders_agreement"] == wilson_interval(20, 20)._asdict()
    assert combined["seeds"] == [3, 4]
    assert combined["prompts"] == {"kind": 20}
    assert combined["judges"]["kind"]["ordered"] == 20
    (alone,) = combine_judged([judged((6, 4))], [3])["comparisons"]
    assert (alone["win_rate"]["value"], alone["win_rate"]["low"]) == (0.6, None)


def test_the_interval_over_seeds_stays_a_share() -> None:
    (wide,) = combine_judged([judged((6, 4)), judged((8, 2))], [0, 1])["comparisons"]
    assert (wide["win_rate"]["low"], wide["win_rate"]["high"]) == (0.0, 1.0)  # 0.7 ± 1.27
    (near,) = combine_judged([judged((600, 400)), judged((604, 396))], [0, 1])["comparisons"]
    half = 12.7062 * math.sqrt(2 * 0.002**2) / math.sqrt(2)  # t of 0.975 with 1 degree of freedom
    assert near["win_rate"]["high"] == pytest.approx(0.602 + half, abs=1e-5)
    assert near["win_rate"]["low"] == pytest.approx(0.602 - half, abs=1e-5)


def test_a_comparison_that_some_seed_lacks_is_left_out_and_said() -> None:
    for runs in ([("base", "soup"), ("base",)], [("base",), ("base", "soup")]):
        combined = combine_judged([judged((6, 4), baselines) for baselines in runs], [0, 1])
        assert [row["baseline"] for row in combined["comparisons"]] == ["base"]
        assert combined["left_out"] == {"p": "some seed has no comparison with soup"}
    gone = combine_judged([judged((6, 4), left_out={"q": "it broke"}), judged((6, 4))], [0, 1])
    assert gone["left_out"] == {"q": "it broke"}
