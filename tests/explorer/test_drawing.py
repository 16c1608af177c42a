"""The board alone, drawn in a real browser from data for one, two, three and five values."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from browser import browser_fixture, tab  # noqa: F401
from valuesoup.explorer.board import interpolation
from valuesoup.explorer.page import asset
from valuesoup.search.weights import simplex_grid, sobol

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ["helpful", "a value whose name is rather long", "kind", "brief", "<b>odd</b>"]


def candidate(name: str, weights: Any, scores: Any, *, frontier: bool = True) -> dict[str, Any]:
    estimates = [[float(score), float(score) - 0.2, float(score) + 0.2] for score in scores]
    return {
        "id": name,
        "label": name,
        "weights": None if weights is None else [float(weight) for weight in weights],
        "plot": [float(score) for score in scores],
        "smoothed": False,
        "validation": estimates,
        "test": estimates if frontier else None,
        "frontier": frontier,
        "fluency": 0.4,
        "broken": not frontier,
    }


def board(n: int) -> dict[str, Any]:
    methods = []
    grids = {"grid": simplex_grid(n, 4) if n > 1 else np.array([[0.5], [1.0]]), "cube": sobol(n, 8)}
    for name, points in grids.items():
        scores = points @ np.eye(n) + 0.1
        bent, affine = interpolation(points, scores)
        methods.append(
            {
                "name": name,
                "title": name.upper(),
                "colour": "#0072B2",
                "path": "M0,-1L.85,0L0,1L-.85,0Z",
                "candidates": [
                    candidate(f"{name}/{place}", point, score, frontier=place % 2 == 0)
                    for place, (point, score) in enumerate(zip(points, scores, strict=True))
                ],
                "dial": {
                    "centres": points.tolist(),
                    "bent": bent.tolist(),
                    "affine": affine.tolist(),
                    "simplex": name == "grid" and n > 1,
                    "reach": 0.5,
                    "low": 0.0,
                    "high": 1.5,
                    "start": points[0].tolist(),
                },
            }
        )
    fixed = {**methods[0], "name": "fixed", "title": "<i>Fixed</i>", "dial": None}
    fixed["candidates"] = [candidate("fixed/<script>", None, np.full(n, 0.4))]
    return {
        "values": NAMES[:n],
        "level": 0.95,
        "methods": [*methods, fixed],
        "start": [("dial", "grid"), ("dial", "cube")],
        "base": candidate("base", np.zeros(n), np.zeros(n)),
    }


def draw(page: "Page", n: int) -> None:
    page.set_content(
        f"<style>{asset('page.css')}</style><body class='gradio-container'><div class='vs-board'></div></body>"
    )
    page.evaluate(
        "([code, data]) => new Function('element', 'props', 'trigger', 'watch', code)"
        "(document.body, {data}, (name, what) => { window.told = [name, what]; }, () => {})",
        [asset("board.js"), board(n)],
    )


def pins(page: "Page") -> list[tuple[float, float]]:
    marks = page.locator(".vs-pin").all()
    return [(float(mark.get_attribute("data-x") or ""), float(mark.get_attribute("data-y") or "")) for mark in marks]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_whole_for_any_number_of_values(browser: "Browser", n: int, width: int) -> None:
    with tab(browser, viewport={"width": width, "height": 900}) as (page, watch):
        draw(page, n)
        assert page.locator(".vs-card[data-side=A] input[type=range]").count() == n
        assert page.locator(".vs-axes select").count() == (2 if n > 2 else 0)
        assert page.locator(".vs-lock").count() == (2 if n > 1 else 0)
        assert page.locator(".vs-mark").count() == sum(len(one["candidates"]) for one in board(n)["methods"]) + 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        plot = page.locator(".vs-svg").bounding_box()
        assert plot is not None
        for x, y in pins(page):
            assert 0 <= x <= plot["width"] and 0 <= y <= plot["height"]
        names = page.locator(".vs-card[data-side=A] .vs-slider span").all_inner_texts()
        assert names == NAMES[:n]
        assert "<i>Fixed</i>" in page.locator(".vs-legend").inner_text()
        assert watch.errors == []


@pytest.mark.parametrize("n", [2, 3, 5])
def test_weights_that_sum_to_one_keep_doing_so_and_pins_follow_the_linear_scores(browser: "Browser", n: int) -> None:
    with tab(browser) as (page, _):
        draw(page, n)
        for place, weight in itertools.product(range(n), (0.1, 0.9, 1.0)):
            page.locator(".vs-card[data-side=A] input[type=range]").nth(place).evaluate(
                "(node, value) => { node.value = value; node.dispatchEvent(new Event('input', {bubbles: true})); }",
                weight,
            )
            found = page.evaluate("JSON.parse(valuesoup.state()).A.weights")
            assert list(found) == NAMES[:n]
            assert sum(found.values()) == pytest.approx(1)
            assert min(found.values()) >= 0
            here = page.locator(".vs-card[data-side=A] thead th").nth(1).inner_text()
            if here.startswith("here"):
                rows = page.locator(".vs-card[data-side=A] tbody tr").all()
                values = [float(row.locator("td b").first.inner_text()) for row in rows]
                assert values == pytest.approx([one + 0.1 for one in found.values()], abs=0.011)


def test_axes_are_chosen_points_are_clicked_and_methods_hidden(browser: "Browser") -> None:
    with tab(browser) as (page, _):
        draw(page, 3)
        before = pins(page)
        page.get_by_label("horizontal axis").select_option("2")
        assert pins(page) != before
        assert "kind reward" in page.locator(".vs-axis").first.text_content()
        page.locator(".vs-card[data-side=B] select").focus()
        assert "put B there" in page.locator(".vs-hint").inner_text()
        point = page.locator(".vs-mark").nth(3)
        point.dispatch_event("click")
        grid = board(3)["methods"][0]["candidates"][3]
        assert page.evaluate("JSON.parse(valuesoup.state()).B") == {
            "method": "grid",
            "weights": dict(zip(NAMES[:3], grid["weights"], strict=True)),
        }
        assert "its text breaks down" in (point.text_content() or "").lower()
        assert "fluency 0.40 is below the bound" in page.locator(".vs-card[data-side=B] .vs-warning").inner_text()
        count = page.locator(".vs-mark").count()
        page.locator(".vs-legend button").first.click()
        assert page.locator(".vs-mark").count() == count - len(board(3)["methods"][0]["candidates"])
        page.locator(".vs-card[data-side=A] .vs-export").click()
        name, what = page.evaluate("window.told")
        assert name == "export_a"
        assert '"method":"grid"' in what["setting"]
        page.locator(".vs-card[data-side=A] select").select_option("policy:fixed/<script>")
        assert page.evaluate("JSON.parse(valuesoup.state()).A") == {"candidate": "fixed/<script>"}
