"""The report in words: sentences computed from the numbers, honest about what a run cannot tell apart."""

from collections.abc import Mapping

import numpy as np

from valuesoup.report.costs import Cost, costs, frontier_counts
from valuesoup.report.expansions import distinct_expansions
from valuesoup.report.model import ReportData, Volume, fluency_of, is_base, shown_scores
from valuesoup.report.tables import interval, label_of, number

NEAR_CHANCE = 0.55


def summarise(data: ReportData) -> list[str]:
    """What a reader with one minute should know, most important first, as plain sentences.

    Args:
        data: The report; missing parts shorten the summary.
    """
    found = [_winner(data), _against_base(data), _low_fluency(data), _splits(data), _outside(data)]
    found += [_price(data), _savings(data), _filtering(data), _expansion(data), _reward_models(data), _conflict(data)]
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
    return [sentence for sentence in sentences if sentence]


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
    if best["value"] == volumes[ranked[1]]["value"]:
        return f"{ranked[0]} and {ranked[1]} reach the same hypervolume, {_volume_text(best)}."
    if paired := _difference(data, ranked[0], ranked[1]):
        sure = "clear of zero" if paired[1] > 0 else "which includes zero: this run does not tell them apart"
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
    return f"{better} of {_count(total, 'frontier candidate')} score above the base model {every}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _low_fluency(data: ReportData) -> str:
    frontier = [c for c in data.results.get("candidates") or () if c["on_frontier"] and not is_base(c)]
    measured = [(fluency, c) for c in frontier if (fluency := fluency_of(c)) is not None]
    if not frontier:
        return ""
    if not measured:
        return "Fluency was not measured, so a high reward may still hide broken text."
    low = sorted(((f, c) for f, c in measured if f < data.fluency_bound), key=lambda item: item[0])
    bound = number(data.fluency_bound, 2)
    if not low:
        return f"Every measured frontier candidate keeps a fluency of at least {bound}."
    worst = f"{low[0][1]['method']} {label_of(low[0][1])}"
    return (
        f"Caution: {len(low)} of {_count(len(measured), 'frontier candidate')} have fluency below {bound} "
        f"(lowest {number(low[0][0], 2)}, {worst}); their rewards are partly those of broken text."
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


def _outside(data: ReportData) -> str:
    points, outside = frontier_counts(data.results), frontier_counts(data.results, outside=True)
    told = [f"{count} of the {_count(points[name], 'frontier point')} of {name}" for name, count in outside.items()]
    return f"Outside the simplex lie {'; '.join(told)}." if told else ""


def _price(data: ReportData) -> str:
    """The dearest and the cheapest training of a frontier point."""
    priced: list[tuple[float, Cost]] = []
    for cost in costs(data):
        if cost.trainings and (each := cost.per_point(cost.train)) is not None:
            priced.append((each, cost))
    if not priced:
        return ""
    dearest, cheapest = (choose(priced, key=lambda item: item[0]) for choose in (max, min))
    if dearest is cheapest:
        return f"{_trainings(*dearest)}."
    return f"{_trainings(*dearest)}; {_trainings(*cheapest)}."


def _savings(data: ReportData) -> str:
    """What searches saved of the validation answers; nothing where every candidate answered every prompt."""
    parts = []
    for cost in costs(data):
        search = cost.search
        if search is None or search["answers"] == search["all_answers"] or search["kept"] is None:
            continue
        share = search["answers"] / search["all_answers"]
        asked = f"{cost.method} asked for {search['answers']:,} of {search['all_answers']:,} answers ({share:.0%})"
        of = f"{search['measured']:,} of {_count(search['candidates'], 'candidate')}, {search['left']:,} left early"
        kept = f"its frontier is expected to keep {search['kept']:.0%} of the hypervolume that all answers of all "
        kept += f"{_count(search['candidates'], 'candidate')} would find"
        parts.append(f"{asked} on {of}, and {kept}")
    if not parts:
        return ""
    return f"Searched, not measured whole: {'; '.join(parts)}. Frontiers are among the candidates that stayed."


def _trainings(each: float, cost: Cost) -> str:
    took = f"{cost.method} took {_count(cost.trainings or 0, 'training')} for {_count(cost.points, 'frontier point')}"
    whole = cost.per_point(cost.seconds)
    beside = "expansion and evaluation" if cost.expand else "evaluation"
    extra = "" if whole is None else f" ({number(whole, 1)} s with {beside})"
    return f"{took}, {number(each, 1)} s of training per point{extra}"


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
            f"{methods} added {_count(pairs, 'pair')} from {single:,} single-reward of {mined:,} prompts{in_all}"
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
    text = "Reward models rank held-out pairs as labelled in " + ", ".join(
        f"{accuracy:.0%} ({name})" for name, accuracy in known.items()
    )
    weak = [name for name, accuracy in known.items() if accuracy < NEAR_CHANCE]
    return text + (f"; {' and '.join(weak)} is hardly better than chance." if weak else ".")


def _conflict(data: ReportData) -> str:
    """Share of pairs on which some value prefers the chosen and another the rejected response."""
    tables = [table.gaps for table in data.gaps.values() if table.gaps.shape[1] > 1 and len(table.gaps)]
    if not tables:
        return ""
    gaps = np.concatenate(tables)
    share = float(np.mean((gaps > 0).any(axis=1) & (gaps < 0).any(axis=1)))
    return f"On {share:.0%} of {_count(len(gaps), 'pair')} the values disagree about which response is better."
