"""What loads what: quick commands never load torch, and rooms import only the rooms below them."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import valuesoup
from valuesoup.methods import known_methods
from valuesoup.worlds.errands import VALUES

SOURCE = Path(valuesoup.__file__).parent
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "altair", "accelerate")
ROOMS = (
    "__main__",
    "cli",
    "explorer",
    "report",
    "regression",
    "shipping",
    "doctor",
    "pipeline",
    "presets",
    "configfile",
    "config",
    "methods",
    "evaluation",
    "search",
    "training",
    "expansion",
    "consistency",
    "soup",
    "rewards",
    "data",
    "worlds",
    "store",
    "limits",
    "endpoint",
    "errors",
)


def loaded_after(code: str) -> set[str]:
    """Return which heavy modules are loaded once the code has run in a process of its own."""
    report = f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    text = f"import atexit, sys\natexit.register(lambda: {report})\n{code}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return set(line.split()[1:])


@pytest.mark.parametrize(
    "module",
    [
        "valuesoup",
        "valuesoup.config",
        "valuesoup.configfile",
        "valuesoup.cli",
        "valuesoup.consistency",
        "valuesoup.data",
        "valuesoup.evaluation.frontier",
        "valuesoup.report",
        "valuesoup.rewards",
        "valuesoup.pipeline.plan",
        "valuesoup.pipeline.status",
        "valuesoup.pipeline.run",
        "valuesoup.pipeline.demo",
    ],
)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import {module}") == set()


def _command(*arguments: str) -> str:
    return f"sys.argv = {['valuesoup', *arguments]!r}\nfrom valuesoup.cli import main\nmain()"


def test_quick_commands_load_nothing_heavy(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("titel: x\n")
    run = tmp_path / "run"
    run.mkdir()
    text = "import pathlib\nfrom valuesoup.configfile import dump_config\n"
    text += "from valuesoup.pipeline.demo import demo_config\n"
    text += f"pathlib.Path({str(run / 'config.yaml')!r}).write_text(dump_config(demo_config()))\n"
    for code in (
        _command("--help"),
        _command("--version"),
        _command("run", "--help"),
        _command("run", str(config)),
        _command("demo", "--values", "helpfull"),
        text + _command("status", str(run)),
    ):
        assert loaded_after(code) == set(), code


@pytest.mark.parametrize("name", valuesoup.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(valuesoup, name) is not None
    if name != "__version__":
        home = importlib.import_module(valuesoup._HOMES[name])
        assert getattr(valuesoup, name) is getattr(home, name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sope'"):
        _ = valuesoup.sope


def sources() -> Iterator[tuple[str, str, ast.Module]]:
    """Yield the relative path, the room and the syntax tree of every file but the package's front page."""
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        if str(relative) != "__init__.py":
            yield relative.as_posix(), relative.parts[0].removesuffix(".py"), ast.parse(path.read_text("utf-8"))


def imported_rooms(tree: ast.Module) -> set[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names += [f"valuesoup.{alias.name}" for alias in node.names] if module == "valuesoup" else [module]
    return {name.split(".")[1] for name in names if name.startswith("valuesoup.")} - {"__version__"}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room for _, room, _ in sources()} <= set(ROOMS)


def test_imports_point_downward() -> None:
    upward = {
        (path, other)
        for path, room, tree in sources()
        for other in imported_rooms(tree)
        if other != room and ROOMS.index(other) < ROOMS.index(room)
    }
    assert upward == set()


def test_the_store_knows_nothing_of_alignment() -> None:
    for path, room, tree in sources():
        if room == "store":
            assert imported_rooms(tree) <= {"store", "errors"}, path


def named_in_code(tree: ast.Module, names: set[str]) -> set[str]:
    """Return which names the code uses: as identifiers, or as texts that hold nothing else; prose does not count."""
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = set(node.value.replace(",", " ").split())
            used |= words if words <= names else set()
        elif isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.keyword | ast.arg):
            used.add(node.arg or "")
    return used & names


def test_nobody_outside_methods_names_a_method() -> None:
    # "soup" is also the name of the module that this project is about, as an identifier it is no method's name.
    names = {*known_methods(), "vc_soup", "rewarded_soup"} - {"soup"}
    for path, room, tree in sources():
        if room != "methods":
            assert not named_in_code(tree, names), path


def test_nobody_outside_the_world_names_its_values() -> None:
    for path, room, tree in sources():
        if room != "worlds":
            assert not named_in_code(tree, set(VALUES)), path
