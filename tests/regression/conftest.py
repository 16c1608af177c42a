"""A tiny finished run that a test may change, and the program that its command runs."""

import shutil
from pathlib import Path

import pytest

from tiny_checked import SCRIPT
from valuesoup.pipeline.run import Finished, open_run


@pytest.fixture
def finished(demo_run: tuple[Path, str], tmp_path: Path) -> Finished:
    return open_run(shutil.copytree(demo_run[0], tmp_path / "run"))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "a folder").mkdir()
    path = tmp_path / "a folder" / "evaluate.py"
    path.write_text(SCRIPT)
    return path
