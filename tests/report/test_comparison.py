"""The page and the tables of a comparison, and what a run's report says of the choice on validation."""

import csv
import html
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console
from synthetic_report import report_data, results

from tiny_studies import NAMES, write_study
from valuesoup.errors import UserError
from valuesoup.pipeline.comparison import compare_runs
from valuesoup.report import figures as f
from valuesoup.report.comparison import (
    check_page,
    comparison_data,
    differences_table,
    methods_table,
    pairing,
    print_comparison,
    settings_table,
    summarise_comparison,
    verdict,
    write_comparison,
)
from valuesoup.report.figures.comparison import comparison_figures
from valuesoup.report.page import draw, write_report


def made(root: Path, n: int = 2, kind: str = "studies", **settings: Any) -> dict[str, Any]:
    """Compare two studies of n values, of which the second has another method too."""

    def mix(shift: float, seed: int) -> list[list[float]]:
        return [[shift + 0.1 * seed + (j == k) for j in range(n)] for k in range(max(n, 2))]

    first = {seed: {"mix": mix(1.0, seed)} for seed in (0, 1)}
    second = {seed: {"mix": mix(0.9 - 0.03 * seed, seed), "other": mix(0.5, seed)} for seed in (0, 1)}
    one = write_study(root / "one", NAMES[:n], first)
    compared = compare_runs([one, write_study(root / "two", NAMES[:n], second, **settings)])
    if kind == "runs":
        compared = {**compared, "kind": kind, "candidates": [c | {"on_frontier": True} for c in compared["candidates"]]}
    return compared


def visible(path: Path) -> str:
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", path.read_text("utf-8"), flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


@pytest.mark.parametrize(("n", "kind"), [(1, "runs"), (2, "studies"), (2, "runs"), (3, "runs"), (5, "studies")])
def test_the_page_shows_every_part_whatever_the_number_of_values(tmp_path: Path, n: int, kind: str) -> None:
    page = write_comparison(made(tmp_path, n, kind, training={"rank": 8}), tmp_path / "page" / "both.html")
    text = visible(page)
    for part in ("Frontiers", "Hypervolume", "one − two", "training.rank", str(tmp_path / "two")):
        assert part in text
    assert {path.name for path in page.parent.iterdir()} == {"both.html", "both-figures"}
    for name in ("frontiers", "hypervolume"):
        assert (page.parent / "both-figures" / f"{name}.svg").stat().st_size > 2000
        assert f'href="both-figures/{name}.png"' in page.read_text("utf-8")


def test_links_to_figures_lead_there_whatever_the_name_of_the_page(tmp_path: Path) -> None:
    page = write_comparison(made(tmp_path), tmp_path / 'a b#"c.html')
    (link,) = re.findall(r'href="([^"]*frontiers\.csv)"', page.read_text("utf-8"))
    assert (tmp_path / unquote(link)).is_file()


def test_text_of_a_run_cannot_end_the_page(tmp_path: Path) -> None:
    hostile = "</script><script>alert('x')</script>"
    compared = made(tmp_path)
    compared["titles"] = {**compared["titles"], "mix": hostile}
    compared["runs"][0]["title"] = hostile
    assert hostile not in write_comparison(compared, tmp_path / "x.html").read_text("utf-8")


def test_a_colour_is_a_run_and_a_shape_a_method(tmp_path: Path) -> None:
    data = comparison_data(made(tmp_path))
    (frontiers, volumes) = comparison_figures(data)
    specs = [json.dumps(of.chart(data, of.table(data)).to_dict()) for of in (frontiers, volumes)]
    for spec in specs:
        assert '"domain": ["one", "two"], "range": ["#0072B2", "#D55E00"]' in spec
        assert '"domain": ["Mix", "Other", "base"], "range": ["circle", "square", "diamond"]' in spec


def test_a_line_joins_the_non_dominated_candidates_of_one_method_of_one_run(tmp_path: Path) -> None:
    compared = made(tmp_path)
    compared["candidates"].append({**compared["candidates"][1], "id": "mix/bad"})
    worse = {name: dict.fromkeys(("mean", "low", "high"), -5.0) for name in compared["candidates"][1]["scores"]}
    compared["candidates"][-1] = {**compared["candidates"][-1], "scores": worse}
    rows = comparison_figures(data := comparison_data(compared))[0].table(data).rows
    joined = {(row["run"], row["id"]): row["joined"] for row in rows}
    assert joined["one", "mix/bad"] is False and joined["one", "base"] is False
    assert joined["one", "mix/0"] is True and joined["two", "mix/1"] is True
    assert len({row["series"] for row in rows}) == 5


def test_the_csv_names_the_values_not_the_fields(tmp_path: Path) -> None:
    write_comparison(made(tmp_path), tmp_path / "c.html")
    with (tmp_path / "c-figures" / "frontiers.csv").open(encoding="utf-8") as file:
        assert {"run", "method", "clear", "clear low", "kind high"} <= set(next(csv.reader(file)))


def difference(**changes: Any) -> dict[str, Any]:
    row = {"method": "mix", "first": "one", "second": "two", "value": 0.1, "low": 0.05, "high": 0.2}
    return {**row, "paired": "prompt", "common": 24, "identical": False, **changes}


def test_what_an_interval_says() -> None:
    assert verdict(difference()) == "clear of zero"
    assert verdict(difference(low=-0.2, high=-0.1)) == "clear of zero"
    assert verdict(difference(low=-0.01)) == "includes zero"
    assert verdict(difference(low=-1e-9, high=1e-9, value=0, identical=True)) == "identical"
    assert verdict(difference(low=None, high=None, identical=True)) == "identical"
    assert verdict(difference(low=None, high=None)) == "unknown: one seed"


def test_how_a_difference_is_paired() -> None:
    assert pairing(difference(), "runs") == "by prompt (24)"
    assert pairing(difference(paired=None, common=3), "runs") == "no: other prompts, 3 common"
    assert pairing(difference(paired=None, common=0), "studies") == "no: other seeds, 0 common"


def test_the_tables_hold_every_method_difference_and_setting(tmp_path: Path) -> None:
    compared = made(tmp_path, training={"rank": 8})
    rows = methods_table(compared).rows
    assert [row[:2] for row in rows] == [
        ["one", "Base model"],
        ["two", "Base model"],
        ["one", "Mix"],
        ["two", "Mix"],
        ["two", "Other"],
    ]
    assert [row[:3] for row in differences_table(compared).rows] == [
        ["one − two", "Base model", "by seed (2)"],
        ["one − two", "Mix", "by seed (2)"],
    ]
    assert settings_table(compared).rows == [["training.rank", "64", "8"]]


def test_the_summary_says_what_is_sure_and_cautions_where_rewards_differ(tmp_path: Path) -> None:
    compared = {**made(tmp_path), "rewards_differ": ["kind"]}
    compared["differences"] = [
        difference(),
        difference(value=-0.3, low=-0.4, high=-0.2, paired=None),
        difference(low=-0.1),
    ]
    text = summarise_comparison(compared)
    assert text[0].startswith("The largest hypervolume in the common box is that of Mix of one")
    assert (
        "Clear of zero: Mix, one − two: −0.300 [−0.400, −0.200]; Mix, one − two: 0.100 [0.050, 0.200]." in text
    )  # largest first
    assert "Not told apart: Mix, one − two: 0.100 [−0.100, 0.200]." in text
    assert any(sentence.startswith("Unpaired") and "1 of 3 differences" in sentence for sentence in text)
    assert text[-1].startswith("Caution: the rewards of kind")


def test_the_summary_says_what_is_identical_and_not_that_it_is_not_told_apart(tmp_path: Path) -> None:
    compared = made(tmp_path)
    zero = {"value": 0.0, "low": -1e-9, "high": 1e-9}
    rows = [difference(**zero, identical=True), difference(method="base", **zero, identical=True)]
    text = summarise_comparison({**compared, "differences": rows})
    assert "one and two are identical in every method that both have (2)." in text
    assert not any("told apart" in sentence for sentence in text)
    assert "the next that of Mix of two" not in text[0]
    text = summarise_comparison({**compared, "differences": [rows[0], difference(method="base", low=-0.1)]})
    assert "Identical in one and two: Mix." in text
    assert "Not told apart: Base model, one − two: 0.100 [−0.100, 0.200]." in text


def test_a_terminal_of_80_columns_loses_no_number(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_comparison(made(tmp_path), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in printed and "by seed (2)" in printed and "policy: weights clear / kind" in printed


@pytest.mark.parametrize("name", ["", "page.txt", "page"])
def test_a_page_that_is_no_html_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name the page's file"):
        check_page(tmp_path / name)


# Selection optimism


def with_optimism(n: int, **changes: Any) -> Any:
    content = results(n)
    for place, (name, method) in enumerate(content["methods"].items()):
        drop = {"mean": 0.1 * place, "low": None if name == "soup" else 0.0, "high": None if name == "soup" else 0.9}
        method["optimism"] = {
            "drop": dict.fromkeys(content["values"], drop),
            "validation": 0.5 + 0.1 * place,
            "test": 0.5,
        }
    base = content["candidates"][0]
    content["candidates"][0] = {**base, "on_frontier": True}
    return report_data(n, results={**content, **changes})


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_figure_is_drawn_whatever_the_number_of_values(tmp_path: Path, n: int) -> None:
    (drawn,) = draw([f.OPTIMISM], with_optimism(n), tmp_path)
    assert drawn.spec and (tmp_path / "figures" / "optimism.png").stat().st_size > 2000


@pytest.mark.usefixtures("undrawn")
def test_the_report_shows_what_the_choice_promised_and_what_is_left_of_it(tmp_path: Path) -> None:
    text = visible(write_report(with_optimism(2), tmp_path))
    assert "Chosen on validation, measured on test" in text
    assert "frontiers change on average by −0.20 on helpful" in text
    assert "the base, which nothing chose, by +0.00 on helpful" in text
    assert "The hypervolume of vc-soup falls most: from 0.800 to 0.500." in text


def test_the_moves_run_from_the_figures_that_chose_to_the_test_scores() -> None:
    data = with_optimism(2)
    candidate = next(row for row in data.results["candidates"] if row["method"] == "soup" and row["on_frontier"])
    candidate["smoothed"] = {value: {"mean": 9.0, "low": 8.0, "high": 10.0} for value in data.results["values"]}
    candidate["test"] = {value: {"mean": 1.0, "low": 0.0, "high": 2.0} for value in data.results["values"]}
    rows = f.OPTIMISM.table(data).rows
    single = [row for row in rows if row["method"] == "soup" and row["v0"] == 9.0]
    assert [(row["v0"], row["v1"], row["t0"], row["t1"]) for row in single] == [(9.0, 9.0, 1.0, 1.0)]
    own = [row for row in rows if row["method"] == "soup"]
    assert own[-1]["candidate"] == "whole frontier" and len(own) == 7
    assert own[-1]["v0"] == pytest.approx(sum(float(row["v0"] or 0) for row in own[:-1]) / 6)


def test_a_drop_without_interval_is_written_as_such() -> None:
    assert f.optimism_table(with_optimism(2)).rows[2][:4] == ["soup", "0.700", "0.500", "0.200"]


def test_results_of_an_older_version_say_nothing_of_it() -> None:
    data = report_data(2)
    assert f.optimism_table(data).rows == [] and f.OPTIMISM.table(data).rows == []
