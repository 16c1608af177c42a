import io
import subprocess
import sys

import pytest
from rich.console import Console
from synthetic_report import candidate, expansion, many_methods, report_data, results

from valuesoup.report import frontier_table, print_frontier
from valuesoup.report.expansions import distinct_expansions, expansions_table
from valuesoup.report.model import ReportData
from valuesoup.report.tables import (
    MOST_SHOWN,
    candidates_table,
    costs_table,
    dropped_table,
    filters_table,
    interval,
    methods_table,
    number,
)


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
    assert methods_table(data).rows[3] == ["vc-soup", "0.580 [0.540, 0.620]", "6", "2", "10.2", "12.4", "0.49"]
    assert costs_table(data).rows[2] == ["vc-soup", "2,000", "61.2", "12.9", "74.1"]
    assert filters_table(data).rows[0] == ["vc-soup", "helpful", "0.700", "3,000", "1,100", "36.7%", "30"]
    assert dropped_table(data).rows == [["helpful", "equal sides", "11"], ["helpful", "empty side", "3"]]


def test_the_cost_of_expansion_and_the_dependence_of_vectors_have_columns_only_where_there_are_any() -> None:
    plain, full = report_data(2), many_methods(2, 8)
    assert not any("expansion" in heading for heading in costs_table(plain).headings)
    assert not any("HSIC" in heading for heading in methods_table(plain).headings)
    assert costs_table(full).rows[-1] == ["MORA", "4,000", "46.0", "30.0", "1.2", "77.2"]
    assert methods_table(full).headings[-1] == "HSIC of vectors"
    for table in (costs_table(full), methods_table(full)):
        assert {len(row) for row in table.rows} == {len(table.headings)}


def test_without_a_frontier_or_seconds_there_is_no_cost_per_point() -> None:
    data = ReportData(results={"schema": 1, "values": ["a"], "methods": {"x": {"hypervolume": None, "trainings": 2}}})
    assert methods_table(data).rows == [["x", "–", "0", "2", "–", "–", "–"]]
    assert costs_table(data).rows == [["x", "–", "–", "–", "–"]]


def test_flipped_pairs_have_a_column_where_a_method_flips() -> None:
    full = results(2)
    full["filters"]["flipping"] = {"helpful": {"tau": 0.7, "pairs": 10, "kept": 5, "flipped": 2, "undefined": 0}}
    table = filters_table(ReportData(results=full))  # type: ignore[arg-type]
    assert table.headings[-2:] == ("of these flipped", "no direction")
    assert table.rows[-1] == ["flipping", "helpful", "0.700", "10", "5", "50.0%", "2", "0"]
    assert table.rows[0][-2:] == ["–", "30"]


def test_a_policy_without_weights_goes_by_the_end_of_its_id_and_points_outside_the_simplex_are_marked() -> None:
    rows = {row[1] for row in candidates_table(many_methods(2, 8)).rows}
    assert {"helpful>harmless", "harmless>helpful"} <= rows
    assert any(row.endswith("(outside the simplex)") for row in rows)


@pytest.mark.parametrize("n", [2, 3])
def test_a_terminal_of_100_columns_holds_eight_methods_and_shows_some_points_of_many(n: int) -> None:
    full = many_methods(n, 8).results
    lines = printed(full, width=100).splitlines()
    assert len(lines) < 60 and all(len(line) <= 100 for line in lines)
    points = full["methods"]["MVA"]["frontier_points"]
    own = [line for line in lines if line.startswith((" MVA ", "MVA "))]
    assert len(own) == MOST_SHOWN + 1 and f"… and {points - MOST_SHOWN} more" in own[-1]
    assert any("*" in line for line in own) and "* outside the simplex" in lines[-1]
    shown = [row for row in frontier_table(full) if row.method == "MVA"]
    for end, line in ((shown[0], own[0]), (shown[-1], own[-2])):
        assert number(end.scores["helpful"]["mean"], 2) in line


def test_the_steps_of_an_expansion_are_counted_in_their_order() -> None:
    table = expansions_table(report_data(2, expansions={"mora": {"policy": expansion(2, 40)}}))
    assert table.headings == ("step", "mora: policy")
    counted = dict(table.rows)  # type: ignore[arg-type]
    assert next(iter(counted)) == "prompts mined" and list(counted)[-1] == "pairs added"
    assert (counted["dropped: rewrite unchanged"], counted["fused"], counted["pairs added"]) == ("12", "90", "40")


def test_an_expansion_that_methods_share_is_listed_once() -> None:
    same, other = expansion(2, 40), expansion(2, 80)
    data = report_data(2, expansions={"a": {"policy": same}, "b": {"policy": same}, "c": {"policy": other}})
    assert expansions_table(data).headings == ("step", "a and b: policy", "c: policy")
    by_profile = distinct_expansions(data, lambda one: one.profile)
    assert [one.methods for one in by_profile] == [["a", "b", "c"]]


def test_low_fluency_is_a_word_in_the_table_not_only_a_colour() -> None:
    assert any(row[-3] == "0.55 low" for row in candidates_table(report_data(2)).rows)


def test_importing_the_report_imports_no_torch_and_no_altair() -> None:
    code = "import sys, valuesoup.report; print([m for m in ('torch', 'altair', 'vl_convert') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
