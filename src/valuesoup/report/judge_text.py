"""What a judge said, as the command line prints it, and the rows of its tables on the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valuesoup.report.tables import NONE, PageTable, print_tables

if TYPE_CHECKING:
    from rich.console import Console

    from valuesoup.evaluation.judge import Cost

Judged = Mapping[str, Any]
"""The content of ``judge.json``."""
TRUSTED = 0.5
"""Least share of pairs for which a judge must say the same in both orders."""


def cost_text(cost: "Cost", model: str) -> str:
    """Say what questions will take, e.g. ``1,200 questions to 'm', about 0.31 M tokens in and 0.06 M out``."""
    tokens = f"about {_tokens(cost.tokens_in)} tokens in and {_tokens(cost.tokens_out)} out"
    return f"{cost.questions:,} question{'' if cost.questions == 1 else 's'} to '{model}', {tokens}"


def print_judged(judged: Judged, console: "Console") -> None:
    """Print wins, ties, losses and win rates per value, and how far the judge agrees with itself and with the rewards.

    Args:
        judged: The content of ``judge.json`` of a run or a study.
        console: Where to print.
    """
    tables = (
        (f"Win rates by {judged['judge']['model']}", winrates_table(judged)),
        ("The judge", judges_table(judged)),
    )
    print_tables(tables, remarks(judged), console)


def winrates_table(judged: Judged) -> PageTable:
    """Per value and comparison: wins, ties, losses, win rate with interval, pairs left out, agreements."""
    rows = []
    for row in judged["comparisons"]:
        cells = [row["value"], row["policy_title"], row["baseline_title"]]
        cells += [f"{row[name]:,}" for name in ("wins", "ties", "losses")]
        cells += [share_text(row[name]) for name in ("win_rate", "orders_agreement", "reward_agreement")]
        rows.append(cells)
    headings = ("value", "policy", "against", "win", "tie", "loss", "win rate")
    return PageTable((*headings, "orders agree", "rewards agree"), rows, 3)


def judges_table(judged: Judged) -> PageTable:
    """Per value, over all comparisons: how far the judge agrees with itself and with the rewards, and its failures."""
    rows = []
    for value, of in judged["judges"].items():
        shares = [share_text(of[name]) for name in ("orders_agreement", "first_share", "reward_agreement")]
        rows.append([value, *shares, *(f"{of[name]:,}" for name in ("identical", "invalid", "unanswered"))])
    headings = ("value", "orders agree", "for the first answer", "rewards agree")
    return PageTable((*headings, "identical", "no verdict", "no answer"), rows, 1)


def remarks(judged: Judged) -> list[str]:
    """Say under which values the judge contradicts itself, and what was left out."""
    found = [
        f"Caution: under {value} the judge says the same in both orders for {share_text(of['orders_agreement'])} of "
        "the pairs only, so its win rates there say little."
        for value, of in judged["judges"].items()
        if of["orders_agreement"] and of["orders_agreement"]["value"] < TRUSTED
    ]
    found += [f"Left out: {name}, because {why}." for name, why in judged["left_out"].items()]
    totals = judged["judges"].values()
    if invalid := sum(of["invalid"] for of in totals):
        found.append(f"{invalid:,} pairs have no usable verdict after further attempts and count for nobody.")
    if unanswered := sum(of["unanswered"] for of in totals):
        found.append(
            f"{unanswered:,} pairs got no answer and count for nobody; the same command asks about them again."
        )
    return found


def share_text(share: Mapping[str, float | None] | None) -> str:
    """``58% [51, 65]``; without ends only the share, an en dash where there is none."""
    if share is None:
        return NONE
    value, low, high = share["value"], share["low"], share["high"]
    assert value is not None
    ends = "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * value:.0f}%{ends}".replace("-", "−")


def _tokens(count: int) -> str:
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.0f} k"
