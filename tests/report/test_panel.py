"""What the panel tells of a candidate, and the links between figures, in a real browser."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_report import candidate, estimate, landscape, messages, report_data, results

from browser import browser_fixture, tab
from valuesoup.report import panel as panel_module
from valuesoup.report import write_report
from valuesoup.report.model import Answer, ReportData, SampleAnswers
from valuesoup.report.panel import panel

__all__ = ["browser_fixture"]

HOSTILE = "</script><script>window.struck = 1</script><img src=x onerror='window.struck = 2'>&lt;b&gt;"
POINT = 'document.querySelector("#frontier .chart").querySelectorAll(\'[aria-roledescription="point"]\')'


def two() -> ReportData:
    """Two mixed candidates and the base, one answer each."""
    weights = ({"a": 0.25, "b": 0.75}, {"a": 1.0, "b": 0.0})
    quality = {"fluency": 0.5, "kl": 1.25, "tokens": 20.0, "perplexity": 2.5, "truncated": 0.0}
    candidates = [
        candidate("base", "base", None, {"a": 0.0, "b": 0.0}, quality={**quality, "kl": 0.0, "fluency": 1.0}),
        candidate("m/1", "m", weights[0], {"a": 0.2, "b": 0.9}, quality=quality, truth={"a": 0.11, "b": 0.6}),
        candidate("m/2", "m", weights[1], {"a": 0.8, "b": 0.1}, validation={"a": estimate(0.85), "b": estimate(0.15)}),
        candidate("m/3", "m", {"a": 1.5, "b": 0.0}, {"a": 0.1, "b": 0.1}, test=None, outside_simplex=True),
    ]
    candidates[3]["on_frontier"] = False
    return ReportData(
        results={
            "schema": 1,
            "values": ["a", "b"],
            "candidates": candidates,
            "methods": {"m": {"hypervolume": {"value": 0.5, "low": 0.4, "high": 0.6}}},
            "geometry": {"m": {"cosine": -0.25, "l2": 4.5}},
        },
        answers=[
            SampleAnswers(
                messages("A question?"),
                {id: Answer(f"{HOSTILE} of {id}", {"a": 1.0, "b": -2.0}) for id in ("base", "m/1", "m/2")},
            )
        ],
        representatives=["base", "m/2"],
    )


def told(data: ReportData) -> dict[str, Any]:
    found = panel(data)
    assert found is not None
    return found


def test_a_candidate_is_told_with_weights_scores_signs_geometry_and_answers() -> None:
    found = told(two())
    one = found["candidates"]["m/1"]
    assert one["weights"] == [["a", "0.25", 0.25], ["b", "0.75", 0.75]]
    assert one["columns"] == ["test", "validation", "in truth"]
    assert one["scores"][1] == ["b", "0.90 [0.85,\u00a00.95]", "0.90 [0.85,\u00a00.95]", "0.60"]
    assert ("KL from the base, nats", "1.25", "0.00") in one["quality"]
    assert one["geometry"] == [("cosine of its vectors", "−0.25"), ("distance of its vectors", "4.5")]
    ((prompt, place, scores),) = one["answers"]
    assert found["prompts"][prompt] == [["user", "A question?"]]
    assert (found["texts"][place], scores) == (f"{HOSTILE} of m/1", "a 1.00 · b −2.00")


def test_what_is_not_known_or_not_good_is_said() -> None:
    found = told(two())["candidates"]
    assert any("fluency is below 0.80" in note for note in found["m/1"]["notes"])
    assert any("outside the simplex" in note for note in found["m/3"]["notes"])
    assert any("Not scored on test" in note for note in found["m/3"]["notes"])
    assert found["m/3"]["weights"][0] == ["a", "1.5", 1.0]  # a bar is never longer than its track
    assert found["base"]["quality"][0] == ("KL from the base, nats", "0.00", "")  # the base beside itself says nothing


def test_the_representative_of_the_method_with_the_largest_hypervolume_is_shown_first() -> None:
    assert told(two())["first"] == "m/2"
    assert told(ReportData(results=results(2)))["first"].startswith("vc-soup-")


def test_without_candidates_there_is_no_panel() -> None:
    assert panel(ReportData(results={"schema": 1, "values": ["a"]})) is None


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_candidate_is_told_under_every_value(n: int) -> None:
    data = report_data(n)
    found = told(data)["candidates"]
    assert set(found) == {one["id"] for one in data.results["candidates"]}
    assert all(len(one["scores"]) == n for one in found.values())


def test_answers_beyond_the_size_of_a_page_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = two()
    answers = [SampleAnswers(messages("x" * 100), {"m/1": Answer(f"{k} " * 500, {})}) for k in range(3)]
    monkeypatch.setattr(panel_module, "MOST_BYTES", 2500)
    found = told(ReportData(results=data.results, answers=answers))
    assert len(found["prompts"]) == 2 and found["left"] == 1
    assert len(found["candidates"]["m/1"]["answers"]) == 2


def test_an_answer_that_many_candidates_give_is_kept_once() -> None:
    same = [SampleAnswers(messages("?"), {id: Answer("the same", {}) for id in ("base", "m/1", "m/2")})]
    assert told(ReportData(results=two().results, answers=same))["texts"] == ["the same"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = replace(landscape(3), gaps={})
    assert len(data.results["candidates"]) == 1 + 5 * 66
    return write_report(data, tmp_path_factory.mktemp("whole"))


def test_a_whole_grid_of_answering_candidates_stays_below_ten_megabytes(whole: Path) -> None:
    assert whole.stat().st_size < 10_000_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(two(), tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def opened(browser: Any, hostile: Path) -> Iterator[Any]:
    """The page, drawn, at the width of a desk; it must not complain, ask for anything, or run what a model wrote."""
    with tab(browser, viewport={"width": 1200, "height": 900}) as (page, watch):
        page.goto(hostile.as_uri())
        page.wait_for_selector("#frontier .chart.linked")
        page.wait_for_timeout(300)
        yield page
        assert page.evaluate("window.struck ?? null") is None
        assert watch.errors == [] and watch.requests == []


def click(page: Any, id: str) -> None:
    find = f"{{ const e = [...{POINT}].find(e => e.__data__.datum.id === id);"
    show = "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
    box = page.evaluate(f"id => {find} {show} return [b.x + b.width / 2, b.y + b.height / 2]; }}", id)
    page.mouse.click(*box)
    page.wait_for_timeout(100)


def ringed(page: Any, figure: str) -> list[str]:
    """The candidates around which a figure has a ring."""
    return page.evaluate(  # type: ignore[no-any-return]
        f"[...document.querySelectorAll('#{figure} .chart path')].filter(e => e.getAttribute('stroke') === 'var(--ink)'"
        " && e.getAttribute('fill') === 'transparent').map(e => e.__data__.datum.id).filter(Boolean)"
    )


def test_a_click_on_a_point_tells_its_weights_and_answers_and_rings_it_everywhere(opened: Any) -> None:
    assert opened.inner_text("#panel h3") == "m"
    assert "0.80 [0.75" in opened.inner_text("#panel")
    click(opened, "m/1")
    text = opened.inner_text("#panel")
    assert "0.25" in text and "0.75" in text and "0.90 [0.85" in text and "1.25" in text
    assert opened.text_content("#panel .text") == f"{HOSTILE} of m/1"  # every character, as text
    assert opened.query_selector("#panel img") is None
    for figure in ("frontier", "over-optimisation", "truth"):
        opened.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        opened.wait_for_selector(f"#{figure} .chart.linked")
        opened.wait_for_timeout(200)
        assert set(ringed(opened, figure)) == {"m/1"}, figure
    assert opened.get_attribute('tr[data-candidate="m/1"]', "aria-current") == "true"
    assert opened.get_attribute('tr[data-candidate="m/2"]', "aria-current") is None


def test_the_keyboard_steps_through_the_candidates_of_a_figure(opened: Any) -> None:
    opened.focus("#frontier .chart")
    opened.keyboard.press("Home")
    assert opened.inner_text("#panel h3") == "base"
    opened.keyboard.press("ArrowRight")
    assert f"{HOSTILE} of m/1" == opened.text_content("#panel .text")
    opened.keyboard.press("End")
    assert f"{HOSTILE} of m/2" == opened.text_content("#panel .text")  # m/3 has no test scores: not in this figure
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text("#panel h3") == "base"


def test_a_row_of_the_table_and_the_buttons_choose_too(opened: Any) -> None:
    opened.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    opened.click('tr[data-candidate="m/1"]')
    assert f"{HOSTILE} of m/1" == opened.text_content("#panel .text")
    assert set(ringed(opened, "frontier")) == {"m/1"}
    opened.click('#panel button[title="next candidate"]')
    assert f"{HOSTILE} of m/2" == opened.text_content("#panel .text")


def test_a_ring_survives_another_width_of_the_window(opened: Any) -> None:
    click(opened, "m/1")
    opened.set_viewport_size({"width": 700, "height": 900})
    opened.wait_for_timeout(600)
    assert set(ringed(opened, "frontier")) == {"m/1"}


def test_on_paper_there_is_neither_panel_nor_ring(opened: Any) -> None:
    opened.pdf()  # prints, and so tells the page
    opened.emulate_media(media="print")
    assert not opened.is_visible("#panel") and not opened.is_visible("nav")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert ringed(opened, "frontier") == []
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    opened.wait_for_timeout(100)
    assert set(ringed(opened, "frontier")) == {"m/2"}


@pytest.mark.parametrize("n", [3, 5])
def test_a_page_of_n_values_fits_a_phone_in_the_dark(
    n: int, browser: Any, whole: Path, page_of: Callable[[int], Path]
) -> None:
    path = whole if n == 3 else page_of(n)
    with tab(browser, viewport={"width": 390, "height": 844}, color_scheme="dark") as (page, watch):
        page.goto(path.as_uri())
        page.wait_for_selector("#frontier .chart.linked")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        wide = "[...document.querySelectorAll('.chart svg')].filter(e => e.getBoundingClientRect().right > 390).length"
        assert page.evaluate(wide) == 0
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        assert watch.errors == [] and watch.requests == []


def test_without_scripts_the_figures_stand_still_and_the_tables_are_whole(browser: Any, hostile: Path) -> None:
    with tab(browser, java_script_enabled=False) as (page, watch):
        page.goto(hostile.as_uri())
        assert page.locator("#frontier .chart svg").count() == 1
        assert page.locator("tr[data-candidate]").count() == 3
        assert not page.locator("#panel").is_visible()
        assert watch.errors == [] and watch.requests == []
