"""The page of a study: every figure and file, links to its seeds, any number of values, names that attack."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import caption, figures, rows, run_data, seed_results, study_data

from valuesoup.evaluation.seeds import combine
from valuesoup.report.page import specified
from valuesoup.report.static import standing
from valuesoup.report.study import titled, write_study
from valuesoup.report.study_summary import summarise_study

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
"""The file of a figure that nobody looks at."""
HOSTILE = "</script><script>alert('x')</script>"
BETWEEN = {"weights", "geometry", "dependence", "gradient-conflict", "connectivity", "correlation"}
"""Figures that take two values."""
EVERY = {"seeds", "frontiers", "thresholds", "pass-at-n", "added-pairs", "optimism", "signs"} | BETWEEN


def specs(path: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="specs">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found
    specified: dict[str, object] = json.loads(found.group(1))
    return specified


def visible(path: Path) -> str:
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", path.read_text("utf-8"), flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_the_page_has_every_figure_as_png_svg_and_csv(written: Path) -> None:
    assert set(specs(written)) == EVERY
    for name in EVERY:
        files = {suffix: written.parent / f"figures/{name}.{suffix}" for suffix in ("png", "svg", "csv")}
        assert files["png"].read_bytes().startswith(b"\x89PNG") and files["svg"].read_text("utf-8").count("<path") > 3
        assert len(files["csv"].read_text("utf-8").splitlines()) > 1


def test_the_page_links_to_each_seeds_report_to_its_own_files_and_nowhere_else(written: Path) -> None:
    links = re.findall(r'href="([^"]+)"', re.sub(r"<script.*?</script>", "", written.read_text("utf-8"), flags=re.S))
    assert [link for link in links if link.startswith("seed-")] == [f"seed-{seed}/report.html" for seed in range(3)]
    others = {link for link in links if not link.startswith("seed-")}
    assert others == {f"figures/{path.name}" for path in (written.parent / "figures").iterdir()}
    assert "seeds 0, 1, 2" in visible(written) and "seeds: [0, 1, 2]" in visible(written)


@pytest.mark.parametrize(("n", "seeds"), [(1, 1), (1, 2), (3, 2), (5, 1)])
def test_every_figure_that_has_data_is_drawn_for_n_values_and_any_number_of_seeds(n: int, seeds: int) -> None:
    study = study_data(n, seeds)
    drawn = set()
    for name, figure in figures(study).items():
        table = figure.table(study)
        if table.rows:
            drawn.add(name)
            assert standing(name, specified(figure, study, table), BLANK) and figure.caption(study, table)
    assert drawn == EVERY if n > 1 else drawn == EVERY - BETWEEN
    assert all("interval" in caption(study, name) for name in ("seeds", "frontiers"))
    assert ("one seed, which gives no interval" in caption(study, "seeds")) == (seeds == 1)


@pytest.mark.usefixtures("undrawn")
def test_one_value_and_one_seed_make_a_page(tmp_path: Path) -> None:
    path = write_study(study_data(1, 1, runs=[], families=[], expanding=[]), tmp_path)
    assert set(specs(path)) == {"seeds", "frontiers", "added-pairs", "optimism", "signs"}
    assert "one seed" in visible(path)


def test_a_study_without_filters_layers_or_expansions_shows_nothing_of_them() -> None:
    full = study_data(2, runs=[replace(run_data(2, 0), geometry={}, dependence={}, expansions={})] * 3, families=[])
    bare = replace(full, combined={**full.combined, "expansions": {}}, expanding=[])
    drawn = {name for name in figures(bare) if rows(bare, name)}
    assert drawn == EVERY - {"thresholds", "geometry", "dependence", "pass-at-n", "added-pairs"}
    assert not any("τ" in sentence for sentence in summarise_study(bare))


def test_names_are_text_on_the_page_whatever_they_hold(tmp_path: Path) -> None:
    results = [seed_results(2, seed) for seed in range(2)]
    for one in results:
        one["methods"]["merge"]["title"] = HOSTILE
    combined = titled(combine(results))
    study = study_data(2, 2, combined=combined, runs=[], families=[[HOSTILE, "Kept-7"]], title=HOSTILE)
    named = {"schema": 1, "values": combined["values"], "methods": {title: {} for title in combined["methods"]}}
    path = write_study(replace(study, results=named), tmp_path)
    assert path.read_text("utf-8").count("<script") == 4  # the page's own
    assert HOSTILE in visible(path) and specs(path)


def test_every_part_carries_the_methods_titles_but_the_base_keeps_its_name() -> None:
    combined = titled(combine([seed_results(2, seed) for seed in range(2)]))
    assert list(combined["methods"])[:2] == ["base", "Each"]
    for part in ("points", "candidates"):
        assert {row["method"] for row in combined[part]} <= set(combined["methods"])
    assert set(combined["geometry"]) == {"Merge", "Kept-0", "Kept-7"} and set(combined["filters"]) == {
        "Kept-0",
        "Kept-7",
    }
    assert {row["first"] for row in combined["differences"]} <= set(combined["methods"])
