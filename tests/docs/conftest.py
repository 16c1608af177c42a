"""What the pages of the documentation run in: a folder with a finished tiny run, the examples, a shared cache."""

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pages
from valuesoup.methods import known_methods


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def _forking(_shared: Path) -> Iterator[str]:
    """Start what runs the commands of pages, and return its socket."""
    path = _shared / "socket"
    server = Path(__file__).parent / "forking.py"
    environment = {**os.environ, **pages.QUIET}
    with subprocess.Popen([sys.executable, str(server), str(path)], env=environment) as process:
        try:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield str(path)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def page_run(_shared: Path, _forking: str) -> Path:
    """Return the folder of a finished tiny run with the candidates that pages name, not to be changed."""
    environment = pages.shell_environment(_shared, _shared, _forking)
    done = subprocess.run(["valuesoup", "demo", "--out", "run"], cwd=_shared, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return _shared / "run"


@pytest.fixture
def check_page(
    page_run: Path, _shared: Path, _forking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Return what runs, or reads, every block of a page, and looks at the commands in its text."""

    def check(page: str) -> None:
        text = (pages.ROOT / page).read_text(encoding="utf-8")
        for run in ("demo", "other"):
            if f"runs/{run}" in text:
                shutil.copytree(page_run, tmp_path / "runs" / run)
        shutil.copytree(pages.ROOT / "examples", tmp_path / "examples")
        shutil.copy(page_run / "config.yaml", tmp_path / "config.yaml")
        session = pages.Session(page, tmp_path, pages.shell_environment(tmp_path, _shared, _forking))
        (tmp_path / "installed").mkdir()
        monkeypatch.chdir(tmp_path)
        for name in ("VALUESOUP_CACHE", *pages.QUIET):
            monkeypatch.setenv(name, session.environment[name])
        for path in (tmp_path / "installed", tmp_path):
            monkeypatch.syspath_prepend(path)
        for block in pages.blocks(text):
            session.do(block)
            known_methods.cache_clear()  # a page may have installed one
            importlib.invalidate_caches()
        pages.read_inline(text, page)

    loaded = set(sys.modules)
    yield check
    known_methods.cache_clear()
    for name in set(sys.modules) - loaded:  # of the page's own folder
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
