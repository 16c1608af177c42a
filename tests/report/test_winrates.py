"""The figure and the tables of win rates, on the page of a run and of a study."""

import csv
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_report import NAMES, report_data
from synthetic_study import study_data

from valuesoup.evaluation.judge import Cost
from valuesoup.evaluation.verdicts import Tally
from valuesoup.report.figures import winrate_section
from valuesoup.report.figures.study import study_figures
from valuesoup.report.figures.winrates import WINRATES
from valuesoup.report.judge_text import cost_text, judges_table, print_judged, remarks, winrates_table
from valuesoup.report.model import ReportData
from valuesoup.report.page import draw, write_page, write_report
from valuesoup.report.tables import PageTable


def judged(n: int = 2, policies: tuple[str, ...] = ("SOUP", "VC-soup"), **changes: Any) -> dict[str, Any]:
    """Return what a judge said of policies against the base, the first with no loss, the last with no usable pair."""
    values = list(NAMES[:n])
    rows, totals = [], {}
    for value in values:
        total = Tally()
        for k, policy in enumerate(policies):
            counts = Tally(wins=6 + k, ties=3, losses=3 * k, identical=1, ordered=8, agreed=6, decisive=12, first=9)
            if policy == "nothing":
                counts = Tally(invalid=4, unanswered=2)
            total += counts
            titles = {"policy_title": policy, "baseline_title": "base"}
            rows.append({"value": value, "method": policy, "baseline": "base", **titles, **counts.summary(0.95)})
        totals[value] = total.summary(0.95)
    fixed = {"schema": 1, "values": values, "judge": {"url": "http://a/v1", "model": "judge-1"}, "level": 0.95}
    fixed |= {"limit": None, "prompts": dict.fromkeys(values, 12), "left_out": {}}
    return {**fixed, "comparisons": rows, "judges": totals, **changes}


def plain(**parts: Any) -> ReportData:
    """Return a report of nothing else, which is drawn quickly."""
    return ReportData(results={"schema": 1, "values": list(NAMES[:2])}, **parts)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_bars_of_a_comparison_fill_it_and_leave_out_what_did_not_occur(n: int) -> None:
    data = report_data(n, judged=judged(n))
    table = WINRATES.table(data)
    for value in NAMES[:n]:
        own = [row for row in table.rows if row["dataset"] == value]
        assert [(row["method"], row["outcome"], row["pairs"]) for row in own] == [
            *(("SOUP", "win", 6), ("SOUP", "tie", 3)),
            *(("VC-soup", "win", 7), ("VC-soup", "tie", 3), ("VC-soup", "loss", 3)),
        ]
        assert [(row["start"], row["end"]) for row in own[:2]] == [(0, 6 / 9), (6 / 9, 1)]
        assert own[0]["rate"] == pytest.approx(7.5 / 9)
    assert WINRATES.chart(data, table).to_dict()
    assert WINRATES.caption(data, table).startswith("Whose answer is better under each value, as judged by judge-1")


def test_a_comparison_without_a_usable_pair_has_no_bar_and_is_counted_in_words() -> None:
    found = judged(1, ("SOUP", "nothing"), left_out={"mva": "it broke"})
    table = WINRATES.table(report_data(1, judged=found))
    assert {row["method"] for row in table.rows} == {"SOUP"}
    said = " ".join(remarks(found))
    assert "Left out: mva, because it broke." in said
    assert "4 pairs have no usable verdict" in said
    assert "2 pairs got no answer" in said
    (row,) = [row for row in winrates_table(found).rows if row[1] == "nothing"]
    assert row[3:] == ["0", "0", "0", "–", "–", "–"]


def test_a_judge_that_contradicts_itself_is_not_to_be_trusted() -> None:
    found = judged(1)
    assert remarks(found) == []
    found["judges"]["helpful"] = Tally(ties=9, ordered=9, agreed=4, decisive=14, first=14).summary(0.95)
    (said,) = remarks(found)
    assert said.startswith(
        "Caution: under helpful the judge says the same in both orders for 44% [19, 73] of the pairs"
    )


@pytest.mark.usefixtures("undrawn")
def test_without_a_judge_there_is_no_section_and_with_a_stale_one_a_sentence(tmp_path: Path) -> None:
    assert winrate_section(report_data(2)) == []
    page = write_report(plain(), tmp_path / "none").read_text(encoding="utf-8")
    assert 'href="#judge"' not in page
    data = plain(judged={"missing": "The answers of x have changed."})
    page = write_report(data, tmp_path / "stale").read_text(encoding="utf-8")
    assert "<strong>Wins, ties and losses.</strong> The answers of x have changed." in page
    assert 'id="win-rates"' not in page


def test_the_page_shows_the_figure_its_tables_and_escapes_what_a_run_is_called(tmp_path: Path) -> None:
    data = plain(judged=judged(2, ("SOUP", "<b>x</b>")))
    page = write_report(data, tmp_path).read_text(encoding="utf-8")
    assert '<a href="#judge">Win rates</a>' in page
    assert '<figure id="win-rates">' in page
    assert "<b>x</b>" not in page
    assert "The judge, over all comparisons" in page
    rows = list(csv.DictReader((tmp_path / "figures" / "win-rates.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 5
    assert {"value", "method", "baseline", "outcome", "pairs", "share", "win rate", "orders agree"} <= set(rows[0])
    assert (tmp_path / "figures" / "win-rates.svg").read_text(encoding="utf-8").count("vs base") >= 4


def test_over_seeds_the_interval_is_students_and_one_seed_has_none() -> None:
    for seeds, says in (([0, 1], "95% Student interval over 2 seeds"), ([0], "no interval from one seed")):
        found = judged(1, seeds=seeds)
        for row in found["comparisons"]:
            row["win_rate"] = {"value": 0.6, "low": None, "high": None, "each": [0.6] * len(seeds)}
        data = report_data(1, judged=found)
        table = WINRATES.table(data)
        assert says in WINRATES.caption(data, table)
        assert WINRATES.chart(data, table).to_dict()
        assert winrates_table(found).rows[0][6] == "60%"


def test_the_page_of_a_study_shows_them_too(tmp_path: Path) -> None:
    study = study_data(2, judged=judged(2, seeds=[0, 1, 2]))
    figures = study_figures(study)
    sections = {name: draw(own if name == "judge" else [], study, tmp_path) for name, own in figures.items()}
    none = PageTable((), [])
    page = write_page(
        "study.html.j2", study, tmp_path / "p.html", [], sections, points=none, methods=none, differences=none
    )
    text = page.read_text(encoding="utf-8")
    assert '<figure id="win-rates">' in text
    assert "Student interval over 3 seeds" in text
    assert "The judge, over all comparisons" in text


def test_the_terminal_shows_the_same_numbers() -> None:
    found = judged(1)
    console = Console(file=StringIO(), width=120, no_color=True)
    print_judged(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"helpful\s+VC-soup\s+base\s+7\s+3\s+3\s+65% \[\d+, \d+\]\s+75% \[\d+, \d+\]\s+–", text)
    assert judges_table(found).rows[0][1].startswith("75% [")
    assert judges_table(found).rows[0][2].startswith("75% [")


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        (Cost(1, 250, 50), "1 question to 'm', about 250 tokens in and 50 out"),
        (Cost(4000, 1_240_000, 200_000), "4,000 questions to 'm', about 1.24 M tokens in and 0.20 M out"),
        (Cost(0, 0, 0), "0 questions to 'm', about 0 tokens in and 0 out"),
    ],
)
def test_a_cost_is_said_in_round_numbers(cost: Cost, says: str) -> None:
    assert cost_text(cost, "m") == says
