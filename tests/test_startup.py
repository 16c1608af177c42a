"""No command imports what it does not use: read from ``python -X importtime``."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from valuesoup.cli.commands import COMMANDS

LEARNING = {"torch", "transformers", "peft", "trl", "datasets", "accelerate"}
DRAWING = {"altair", "vl_convert", "jinja2", "pandas"}
TABLES = {"polars", "pyarrow", "numpy"}
SEARCHING = {"scipy", "moocore", "openai"}


def imported(*arguments: object) -> set[str]:
    command = [sys.executable, "-X", "importtime", "-m", "valuesoup", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_help_imports_no_library_of_the_trade(command: str) -> None:
    assert not imported(command, "--help") & (LEARNING | DRAWING | TABLES | SEARCHING)


def test_the_list_of_methods_needs_no_tables_and_no_models() -> None:
    assert not imported("methods") & (LEARNING | DRAWING | SEARCHING | {"polars"})


def test_a_configuration_to_start_from_is_written_without_any_library_of_the_trade(tmp_path: Path) -> None:
    assert not imported("init") & (LEARNING | DRAWING | TABLES | SEARCHING)
    assert not imported("init", tmp_path / "mine", "--preset", "custom") & (LEARNING | DRAWING | TABLES | SEARCHING)
    assert (tmp_path / "mine" / "config.yaml").is_file()


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_wrong_configuration_is_refused_without_models(command: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("values: {}\n", encoding="utf-8")
    assert not imported(command, wrong) & (LEARNING | DRAWING | SEARCHING | {"polars"})


def test_the_status_of_a_run_needs_no_models_and_no_figures(demo_run: tuple[Path, str]) -> None:
    assert not imported("status", demo_run[0]) & (LEARNING | DRAWING | SEARCHING | {"polars"})


def test_the_report_of_a_run_needs_no_models(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    assert not imported("report", folder) & (LEARNING | {"openai"})
