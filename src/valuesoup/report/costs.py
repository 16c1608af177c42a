"""What a frontier point of each method costs: trainings and seconds, computed once for table, figure and summary."""

from dataclasses import dataclass

from valuesoup.report.model import ReportData, is_base
from valuesoup.report.schema import Results, SearchResult


@dataclass(frozen=True)
class Cost:
    """What a method costs on its own; trainings that it shares with another method are counted in both.

    Attributes:
        method: Its name.
        trainings: How many, None where unknown.
        points: Candidates on its frontier.
        train: Seconds of training, None where unknown.
        expand: Seconds of prompt expansion, 0 for a method without.
        evaluate: Seconds of evaluating its candidates, None where unknown.
        search: What a search took of its evaluation, None where the whole grid was measured.
    """

    method: str
    trainings: int | None
    points: int
    train: float | None
    expand: float
    evaluate: float | None
    search: SearchResult | None

    @property
    def seconds(self) -> float | None:
        """Seconds in all, None where a part is unknown."""
        if self.train is None or self.evaluate is None:
            return None
        return self.train + self.expand + self.evaluate

    def per_point(self, seconds: float | None) -> float | None:
        """``seconds`` divided by the frontier points; None where either is missing."""
        return seconds / self.points if seconds is not None and self.points else None


def costs(data: ReportData) -> list[Cost]:
    """The cost of each method except the base, in the order of the results."""
    counted = frontier_counts(data.results)
    return [
        Cost(
            name,
            method.get("trainings"),
            method.get("frontier_points", counted.get(name, 0)),
            method.get("train_seconds"),
            method.get("expand_seconds") or 0.0,
            method.get("evaluate_seconds"),
            method.get("search"),
        )
        for name, method in (data.results.get("methods") or {}).items()
        if name != "base"
    ]


def frontier_counts(results: Results, outside: bool = False) -> dict[str, int]:
    """Candidates on the frontier per method, the base left out; ``outside``: only those outside the simplex."""
    counted: dict[str, int] = {}
    for candidate in results.get("candidates") or ():
        if candidate["on_frontier"] and not is_base(candidate) and candidate.get("outside_simplex", False) >= outside:
            counted[candidate["method"]] = counted.get(candidate["method"], 0) + 1
    return counted
