"""Tables of a run: the frontier for the terminal, and the rows of every table on the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from valuesoup.report.costs import Cost, costs
from valuesoup.report.model import ReportData, Weights, is_base, shown_scores, weights_text
from valuesoup.report.schema import CandidateResult, Estimate, Results
from valuesoup.report.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console

NONE = "–"
MOST_SHOWN = 6
"""Frontier points of a method that a terminal shows."""


@dataclass(frozen=True)
class FrontierRow:
    """One line of the frontier table.

    Attributes:
        id: The candidate.
        label: What tells it from others of its method: its weights, or the last part of its id.
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
        outside: True for weights outside the simplex.
    """

    id: str
    label: str
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
    outside: bool


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
        label=label_of(candidate),
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
        outside=candidate.get("outside_simplex", False),
    )


def label_of(candidate: CandidateResult) -> str:
    """What tells a candidate from others of its method: its weights, or the part of its id after the method's name."""
    if is_base(candidate):
        return "base model"
    return weights_text(candidate["weights"]) or candidate["id"].partition("/")[2] or candidate["id"]


def number(x: float | None, digits: int = 3) -> str:
    """A number for reading: ``digits`` decimals, an en dash where there is none, a true minus sign."""
    return NONE if x is None else f"{x:z.{digits}f}".replace("-", "−")


def short(x: float) -> str:
    """A number of any size for reading: two digits that count, a true minus sign."""
    return f"{x:z.2g}".replace("-", "−") if abs(x) < 100 else number(x, 0)


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
        console: Where to; 80 columns hold two or three values. Of a method with more than `MOST_SHOWN` points as many
            are shown, at even places in their order, and the others counted.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = frontier_table(results)
    values = list(results["values"])
    outside = any(row.outside for row in rows)
    splits = " and ".join(sorted({row.split for row in rows if row.scores}))
    table = Table(
        title=f"Frontier, {splits} scores" if splits else "Frontier",
        caption=f"weights: {cell(' / '.join(values))}" + ("; * outside the simplex" if outside else ""),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("method", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for name in (*values, "P(front)", "fluency"):
        table.add_column(cell(name), justify="right", overflow="fold")
    for method, own in groupby(rows, key=lambda row: row.method):
        points = list(own)
        for row in _evenly(points):
            scores = [_plus_minus(row.scores.get(value)) for value in values]
            quality = (number(row.probability, 2), number(row.fluency, 2))
            cells = (cell(row.method), cell(_short_weights(row, values)), *scores, *quality)
            table.add_row(*cells, style="dim" if row.base else None)
        if len(points) > MOST_SHOWN:
            table.add_row(cell(method), f"… and {len(points) - MOST_SHOWN} more", style="dim")
    for method in {c["method"]: None for c in results.get("candidates") or () if not is_base(c)}:
        if all(row.method != method for row in rows):
            table.add_row(cell(method), "none: text below the fluency bound", style="dim")
    console.print(table)


def _evenly(rows: Sequence[FrontierRow]) -> Sequence[FrontierRow]:
    """At most `MOST_SHOWN` rows at even places, the first and the last among them."""
    if len(rows) <= MOST_SHOWN:
        return rows
    return [rows[round(place * (len(rows) - 1) / (MOST_SHOWN - 1))] for place in range(MOST_SHOWN)]


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
        return "" if row.base else row.label
    if set(row.weights) <= set(values):
        return "/".join(f"{row.weights.get(value, 0.0):.2g}" for value in values) + ("*" if row.outside else "")
    return weights_text(row.weights) + ("*" if row.outside else "")


@dataclass(frozen=True)
class PageTable:
    """A table of the page: headings, rows of text, and how many leading columns are words, not numbers.

    ``ids`` are the candidates of its rows, where each row is about one.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    ids: Sequence[str] = ()


def print_tables(tables: Iterable[tuple[str, PageTable]], remarks: Iterable[str], console: "Console") -> None:
    """Print tables of a page under their headings, and sentences below them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for title, content in tables:
        table = Table(title=cell(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for place, heading in enumerate(content.headings):
            table.add_column(cell(heading), justify="left" if place < content.words else "right")
        for row in content.rows:
            table.add_row(*map(cell, row))
        console.print(table)
    for sentence in remarks:
        say(console, sentence)


def methods_table(data: ReportData) -> PageTable:
    """Per method: hypervolume with interval, trainings and seconds per frontier point, alikeness of its vectors."""
    geometry = data.results.get("geometry") or {}
    priced = {cost.method: cost for cost in costs(data)}
    depends = any(shape.get("hsic") is not None for shape in geometry.values())
    rows = []
    for name, method in (data.results.get("methods") or {}).items():
        volume = method.get("hypervolume")
        shape = geometry.get(name)
        cost = priced.get(name)  # the base has none
        row = [
            name,
            interval(volume["value"], volume.get("low"), volume.get("high")) if volume else NONE,
            f"{cost.points:,}" if cost else NONE,
            _whole(cost.trainings if cost else None),
            number(cost.per_point(cost.train) if cost else None, 1),
            number(cost.per_point(cost.seconds) if cost else None, 1),
            number(shape["cosine"], 2) if shape else NONE,
            *([NONE if shape is None or (hsic := shape.get("hsic")) is None else f"{hsic:.3g}"] if depends else []),
        ]
        rows.append(row)
    headings = (
        *("method", "hypervolume", "frontier points", "trainings"),
        *("training per point,\u00a0s", "all per point,\u00a0s", "cosine of vectors"),
        *(("HSIC of vectors",) if depends else ()),
    )
    return PageTable(headings, rows)


def costs_table(data: ReportData) -> PageTable:
    """Per method, on its own: pairs trained on, seconds of each part, and in all; what a search asked, if any did."""
    priced = costs(data)
    expands = any(cost.expand for cost in priced)
    searched = any(cost.search for cost in priced)
    methods = data.results.get("methods") or {}
    rows = [
        [
            cost.method,
            _whole(methods[cost.method].get("trained_pairs")),
            number(cost.train, 1),
            *([number(cost.expand, 1)] if expands else []),
            number(cost.evaluate, 1),
            number(cost.seconds, 1),
            *(_search_cells(cost) if searched else []),
        ]
        for cost in priced
    ]
    expansion = ("expansion,\u00a0s",) if expands else ()
    search = ("candidates measured", "validation answers", "hypervolume kept, of all candidates'") if searched else ()
    headings = ("method", "pairs trained", "training,\u00a0s", *expansion, "evaluation,\u00a0s", "all,\u00a0s", *search)
    return PageTable(headings, rows)


def _search_cells(cost: Cost) -> list[str]:
    """Candidates and answers of a search, each of how many, and the share expected to be kept of the hypervolume that
    all answers of all candidates, measured or not, would find.
    """
    search = cost.search
    if search is None:
        return ["all", "all", NONE]
    kept = NONE if search["kept"] is None else f"{search['kept']:.1%}"
    measured = f"{search['measured']:,} of {search['candidates']:,}"
    return [measured, f"{search['answers']:,} of {search['all_answers']:,}", kept]


def _whole(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"


def candidates_table(data: ReportData) -> PageTable:
    """Per frontier candidate: weights, scores with intervals, probability, fluency, KL, length."""
    values = data.results["values"]
    lines = frontier_table(data.results)
    known = [value for value in values if any(value in row.truth for row in lines)]
    rows = [
        [
            row.method,
            "" if row.base else row.label + (" (outside the simplex)" if row.outside else ""),
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
    return PageTable(headings, rows, 2, [row.id for row in lines])


def _is_low(fluency: float | None, bound: float) -> bool:
    return fluency is not None and fluency < bound


def filters_table(data: ReportData) -> PageTable:
    """Per method and data set: threshold, pairs, kept, flipped where any method flips, undefined."""
    filters = data.results.get("filters") or {}
    flips = any(counts.get("flipped") for sets in filters.values() for counts in sets.values())
    rows = []
    for method, sets in filters.items():
        for name, counts in sets.items():
            kept = counts["kept"] / counts["pairs"] if counts["pairs"] else 0.0
            numbers = [f"{counts['pairs']:,}", f"{counts['kept']:,}", f"{kept:.1%}"]
            numbers += [_whole(counts.get("flipped"))] if flips else []
            rows.append([method, name, number(counts["tau"], 3), *numbers, f"{counts['undefined']:,}"])
    flipped = ("of these flipped",) if flips else ()
    headings = ("method", "pairs of", "τ", "pairs", "kept", "share kept", *flipped, "no direction")
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
