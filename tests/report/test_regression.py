"""The figure and the tables of what alignment cost the base."""

import csv
import math
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_report import NAMES, report_data

from valuesoup.report.figures import regression_section
from valuesoup.report.figures.regression import MOST_PANELS, REGRESSION
from valuesoup.report.model import ReportData
from valuesoup.report.page import write_report
from valuesoup.report.regression import checked_tables, cost_sentence, percent, print_checked, remarks

POLICIES = ("SOUP", "VC-soup")


def told(title: str, n: int) -> dict[str, Any]:
    weights = dict.fromkeys(NAMES[:n], 0.0 if title == "base" else 1 / n)
    return {"id": title, "method": title, "method_title": title, "title": title, "weights": weights}


def change(mean: float, half: float | None = 0.01) -> dict[str, Any]:
    return {"mean": mean, "low": half and mean - half, "high": half and mean + half}


def checked(n: int = 2, metrics: int = 1, policies: tuple[str, ...] = POLICIES, **text: Any) -> dict[str, Any]:
    """Return a check in which the k-th policy is k % worse on a text and k / 10 below the base in every metric."""
    base = {"perplexity": 10.0, "bits_per_byte": 1.0, "log_ratio": None, "bits": None}
    rows = [{**told("base", n), **base}]
    for k, policy in enumerate(policies, start=1):
        figures = {"perplexity": 10 + k / 10, "bits_per_byte": 1.01}
        rows.append(
            {**told(policy, n), **figures, "log_ratio": change(math.log(1 + k / 100)), "bits": change(0.01, None)}
        )
    facts = {"name": "news.txt", "documents": 40, "empty": 0, "repeated": 0, "tokens": 1000, "bytes": 4000}
    facts |= {"unknown": 0, "cut": 0, "window": 2048, "stride": 1024, **text}
    tables = [
        {
            **{"name": f"task-{m} acc", "higher_is_better": (True, False, None)[m % 3]},
            "policies": [
                {**told(policy, n), "value": 0.5 - k / 10, "stderr": 0.02, "difference": change(-k / 10) if k else None}
                for k, policy in enumerate(("base", *policies))
            ],
        }
        for m in range(metrics)
    ]
    return {
        **{"level": 0.95, "outdated": 0, "texts": [{**facts, "policies": rows}]},
        "commands": [{"command": "lm_eval {model} {out}", "metrics": tables}] if metrics else [],
    }


def plain(**parts: Any) -> ReportData:
    """Return a report of nothing else, which is drawn quickly."""
    return ReportData(results={"schema": 1, "values": list(NAMES[:2])}, **parts)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_figure_shows_percents_of_perplexity_and_differences_of_metrics(n: int) -> None:
    data = report_data(n, checked=checked(n))
    table = REGRESSION.table(data)
    assert [(row["dataset"], row["policy"]) for row in table.rows] == [
        *(("perplexity on news.txt", policy) for policy in POLICIES),
        *(("task-0 acc", policy) for policy in POLICIES),
    ]
    assert [row["mean"] for row in table.rows] == pytest.approx([1.0, 2.0, -0.1, -0.2])
    assert REGRESSION.chart(data, table).to_dict()
    caption = REGRESSION.caption(data, table)
    assert "Highest on news.txt: VC-soup +2.0% [+1.0, +3.0], SOUP +1.0% [+0.0, +2.0]." in caption
    assert "paired over documents" in caption and "wider than paired ones" in caption


def test_axes_say_which_way_is_better() -> None:
    data = report_data(2, checked=checked(2, metrics=3))
    table = REGRESSION.table(data)
    text = str(REGRESSION.chart(data, table).to_dict())
    for says in ("% (higher is worse)", "the base (higher is better)", "the base (lower is better)", "to the base'"):
        assert says in text


def test_many_metrics_stay_in_the_tables_and_are_counted() -> None:
    data = report_data(2, checked=checked(2, metrics=20))
    table = REGRESSION.table(data)
    assert len(REGRESSION.chart(data, table).to_dict()["concat"]) == MOST_PANELS
    assert "9 further metrics stand in the tables alone" in REGRESSION.caption(data, table)
    ((_, texts), (_, metrics)) = checked_tables(data.checked)
    assert (len(texts.rows), len(metrics.rows)) == (3, 60)


def test_tables_have_the_base_first_and_leave_open_what_it_has_not() -> None:
    (caption, table), (other, metrics) = checked_tables(checked(2))
    assert (caption, other) == ("Perplexity on news.txt", "Measured by lm_eval {model} {out}")
    assert table.rows[0] == ["base", "–", "10.000", "–", "1.000", "–"]
    assert table.rows[2][:4] == ["VC-soup", "helpful 0.5 · harmless 0.5", "10.200", "+2.0% [+1.0, +3.0]"]
    assert table.rows[2][5] == "0.0100"
    assert metrics.rows[1] == ["task-0 acc", "SOUP", "helpful 0.5 · harmless 0.5", "0.400 ± 0.020", metrics.rows[1][4]]
    assert metrics.rows[1][4] == "−0.1000 [−0.1100, −0.0900]"


def test_a_log_ratio_is_told_as_a_change_in_percent() -> None:
    assert percent(change(math.log(1.1), None)) == "+10.0%"
    assert percent({"mean": math.log(0.5), "low": math.log(0.25), "high": 0.0}) == "−50.0% [−75.0, +0.0]"
    assert percent(None) == "–"


def test_what_was_cut_left_out_unknown_or_has_changed_is_said() -> None:
    found = checked(2, cut=3, empty=2, repeated=1, unknown=50, documents=1)
    said = " ".join(remarks({**found, "outdated": 4, "left_out": {"dpo": "it has no answers"}}))
    assert "3 longer than 2,048 tokens, read in windows that move by 1,024; left out: 2 empty, 1 repeated." in said
    assert "Caution: 50 tokens of news.txt (5.0%) are unknown to the base's tokenizer" in said
    assert "One document, such as news.txt, gives no interval." in said
    assert "Left out: dpo, because it has no answers." in said
    assert "4 results are of policies that have changed since" in said
    assert remarks(checked(2)) == ["news.txt: 40 documents, 1,000 tokens, 4,000 bytes."]


@pytest.mark.usefixtures("undrawn")
def test_without_a_check_there_is_no_section_and_with_an_outdated_one_a_sentence(tmp_path: Path) -> None:
    assert regression_section(report_data(2)) == []
    assert "What alignment cost" not in write_report(plain(), tmp_path / "none").read_text(encoding="utf-8")
    data = plain(checked={"level": 0.95, "texts": [], "commands": [], "outdated": 2})
    page = write_report(data, tmp_path / "old").read_text(encoding="utf-8")
    assert "<strong>Against the base model.</strong> 2 results are of policies that have changed since" in page


def test_the_page_shows_figure_and_tables_and_escapes_what_files_are_called(tmp_path: Path) -> None:
    data = plain(checked=checked(2, policies=("SOUP", "<b>x</b>"), name="<i>y</i>.txt"))
    page = write_report(data, tmp_path).read_text(encoding="utf-8")
    assert 'href="#alignment"' in page and '<h2 id="alignment">What alignment cost</h2>' in page
    assert '<figure id="alignment-cost">' in page
    assert "<b>x</b>" not in page and "<i>y</i>" not in page
    rows = list(csv.DictReader((tmp_path / "figures" / "alignment-cost.csv").open(encoding="utf-8")))
    assert len(rows) == 4
    assert {"measured", "policy", "weights", "value", "difference to the base", "low", "high"} <= set(rows[0])
    assert (tmp_path / "figures" / "alignment-cost.png").stat().st_size > 100


def test_the_terminal_shows_the_same_numbers() -> None:
    console = Console(file=StringIO(), width=140, no_color=True)
    print_checked({**checked(2), "left_out": {}}, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"VC-soup +helpful 0\.5 · harmless 0\.5 +10\.200 +\+2\.0% \[\+1\.0, \+3\.0\] +1\.010", text)
    assert re.search(r"task-0 acc +SOUP", text)
    assert "news.txt: 40 documents, 1,000 tokens, 4,000 bytes." in text


def test_the_summary_says_who_cost_most_and_least() -> None:
    assert cost_sentence(checked(2)) == [
        "What alignment cost: perplexity on news.txt changes against the base: VC-soup +2.0% [+1.0, +3.0] the "
        "most, SOUP +1.0% [+0.0, +2.0] the least."
    ]
    (one,) = cost_sentence(checked(2, policies=("SOUP",)))
    assert one.endswith("changes against the base: SOUP +1.0% [+0.0, +2.0].")
    assert cost_sentence({}) == cost_sentence({"texts": [], "commands": [], "outdated": 1}) == []
