"""Every block of the pages directly in docs/ runs, or is read where it says that it cannot run."""

from collections.abc import Callable

import pytest

import pages

PAGES = sorted((pages.ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name != "tutorial.md"])
def test_a_page_is_true(page: str, check_page: Callable[[str], None]) -> None:
    check_page(f"docs/{page}")
