"""Every block of the pages beside the code runs, or is read where it says that it cannot run."""

from collections.abc import Callable

import pytest

PAGES = (
    *("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "RELEASING.md"),
    "examples/own-method/README.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_project_is_true(page: str, check_page: Callable[[str], None]) -> None:
    check_page(page)
