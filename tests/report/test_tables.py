import io
import subprocess
import sys

from rich.console import Console
from synthetic_report import candidate, report_data, results

from valuesoup.report import frontier_table, print_frontier
from valuesoup.report.tables import candidates_table, dropped_table, filters_table, interval, methods_table, number


def printed(full: object, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_frontier(full, console)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_base_comes_first_then_methods_best_first_in_the_first_value() -> None:
    rows = frontier_table(results(2))  # type: ignore[arg-type]
    assert rows[0].base and rows[0].weights is None
    assert [row.method for row in rows[1:]] == sorted(row.method for row in rows[1:])
    for method in ("dpo", "soup", "vc-soup"):
        means = [row.scores["helpful"]["mean"] for row in rows if row.method == method]
        assert means == sorted(means, reverse=True)


def test_dominated_candidates_are_not_in_the_frontier_table() -> None:
    full = results(2)
    shown = {row.id for row in frontier_table(full)}  # type: ignore[arg-type]
    assert shown == {c["id"] for c in full["candidates"] if c["on_frontier"]} | {"base"}


def test_a_candidate_without_test_scores_shows_validation_and_says_so() -> None:
    one = candidate("x", "soup", None, {"helpful": 0.5}, test=None, quality=None, frontier_probability=None)
    (row,) = frontier_table({"schema": 1, "values": ["helpful"], "candidates": [one]})
    assert (row.split, row.scores["helpful"]["mean"], row.fluency, row.probability) == ("validation", 0.5, None, None)


def test_the_terminal_table_shows_weights_scores_and_fluency() -> None:
    text = printed(results(2), width=80)
    assert "Frontier, test scores" in text and "weights: helpful / harmless" in text
    (line,) = (line for line in text.splitlines() if " 1/0 " in line)
    assert line.split() == ["dpo", "1/0", "0.40", "±0.05", "−0.30", "±0.05", "0.70", "0.93"]


def test_weights_of_other_things_than_values_are_spelt_out_and_none_gives_the_id() -> None:
    scores = {"helpful": 0.5}
    candidates = [candidate("first", "seqt", None, scores), candidate("second", "lw", {"policy 3": 1.0}, scores)]
    text = printed({"schema": 1, "values": ["helpful"], "candidates": candidates})
    assert "first" in text and "policy 3 1" in text


def test_markup_in_names_is_not_obeyed_by_the_terminal() -> None:
    one = candidate("x", "[red]soup[/red]", {"helpful": 1.0}, {"helpful": 0.5})
    text = printed({"schema": 1, "values": ["helpful"], "candidates": [one]})
    assert "[red]soup[/red]" in text


def test_an_empty_run_prints_an_empty_table() -> None:
    assert "Frontier" in printed({"schema": 1, "values": ["helpful"]})


def test_numbers_have_a_true_minus_no_minus_zero_and_a_dash_for_nothing() -> None:
    assert number(-0.25, 2) == "−0.25"
    assert number(-0.001, 2) == "0.00"
    assert number(None) == "–"
    assert interval(0.5, 0.4, 0.6, 1) == "0.5 [0.4, 0.6]"
    assert interval(0.5, None, 0.6, 1) == "0.5"


def test_page_tables_state_counts_and_costs() -> None:
    data = report_data(2)
    assert methods_table(data).rows[3] == ["vc-soup", "0.580 [0.540, 0.620]", "2,000", "61.2", "12.9", "0.49"]
    assert filters_table(data).rows[0] == ["vc-soup", "helpful", "0.700", "3,000", "1,100", "36.7%", "30"]
    assert dropped_table(data).rows == [["helpful", "equal sides", "11"], ["helpful", "empty side", "3"]]


def test_low_fluency_is_a_word_in_the_table_not_only_a_colour() -> None:
    assert any(row[-3] == "0.55 low" for row in candidates_table(report_data(2)).rows)


def test_importing_the_report_imports_no_torch_and_no_altair() -> None:
    code = "import sys, valuesoup.report; print([m for m in ('torch', 'altair', 'vl_convert') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
