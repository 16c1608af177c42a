"""What alignment cost the base, as the command line prints it, and the rows of its tables on the page."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from valuesoup.report.model import weights_text
from valuesoup.report.tables import NONE, PageTable, interval, number, print_tables

if TYPE_CHECKING:
    from rich.console import Console

Checked = Mapping[str, Any]
"""What `valuesoup.regression.checked_run` returns."""


def print_checked(checked: Checked, console: "Console") -> None:
    """Print a table per text and per command, and what was left out.

    Args:
        checked: As `valuesoup.regression.check` returns it.
        console: Where to print.
    """
    print_tables(checked_tables(checked), remarks(checked), console)


def checked_tables(checked: Checked) -> list[tuple[str, PageTable]]:
    """Return a heading and a table for each text, and for each command."""
    tables = [(f"Perplexity on {text['name']}", _text_table(text)) for text in checked["texts"]]
    return tables + [(f"Measured by {of['command']}", _command_table(of)) for of in checked["commands"]]


def percent(log_ratio: Mapping[str, float | None] | None) -> str:
    """``+3.1% [+2.4, +3.9]`` for the change that a log-ratio means; an en dash for none."""
    if log_ratio is None:
        return NONE
    mean, low, high = (None if end is None else 100 * math.expm1(end) for end in map(log_ratio.get, _ENDS))
    ends = "" if low is None or high is None else f" [{_signed(low, 1)}, {_signed(high, 1)}]"
    return f"{_signed(mean or 0.0, 1)}%{ends}"


def cost_sentence(checked: Checked) -> list[str]:
    """Say for the summary which policies cost the base most and least, on the first text; nothing without one."""
    if not checked.get("texts"):
        return []
    text = checked["texts"][0]
    order = sorted(text["policies"][1:], key=lambda row: -row["log_ratio"]["mean"])
    told = f"{order[0]['title']} {percent(order[0]['log_ratio'])}"
    if len(order) > 1:
        told += f" the most, {order[-1]['title']} {percent(order[-1]['log_ratio'])} the least"
    return [f"What alignment cost: perplexity on {text['name']} changes against the base: {told}."]


def remarks(checked: Checked) -> list[str]:
    """Say what was read and how, which texts are poor ground for a judgement, and what was left out."""
    found = []
    for text in checked["texts"]:
        said = f"{text['name']}: {text['documents']:,} documents, {text['tokens']:,} tokens, {text['bytes']:,} bytes"
        if text["cut"]:
            said += f"; {text['cut']:,} longer than {text['window']:,} tokens, read in windows that move by "
            said += f"{text['stride']:,}"
        left = [f"{text[name]:,} {name}" for name in ("empty", "repeated") if text[name]]
        found.append(said + (f"; left out: {', '.join(left)}." if left else "."))
        if text["unknown"]:
            share = text["unknown"] / text["tokens"]
            found.append(
                f"Caution: {text['unknown']:,} tokens of {text['name']} ({share:.1%}) are unknown to the base's "
                "tokenizer, so its bits per byte do not cover them."
            )
        if text["documents"] == 1:
            found.append(f"One document, such as {text['name']}, gives no interval.")
    found += [f"Left out: {name}, because {why}." for name, why in checked.get("left_out", {}).items()]
    if outdated := checked["outdated"]:
        found.append(f"{outdated:,} results are of policies that have changed since, and not shown; check them again.")
    return found


_ENDS = ("mean", "low", "high")


def _text_table(text: Mapping[str, Any]) -> PageTable:
    rows = []
    for row in text["policies"]:
        cells = [row["title"], _weights(row), number(row["perplexity"]), percent(row["log_ratio"])]
        rows.append([*cells, number(row["bits_per_byte"]), _difference(row["bits"])])
    return PageTable(("policy", "weights", "perplexity", "change", "bits per byte", "difference"), rows, 2)


def _command_table(command: Mapping[str, Any]) -> PageTable:
    rows = []
    for metric in command["metrics"]:
        for row in metric["policies"]:
            stderr = "" if row["stderr"] is None else f" ± {number(row['stderr'])}"
            cells = [metric["name"], row["title"], _weights(row), f"{number(row['value'])}{stderr}"]
            rows.append([*cells, _difference(row["difference"])])
    return PageTable(("metric", "policy", "weights", "value ± standard error", "difference to the base"), rows, 3)


def _weights(row: Mapping[str, Any]) -> str:
    weights = row["weights"]
    return weights_text(weights) if weights and any(weights.values()) else NONE


def _difference(change: Mapping[str, float | None] | None) -> str:
    return NONE if change is None else interval(change["mean"], change["low"], change["high"], 4)


def _signed(x: float, digits: int) -> str:
    return f"{x:+z.{digits}f}".replace("-", "−")
