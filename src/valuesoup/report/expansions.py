"""Prompt expansions of a run, each once, and the table of what was left at each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from valuesoup.report.model import Expansion, ReportData
from valuesoup.report.tables import NONE, PageTable

Part = Callable[[Expansion], object]
STEPS = {
    "prompts": "prompts mined",
    "joint": "of these, pass every value at once",
    "none": "of these, pass no value",
    "single_reward": "of these, single-reward",
    "failed": "dropped: no answer of the rewriter",
    "empty": "dropped: empty rewrite",
    "unchanged": "dropped: rewrite unchanged",
    "too_long": "dropped: rewrite too long",
    "held_out": "dropped: rewrite is a held-out prompt",
    "duplicate": "dropped: same rewrite as another prompt's",
    "fused": "fused",
    "responses": "responses to the fused prompts",
    "cut_responses": "of these, cut off by the length limit",
    "empty_responses": "of these, empty",
    "without_pair": "dropped: no response better in every value",
    "left_out": "dropped: beyond the number of pairs asked for",
    "pairs": "pairs added",
}
"""Counts of an expansion in the order of its steps, in words."""


@dataclass(frozen=True)
class Expanded:
    """An expansion and whose it is.

    Attributes:
        methods: The methods that use it, in the order of the results.
        what: What was expanded.
        expansion: Its counts, profile and distribution.
    """

    methods: Sequence[str]
    what: str
    expansion: Expansion


def distinct_expansions(data: ReportData, part: Part = lambda expansion: expansion) -> list[Expanded]:
    """The expansions of all methods, one that several methods share listed once.

    Args:
        data: Of the report.
        part: What is to be shown of an expansion: two that differ elsewhere only, as by the pairs kept, are one.
    """
    found: list[tuple[list[str], str, Expansion]] = []
    for method, parts in data.expansions.items():
        for what, expansion in parts.items():
            same = next((one for one in found if (one[1], part(one[2])) == (what, part(expansion))), None)
            if same is None:
                found.append(([method], what, expansion))
            else:
                same[0].append(method)
    return [Expanded(*one) for one in found]


def label(one: Expanded) -> str:
    """``A and B: what was expanded``, the methods first."""
    return f"{' and '.join(one.methods)}: {one.what}"


def added_pairs(data: ReportData) -> dict[str, int]:
    """Pairs that the expansions of each method added, summed."""
    return {
        method: sum(expansion.counts.get("pairs", 0) for expansion in parts.values())
        for method, parts in data.expansions.items()
        if parts
    }


def expansions_table(data: ReportData) -> PageTable:
    """Per step of each expansion: how many prompts or pairs there were, and how many were dropped and why."""
    shown = distinct_expansions(data)
    known = dict.fromkeys(step for one in shown for step in one.expansion.counts)
    steps = [*(step for step in STEPS if step in known), *(step for step in known if step not in STEPS)]
    rows = [
        [
            STEPS.get(step, step.replace("_", " ")),
            *(f"{counts[step]:,}" if step in counts else NONE for counts in (one.expansion.counts for one in shown)),
        ]
        for step in steps
    ]
    return PageTable(("step", *(label(one) for one in shown)), rows)
