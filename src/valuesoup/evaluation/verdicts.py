"""Statistics of verdicts: wins, ties and losses of one policy against another, and how far the judge can be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from valuesoup.evaluation.judge import Opinion
from valuesoup.evaluation.seeds import spread
from valuesoup.evaluation.statistics import wilson_interval


@dataclass(frozen=True)
class Heard:
    """A policy's answer beside a baseline's to one prompt, as judged under one value.

    Attributes:
        forward: The judge's opinion with the policy's answer first; None where the answers are identical.
        backward: With the baseline's answer first; None likewise.
        reward: Reward of the policy's answer minus that of the baseline's, in the reward's units.
    """

    forward: Opinion | None
    backward: Opinion | None
    reward: float

    def sides(self) -> tuple[int, int] | None:
        """Return in each order 1 where the policy's answer was better, 0 for a tie, -1; None without both verdicts."""
        if self.forward is None or self.backward is None:
            return None
        one, other = self.forward.verdict, self.backward.verdict
        if one is None or other is None:
            return None
        return _FIRST[one], -_FIRST[other]

    def outcome(self) -> str:
        """Return ``win``, ``tie`` or ``loss`` of the policy, ``unanswered`` or ``invalid``.

        The same winner in both orders is a win, or a loss; anything else is a tie, as are identical answers. Without a
        usable verdict in both orders there is no outcome.
        """
        if self.forward is None or self.backward is None:
            return "tie"
        if self.forward.failure or self.backward.failure:
            return "unanswered"
        sides = self.sides()
        if sides is None:
            return "invalid"
        return {(1, 1): "win", (-1, -1): "loss"}.get(sides, "tie")


_FIRST = {"A": 1, "B": -1, "tie": 0}


@dataclass(frozen=True)
class Tally:
    """Counts over pairs of answers.

    Attributes:
        wins: Pairs that the policy won.
        ties: Pairs that nobody won, identical answers among them.
        losses: Pairs that the baseline won.
        identical: Pairs of identical answers, which are not asked about.
        invalid: Pairs left out, because the judge gave no usable verdict.
        unanswered: Pairs left out, because the endpoint gave no answer.
        ordered: Pairs with a verdict in both orders.
        agreed: Of these, those with the same verdict in both.
        decisive: Verdicts, two per pair, for one of the answers.
        first: Of these, those for the answer that stood first; a judge without a bias has half.
        rewarded: Pairs that were won or lost and whose rewards differ.
        reward_agreed: Of these, those whose winner has the higher reward.
    """

    wins: int = 0
    ties: int = 0
    losses: int = 0
    identical: int = 0
    invalid: int = 0
    unanswered: int = 0
    ordered: int = 0
    agreed: int = 0
    decisive: int = 0
    first: int = 0
    rewarded: int = 0
    reward_agreed: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        """Add two tallies."""
        return Tally(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    def summary(self, level: float) -> dict[str, Any]:
        """Return the counts with their shares and Wilson intervals, as ``judge.json`` holds them.

        A tie counts as half a win. A share of nothing is None.

        Args:
            level: Of the intervals, in (0, 1).
        """
        decided = self.wins + self.ties + self.losses
        return {
            **asdict(self),
            "win_rate": _share(self.wins + self.ties / 2, decided, level),
            "orders_agreement": _share(self.agreed, self.ordered, level),
            "first_share": _share(self.first, self.decisive, level),
            "reward_agreement": _share(self.reward_agreed, self.rewarded, level),
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Tally":
        """Return the counts of a row of ``judge.json``."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def tally(pairs: Iterable[Heard]) -> Tally:
    """Count the outcomes of pairs of answers."""
    total = Tally()
    for pair in pairs:
        outcome = pair.outcome()
        sides = pair.sides()
        signs = tuple(filter(None, sides or ()))
        won = (outcome == "win") - (outcome == "loss")
        weighed = won != 0 and pair.reward != 0
        total += Tally(
            wins=outcome == "win",
            ties=outcome == "tie",
            losses=outcome == "loss",
            identical=pair.forward is None,
            invalid=outcome == "invalid",
            unanswered=outcome == "unanswered",
            ordered=sides is not None,
            agreed=sides is not None and sides[0] == sides[1],
            decisive=len(signs),
            first=0 if sides is None else (sides[0] > 0) + (sides[1] < 0),
            rewarded=weighed,
            reward_agreed=weighed and won * pair.reward > 0,
        )
    return total


def combine_judged(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Combine what a judge said of the runs of a study.

    Counts are summed. The win rate is the mean over the seeds with its two-sided Student interval, which one seed
    does not have; other shares keep their Wilson intervals, over all pairs. A comparison that some run lacks is left
    out.

    Args:
        runs: Contents of ``judge.json``, at least one, of the same judge.
        seeds: Of the runs.

    Returns:
        A JSON value in the schema of ``judge.json``.
    """
    first = runs[0]
    names = ("value", "method", "baseline", "policy_title", "baseline_title")
    tables = [{_place(row): row for row in run["comparisons"]} for run in runs]
    left_out = {name: why for run in runs for name, why in run["left_out"].items()}
    comparisons, totals = [], dict.fromkeys(first["values"], Tally())
    for place, row in tables[0].items():
        rows = [table.get(place) for table in tables]
        whole = [row for row in rows if row is not None]
        if len(whole) < len(rows):
            left_out.setdefault(row["method"], f"some seed has no comparison with {row['baseline']}")
            continue
        total = sum(map(Tally.of, whole), Tally())
        totals[row["value"]] += total
        rates = [row["win_rate"] for row in whole]
        seeded = None
        if None not in rates:
            found = spread([rate["value"] for rate in rates], first["level"], "share")
            seeded = {"value": found.mean, "low": found.low, "high": found.high, "each": found.each}
        comparisons.append({**{name: row[name] for name in names}, **total.summary(first["level"]), "win_rate": seeded})
    for row in (row for table in tables[1:] for place, row in table.items() if place not in tables[0]):
        left_out.setdefault(row["method"], f"some seed has no comparison with {row['baseline']}")
    kept = ("schema", "values", "judge", "level", "limit", "templates")
    return {
        **{name: first[name] for name in kept},
        "seeds": list(seeds),
        "prompts": {value: sum(run["prompts"][value] for run in runs) for value in first["values"]},
        "comparisons": comparisons,
        "judges": {value: total.summary(first["level"]) for value, total in totals.items()},
        "left_out": left_out,
    }


def _place(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["value"], row["method"], row["baseline"]


def _share(part: float, whole: int, level: float) -> dict[str, float] | None:
    return wilson_interval(part, whole, level)._asdict() if whole else None
