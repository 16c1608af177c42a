"""One finished tiny run, opened once for the tests that only read it."""

from pathlib import Path

import pytest

from valuesoup.pipeline.run import Finished, open_run


@pytest.fixture(scope="session")
def finished(demo_run: tuple[Path, str]) -> Finished:
    return open_run(demo_run[0])
