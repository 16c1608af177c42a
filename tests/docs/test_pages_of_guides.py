"""Every block of the tutorial, the guides, the methods' pages and the explanations runs, or is read."""

from collections.abc import Callable

import pytest

import pages

DOCS = pages.ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted(DOCS.glob("*/*.md"))]


@pytest.mark.parametrize("page", [str(page.relative_to(DOCS)) for page in PAGES])
def test_a_page_is_true(page: str, check_page: Callable[[str], None]) -> None:
    check_page(f"docs/{page}")
