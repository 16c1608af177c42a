"""Every run of a test keeps its cache in the test's own folder; one tiny run is shared by all that only read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return where a server that speaks S3 keeps artifacts."""
    from tiny_storage import bucket

    with pytest.MonkeyPatch.context() as environment, bucket(environment) as found:
        yield found


@pytest.fixture(scope="module")
def nodes(url: str) -> Iterator[Any]:
    """Start a Ray head without CPUs and two nodes with one each, which know how to reach the storage."""
    from tiny_cluster import cluster

    with cluster(2) as started:
        yield started
