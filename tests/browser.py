"""A headless Chromium for tests that look at a page as its reader does; skips with the reason where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""A browser that asks for nothing by itself, so that every request is the page's."""


@contextmanager
def browser() -> "Iterator[Browser]":
    """Start a headless Chromium; skip the test where the browser or the package that drives it is not installed.

    ``VALUESOUP_BROWSER`` names another executable.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
    found = os.environ.get("VALUESOUP_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is on the path")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, headless=True, args=list(QUIET))
        try:
            yield opened
        finally:
            opened.close()


class Watch:
    """What a page complained about and asked for: console errors, uncaught exceptions, requests over the network."""

    def __init__(self, page: "Page") -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._requested)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)


@contextmanager
def tab(browser: "Browser", **settings: Any) -> "Iterator[tuple[Page, Watch]]":
    """Open a page of its own in a running browser, with what it complains about.

    Args:
        browser: From :func:`browser`.
        settings: Of playwright's ``new_context``, such as ``viewport``, ``color_scheme`` or ``java_script_enabled``.
    """
    context = browser.new_context(**settings)
    try:
        page = context.new_page()
        yield page, Watch(page)
    finally:
        context.close()


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> "Iterator[Browser]":
    """The browser, one for the tests of a module; import this name into the module that asks for it."""
    with browser() as opened:
        yield opened
