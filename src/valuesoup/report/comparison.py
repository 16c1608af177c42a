"""Runs or studies side by side: the tables of a comparison on the terminal, and its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.errors import UserError
from valuesoup.report.model import ReportData
from valuesoup.report.study import policy_label
from valuesoup.report.tables import NONE, PageTable, interval, number
from valuesoup.report.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console

Compared = Mapping[str, Any]
"""What :func:`valuesoup.pipeline.comparison.compare_runs` returns."""
MOST_LISTED = 6
"""Differences in one sentence."""


@dataclass(frozen=True)
class ComparisonData(ReportData):
    """All that the page of a comparison shows.

    Attributes:
        compared: What was compared.
    """

    compared: Compared = field(default_factory=dict)

    @property
    def runs(self) -> list[str]:
        """The names of the runs or studies, in the order given."""
        return [run["name"] for run in self.compared["runs"]]

    @property
    def values(self) -> list[str]:
        """The values, in their order."""
        return list(self.compared["values"])


def comparison_data(compared: Compared, created: str = "") -> ComparisonData:
    """Gather what the page of a comparison shows; methods keep their marks over all of its figures."""
    return ComparisonData(
        results={
            "schema": 1,
            "values": compared["values"],
            "methods": {title: {"hypervolume": None} for name, title in compared["titles"].items() if name != "base"},
        },
        title=f"Comparison: {', '.join(run['name'] for run in compared['runs'])}",
        created=created,
        compared=compared,
    )


def write_comparison(compared: Compared, path: Path) -> Path:
    """Write the page of a comparison, and its figures beside it as PNG, SVG and CSV: ``x.html`` and ``x-figures``.

    Args:
        compared: What was compared.
        path: Of the page, ending in ``.html``; its folder is made if need be.

    Returns:
        The path of the page, which opens offline and asks for nothing over the network.

    Raises:
        UserError: ``path`` is not that of an HTML file.
    """
    import datetime

    from valuesoup.report.figures.comparison import comparison_figures
    from valuesoup.report.page import draw, write_page

    check_page(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = comparison_data(compared, datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    return write_page(
        "comparison.html.j2",
        data,
        path,
        summarise_comparison(compared),
        {"results": draw(comparison_figures(data), data, path.parent, f"{path.stem}-figures")},
        methods=methods_table(compared),
        differences=differences_table(compared),
        settings=settings_table(compared),
        sources=sources_table(compared),
    )


def check_page(path: Path) -> None:
    """Check where a page shall be written.

    Raises:
        UserError: It is a folder, or not named as an HTML file.
    """
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: name the page's file, such as {path.with_suffix('') / 'comparison.html'}.")


def print_comparison(compared: Compared, console: "Console") -> None:
    """Print every method of every run, the differences between runs, and the settings in which they differ.

    Args:
        compared: What was compared.
        console: Where to print.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for title, content in (
        ("Methods in one box, most balanced policies on test", methods_table(compared, brief=True)),
        ("Differences in hypervolume", differences_table(compared)),
        ("Settings that differ", settings_table(compared)),
    ):
        if not content.rows:
            continue
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        if "policy" in content.headings:
            table.caption, table.caption_justify = f"policy: weights {cell(' / '.join(compared['values']))}", "left"
        for place, heading in enumerate(content.headings):
            words = place < content.words
            table.add_column(cell(heading), justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in content.rows:
            table.add_row(*map(cell, row))
        console.print(table)
    for sentence in summarise_comparison(compared):
        say(console, sentence)


def methods_table(compared: Compared, brief: bool = False) -> PageTable:
    """Per method and run: hypervolume, weights and scores of its most balanced policy, pairs trained on, seconds.

    Args:
        compared: What was compared.
        brief: Write weights in the order of the values, and a hypervolume with half of its interval's width, which a
            terminal has room for.
    """
    values = compared["values"]
    rows = []
    for row in ordered_methods(compared):
        point = row["balanced"]
        scores = point["scores"] if point else {}
        cells = [row["run"], compared["titles"][row["method"]]]
        cells += [_policy(row, values if brief else ())]
        volume = row["hypervolume"]
        cells += [_plus_minus(volume, 3) if brief else interval(volume["mean"], volume["low"], volume["high"])]
        cells += [_plus_minus(scores.get(value)) for value in values]
        rows.append([*cells, f"{row['trained_pairs']:,.0f}", f"{row['seconds']:,.1f}"])
    headings = ("run", "method", "policy" if brief else "most balanced", "hypervolume", *values, "pairs", "seconds")
    return PageTable(headings, rows, 3)


def _policy(row: Mapping[str, Any], values: Sequence[str]) -> str:
    """What tells a method's most balanced policy from its others; another one in each seed of a study."""
    point = row["balanced"]
    if point is None:
        return NONE
    if values and point["weights"] and set(point["weights"]) <= set(values) and row["method"] != "base":
        return "/".join(f"{point['weights'].get(value, 0.0):.2g}" for value in values)
    return "" if row["method"] == "base" else policy_label(point["id"] or "/balanced", point["weights"])


def ordered_methods(compared: Compared) -> list[Mapping[str, Any]]:
    """The rows of the methods, those of one method together, in the order of the runs."""
    order = list(compared["titles"])
    return sorted(compared["methods"], key=lambda row: order.index(row["method"]))


def _plus_minus(score: Mapping[str, Any] | None, digits: int = 2) -> str:
    if score is None:
        return NONE
    half = "" if score["low"] is None else f" ±{number((score['high'] - score['low']) / 2, digits)}"
    return f"{number(score['mean'], digits)}{half}"


def differences_table(compared: Compared) -> PageTable:
    """Per method and two runs that have it: difference in hypervolume, how it is paired, and what its interval says."""
    rows = []
    for row in compared["differences"]:
        cells = [f"{row['first']} − {row['second']}", compared["titles"][row["method"]]]
        cells += [pairing(row, compared["kind"]), verdict(row), interval(row["value"], row["low"], row["high"])]
        rows.append(cells)
    return PageTable(("difference", "method", "paired", "interval", "hypervolume"), rows, 4)


def pairing(difference: Mapping[str, Any], kind: str) -> str:
    """How a difference is paired, ``by prompt (200)`` or ``by seed (3)``, or why it is not."""
    if difference["paired"]:
        return f"by {difference['paired']} ({difference['common']:,})"
    return f"no: other {'seeds' if kind == 'studies' else 'prompts'}, {difference['common']:,} common"


def verdict(difference: Mapping[str, Any]) -> str:
    """Whether the two are the same, or the interval of their difference is clear of zero."""
    if difference["identical"]:
        return "identical"
    if difference["low"] is None:
        return "unknown: one seed"
    return "clear of zero" if difference["low"] > 0 or difference["high"] < 0 else "includes zero"


def sources_table(compared: Compared) -> PageTable:
    """Name, title, seeds and folder of each run or study."""
    rows = [[run["name"], run["title"], ", ".join(map(str, run["seeds"])), run["folder"]] for run in compared["runs"]]
    return PageTable(("run" if compared["kind"] == "runs" else "study", "title", "seeds", "folder"), rows, 4)


def settings_table(compared: Compared) -> PageTable:
    """The settings that are not the same in all configurations, an en dash where one has none."""
    rows = [[row["key"], *(NONE if text is None else text for text in row["texts"])] for row in compared["settings"]]
    headings = ("setting", *(run["name"] for run in compared["runs"]))
    return PageTable(headings, rows, len(headings))


def summarise_comparison(compared: Compared) -> list[str]:
    """What a reader with one minute should know, most important first, as plain sentences."""
    found = [_best(compared)]
    for said, text in (
        ("clear of zero", "Clear of zero"),
        ("includes zero", "Not told apart"),
        ("unknown: one seed", "One seed cannot tell from chance"),
    ):
        found.append(_listed(compared, text, [row for row in compared["differences"] if verdict(row) == said]))
    found += _identical(compared)
    if not compared["differences"]:
        found.append("No method has the same name in two of them, so no difference is computed.")
    loose = [row for row in compared["differences"] if not row["paired"]]
    if loose:
        what = "seeds" if compared["kind"] == "studies" else "test prompts"
        found.append(
            f"Unpaired, because the {what} are not the same, and so less sure: {len(loose)} of "
            f"{_count(len(compared['differences']), 'difference')}."
        )
    if missing := [_name(compared, row) for row in compared["methods"] if row["balanced"] is None]:
        where = " in some seed" if compared["kind"] == "studies" else ""
        found.append(
            f"Without a most balanced policy, because{where} no candidate is on the frontier: {', '.join(missing)}."
        )
    changed = len(compared["settings"])
    found.append(
        f"The configurations differ in {_count(changed, 'setting')}." if changed else "The configurations are the same."
    )
    if compared["rewards_differ"]:
        found.append(
            f"Caution: the rewards of {', '.join(compared['rewards_differ'])} are not the same in all, so that scores "
            "and hypervolumes need not be on one scale."
        )
    return [sentence for sentence in found if sentence]


def _best(compared: Compared) -> str:
    ranked = sorted(compared["methods"], key=lambda row: -row["hypervolume"]["mean"])
    best = ranked[0]
    others = {
        name
        for row in compared["differences"]
        if row["identical"] and row["method"] == best["method"] and best["run"] in (row["first"], row["second"])
        for name in (row["first"], row["second"])
    }
    rest = [row for row in ranked[1:] if row["method"] != best["method"] or row["run"] not in others]
    told = [
        f"{_name(compared, row)}, {interval(*(row['hypervolume'][part] for part in ('mean', 'low', 'high')))}"
        for row in (best, *rest[:1])
    ]
    return f"The largest hypervolume in the common box is that of {'; the next that of '.join(told)}."


def _identical(compared: Compared) -> list[str]:
    """A sentence for every two that have identical frontiers: same scores on every prompt, or in every seed."""
    rows = compared["differences"]
    found = []
    for first, second in dict.fromkeys((row["first"], row["second"]) for row in rows):
        both = [row for row in rows if (row["first"], row["second"]) == (first, second)]
        same = [compared["titles"][row["method"]] for row in both if row["identical"]]
        if len(same) == len(both) > 1:
            found.append(f"{first} and {second} are identical in every method that both have ({len(both)}).")
        elif same:
            found.append(f"Identical in {first} and {second}: {', '.join(same)}.")
    return found


def _name(compared: Compared, row: Mapping[str, Any]) -> str:
    return f"{compared['titles'][row['method']]} of {row['run']}"


def _listed(compared: Compared, text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Differences in one sentence, the largest first."""
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: -abs(row["value"]))
    told = [
        f"{compared['titles'][row['method']]}, {row['first']} − {row['second']}: "
        f"{interval(row['value'], row['low'], row['high'])}"
        for row in ordered[:MOST_LISTED]
    ]
    more = f", and {len(rows) - MOST_LISTED} more" if len(rows) > MOST_LISTED else ""
    return f"{text}: {'; '.join(told)}{more}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
