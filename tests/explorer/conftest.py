"""The tiny demo with its models loaded, once for this room."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from valuesoup.explorer.models import Models
from valuesoup.pipeline.run import open_run

sys.path.insert(0, str(Path(__file__).parent))  # for served


@pytest.fixture(scope="session")
def models(demo_run: tuple[Path, str]) -> Iterator[Models]:
    made = Models(open_run(demo_run[0]))
    yield made
    made.close()
