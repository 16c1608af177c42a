"""How soon the command line answers: its help, and a wrong key in a configuration."""

import tempfile
from pathlib import Path

from benchmarks.timing import command, median_cost

WRONG = """
values: {helpful: {data: pairs.jsonl, reward: {model: classifier}}}
base: {model: base}
training: {learning_rat: 1.0e-4}
"""


def figures(repeats: int) -> list[str]:
    """Return the figures as lines of text."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "wrong.yaml"
        wrong.write_text(WRONG, encoding="utf-8")
        shown = median_cost([command(["--help"]) for _ in range(repeats)])
        answered = median_cost([command(["run", str(wrong)], code=2) for _ in range(repeats)])
    return [
        f"valuesoup --help: {shown} (goal 0.3 s)",
        f"a wrong key in a configuration: {answered} (goal 1 s)",
    ]
