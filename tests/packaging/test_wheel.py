"""The package as it is published: the wheel holds what it needs and no more, and works alone, without the extras."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import tiny_run
from valuesoup import __version__

ROOT = Path(__file__).parents[2]
EXTRAS = ("bitsandbytes", "gradio", "openai", "ray", "s3fs")
"""Modules that only extras bring; the wheel's environment is made to lack them."""


def build(source: Path, target: str, into: Path) -> Path:
    """Build the ``sdist`` or the ``wheel`` of a source folder, without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, str]:
    """Return the hash of each file in a wheel."""
    with zipfile.ZipFile(wheel) as file:
        return {name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist()}


def sources() -> set[str]:
    """Return every file of the package in the checkout, without caches."""
    found = (path.relative_to(ROOT / "src") for path in (ROOT / "src" / "valuesoup").rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not any(p.startswith((".", "__pycache__")) for p in path.parts)}


def test_the_wheel_holds_the_whole_package_its_licence_and_nothing_else(wheel: Path) -> None:
    about = f"valuesoup-{__version__}.dist-info"
    described = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(contents(wheel)) == sources() | described
    suffixes = {Path(name).suffix for name in sources()}
    assert suffixes == {".py", ".typed", ".txt", ".js", ".css", ".j2", ".yaml", ".jsonl"}
    kept = {"presets/hh.yaml", "report/templates/report.html.j2", "explorer/assets/board.js", "py.typed"}
    assert {f"valuesoup/{name}" for name in kept} <= sources()
    assert {Path(name).parent.name for name in sources() if name.endswith(".jsonl")} == {"presets"}
    assert wheel.stat().st_size < 2**20


def test_the_sdist_holds_what_a_developer_needs_and_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path)) as file:
        file.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"valuesoup-{__version__}"
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "docs", "examples", "tests"):
        assert (unpacked / name).exists(), name
    assert not {".venv", "runs", "dist", "site", ".git"} & {path.name for path in unpacked.iterdir()}
    assert contents(build(unpacked, "wheel", tmp_path / "built")) == contents(wheel)


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh environment with the wheel, beneath it what this one has installed but the extras."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    lines = [*dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]
    lines.append(f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))")  # None: cannot be imported
    (site / "zz-beneath.pth").write_text("\n".join(lines))
    return home


def valuesoup(alone: Path, cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command, away from the checkout."""
    environment = tiny_run.environment(cwd / "cache")
    del environment["PYTHONPATH"]
    command = [str(alone / "bin" / "valuesoup"), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def told(alone: Path, cwd: Path, *arguments: str | Path) -> str:
    done = valuesoup(alone, cwd, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_installed_command_knows_its_version_its_methods_and_its_presets(alone: Path, tmp_path: Path) -> None:
    code = "import valuesoup; print(valuesoup.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = [str(alone / "bin" / "python"), "-c", code]
    where = subprocess.run(python, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(where.strip()).is_relative_to(alone), "the wheel's, not the checkout's"
    assert told(alone, tmp_path, "--version") == f"valuesoup {__version__}\n"
    assert "demo" in told(alone, tmp_path, "--help")
    assert "vc-soup" in told(alone, tmp_path, "methods")
    assert "written: mine/config.yaml" in told(alone, tmp_path, "init", "mine", "--preset", "custom")
    assert "mine/config.yaml: nothing is missing" in told(alone, tmp_path, "doctor", "mine/config.yaml", "--no-measure")


@pytest.fixture(scope="module")
def demo(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny demo, made by the installed command."""
    away = tmp_path_factory.mktemp("away")
    told(alone, away, *tiny_run.demo_arguments(Path("run"), tiny_run.overrides("helpful", "harmless")))
    return away / "run"


def test_the_demo_runs_from_the_wheel_without_any_extra(demo: Path) -> None:
    assert set(json.loads((demo / "results.json").read_text())["methods"]) == {"base", "dpo", "soup", "vc-soup"}
    assert (demo / "report.html").stat().st_size > 100_000
    assert any((demo / "figures").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["explore", "run"], "explore"),
        (["judge", "run", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--yes"], "judge"),
        (["run", "run/config.yaml", "--out", "new", "--executor", "ray"], "ray"),
        (["run", "run/config.yaml", "--out", "new", "--artifacts", "s3://bucket/folder"], "s3"),
    ],
)
def test_what_needs_an_extra_says_how_to_install_it(alone: Path, demo: Path, arguments: list[str], extra: str) -> None:
    done = valuesoup(alone, demo.parent, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"pip install 'valuesoup[{extra}]'" in line
