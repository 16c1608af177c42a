"""A study in words: which methods differ over seeds and which the study cannot tell apart."""

from collections.abc import Sequence
from typing import Any

from valuesoup.evaluation.seeds import spread
from valuesoup.report.study import Series, Spread, StudyData, ordered_differences, share_text, spread_text, verdict
from valuesoup.report.tables import interval, number

MOST_LISTED = 4
"""Differences in one sentence."""
MOST_WINNERS = 3
"""Methods that each get a sentence on what they are ahead of."""
MOST_SERIES = 3
"""Series of thresholds that each get a sentence; the figure shows all."""


def summarise_study(study: StudyData) -> list[str]:
    """What a reader with one minute should know, most important first, as plain sentences.

    Args:
        study: The study; one seed gives no interval, and says so.
    """
    found = [_best(study), _volumes(study), *_winners(study), _apart(study), _base(study), _fluency(study)]
    found += [_unsound(study), _selection(study), _conflict(study)]
    found += [_threshold(study, series) for series in study.thresholds()[:MOST_SERIES]]
    return [sentence for sentence in found if sentence]


def _ranked(study: StudyData) -> list[str]:
    methods = study.combined["methods"]
    return sorted(methods, key=lambda name: -methods[name]["hypervolume"]["mean"])


def _best(study: StudyData) -> str:
    """The method of the largest mean, and whether it is clear of the next one."""
    ranked = _ranked(study)
    if len(ranked) == 1:
        return ""
    first, second = ranked[:2]
    if not study.combined["methods"][first]["hypervolume"]["mean"]:
        return "Every hypervolume is 0: no method has a frontier of sound candidates above the reference point."
    row = next(row for row in ordered_differences(study) if {row["first"], row["second"]} == {first, second})
    text = f"{first} has the largest mean hypervolume, {second} the next. "
    text += f"Their paired difference is {interval(row['mean'], row['low'], row['high'])}"
    if row["low"] is None:
        return f"{text}; one seed does not tell whether that is more than chance."
    count = _count(len(study.seeds), "seed")
    return f"{text}, {'clear of zero' if _clear(row) else f'which includes zero: {count} do not tell them apart'}."


def _volumes(study: StudyData) -> str:
    methods = study.combined["methods"]
    told = "; ".join(f"{name} {spread_text(methods[name]['hypervolume'], 3)}" for name in _ranked(study))
    count = len(study.seeds)
    if count == 1:
        return f"Hypervolume with one seed, so without an interval: {told}."
    return f"Hypervolume over {count} seeds, mean and {study.combined['level']:.0%} interval: {told}."


def _differences(study: StudyData, base: bool = False) -> list[dict[str, Any]]:
    """Ordered differences: between methods, or between a method and the base."""
    return [row for row in ordered_differences(study) if ("base" in (row["first"], row["second"])) == base]


def _clear(row: dict[str, Any]) -> bool:
    return row["low"] is not None and row["low"] > 0


def _winners(study: StudyData) -> list[str]:
    """What the methods of the largest hypervolumes are clearly ahead of, the biggest differences first."""
    clear = [row for row in _differences(study) if _clear(row)]
    ahead = {row["first"] for row in clear}
    winners = [name for name in _ranked(study) if name in ahead]
    sentences = []
    for winner in winners[:MOST_WINNERS]:
        own = [row for row in clear if row["first"] == winner]
        listed = [f"{row['second']} by {interval(row['mean'], row['low'], row['high'])}" for row in own[:MOST_LISTED]]
        more = f" and {_count(len(own) - MOST_LISTED, 'other method')}" if len(own) > MOST_LISTED else ""
        sentences.append(f"{winner} is ahead of {', '.join(listed)}{more}, paired by seed and clear of zero.")
    if len(winners) > MOST_WINNERS:
        count = sum(row["first"] in winners[MOST_WINNERS:] for row in clear)
        sentences[-1] += f" {_count(count, 'further difference')} clear of zero: see the table."
    return sentences


def _apart(study: StudyData) -> str:
    """The differences that the study cannot tell from zero, the biggest first."""
    rows = _differences(study)
    open_ = [row for row in rows if not _clear(row)]
    if not open_:
        return ""
    if verdict(open_[0]).startswith("unknown"):
        biggest = ", ".join(f"{row['first']} − {row['second']} {number(row['mean'])}" for row in open_[:MOST_LISTED])
        return f"One seed cannot tell a difference from chance; the biggest are {biggest}."
    listed = [
        f"{row['first']} − {row['second']} {interval(row['mean'], row['low'], row['high'])}"
        for row in open_[:MOST_LISTED]
    ]
    text = f"Not told apart by {_count(len(study.seeds), 'seed')}: {len(open_)} of {_count(len(rows), 'difference')} "
    return f"{text}between methods; the biggest of them {', '.join(listed)}."


def _base(study: StudyData) -> str:
    rows = _differences(study, base=True)
    if not rows or rows[0]["low"] is None:
        return ""
    above = [row["first"] for row in rows if _clear(row) and row["second"] == "base"]
    below = [row["second"] for row in rows if _clear(row) and row["first"] == "base"]
    neither = [row["first"] if row["second"] == "base" else row["second"] for row in rows if not _clear(row)]
    text = f"Clearly above the base model: {len(above)} of {_count(len(rows), 'method')}"
    text += f"; not told apart from it: {', '.join(neither)}" if neither else ""
    return text + (f"; below it: {', '.join(below)}." if below else ".")


def _fluency(study: StudyData) -> str:
    low = [
        (point["fluency"]["mean"], point["method"])
        for point in study.combined["points"]
        if point.get("fluency") and point["fluency"]["mean"] < study.fluency_bound
    ]
    if not low:
        return ""
    listed = ", ".join(f"{method} {number(fluency, 2)}" for fluency, method in sorted(low)[:MOST_LISTED])
    return (
        f"Caution: {len(low)} of the {_count(len(study.combined['points']), 'policy', 'policies')} of the first table "
        f"with a mean fluency below {number(study.fluency_bound, 2)} ({listed}); their rewards are partly those of "
        "broken text."
    )


def _unsound(study: StudyData) -> str:
    """The methods without a row in the first table."""
    shown = {point["method"] for point in study.combined["points"]}
    missing = [name for name in study.combined["methods"] if name not in shown]
    if not missing:
        return ""
    return f"Not in the first table, because in some seed no candidate is on their frontier: {', '.join(missing)}."


def _selection(study: StudyData) -> str:
    """The frontier that lost most of its hypervolume from validation to test, with the interval of the loss."""
    known = {
        name: of["optimism"] for name, of in study.combined["methods"].items() if name != "base" and of["optimism"]
    }
    lost = {
        name: spread(
            (before - after for before, after in zip(of["validation"]["each"], of["test"]["each"], strict=True)),
            study.combined["level"],
        )
        for name, of in known.items()
    }
    worst = max(lost, key=lambda name: lost[name].mean, default="")
    if not worst or lost[worst].mean <= 0:
        return ""
    ends = _to([known[worst]["validation"], known[worst]["test"]], 3)
    fall = lost[worst]
    sure = f", {verdict(fall._asdict())}" if fall.low is not None else ""
    return (
        f"From validation, where frontiers were chosen, to test, the mean hypervolume of {worst} falls most, {ends}: "
        f"by {interval(fall.mean, fall.low, fall.high)}{sure}."
    )


def _conflict(study: StudyData) -> str:
    """The two values whose gradients agree least at the base, on all pairs and on those that filters keep."""
    conflict = study.combined["conflict"]
    raw, *filters = conflict or [""]
    rows = [row for row in conflict.get(raw, ()) if row["cosine"]]
    if not rows:
        return ""
    worst = min(rows, key=lambda row: float(row["cosine"]["mean"]))
    pair = (worst["first"], worst["second"])
    told = [f"{spread_text(worst['cosine'])} on {raw}"]
    for name in filters[:MOST_LISTED]:
        own = next((row for row in conflict[name] if (row["first"], row["second"]) == pair), None)
        if own is not None and own["cosine"]:
            told.append(f"{spread_text(own['cosine'])} on those that {name} keeps")
    return f"At the base, the gradients of {pair[0]} and {pair[1]} have a cosine of {', '.join(told)}."


def _threshold(study: StudyData, series: Series) -> str:
    """How conflict and extent change from the lowest to the highest threshold."""
    order = list(series.methods)
    first, last = order[0], order[-1]
    geometry, methods = study.combined["geometry"], study.combined["methods"]
    parts = []
    for name, label, digits in (("cosine", "cosine of the vectors", 2), ("l2", "distance", 3)):
        known = [of for method in (first, last) if (of := (geometry.get(method) or {}).get(name))]
        if len(known) == 2:
            parts.append(f"{label} {_to(known, digits)}")
    parts.append(f"extent of the candidates {_to([methods[method]['extent'] for method in (first, last)], 2)}")
    both = [methods[method]["hypervolume"] for method in (first, last)]
    parts.append(f"hypervolume {_to(both, 3)}")
    low, high = (number(series.methods[name], 2) for name in (first, last))
    kept = f", {share_text(study.kept(last))} of the pairs kept" if study.kept(last) else ""
    return f"As {series.name} rises from {low} ({first}) to {high} ({last}{kept}): {', '.join(parts)}."


def _to(ends: Sequence[Spread], digits: int) -> str:
    return " to ".join(spread_text(end, digits) for end in ends)


def _count(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
