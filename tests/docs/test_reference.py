"""The generated reference names every command and option, every key of a configuration, method and public name."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import pages
import valuesoup
from valuesoup.cli.commands import COMMANDS, app
from valuesoup.config import RunConfig
from valuesoup.methods import preset
from valuesoup.methods.registry import BUILT_IN

TOOLS = pages.ROOT / "tools"


@pytest.fixture(scope="module")
def reference() -> Iterator[dict[str, str]]:
    sys.path.insert(0, str(TOOLS))
    import site_reference

    yield site_reference.pages()
    sys.path.remove(str(TOOLS))


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(annotation):
        yield from models(part)


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading, by the heading without its anchor."""
    parts = re.split(r"^#+ (.+?)(?: \{#.*\})?$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_with_every_argument_and_option_is_named(reference: dict[str, str]) -> None:
    import typer

    group: Any = typer.main.get_command(app)
    found = sections(reference["commands"])
    for command in COMMANDS:
        text = found[f"valuesoup {command.__name__}"]
        for parameter in group.commands[command.__name__].params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                shown = name if name.startswith("-") else parameter.metavar or name.upper()
                assert re.search(rf"`\[?{re.escape(shown)}…?\]?`", text), f"{command.__name__}: {name}"


def test_every_key_of_a_configuration_has_type_default_and_meaning(reference: dict[str, str]) -> None:
    found = list(sections(reference["configuration"]).values())
    for model in set(models(RunConfig)):
        keys = [f"`{name}` <small>" for name in model.model_fields]
        assert any(all(key in text for key in keys) for text in found), f"{model.__name__}: {', '.join(keys)}"
    entries = re.findall(r"^`(\w+)` <small>(.*)</small>\n:   (.*)", reference["configuration"], re.MULTILINE)
    assert len(entries) > 100
    for key, kind, meaning in entries:
        assert len(meaning) > 3, f"{key} has no description"
        assert kind and "anything" not in kind.split(",")[0].split(" of ")[0], f"{key}: {kind}"


def test_links_within_the_configuration_reference_have_a_target(reference: dict[str, str]) -> None:
    anchors = set(re.findall(r"\{#([\w-]+)\}", reference["configuration"]))
    asked = re.findall(r"\(#([\w-]+)\)", reference["configuration"])
    asked += re.findall(r"configuration\.md#([\w-]+)", reference["methods"])
    assert set(asked) <= anchors, set(asked) - anchors


def test_every_method_is_named_with_its_paper_and_settings(reference: dict[str, str]) -> None:
    found = sections(reference["methods"])
    for name in BUILT_IN:
        known = preset(name)
        assert known.formula in found[name]
        for setting in inspect.signature(known.function).parameters:
            assert f"`{setting}` <small>" in found[name]


def test_every_public_name_is_described(reference: dict[str, str]) -> None:
    text = reference["python"].replace("\\", "")
    for name in valuesoup.__all__:
        assert f"valuesoup.{name}\n" in text, name


def test_every_name_that_a_page_imports_is_described(reference: dict[str, str]) -> None:
    for page in (pages.ROOT / "README.md", *(pages.ROOT / "docs").rglob("*.md")):
        for block in pages.blocks(page.read_text(encoding="utf-8")):
            if block.language != "python":
                continue
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("valuesoup."):
                    for alias in node.names:
                        name = f"{node.module}.{alias.name}"
                        assert f"::: {name}\n" in reference["python"] or f"## {name}\n" in reference["python"], (
                            f"{page.name} imports {name}; add it to tools/site_reference.py"
                        )
