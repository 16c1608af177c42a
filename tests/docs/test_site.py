"""The documentation builds without a warning, and reads without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=pages.ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert any("Documentation built" in line for line in lines), "where mkdocs is quiet, --strict sees no warning"
    assert all(line.startswith("INFO ") for line in lines), "\n".join(lines)
    return place


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    docs = pages.ROOT / "docs"
    for page in docs.rglob("*.md"):
        assert (site / page.relative_to(docs)).with_suffix(".html").is_file(), page


def test_a_linked_file_of_the_repository_is_a_page_too(site: Path) -> None:
    for page in ("SECURITY.html", "examples/own-method/index.html", "examples/studies/figure-3.yaml.html"):
        assert (site / "project" / page).is_file()


def test_marks_of_blocks_that_are_not_run_are_invisible(site: Path) -> None:
    text = (site / "cluster.html").read_text(encoding="utf-8")
    assert "read, not run" not in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def test_pages_ask_nothing_of_the_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r'<(?:script|img|iframe)[^>]+src="?(https?:[^" >]+)', text)
        asked += re.findall(r'<link[^>]+rel="?(?:stylesheet|icon|preconnect)[^>]+href="?(https?:[^" >]+)', text)
        assert not asked, f"{page.name}: {asked}"
