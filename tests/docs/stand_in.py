"""Stands in for valuesoup, pip and make in the shell of a documentation page: the same, made short.

Usage: stand_in.py NAME ARGUMENT…, as the page wrote them.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import forking

ROOT = Path(__file__).parents[2]

SHORTER = {
    "demo": "minutes; so the sizes of the run in runs/demo, which the page's own --set come after",
    "run": "minutes; so few steps, prompts and resamples, which the page's own --set come after",
    "doctor": "half a minute of measuring; so --no-measure",
    "explore": "does not end; so it takes a free port, and is interrupted once its page answers",
    "pip": "what a page installs goes into the page's folder; of this package only the extras are checked",
    "make": "minutes; so make only says what it would do",
}
"""What is not done as it is written, and why."""


def main(name: str, arguments: list[str]) -> None:
    """Do what a page wrote, shorter."""
    if name == "make":
        os.execvp("/usr/bin/make", ["make", "--dry-run", "--directory", str(ROOT), *arguments])
    elif name == "pip":
        _install(arguments)
    elif arguments[:1] == ["explore"]:
        _explore(arguments)
    else:
        shorter = {"demo": _demo, "run": _run, "doctor": lambda _: ["--no-measure"]}
        command, *rest = arguments or ["--help"]
        given = shorter[command](rest) if command in shorter and "--help" not in rest else []
        _, code = forking.start([command, *given, *rest])
        sys.exit(code())


def _demo(arguments: list[str]) -> list[str]:
    sys.path.insert(0, str(ROOT / "tests"))
    import pages
    import tiny_run

    settings = pages.SETTINGS
    if "--values" in arguments:
        settings = tiny_run.overrides(*arguments[arguments.index("--values") + 1].split(","))
    return ["--jobs", "1", *(part for setting in settings for part in ("--set", setting))]


def _run(arguments: list[str]) -> list[str]:
    import yaml

    content: Any = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
    settings = [
        "training.rank=2",
        "training.epochs=0.5",
        "generation.max_new_tokens=8",
        "evaluation.test_prompts=6",
        "evaluation.validation_prompts=6",
        "evaluation.resamples=50",
        "evaluation.fluency_bound=0",
    ]
    if "pretrain" in content["base"]:
        settings += [f"base.pretrain.{name}" for name in ("steps=10", "hidden=32", "layers=1", "heads=2")]
    for name, value in content["values"].items():
        if value.get("reward", {"train": {}}).get("train") is not None:
            settings.append(f"values.{name}.reward.train.epochs=0.5")
    return [part for setting in settings for part in ("--set", setting)]


def _explore(arguments: list[str]) -> None:
    printed, out = os.pipe()
    pid, code = forking.start([*arguments, *([] if "--port" in arguments else ["--port", "0"])], out)
    os.close(out)
    with os.fdopen(printed) as lines:
        for line in lines:
            print(line, end="")
            if found := re.match(r"explorer: (\S+)", line):
                with contextlib.suppress(urllib.error.HTTPError):  # one that asks for a password answers too
                    urllib.request.urlopen(found[1].replace("0.0.0.0", "127.0.0.1"), timeout=30).close()
                os.kill(pid, signal.SIGINT)
    sys.exit(code())


def _install(arguments: list[str]) -> None:
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert arguments[:1] == ["install"], f"pip {' '.join(arguments)}: only pip install is known here"
    for what in arguments[1:]:
        if match := re.fullmatch(r"(?:valuesoup|\.)(?:\[([\w,-]+)\])?", what):
            missing = {*filter(None, (match[1] or "").split(","))} - set(offered)
            assert not missing, f"valuesoup has no extra {', '.join(missing)}"
        elif "/" in what:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
            subprocess.run([*pip, os.environ["PYTHONPATH"].partition(os.pathsep)[0], what], check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
