"""The report in words: sentences computed from the numbers, honest about what a run cannot tell apart."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from valuesoup.report.costs import Cost, costs, frontier_counts
from valuesoup.report.expansions import distinct_expansions
from valuesoup.report.model import ReportData, fluency_of, is_base, shown_scores
from valuesoup.report.schema import Volume
from valuesoup.report.tables import interval, label_of, number

NEAR_CHANCE = 0.55
MOST_NAMED = 4
"""Methods that a sentence names; of more it says how many."""
LEAST_LUCK = 0.005
"""Of the box: what rounds to nothing is not told as luck."""


def summarise(data: ReportData) -> list[str]:
    """What a reader with one minute should know, most important first, as plain sentences.

    Args:
        data: The report; missing parts shorten the summary.
    """
    found = [_winner(data), _no_width(data), _dominance(data), _against_base(data), _low_fluency(data), _splits(data)]
    found += [selection(data), _price(data), _savings(data), _outside(data), _reward_models(data), _conflict(data)]
    found += [_filtering(data), _expansion(data)]
    return [sentence for sentence in found if sentence]


def summarise_gaps(data: ReportData) -> list[str]:
    """The same for an audit: what the reward gaps of each data set say, as plain sentences."""
    sentences = [_conflict(data)]
    for name, table in data.gaps.items():
        if not len(table.gaps):
            continue
        unanimous = float(np.mean((table.gaps > 0).all(axis=1)))
        against = float(np.mean((table.gaps < 0).all(axis=1)))
        undefined = int(np.isnan(table.consistency).sum())
        text = f"{name}: on {unanimous:.0%} of {_count(len(table.gaps), 'pair')} every value prefers the chosen"
        text += f" response, on {against:.0%} every value prefers the rejected one"
        sentences.append(text + (f"; {undefined:,} without a direction." if undefined else "."))
        sentences += equal_gaps(name, data.results["values"], table.gaps)
    return [sentence for sentence in sentences if sentence]


def equal_gaps(name: str, values: Sequence[str], gaps: NDArray[np.float64]) -> list[str]:
    """A sentence for every value whose reward gaps are all equal: nothing correlates with them.

    Args:
        name: Of the data set.
        values: Names of the n values.
        gaps: (N, n) reward gaps.
    """
    return [
        f"{name}: the reward of {value} gives every pair the same gap, so it tells no pair from another and has no "
        "correlation with any value."
        for value, column in zip(values, gaps.T, strict=True)
        if len(column) > 1 and column.min() == column.max()
    ]


def _volume_text(volume: Volume) -> str:
    return interval(volume["value"], volume.get("low"), volume.get("high"))


def _winner(data: ReportData) -> str:
    volumes: dict[str, Volume] = {}
    for name, method in (data.results.get("methods") or {}).items():
        if volume := method.get("hypervolume"):
            volumes[name] = volume
    if not volumes:
        return "No hypervolume was computed, so the methods are not ranked."
    ranked = sorted(volumes, key=lambda name: -volumes[name]["value"])
    best = volumes[ranked[0]]
    if len(ranked) == 1:
        return f"{ranked[0]} reaches a hypervolume of {_volume_text(best)}; there is no other method to compare with."
    text = f"{ranked[0]} has the largest hypervolume, {_volume_text(best)}"
    follower = f"{ranked[1]}, {_volume_text(volumes[ranked[1]])}"
    if not best["value"]:
        return "Every hypervolume is 0: no method has a sound candidate above the reference point on every value."
    if best["value"] == volumes[ranked[1]]["value"]:
        return f"{ranked[0]} and {ranked[1]} reach the same hypervolume, {_volume_text(best)}."
    if paired := _difference(data, ranked[0], ranked[1]):
        sure = "clear of zero" if paired[1] > 0 else "which includes zero: this run does not tell them apart"
        if paired[1] == paired[2]:
            # Resamples of a single prompt are all the same: that tells nothing of other prompts.
            sure = "an interval of no width, as one prompt gives it: this run does not tell them apart"
        text += f"; next is {follower}. The paired difference is {interval(*paired)}, {sure}"
        return text + "."
    low = best["low"]
    highs = {name: volumes[name]["high"] for name in ranked[1:]}
    if low is None or None in highs.values():
        return f"{text}; next is {follower}. Without intervals on all, how sure that is remains open."
    overlapping = [name for name, high in highs.items() if high is not None and high >= low]
    if not overlapping:
        return f"{text}, and its interval does not overlap that of the next, {follower}."
    also = f" (and {len(overlapping) - 1} more)" if len(overlapping) > 1 else ""
    nearest = f"{overlapping[0]}, {_volume_text(volumes[overlapping[0]])}{also}"
    return f"{text}, but its interval overlaps that of {nearest}: this run does not tell them apart."


def _difference(data: ReportData, first: str, second: str) -> tuple[float, float, float] | None:
    """The hypervolume of one method minus another's with its paired interval, None where it was not computed."""
    for row in data.results.get("differences") or ():
        if (row["first"], row["second"]) == (first, second):
            return row["value"], row["low"], row["high"]
        if (row["first"], row["second"]) == (second, first):
            return -row["value"], -row["high"], -row["low"]
    return None


def _no_width(data: ReportData) -> str:
    """That no test score has an interval to speak of: resamples of a single prompt are all the same."""
    scores = [score for row in data.results.get("candidates") or () for score in (row.get("test") or {}).values()]
    if not scores or any(score["low"] != score["high"] for score in scores):
        return ""
    return (
        "Caution: no interval of a test score has a width, as one prompt gives it; nothing is known of other prompts."
    )


def _dominance(data: ReportData) -> str:
    """Which methods' frontiers the method of the largest hypervolume dominates point by point, by means.

    Nothing for one value, where the hypervolume says the same.
    """
    volumes = {
        name: volume["value"]
        for name, method in (data.results.get("methods") or {}).items()
        if name != "base" and (volume := method.get("hypervolume"))
    }
    frontiers = _frontiers(data)
    others = [name for name in frontiers if name in volumes]
    best = max(others, key=lambda name: volumes[name], default="")
    others = [name for name in others if name != best]
    if len(data.results["values"]) < 2 or not others:
        return ""
    held = frontiers[best][:, None, :]
    beaten = []
    for name in others:
        points = frontiers[name][None, :, :]
        better = (held >= points).all(axis=2) & (held > points).any(axis=2)
        if better.any(axis=0).all():
            beaten.append(name)
    by = f"by a point of {best} that is at least as good on every value and better on one"
    left = [name for name in others if name not in beaten]
    if not left:
        every = others[0] if len(others) == 1 else f"{'both' if len(others) == 2 else 'all'} other methods"
        return f"Every frontier point of {every} is dominated {by}."
    if beaten:
        many = f"{len(beaten)} of the {len(others)} other methods" if len(beaten) > MOST_NAMED else _listed(beaten)
        return f"Every frontier point of {many} is dominated {by}; not so of {_listed(left)}."
    if len(others) == 1:
        return f"{best} does not dominate {others[0]}: that has a frontier point which no point of {best} beats."
    return f"{best} dominates no other method: each has a frontier point which no point of {best} beats."


def _frontiers(data: ReportData) -> dict[str, NDArray[np.float64]]:
    """Per method the mean scores of its frontier, (K, n), all on test if any are, else on validation."""
    values = data.results["values"]
    rows = [c for c in data.results.get("candidates") or () if c["on_frontier"] and not is_base(c)]
    split = "test" if any(shown_scores(c)[0] == "test" for c in rows) else "validation"
    found: dict[str, list[list[float]]] = {}
    for candidate in rows:
        own, scores = shown_scores(candidate)
        if own == split and all(value in scores for value in values):
            found.setdefault(candidate["method"], []).append([scores[value]["mean"] for value in values])
    return {name: np.array(points, dtype=np.float64) for name, points in found.items()}


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _against_base(data: ReportData) -> str:
    values = data.results["values"]
    candidates = data.results.get("candidates") or ()
    base = next((c for c in candidates if is_base(c)), None)
    if base is None:
        return ""
    split, reference = shown_scores(base)
    better = total = 0
    for candidate in candidates:
        own_split, scores = shown_scores(candidate)
        if is_base(candidate) or not candidate["on_frontier"] or own_split != split:
            continue
        if all(value in scores and value in reference for value in values):
            total += 1
            better += all(scores[value]["mean"] > reference[value]["mean"] for value in values)
    if not total:
        return ""
    every = "on every value" if len(values) > 1 else f"on {values[0]}"
    have = "has a higher mean score" if total == 1 else "have higher mean scores"
    return f"{better} of {_count(total, 'frontier candidate')} {have} than the base model {every}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _low_fluency(data: ReportData) -> str:
    """How fluent the frontiers are, and how many candidates are not and therefore not on one."""
    candidates = [c for c in data.results.get("candidates") or () if not is_base(c)]
    frontier = [c for c in candidates if c["on_frontier"]]
    measured = [(fluency, c) for c in frontier if (fluency := fluency_of(c)) is not None]
    if not frontier:
        return ""
    if not measured:
        return "Fluency was not measured, so a high reward may still hide broken text."
    low = sorted(((f, c) for f, c in measured if f < data.fluency_bound), key=lambda item: item[0])
    bound = number(data.fluency_bound, 2)
    if not low:
        others = [fluency for c in candidates if not c["on_frontier"] and (fluency := fluency_of(c)) is not None]
        broken = sum(fluency < data.fluency_bound for fluency in others)
        text = f"Every measured frontier candidate keeps a fluency of at least {bound}"
        return text + (f"; {broken} of {len(others)} measured off the frontiers do not." if broken else ".")
    worst = f"{low[0][1]['method']} {label_of(low[0][1])}"
    have, their = ("has", "its reward is") if len(low) == 1 else ("have", "their rewards are")
    return (
        f"Caution: {len(low)} of {_count(len(measured), 'frontier candidate')} {have} fluency below {bound} "
        f"(lowest {number(low[0][0], 2)}, {worst}); {their} partly from broken text."
    )


def _splits(data: ReportData) -> str:
    frontier = [c for c in data.results.get("candidates") or () if c["on_frontier"] and not is_base(c)]
    splits = {shown_scores(c)[0] for c in frontier}
    if splits == {"validation"}:
        return (
            "Frontier scores are from the validation prompts on which the candidates were chosen, "
            "and therefore look a little better than they are."
        )
    return ""


def selection(data: ReportData) -> str:
    """What frontiers lose from validation, where they were chosen, to test, and how much of it is luck of the choice.

    The base moves too, though nothing chose it: that much is a difference between the prompts.
    """
    found = {name: of for name, method in (data.results.get("methods") or {}).items() if (of := method.get("optimism"))}
    methods = {name: of for name, of in found.items() if name != "base"}
    values = data.results["values"]
    if not methods:
        return ""

    def change(value: str) -> float:
        return -sum(of["drop"][value]["mean"] for of in methods.values()) / len(methods)

    one = f"the frontier of {next(iter(methods))} changes" if len(methods) == 1 else "frontiers change on average"
    text = f"From validation, where they were chosen, to test, {one} by {_changes({v: change(v) for v in values})}"
    text += " (1 is about the range of all scores)"
    if base := found.get("base"):
        moved = {value: -base["drop"][value]["mean"] for value in values}
        text += f"; the base, which nothing chose, by {_changes(moved)}. "
        luck = {value: moved[value] - change(value) for value in values}
        lost = [f"{number(loss, 2)} on {value}" for value, loss in luck.items() if loss >= LEAST_LUCK]
        text += f"Against the base they lose {_listed(lost)}: luck of the choice, or chance." if lost else ""
        text += "" if lost else "Against the base they lose nothing: the choice shows no luck."
    else:
        text += "."
    most = max(methods, key=lambda name: methods[name]["validation"] - methods[name]["test"])
    if (fall := methods[most])["validation"] > fall["test"]:
        text += f" The hypervolume of {most} falls most: from {number(fall['validation'])} to {number(fall['test'])}."
    return text


def _changes(moved: Mapping[str, float]) -> str:
    return ", ".join(f"{'+' if move >= 0 else ''}{number(move, 2)} on {value}" for value, move in moved.items())


def _outside(data: ReportData) -> str:
    points, outside = frontier_counts(data.results), frontier_counts(data.results, outside=True)
    told = [
        f"{'all ' if count == points[name] else f'{count} of the '}{_count(points[name], 'frontier point')} of {name}"
        for name, count in outside.items()
    ]
    if not told:
        return ""
    return f"Weights outside the simplex: {'; '.join(told)}."


def _price(data: ReportData) -> str:
    """The dearest and the cheapest training of a frontier point."""
    priced: list[tuple[float, Cost]] = []
    for cost in costs(data):
        if cost.trainings and (each := cost.per_point(cost.train)) is not None:
            priced.append((each, cost))
    if not priced:
        return ""
    dearest, cheapest = (choose(priced, key=lambda item: item[0]) for choose in (max, min))
    if dearest[0] == cheapest[0]:
        return f"A frontier point takes {_priced(*dearest)}."
    return f"A frontier point costs least with {_named(*cheapest)}, and most with {_named(*dearest)}."


def _savings(data: ReportData) -> str:
    """What searches saved of the validation answers; nothing where every candidate answered every prompt."""
    parts = []
    for cost in costs(data):
        search = cost.search
        if search is None or search["answers"] == search["all_answers"] or search["kept"] is None:
            continue
        share = search["answers"] / search["all_answers"]
        text = f"{cost.method} asked for {search['answers']:,} of {search['all_answers']:,} answers ({share:.0%}) on "
        of = _count(search["candidates"], "candidate")
        text += f"{search['measured']:,} of {of} and dropped {search['left']:,} of them early; its frontier, among the "
        text += f"candidates that stayed, is expected to keep {search['kept']:.0%} of the hypervolume that all answers "
        parts.append(f"{text}of all {of} would find")
    return f"Searched, not measured whole: {'; '.join(parts)}." if parts else ""


def _named(each: float, cost: Cost) -> str:
    return f"{cost.method}: {_priced(each, cost)}"


def _priced(each: float, cost: Cost) -> str:
    """Seconds of training per point, from how many trainings and points, and seconds of everything per point."""
    whole = cost.per_point(cost.seconds)
    beside = "expansion and evaluation" if cost.expand else "evaluation"
    text = f"{_count(cost.trainings or 0, 'training')} for {_count(cost.points, 'point')}"
    text += "" if whole is None else f", {number(whole, 1)} s with {beside}"
    return f"{number(each, 1)} s of training ({text})"


def _expansion(data: ReportData) -> str:
    """Per group of methods that share their expansions: what these mined and added, in all."""
    groups: dict[str, list[Mapping[str, int]]] = {}
    for one in distinct_expansions(data):
        groups.setdefault(" and ".join(one.methods), []).append(one.expansion.counts)
    parts = []
    for methods, counts in groups.items():
        mined, single, pairs = (sum(c.get(k, 0) for c in counts) for k in ("prompts", "single_reward", "pairs"))
        in_all = f" in {len(counts)} expansions" if len(counts) > 1 else ""
        parts.append(
            f"{methods} mined {_count(mined, 'prompt')}{in_all}, found {single:,} single-reward ones "
            f"(good under one value only), and gained {_count(pairs, 'pair')} from them"
        )
    return f"Prompt expansion: {'; '.join(parts)}." if parts else ""


def _filtering(data: ReportData) -> str:
    parts: list[str] = []
    filters: Mapping[str, Mapping[str, Mapping[str, float | int | None]]] = data.results.get("filters") or {}  # type: ignore[assignment]
    for method, sets in filters.items():
        pairs = sum(int(counts["pairs"] or 0) for counts in sets.values())
        kept = sum(int(counts["kept"] or 0) for counts in sets.values())
        if pairs:
            parts.append(f"{method} keeps {kept:,} of {pairs:,} pairs ({kept / pairs:.0%})")
    return f"Filtering: {'; '.join(parts)}." if parts else ""


def _reward_models(data: ReportData) -> str:
    models = data.results.get("reward_models") or {}
    known = {n: a for n, m in models.items() if (a := m.get("validation_accuracy")) is not None}
    if not known:
        return ""
    text = "The reward models rank held-out pairs as labelled: "
    text += ", ".join(f"{accuracy:.0%} ({name})" for name, accuracy in known.items())
    weak = [name for name, accuracy in known.items() if accuracy < NEAR_CHANCE]
    return text + (f"; {_listed(weak)} {'is' if len(weak) == 1 else 'are'} hardly better than chance." if weak else ".")


def _conflict(data: ReportData) -> str:
    """Share of pairs on which some value prefers the chosen and another the rejected response."""
    tables = [table.gaps for table in data.gaps.values() if table.gaps.shape[1] > 1 and len(table.gaps)]
    if not tables:
        return ""
    gaps = np.concatenate(tables)
    share = float(np.mean((gaps > 0).any(axis=1) & (gaps < 0).any(axis=1)))
    return f"On {share:.0%} of {_count(len(gaps), 'pair')} the values disagree about which response is better."
