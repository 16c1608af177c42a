"""What the panel beside the frontier says of each candidate: texts, which the page shows as texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from valuesoup.report.look import glyph_of
from valuesoup.report.model import ReportData, fluency_of, is_base, method_names
from valuesoup.report.schema import CandidateResult
from valuesoup.report.tables import NONE, estimate_text, label_of, number

MOST_BYTES = 4_000_000
"""Of answers in the panel; prompts that would go beyond it are left out, and counted."""

QUALITY = {
    "kl": ("KL from the base, nats", 2),
    "perplexity": ("perplexity under the base", 2),
    "fluency": ("fluency", 2),
    "tokens": ("tokens of an answer", 1),
    "truncated": ("cut at the longest length", 3),
    "repetition": ("repeated 3-grams", 3),
    "distinct_1": ("distinct tokens", 3),
    "distinct_2": ("distinct token pairs", 3),
}
GEOMETRY = {"cosine": "cosine of its vectors", "l2": "distance of its vectors", "hsic": "HSIC of its vectors"}


def panel(data: ReportData) -> dict[str, Any] | None:
    """The JSON value from which the page fills its panel; None where there is no candidate.

    ``candidates`` holds, by id and in the order in which keys step through them, what is told of each; ``first`` is the
    one that is shown at first, ``texts`` the answers, each kept once, to which candidates refer by their place.
    """
    found = {candidate["id"]: candidate for candidate in data.results.get("candidates") or ()}
    if not found:
        return None
    base = next((candidate for candidate in found.values() if is_base(candidate)), None)
    prompts = _prompts(data)
    texts: dict[str, int] = {}
    told = {id: _candidate(data, candidate, base) for id, candidate in found.items()}
    for number_of, sample in enumerate(data.answers[:prompts]):
        for id, answer in sample.answers.items():
            if id in told:
                place = texts.setdefault(answer.text, len(texts))
                told[id]["answers"].append([number_of, place, _scores(answer.scores)])
    methods = ["base", *method_names(data.results)]
    return {
        "first": _first(data, found),
        "candidates": told,
        "marks": {name: [(mark := glyph_of(name, data.results)).path, mark.colour] for name in methods},
        "prompts": [[[turn["role"], turn["content"]] for turn in of.prompt] for of in data.answers[:prompts]],
        "left": len(data.answers) - prompts,
        "texts": list(texts),
    }


def _first(data: ReportData, found: Mapping[str, CandidateResult]) -> str:
    """The one shown at first: of the method with the largest hypervolume, the candidate whose answers the page shows,
    else the middle one of its frontier.
    """
    volumes = {
        name: volume["value"]
        for name, of in (data.results.get("methods") or {}).items()
        if name != "base" and (volume := of.get("hypervolume"))
    }
    best = max(volumes, key=lambda name: volumes[name], default="")
    own = [id for id, one in found.items() if one["method"] == best and one["on_frontier"]]
    shown = [id for id in data.representatives if id in own]
    return (shown or own[len(own) // 2 :] or list(found))[0]


def _prompts(data: ReportData) -> int:
    """How many of the sample prompts, from the first, have answers of at most `MOST_BYTES` in all."""
    texts: set[str] = set()
    size = 0
    for count, sample in enumerate(data.answers):
        new = {answer.text for answer in sample.answers.values()} - texts
        size += sum(len(text.encode()) for text in new) + sum(len(turn["content"].encode()) for turn in sample.prompt)
        if size > MOST_BYTES:
            return count
        texts |= new
    return len(data.answers)


def _candidate(data: ReportData, candidate: CandidateResult, base: CandidateResult | None) -> dict[str, Any]:
    values = data.results["values"]
    weights = {} if is_base(candidate) else candidate["weights"] or {}
    largest = max([1.0, *weights.values()])
    split = [("test", candidate.get("test")), ("validation", candidate.get("validation"))]
    known = [(name, estimates) for name, estimates in split if estimates]
    truth = candidate.get("truth") or {}
    columns = [name for name, _ in known] + (["in truth"] if truth else [])
    return {
        "method": "base" if is_base(candidate) else candidate["method"],
        "label": label_of(candidate),
        "weights": [[name, f"{weight:.3g}", max(0.0, weight) / largest] for name, weight in weights.items()],
        "notes": _notes(data, candidate),
        "columns": columns,
        "scores": [
            [
                value,
                *(estimate_text(estimates.get(value), 2).replace(", ", ",\u00a0") for _, estimates in known),
                *([number(truth.get(value), 2)] if truth else []),
            ]
            for value in values
        ],
        "quality": _quality(_measured(candidate), _measured(None if base is candidate else base)),
        "geometry": _geometry(data, candidate["method"]),
        "answers": [],
    }


def _notes(data: ReportData, candidate: CandidateResult) -> list[str]:
    if is_base(candidate):
        return ["No adapter: where every method starts."]
    on = "On" if candidate["on_frontier"] else "Not on"
    text = f"{on} the frontier of its method"
    probability = candidate.get("frontier_probability")
    text += "" if probability is None else f", and on that of all methods in {probability:.0%} of the resamples"
    notes = [f"{text}."]
    if candidate.get("outside_simplex"):
        notes.append("Its weights lie outside the simplex: they do not sum to 1, or one is below 0.")
    if not candidate.get("test"):
        notes.append("Not scored on test, and without answers here.")
    fluency = fluency_of(candidate)
    if fluency is not None and fluency < data.fluency_bound:
        bound = number(data.fluency_bound, 2)
        notes.append(f"Caution: its fluency is below {bound}, so its rewards are partly from broken text.")
    return notes


def _quality(own: Mapping[str, Any], base: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows of name, the candidate's figure and the base's, for what was measured."""
    rows: list[Sequence[str]] = []
    for key, (name, digits) in QUALITY.items():
        if own.get(key) is not None:
            before = base.get(key)
            rows.append((name, number(own[key], digits), "" if before is None else number(before, digits)))
    return rows


def _measured(candidate: CandidateResult | None) -> Mapping[str, Any]:
    """The quality of a candidate; nothing where it was not measured."""
    return (candidate.get("quality") or {}) if candidate else {}


def _geometry(data: ReportData, method: str) -> list[Sequence[str]]:
    shape: Mapping[str, Any] = (data.results.get("geometry") or {}).get(method) or {}
    return [
        (name, f"{shape[key]:.3g}".replace("-", "−")) for key, name in GEOMETRY.items() if shape.get(key) is not None
    ]


def _scores(scores: Mapping[str, float]) -> str:
    return " · ".join(f"{value} {number(score, 2)}" for value, score in scores.items()) or NONE
