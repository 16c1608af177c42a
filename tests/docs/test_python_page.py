"""The page docs/python.md names every command, and begins with the README's ten lines."""

import re

import pages
from valuesoup.cli.commands import COMMANDS

PAGE = pages.ROOT / "docs" / "python.md"


def test_every_command_has_its_equivalent() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `valuesoup (\w+)", text, re.MULTILINE))
    assert named == {command.__name__ for command in COMMANDS}
    headings = {line[3:].replace(", ", "-") for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= headings


def test_the_ten_lines_are_the_readmes() -> None:
    first = next(block for block in pages.blocks(PAGE.read_text(encoding="utf-8")) if block.language == "python")
    assert first.text in (pages.ROOT / "README.md").read_text(encoding="utf-8")
