"""What a person should know of an export before shipping it."""

from collections.abc import Sequence

from valuesoup.shipping.check import TOLERANCE
from valuesoup.shipping.choice import Choice
from valuesoup.shipping.exported import ExportedPolicy
from valuesoup.shipping.origin import Origin

LISTED = 3
"""More policies than this are counted, not listed."""


def notes_on(
    chosen: Sequence[Choice], policies: Sequence[ExportedPolicy], origin: Origin, rank: int | None, measured: bool
) -> tuple[str, ...]:
    """Return sentences on policies that are exported together.

    Args:
        chosen: What was chosen.
        policies: The same, as written.
        origin: Of the base.
        rank: To which adapters were to be cut.
        measured: Whether the run has measured its candidates.
    """
    pairs = list(zip(chosen, policies, strict=True))
    notes = [] if measured else ["The run has not measured any of its candidates yet."]
    for choice in (choice for choice, _ in pairs if measured and choice.measured is None):
        near = f"; the nearest measured candidate is {choice.nearest['id']}" if choice.nearest else ""
        notes.append(f"{choice.label} was never measured{near}.")
    untested = [choice for choice, _ in pairs if choice.measured is not None and choice.measured["test"] is None]
    if untested:
        notes.append(f"{_named(untested)}: no test scores (off the method's frontier on validation).")
    whole = [choice for choice, policy in pairs if rank is not None and policy.cut is None]
    if whole:
        notes.append(f"{_named(whole)}: exact, for rank {rank} cuts nothing.")
    for policy in policies:
        if policy.check.max > TOLERANCE["float32"]:
            notes.append(
                f"Rounding to 16 bits moves {policy.candidate} by {policy.check.mean:.2g} nats per token; the soup is "
                f"{policy.check.change:.2g} away from the base."
            )
    if origin.quantize is not None:
        notes.append(
            f"The vectors were trained and measured on the base quantised to {origin.quantize}; this was written for, "
            "and checked on, the base as it is stored, on which answers and scores differ somewhat."
        )
    if skipped := policies[0].check.skipped:
        notes.append(f"{skipped} held-out responses were too long for the base and were not compared.")
    if origin.hub is None and policies[0].rank is not None:
        notes.append("The base is a local folder: an adapter is of use only where that folder is; see --format merged.")
    return tuple(notes)


def _named(choices: Sequence[Choice]) -> str:
    labels = [choice.label for choice in choices]
    return ", ".join(labels) if len(labels) <= LISTED else f"{len(labels)} policies"
