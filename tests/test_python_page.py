"""The page docs/python.md: it names every command, and its examples run."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from valuesoup.cli import COMMANDS

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_every_command_has_its_equivalent() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `valuesoup (\w+)", text, re.MULTILINE))
    assert named == {command.__name__ for command in COMMANDS}
    headings = {line[3:].replace(", ", "-") for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= headings


def test_the_ten_lines_are_the_readmes() -> None:
    first = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert first in (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_examples_run(demo_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    for name in ("demo", "other"):
        shutil.copytree(demo_run[0], tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    for made in ("mine/adapter_model.safetensors", "audit/audit.html", "comparison.html", "shipped/README.md"):
        assert (tmp_path / made).is_file(), made
    assert names["finished"].folder == Path("runs/demo")
