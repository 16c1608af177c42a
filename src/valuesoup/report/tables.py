"""Tables of a run: the frontier for the terminal, and the rows of every table on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuesoup.report.model import (
    CandidateResult,
    Estimate,
    ReportData,
    Results,
    Weights,
    is_base,
    shown_scores,
    weights_text,
)

if TYPE_CHECKING:
    from rich.console import Console

NONE = "–"


@dataclass(frozen=True)
class FrontierRow:
    """One line of the frontier table.

    Attributes:
        id: The candidate.
        method: Its method; "base" for the base model.
        weights: Weight per value, None where the method has no weights.
        split: "test", or "validation" where the candidate has no test scores.
        scores: Estimate per value; a value without a score is absent.
        probability: Probability of being non-dominated, in [0, 1].
        fluency: Share in [0, 1].
        kl: KL from the base, in nats per answer.
        tokens: Mean length of an answer in tokens.
        truth: Mean true reward per value, for the values whose truth is known.
        base: True for the base model.
    """

    id: str
    method: str
    weights: Weights | None
    split: str
    scores: Mapping[str, Estimate]
    probability: float | None
    fluency: float | None
    kl: float | None
    tokens: float | None
    truth: Mapping[str, float]
    base: bool


def frontier_table(results: Results) -> list[FrontierRow]:
    """The base and every candidate on the frontier, by method and then by the first value's score, best first.

    Args:
        results: The parsed ``results.json``.
    """
    rows = [_row(c) for c in results.get("candidates") or () if c["on_frontier"] or is_base(c)]
    methods = list(dict.fromkeys(row.method for row in rows if not row.base))
    first = next(iter(results["values"]))

    def order(row: FrontierRow) -> tuple[int, float]:
        score = row.scores.get(first)
        return (-1 if row.base else methods.index(row.method), -score["mean"] if score else 0.0)

    return sorted(rows, key=order)


def _row(candidate: CandidateResult) -> FrontierRow:
    split, scores = shown_scores(candidate)
    quality = candidate.get("quality")
    base = is_base(candidate)
    return FrontierRow(
        id=candidate["id"],
        method="base" if base else candidate["method"],
        weights=None if base else candidate["weights"],
        split=split,
        scores=scores,
        probability=candidate.get("frontier_probability"),
        fluency=quality.get("fluency") if quality else None,
        kl=quality.get("kl") if quality else None,
        tokens=quality.get("tokens") if quality else None,
        truth=candidate.get("truth") or {},
        base=base,
    )


def number(x: float | None, digits: int = 3) -> str:
    """A number for reading: ``digits`` decimals, an en dash where there is none, a true minus sign."""
    return NONE if x is None else f"{x:z.{digits}f}".replace("-", "−")


def interval(mean: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """``0.512 [0.480, 0.541]``; without ends only the mean, without a mean an en dash."""
    if mean is None or low is None or high is None:
        return number(mean, digits)
    return f"{number(mean, digits)} [{number(low, digits)}, {number(high, digits)}]"


def estimate_text(estimate: Estimate | None, digits: int) -> str:
    """An estimate with its interval, an en dash where there is none."""
    if estimate is None:
        return NONE
    return interval(estimate["mean"], estimate.get("low"), estimate.get("high"), digits)


def print_frontier(results: Results, console: "Console") -> None:
    """Print the frontier table on a terminal: scores as mean ± half of the interval's width.

    Args:
        results: The parsed ``results.json``.
        console: Where to; 80 columns hold two or three values.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    rows = frontier_table(results)
    values = list(results["values"])
    splits = " and ".join(sorted({row.split for row in rows if row.scores}))
    table = Table(
        title=f"Frontier, {splits} scores" if splits else "Frontier",
        caption=f"weights: {escape(' / '.join(values))}",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("method", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for name in (*values, "P(front)", "fluency"):
        table.add_column(escape(name), justify="right", overflow="fold")
    for row in rows:
        scores = [_plus_minus(row.scores.get(value)) for value in values]
        quality = (number(row.probability, 2), number(row.fluency, 2))
        cells = (escape(row.method), escape(_short_weights(row, values)), *scores, *quality)
        table.add_row(*cells, style="dim" if row.base else None)
    console.print(table)


def _plus_minus(estimate: Estimate | None) -> str:
    if estimate is None:
        return NONE
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return number(estimate["mean"], 2)
    return f"{number(estimate['mean'], 2)} ±{number((high - low) / 2, 2)}"


def _short_weights(row: FrontierRow, values: Sequence[str]) -> str:
    """``0.25/0.75`` in the order of the values, two figures each; weights of anything else are spelt out."""
    if row.weights is None:
        return "" if row.base else row.id
    if set(row.weights) <= set(values):
        return "/".join(f"{row.weights.get(value, 0.0):.2g}" for value in values)
    return weights_text(row.weights)


@dataclass(frozen=True)
class PageTable:
    """A table of the page: headings, rows of text, and how many leading columns are words, not numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def methods_table(data: ReportData) -> PageTable:
    """Per method: hypervolume with interval, pairs trained on, seconds, cosine of its value vectors."""
    geometry = data.results.get("geometry") or {}
    rows = []
    for name, method in (data.results.get("methods") or {}).items():
        volume = method.get("hypervolume")
        pairs = method.get("trained_pairs")
        shape = geometry.get(name)
        rows.append(
            [
                name,
                interval(volume["value"], volume.get("low"), volume.get("high")) if volume else NONE,
                NONE if pairs is None else f"{pairs:,}",
                number(method.get("train_seconds"), 1),
                number(method.get("evaluate_seconds"), 1),
                number(shape["cosine"], 2) if shape else NONE,
            ]
        )
    headings = ("method", "hypervolume", "pairs trained", "training, s", "evaluation, s", "cosine of vectors")
    return PageTable(headings, rows)


def candidates_table(data: ReportData) -> PageTable:
    """Per frontier candidate: weights, scores with intervals, probability, fluency, KL, length."""
    values = data.results["values"]
    lines = frontier_table(data.results)
    known = [value for value in values if any(value in row.truth for row in lines)]
    rows = [
        [
            row.method,
            "" if row.base else weights_text(row.weights) or row.id,
            *(estimate_text(row.scores.get(value), 2) for value in values),
            *(number(row.truth.get(value), 2) for value in known),
            row.split if row.scores else NONE,
            number(row.probability, 2),
            number(row.fluency, 2) + (" low" if _is_low(row.fluency, data.fluency_bound) else ""),
            number(row.kl, 2),
            number(row.tokens, 1),
        ]
        for row in lines
    ]
    truths = [f"{value} in truth" for value in known]
    headings = ("method", "weights", *values, *truths, "scored on", "P(frontier)", "fluency", "KL, nats", "tokens")
    return PageTable(headings, rows, 2)


def _is_low(fluency: float | None, bound: float) -> bool:
    return fluency is not None and fluency < bound


def filters_table(data: ReportData) -> PageTable:
    """Per method and data set: threshold, pairs, kept, undefined."""
    rows = []
    for method, sets in (data.results.get("filters") or {}).items():
        for name, counts in sets.items():
            kept = counts["kept"] / counts["pairs"] if counts["pairs"] else 0.0
            numbers = (f"{counts['pairs']:,}", f"{counts['kept']:,}", f"{kept:.1%}", f"{counts['undefined']:,}")
            rows.append([method, name, number(counts["tau"], 3), *numbers])
    headings = ("method", "pairs of", "τ", "pairs", "kept", "share kept", "no direction")
    return PageTable(headings, rows, 2)


def sizes_table(data: ReportData) -> PageTable:
    """Per data set: pairs in each split."""
    splits = list(dict.fromkeys(split for sizes in data.sizes.values() for split in sizes))
    rows = [
        [name, *(f"{sizes[split]:,}" if split in sizes else NONE for split in splits)]
        for name, sizes in data.sizes.items()
    ]
    return PageTable(("pairs of", *splits), rows)


def dropped_table(data: ReportData) -> PageTable:
    """Per data set and reason: rows dropped, most first."""
    rows = [
        [name, reason, f"{count:,}"]
        for name, reasons in data.dropped.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return PageTable(("data set", "reason", "rows dropped"), rows, 2)
