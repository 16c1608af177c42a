"""The blocks of the documentation's pages, and how each kind is run or read; CONTRIBUTING.md says the convention."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import tiny_run
import valuesoup
from valuesoup.config import (
    BaseConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    MethodConfig,
    RewardConfig,
    RunConfig,
    ValueConfig,
)
from valuesoup.configfile import load_config, parse_config
from valuesoup.errors import UserError
from valuesoup.training.settings import TrainingSettings

ROOT = Path(__file__).parents[1]
STAND_IN = Path(__file__).parent / "docs" / "stand_in.py"
STANDING_IN = ("valuesoup", "pip", "make")
"""Commands that :data:`STAND_IN` takes the place of in the shell of a page."""

VALUES = ("helpful", "harmless")
SETTINGS = [
    *(setting for setting in tiny_run.overrides(*VALUES) if ".reward." not in setting),
    *(f"values.{value}.reward={{function: 'page_rewards:{value}'}}" for value in VALUES),
    "methods=[dpo, {preset: soup, steps: 10}, {preset: vc-soup, tau: 0, steps: 10}, {preset: vc-soup-nll, steps: 10}]",
]
"""Of the run that pages find in runs/demo: tiny, with the candidates and the scores that pages ask for."""

QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
"""Environment of all that pages run."""

MARK = re.compile(r"<!-- read, not run: (\S.*?) -->")
FENCE = re.compile(r"^( *)(`{3,}|~{3,})(\w*)[^`]*$")
SHELL = ("sh", "console")
MINIMAL: Mapping[str, Any] = {
    "values": {"helpful": {}, "harmless": {}},
    "base": {"pretrain": {}},
}
"""What a fragment of a configuration is merged into; a value that says nothing of its data takes the world's."""

SECTIONS = (
    *(BaseConfig, DataConfig, EvaluationConfig, GenerationConfig, MethodConfig, RewardConfig, TrainingSettings),
    ValueConfig,
)
"""What a fragment may be the inside of."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Of the opening fence, counted from 1.
        language: After the fence; empty for output and formulas, which are neither run nor read.
        text: Without the indentation of its fence.
        reason: Why it is read and not run; None where it is run.
    """

    line: int
    language: str
    text: str
    reason: str | None = None


@dataclass
class Session:
    """Where the blocks of a page run, one after the other."""

    page: str
    folder: Path
    environment: dict[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    def do(self, block: Block) -> None:
        """Run a block, or read it where it says so."""
        where = f"{self.page}, line {block.line}"
        if block.language == "python":
            (read_python if block.reason else self._python)(block, where)
        elif block.language in SHELL:
            (read_shell if block.reason else self._shell)(block, where)
        elif block.language == "yaml":
            read_yaml(block.text, where)
        elif block.language == "json":
            read_json(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language:
            raise AssertionError(f"{where}: nobody knows how to check {block.language}; see CONTRIBUTING.md")

    def _python(self, block: Block, where: str) -> None:
        exec(compile("\n" * block.line + block.text, str(ROOT / self.page), "exec"), self.names)

    def _shell(self, block: Block, where: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", commands(block)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page in order, each with the mark above it."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    reason: str | None = None
    while number < len(lines):
        line = lines[number]
        opening = FENCE.match(line)
        if opening:
            indent, fence, language = opening.groups()
            end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == fence)
            inside = [one.removeprefix(indent) for one in lines[number + 1 : end]]
            found.append(Block(number + 1, language, "\n".join(inside) + "\n", reason))
            number, reason = end, None
        elif mark := MARK.search(line):
            reason = mark[1]
        elif line.strip():
            assert "read, not run" not in line, f"line {number + 1}: write <!-- read, not run: REASON -->"
            reason = None
        number += 1
    return found


def commands(block: Block) -> str:
    """Return what a shell runs: of a console only the lines behind a prompt, and what they continue on."""
    if block.language != "console":
        return block.text
    kept = []
    going_on = False
    for line in block.text.splitlines():
        if going_on or line.startswith("$ "):
            kept.append(line.removeprefix("$ "))
            going_on = line.endswith("\\")
    return "\n".join(kept) + "\n"


def read_python(block: Block, where: str) -> None:
    """Compile, and look for every name that is asked of this package."""
    tree = ast.parse(block.text, where)
    compile(tree, where, "exec")
    check_names(tree, where)


def check_names(tree: ast.AST, where: str) -> None:
    """Look for each ``vs.NAME``, and each name imported from a module of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vs":
            assert hasattr(valuesoup, node.attr), f"{where}: there is no vs.{node.attr}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "valuesoup":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{where}: {node.module} has no {alias.name}"


def read_shell(block: Block, where: str) -> None:
    """Parse each command of this package with its own parser, and read the configurations of the repository."""
    line = ""
    for part in commands(block).replace("\\\n", " ").splitlines(keepends=True):
        line += part
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation goes on
            continue
        told, line = f"{where}: {line.strip()}", ""
        while words and re.match(r"^[A-Z_]+=", words[0]):
            words = words[1:]
        if words[:1] == ["accelerate"] and "valuesoup" in words:
            words = words[words.index("valuesoup") :]
        if words[:1] == ["valuesoup"]:
            read_command(words[1:], told)
        elif words and words[0] in STANDING_IN:
            done = subprocess.run([sys.executable, STAND_IN, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{told}: {done.stderr}"
    assert not line, f"{where}: a quotation does not end"


def read_command(words: list[str], where: str) -> None:
    """Parse a command line; check a configuration of the repository that it names."""
    import typer

    from valuesoup.cli.commands import app

    if words in (["--version"], ["--help"], []):
        return
    group: Any = typer.main.get_command(app)
    name, *arguments = words
    assert name in group.commands, f"{where}: there is no command {name}"
    try:
        given = group.commands[name].make_context(name, arguments).params
    except Exception as error:
        raise AssertionError(f"{where}: {getattr(error, 'message', error)}") from None
    config = given.get("config")
    if config is not None and (ROOT / config).is_file():
        load_config(ROOT / config, given.get("set_") or ())


def read_inline(text: str, where: str) -> None:
    """Look for the command and the options of each command line in the running text, and for each ``vs.NAME``."""
    import typer

    from valuesoup.cli.commands import app

    group: Any = typer.main.get_command(app)
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if match := re.match(r"valuesoup ([a-z]+)\b(.*)", span):
            assert match[1] in group.commands, f"{where}: `{span}`: there is no command {match[1]}"
            known = {name for one in group.commands[match[1]].params for name in (*one.opts, *one.secondary_opts)}
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", match[2]):
                assert option in {*known, "--help"}, f"{where}: `{span}`: there is no {option}"
        for name in re.findall(r"\bvs\.(\w+)", span):
            assert hasattr(valuesoup, name), f"{where}: `{span}`: there is no vs.{name}"


def read_json(text: str) -> None:
    """Parse a JSON value, or one per line."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


def read_yaml(text: str, where: str) -> None:
    """Check a configuration, or a fragment merged into a minimal one, with the reader of `valuesoup run`."""
    content = yaml.safe_load(text)
    if isinstance(content, dict) and {"values", "base"} <= set(content):
        parse_config(text, where)
        return
    if isinstance(content, list):
        content = {"methods": content}
    assert isinstance(content, dict), f"{where}: not a part of a configuration"
    if set(content) <= set(RunConfig.model_fields):
        _merged(content, where)
        return
    inside = [section for section in SECTIONS if set(content) <= set(section.model_fields)]
    assert inside, f"{where}: no section of a configuration has all of {', '.join(content)}"
    section = {
        BaseConfig: "base",
        EvaluationConfig: "evaluation",
        GenerationConfig: "generation",
        TrainingSettings: "training",
    }
    faults = []
    for one in inside:
        try:
            if one in section:
                _merged({section[one]: content}, where)
            else:
                one.model_validate(content)
            return
        except (UserError, ValueError) as error:
            faults.append(str(error))
    raise AssertionError("\n".join([where, *faults]))


def _merged(content: Mapping[str, Any], where: str) -> None:
    whole = {**MINIMAL, **content}
    world = {"function": "valuesoup.worlds.errands:pairs", "arguments": {"value": "helpful"}}
    whole["values"] = {name: {"data": world, **(value or {})} for name, value in whole["values"].items()}
    parse_config(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), where)


def shell_environment(folder: Path, shared: Path, socket: str) -> dict[str, str]:
    """Return the environment of a page's shell: the stand-ins, this interpreter's programs, and a shared cache.

    Args:
        folder: The page's own; packages that it installs go into ``installed`` there.
        shared: What pages share: cache and stand-ins.
        socket: Of what runs the commands.
    """
    programs = shared / "bin"
    python_path = os.environ.get("PYTHONPATH")
    programs.mkdir(parents=True, exist_ok=True)
    for name in STANDING_IN:
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" {name} "$@"\n')
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(
            [*map(str, (folder / "installed", ROOT / "tests")), *filter(None, [python_path])]
        ),
        "VALUESOUP_CACHE": str(shared / "cache"),
        "VALUESOUP_PAGES_SOCKET": socket,
        **QUIET,
    }
