"""Every run of a test keeps its cache in the test's own folder; one tiny run is shared by all that only read it."""

from pathlib import Path

import pytest

import tiny_run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUESOUP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a finished tiny demo, not to be changed, and what the command printed."""
    root = tmp_path_factory.mktemp("demo")
    settings = tiny_run.overrides("helpful", "harmless")
    done = tiny_run.valuesoup(root / "cache", *tiny_run.demo_arguments(root / "run", settings))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no notices or progress bars of the libraries"
    return root / "run", done.stdout
