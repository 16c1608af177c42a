import csv
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic_report import (
    candidate,
    expansion,
    gap_table,
    many_methods,
    messages,
    profile,
    report_data,
    results,
)

from valuesoup.report import write_audit, write_report
from valuesoup.report.figures import FRONTIER
from valuesoup.report.model import Answer, ConflictPair, GapTable, LayerDependence, ReportData, SampleAnswers
from valuesoup.report.page import draw, embedded_json

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&amp;"
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects every element with its attributes, and the text of every script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and self.get_starttag_text() is not None:
            self.scripts.append(data)
        self.words += data


def specs(path: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="specs">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report_data(2), tmp_path_factory.mktemp("report"))


def test_a_report_is_one_file_that_loads_nothing(written: Path) -> None:
    assert written.name == "report.html"
    assert written.stat().st_size < 10_000_000
    page = Page(written)
    links = [
        attrs.get(key) for _, attrs in page.elements for key in ("src", "href", "action", "data") if attrs.get(key)
    ]
    assert links
    assert all(re.match(r"#|figures/[a-z-]+\.(png|svg|csv)$|data:image/png;base64,", str(link)) for link in links)
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")
    assert not re.search(r"url\((?!#)", re.sub(r"<script.*?</script>", "", written.read_text("utf-8"), flags=re.S))


def test_the_page_links_only_to_files_that_were_written(written: Path) -> None:
    page = Page(written)
    linked = {str(a["href"]) for tag, a in page.elements if tag == "a" and str(a["href"]).startswith("figures/")}
    there = {f"figures/{path.name}" for path in (written.parent / "figures").iterdir()}
    assert linked == there


def test_every_section_link_has_its_heading(written: Path) -> None:
    page = Page(written)
    ids = {attrs.get("id") for _, attrs in page.elements}
    assert {str(a["href"])[1:] for tag, a in page.elements if tag == "a" and str(a["href"]).startswith("#")} <= ids


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_figures_are_written_as_png_svg_and_csv_for_n_values(n: int, page_of: Callable[[int], Path]) -> None:
    path = page_of(n)
    expected = {"frontier", "hypervolume", "truth", "consistency", "retention", "reward-accuracy", "training-curves"}
    expected |= {"cost"}
    expected |= {"reward-gaps", "conflict-matrix", "geometry", "dependence"} if n > 1 else set()
    expected |= {"pass-at-n", "expansion-rewards", "added-pairs"} if n > 1 else set()
    expected |= {"parallel"} if n > 2 else set()
    expected |= {"ternary"} if n == 3 else set()
    assert set(specs(path)) == expected
    for name in expected:
        png = (path.parent / f"figures/{name}.png").read_bytes()
        assert png.startswith(PNG) and len(png) > 5_000
        assert int.from_bytes(png[16:20], "big") >= 600
        svg = (path.parent / f"figures/{name}.svg").read_text("utf-8")
        assert svg.startswith("<svg") and svg.count("<path") > 3
        assert len((path.parent / f"figures/{name}.csv").read_text("utf-8").splitlines()) > 1


def test_the_csv_of_the_frontier_holds_the_scores_of_the_results(written: Path) -> None:
    data = report_data(2)
    with (written.parent / "figures/frontier.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    tested = [one for one in data.results["candidates"] if one["test"]]
    assert set(rows) == {one["id"] for one in tested}  # what is drawn: never validation scores beside test scores
    for one in tested:
        row, scores = rows[one["id"]], one["test"]
        assert row["split"] == "test"
        for value in data.results["values"]:
            assert float(row[value]) == scores[value]["mean"]
            assert float(row[f"{value} low"]) == scores[value]["low"]
            assert float(row[f"{value} high"]) == scores[value]["high"]


def test_the_csv_of_the_gaps_holds_the_pairs_that_are_drawn(tmp_path: Path) -> None:
    gaps = np.array([[1.5, -0.5], [0.25, 0.75]])
    table = GapTable(gaps, np.array([0.4472, 0.8944]), {"vc-soup": 0.7})
    write_audit(report_data(2, gaps={"helpful": table}), tmp_path)
    rows = (tmp_path / "figures/reward-gaps.csv").read_text("utf-8").splitlines()
    assert rows == [
        "dataset,pair,consistency,gap helpful,gap harmless",
        "helpful,0,0.4472,1.5,-0.5",
        "helpful,1,0.8944,0.25,0.75",
    ]


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    value, method = f"v{HOSTILE}", f"m{HOSTILE}"
    scores = {value: 0.1, "other": 0.2}
    data = ReportData(
        results={
            "schema": 1,
            "values": [value, "other"],
            "candidates": [candidate(HOSTILE, method, scores, scores, outside_simplex=True)],
            "methods": {
                method: {
                    "hypervolume": {"value": 0.5, "low": 0.4, "high": 0.6},
                    **{"trainings": 2, "frontier_points": 1, "train_seconds": 1.0, "evaluate_seconds": 1.0},
                }
            },
            "reward_models": {value: {"validation_accuracy": 0.6, "pairs": 10}},
        },
        title=HOSTILE,
        config_yaml=HOSTILE,
        made_with={HOSTILE: HOSTILE},
        gaps={HOSTILE: gap_table(2, 0, 50)},
        dropped={HOSTILE: {HOSTILE: 1}},
        answers=[SampleAnswers(messages(HOSTILE), {HOSTILE: Answer(HOSTILE, {value: 1.0})})],
        dependence={method: [LayerDependence(HOSTILE, value, "other", 0.1, 0.2)]},
        expansions={method: {HOSTILE: expansion(2, counts={HOSTILE: 1}, profile=profile({HOSTILE: 0.5}, [value]))}},
        conflicts={HOSTILE: [ConflictPair(HOSTILE, messages(HOSTILE), HOSTILE, HOSTILE, {value: -1.0}, -0.5)]},
    )
    for path in (write_report(data, tmp_path), write_audit(data, tmp_path)):
        page = Page(path)
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == (4 if path.name == "audit.html" else 6)  # the page's own
        assert "img" not in tags
        assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)
        assert HOSTILE in page.words  # shown, as text
        assert specs(path)  # and the figures still parse


def test_embedded_json_cannot_end_its_script_and_reads_back_the_same() -> None:
    thing = {"a": HOSTILE, "b": [1.5, float("nan"), float("inf")], "c": "\u2028<!--"}
    text = embedded_json(thing)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": HOSTILE, "b": [1.5, None, None], "c": "\u2028<!--"}


def test_missing_parts_leave_their_figures_out_with_a_sentence(tmp_path: Path) -> None:
    path = write_report(ReportData(results={"schema": 1, "values": ["helpful", "harmless"]}), tmp_path)
    assert specs(path) == {}
    text = html.unescape(path.read_text("utf-8"))
    for sentence in (
        "No candidate has scores under every value",
        "No hypervolume was computed.",
        "No reward gaps were given",
        "No training of this run logged its curves.",
        "No sample answers were kept.",
    ):
        assert sentence in text
    assert list((tmp_path / "figures").iterdir()) == []


def test_a_run_without_expansions_penalties_or_costs_does_not_speak_of_them(tmp_path: Path) -> None:
    path = write_report(ReportData(results={"schema": 1, "values": ["helpful"]}), tmp_path)
    text = re.sub(r"<script.*?</script>", "", path.read_text("utf-8"), flags=re.S)
    for word in ("expansion", "HSIC", "Cost of a frontier", "simplex"):
        assert word not in text


def test_many_methods_and_candidates_make_one_readable_page(tmp_path: Path) -> None:
    data = replace(many_methods(2), curves={}, gaps={}, geometry={})
    path = write_report(data, tmp_path)
    text = path.read_text("utf-8")
    frontier = [c for c in data.results["candidates"] if c["on_frontier"]]
    assert f"<summary>Frontier candidates ({len(frontier) + 1})</summary>" in text  # and the base
    assert '<h2 id="expansion">Prompt expansion</h2>' in text and 'href="#expansion"' in text
    assert "harmless&gt;helpful" in text  # a policy without weights goes by the end of its id
    assert text.count("(outside the simplex)") == sum(c["outside_simplex"] for c in frontier)
    svg = (tmp_path / "figures/frontier.svg").read_text("utf-8")
    assert ">outside the simplex</text>" in svg
    assert all(f">{name}</text>" in svg for name in data.results["methods"])


def test_null_test_scores_fluency_and_weights_are_shown_as_absent(tmp_path: Path) -> None:
    full = results(2)
    full["candidates"] = [{**c, "test": None, "quality": None, "weights": None} for c in full["candidates"]]
    full["methods"]["soup"] = {"hypervolume": None, "trained_pairs": None}
    full["reward_models"]["helpful"] = {"validation_accuracy": None, "pairs": None}
    path = write_report(ReportData(results=full), tmp_path)
    text = path.read_text("utf-8")
    assert "No candidate has test scores" in text and "Fluency was not measured" in text
    assert "hypervolume" in specs(path)


@pytest.mark.parametrize("n", [1, 2])
def test_an_estimate_without_an_interval_is_drawn_without_bars(n: int, tmp_path: Path) -> None:
    def bars(half: float | None) -> int:
        full = results(n)
        for one in full["candidates"]:
            ends = {"low": None, "high": None} if half is None else {"low": 0.5 - half, "high": 0.5 + half}
            one["test"] = {v: {"mean": 0.5, **ends} for v in full["values"]}
        draw([FRONTIER], ReportData(results=full), tmp_path)
        svg = (tmp_path / "figures/frontier.svg").read_text("utf-8")
        return len(re.findall(r'<line [^>]*aria-roledescription="rule mark"|aria-roledescription="rule mark"', svg))

    assert bars(None) == 0 < bars(0.1)


def test_an_audit_shows_the_conflict_and_the_pairs_and_nothing_trained(tmp_path: Path) -> None:
    path = write_audit(report_data(2), tmp_path)
    assert path.name == "audit.html"
    assert set(specs(path)) == {"reward-gaps", "consistency", "retention", "conflict-matrix"}
    text = path.read_text("utf-8")
    assert "Use petrol." in text and "hypervolume" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_the_same_data_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = write_report(report_data(2), tmp_path)
    assert again.read_bytes() == written.read_bytes()
