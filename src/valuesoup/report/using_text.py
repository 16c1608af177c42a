"""What ``valuesoup pick`` and ``valuesoup export`` print."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from valuesoup.errors import printable
from valuesoup.report.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console

    from valuesoup.pipeline.picking import Picked, Score
    from valuesoup.shipping.exported import Check, Exported

LISTED = 8
"""More exported policies than this are summed up."""


def print_picked(picked: "Picked", console: "Console") -> None:
    """Print the candidate, why it is, its scores beside those of the runners-up, and the command that exports it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    say(console, f"{picked.id}: {picked.why}.")
    own = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("mean reward", "validation", "test"):
        own.add_column(heading, justify="left" if heading == "mean reward" else "right", overflow="fold")
    for value in picked.validation:
        own.add_row(cell(value), *(cell(_interval(part, value)) for part in (picked.validation, picked.test)))
    console.print(own)
    if picked.runners_up:
        others = Table(box=SIMPLE_HEAD, pad_edge=False)
        others.add_column("runners-up, validation / test", overflow="fold")
        for value in picked.validation:
            others.add_column(cell(value), justify="right")
        for one in picked.runners_up:
            means = [f"{_mean(one.validation, value)} / {_mean(one.test, value)}" for value in one.validation]
            others.add_row(cell(one.id), *means)
        console.print(others)
    flattered = "" if picked.on == "validation" else " The test prompts chose it, so its test scores flatter it."
    say(console, f"{picked.feasible} of {picked.considered} candidates could be picked.{flattered}")
    print(printable(f"export it: {picked.command}"))


def print_exported(exported: "Exported", console: "Console") -> None:
    """Print what was written, how it compares with the Soup, what to know, and how to use it."""
    policies = exported.policies
    if len(policies) > LISTED:
        checks = [policy.check for policy in policies]
        ranks = sorted({policy.rank or 0 for policy in policies})
        say(console, f"{len(policies)} adapters of rank {' and '.join(map(str, ranks))}")
        say(console, f"    loaded back, the one that differs most: {_compared(max(checks, key=lambda one: one.max))}")
    for policy in policies if len(policies) <= LISTED else ():
        rank = f", rank {policy.rank}" if policy.rank is not None else ""
        say(console, f"{policy.candidate}{rank}")
        if policy.cut:
            say(
                console,
                f"    cut from rank {policy.cut.exact_rank}: relative error {policy.cut.relative_error:.3g} of the "
                f"change of weights (Frobenius), KL(exact ‖ cut) {policy.cut.kl:.3g} nats per answer to "
                f"{policy.cut.prompts} validation prompts",
            )
        say(console, f"    loaded back: {_compared(policy.check)}")
    for note in exported.notes:
        say(console, f"note: {note}")
    print(printable(f"export: {exported.folder} ({len(exported.files)} files)"))
    print("\n".join(("use it:", "", *map(printable, exported.usage.split("\n")), "")))


def _compared(check: "Check") -> str:
    return (
        f"log-probabilities of {check.responses} held-out responses differ from the Soup's by {check.mean:.2g} nats "
        f"per token in the mean, {check.max:.2g} at most (allowed {check.tolerance:g}); the Soup's from the base's by "
        f"{check.change:.2g}"
    )


def _interval(scores: "Mapping[str, Score] | None", value: str) -> str:
    if scores is None:
        return "–"
    score = scores[value]
    return f"{score.mean:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"


def _mean(scores: "Mapping[str, Score] | None", value: str) -> str:
    return "–" if scores is None else f"{scores[value].mean:+.3f}"
