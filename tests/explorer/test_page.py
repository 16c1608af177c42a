"""The page in a real browser: pins follow sliders, both sides stream, text stays text, visitors keep to themselves."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from served import Served, serve

from browser import browser_fixture, tab  # noqa: F401
from valuesoup.explorer import Explorer, launch
from valuesoup.explorer.models import Models

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<script>window.hurt=1</script> <img src=x onerror='window.hurt=2'> <b>bold</b> **strong** $$x^2$$ `code` "
    "[link](javascript:window.hurt=3) ${window.hurt=4} {{window.hurt=5}} &amp; </p><h1>big</h1>"
)
PATIENCE = 30_000


@pytest.fixture(scope="module")
def served(demo_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("explored")
    run = shutil.copytree(demo_run[0], root / "run")
    with serve(run, root / "cache") as made:
        yield made


def open_page(page: "Page", served: Served | Explorer) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    page.wait_for_selector(".vs-pin-A")


def slide(page: "Page", side: str, place: int, weight: float) -> None:
    slider = page.locator(f".vs-card[data-side={side}] input[type=range]").nth(place)
    slider.evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input', {bubbles: true})); }", weight
    )


def weights(page: "Page", side: str) -> list[float]:
    return [float(text) for text in page.locator(f".vs-card[data-side={side}] output").all_inner_texts()]


def pin(page: "Page", side: str) -> tuple[float, float]:
    mark = page.locator(f".vs-pin-{side}")
    return float(mark.get_attribute("data-x") or "nan"), float(mark.get_attribute("data-y") or "nan")


def choose(page: "Page", side: str, title: str) -> None:
    page.locator(f".vs-card[data-side={side}] select").select_option(label=title)


def ask(page: "Page", prompt: str) -> None:
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#ask").click()


def answered(page: "Page", side: str, turns: int = 1) -> str:
    """Wait for so many scored answers; return the last one's text."""
    page.wait_for_function(
        "([side, turns]) => [...document.querySelectorAll(`#answers-${side} .vs-turn`)]"
        ".filter((turn) => turn.querySelector('.vs-score')).length === turns",
        arg=[side, turns],
    )
    return page.locator(f"#answers-{side} .vs-answer").last.evaluate(
        "(node) => [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data).join('')"
    )


def expected(models: Models, prompt: str, first: float, method: str = "soup") -> str:
    generation = models.finished.plan.config.generation
    setting = models.setting({"method": method, "weights": {"helpful": first, "harmless": 1 - first}})
    *_, text = models.ask(
        [{"role": "user", "content": prompt}],
        setting,
        max_new_tokens=generation.max_new_tokens,
        temperature=generation.temperature,
        seed=models.finished.plan.config.seed,
    )
    return text


def test_a_slider_moves_its_pin_at_once_and_the_card_says_what_is_known_there(
    browser: "Browser", served: Served, models: Models
) -> None:
    with tab(browser, viewport={"width": 1280, "height": 900}) as (page, watch):
        open_page(page, served)
        assert page.locator(".vs-mark").count() == len(models.finished.results["candidates"])
        assert weights(page, "A") == [0.5, 0.5]
        card = page.locator(".vs-card[data-side=A]")
        assert "This is an evaluated candidate" in card.inner_text()
        before, other = pin(page, "A"), pin(page, "B")
        slide(page, "A", 0, 0.8)
        assert weights(page, "A") == [0.8, 0.2]  # they sum to 1
        assert pin(page, "A") != before
        assert pin(page, "B") == other
        assert "here, interpolated" in card.inner_text()
        assert "Nearest evaluated candidate: helpful 1 · harmless 0, 0.28 away in weights." in card.inner_text()
        slider = card.locator("input[type=range]").first
        slider.focus()
        slider.press("ArrowRight")
        assert weights(page, "A") == [0.81, 0.19]
        # Half-way between two candidates of two values is half-way between their points.
        ends = []
        for weight in (0.5, 1.0, 0.75):
            slide(page, "A", 0, weight)
            ends.append(pin(page, "A"))
        (x0, y0), (x1, y1), middle = ends
        assert middle == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.02)
        # Free weights may leave what was evaluated, and the card says so.
        card.locator(".vs-lock input").uncheck()
        slide(page, "A", 0, 1.5)
        slide(page, "A", 1, 1.5)
        assert weights(page, "A") == [1.5, 1.5]
        assert "Extrapolated: no evaluated candidate is near" in card.inner_text()
        choose(page, "A", "Base model")
        assert card.locator("input[type=range]").count() == 0
        assert card.locator(".vs-export").is_disabled()
        policy = next(row for row in models.finished.results["candidates"] if row["method"] == "dpo")
        page.locator(".vs-card[data-side=A] select").select_option(value=f"policy:{policy['id']}")
        assert "A finished policy" in card.inner_text()
        assert watch.errors == []
        assert [url for url in watch.requests if not url.startswith(served.url)] == []


def test_both_sides_answer_the_same_prompt_at_their_own_weights_and_are_scored(
    browser: "Browser", served: Served, models: Models
) -> None:
    with tab(browser, viewport={"width": 1280, "height": 900}) as (page, watch):
        open_page(page, served)
        choose(page, "A", "SOUP")
        choose(page, "B", "VC-soup")
        slide(page, "A", 0, 1.0)
        slide(page, "B", 0, 0.25)
        prompt = "how do i cook rice at home ?"
        ask(page, prompt)
        answers = {side: answered(page, side) for side in "AB"}
        assert answers == {"A": expected(models, prompt, 1.0), "B": expected(models, prompt, 0.25, "vc-soup")}
        for side in "AB":
            (scores,) = models.score([{"role": "user", "content": prompt}], [answers[side]])
            shown = page.locator(f"#answers-{side} .vs-score b").all_inner_texts()
            assert [float(text.replace("−", "-")) for text in shown] == pytest.approx(list(scores.values()), abs=0.006)
        # A test prompt of the run, and the conversation so far stays on the page.
        page.locator("#sample input").click()
        page.locator("#sample [role=option], .options [role=option], ul.options li").first.click()
        page.wait_for_function(
            "(text) => document.querySelector('#prompt textarea').value === text",
            arg=models.prompts[0]["messages"][-1]["content"],
        )
        page.locator("#ask").click()
        assert answered(page, "A", 2) is not None
        page.locator("#clear").click()
        page.wait_for_selector("#answers-A .vs-empty")
        ask(page, "   ")
        page.wait_for_selector("#refusal .vs-error")
        assert "write a prompt first" in page.locator("#refusal").inner_text()
        assert watch.errors == []


def test_what_a_prompt_holds_is_text_and_never_markup(browser: "Browser", served: Served) -> None:
    with tab(browser, viewport={"width": 1280, "height": 900}) as (page, watch):
        open_page(page, served)
        ask(page, HOSTILE)
        answered(page, "A")
        answered(page, "B")
        for side in "AB":
            said = page.locator(f"#answers-{side} .vs-user")
            assert said.evaluate("(node) => node.textContent") == HOSTILE
            assert said.evaluate("(node) => node.children.length") == 0
        assert page.evaluate("window.hurt") is None
        assert [url for url in watch.requests if not url.startswith(served.url)] == []
        assert watch.errors == []


def test_two_visitors_with_different_sliders_get_different_soups_at_the_same_time(
    browser: "Browser", served: Served, models: Models
) -> None:
    prompts = [prompt["messages"][-1]["content"] for prompt in models.prompts[:6]]
    with tab(browser) as (first, _), tab(browser) as (second, _):
        places = {first: (1.0, 0.6), second: (0.3, 0.0)}
        for page, (here, there) in places.items():
            open_page(page, served)
            for side, weight in (("A", here), ("B", there)):
                choose(page, side, "SOUP")
                slide(page, side, 0, weight)
        for turn, prompt in enumerate(prompts[:2], 1):
            for page in places:
                ask(page, prompt)  # the second asks before the first has its answers
            for page, (here, there) in places.items():
                assert answered(page, "A", turn) == expected(models, prompt, here)
                assert answered(page, "B", turn) == expected(models, prompt, there)


def test_the_export_button_writes_an_adapter_and_shows_its_folder_and_the_command(
    browser: "Browser", served: Served
) -> None:
    with tab(browser, viewport={"width": 1280, "height": 900}) as (page, _):
        open_page(page, served)
        choose(page, "A", "SOUP")
        slide(page, "A", 0, 0.6)
        page.locator(".vs-card[data-side=A] .vs-export").click()
        page.wait_for_selector("#notice pre", timeout=PATIENCE)
        told = page.locator("#notice").inner_text()
        found = re.search(r"is in (\S+)\.", told)
        assert found is not None
        folder = Path(found.group(1))
        assert folder.parent.name == "exports"
        assert (folder / "adapter_model.safetensors").is_file()
        assert "--method soup --weights helpful=0.6,harmless=0.4 --to" in told


def test_a_visitor_who_stops_or_leaves_makes_place_for_the_others(
    browser: "Browser", models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("valuesoup.soup.generation.end_tokens", lambda _: set())  # no answer ends by itself
    run = shutil.copytree(models.finished.folder, tmp_path / "run")
    explorer = launch(run, port=0)
    try:
        streamer = explorer.models.streamer
        streamer.soup.model.register_forward_pre_hook(lambda *_: time.sleep(0.02))  # as slow as a model of some size
        with tab(browser) as (stays, _):
            open_page(stays, explorer)
            with tab(browser) as (leaves, _):
                for page in (stays, leaves):
                    open_page(page, explorer)
                    page.locator("#drawn button").first.click()
                    page.locator("#limit input[type=number]").fill("1000")
                    ask(page, "how do i cook rice at home ?")
                    page.wait_for_selector("#answers-B .vs-writing")
                assert streamer.waiting == 4
            until(lambda: streamer.waiting == 2)
            assert stays.locator("#answers-B .vs-writing").count() == 1
            stays.locator("#stop").click()
            until(lambda: streamer.waiting == 0)
            stays.wait_for_selector("#answers-B .vs-state:text-is('stopped')")
            assert stays.locator("#answers-B .vs-answer").inner_text()
            # What is cleared while it is written does not come back, and an export's notice outlives the answers.
            stays.locator("#ask").click()
            stays.wait_for_selector("#answers-B .vs-writing")
            stays.locator(".vs-card[data-side=A] .vs-export").click()
            stays.wait_for_selector("#notice pre", timeout=PATIENCE)
            assert stays.locator("#answers-B .vs-writing").count() == 1
            stays.locator("#clear").click()
            until(lambda: streamer.waiting == 0)
            stays.wait_for_selector("#answers-B .vs-empty")
            time.sleep(0.3)
            assert stays.locator(".vs-turn").count() == 0
            assert "is in" in stays.locator("#notice").inner_text()
    finally:
        explorer.close()


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_on_a_narrow_screen_everything_fits_and_can_be_reached(browser: "Browser", served: Served) -> None:
    for scheme in ("light", "dark"):
        settings: Any = {"viewport": {"width": 390, "height": 800}, "color_scheme": scheme}
        with tab(browser, **settings) as (page, watch):
            open_page(page, served)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            slide(page, "B", 1, 0.9)
            assert weights(page, "B") == [0.1, 0.9]
            assert watch.errors == []
