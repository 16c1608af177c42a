"""The list of dependencies is true: what src imports is listed, what is listed is used, versions agree."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOT_IMPORTED = {"s3fs"}
"""Listed although nothing in src imports it: fsspec loads it for s3:// addresses."""


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def names(requirements: list[str]) -> set[str]:
    """Return the packages of requirements, their names normalised."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower() for line in requirements}


def shipped_extras() -> dict[str, set[str]]:
    """Return the packages of every extra that is for users."""
    extras = project()["optional-dependencies"]
    return {extra: names(extras[extra]) for extra in ("explore", "judge", "qlora", "ray", "s3")}


def imports() -> dict[str, set[str]]:
    """Return, by package, the files in src that import it."""
    owners = metadata.packages_distributions()
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src" / "valuesoup").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {"valuesoup"}:
                (package, *others) = names(owners[module])
                assert not others, f"{module} comes from several packages"
                found.setdefault(package, set()).add(path.relative_to(ROOT / "src" / "valuesoup").as_posix())
    return found


def test_every_package_that_src_imports_is_a_dependency_or_comes_with_an_extra() -> None:
    listed = names(project()["dependencies"])
    extras = set[str]().union(*shipped_extras().values())
    brought = extras.union(*(names(metadata.requires(one) or []) for one in extras))
    for package, files in imports().items():
        assert package in listed or package in brought, (package, files)


def test_what_only_an_extra_brings_is_imported_in_its_own_room_alone() -> None:
    rooms = {"explore": "explorer/", "judge": "endpoint/", "qlora": "soup/", "ray": "store/", "s3": "store/"}
    used = imports()
    for extra, packages in shipped_extras().items():
        for package in packages:
            assert all(file.startswith(rooms[extra]) for file in used.get(package, ())), package
            assert package not in names(project()["dependencies"])


def test_nothing_is_listed_that_is_not_used() -> None:
    listed = names(project()["dependencies"]).union(*shipped_extras().values())
    assert listed - set(imports()) == NOT_IMPORTED


def test_developers_get_what_every_extra_needs_in_the_same_versions() -> None:
    extras = project()["optional-dependencies"]
    for extra in shipped_extras():
        assert set(extras[extra]) <= set(extras["dev"])


def test_the_lower_bounds_hold_here_and_the_pins_are_within_the_ranges() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    optional = [line for extra in shipped_extras() for line in project()["optional-dependencies"][extra]]
    for line in (*project()["dependencies"], *optional):
        requirement = Requirement(line)
        (name,) = names([line])
        assert requirement.specifier.contains(metadata.version(name)), line
        assert name not in pins or requirement.specifier.contains(pins[name]), line


def test_the_oldest_python_that_is_promised_can_read_every_file() -> None:
    assert project()["requires-python"] == ">=3.11"
    for path in (ROOT / "src").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    import valuesoup

    assert valuesoup.__version__ == project()["version"]
    assert f"\nversion: {valuesoup.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {valuesoup.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
