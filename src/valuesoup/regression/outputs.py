"""What an evaluation command wrote: lm-eval's results, or a flat file of numbers."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from valuesoup.errors import RunError

LAYOUTS = (
    '{"results": {TASK: {"acc,none": NUMBER, "acc_stderr,none": NUMBER}}} as lm-eval writes it, or {METRIC: NUMBER}'
)
_STDERR = "_stderr"


class Metric(NamedTuple):
    """One figure that a command measured.

    Attributes:
        value: The figure.
        stderr: Its standard error, None where it is not known.
        higher_is_better: None where it is not known.
    """

    value: float
    stderr: float | None = None
    higher_is_better: bool | None = None


def read_outputs(folder: Path, who: str) -> dict[str, Metric]:
    """Read the metrics in all JSON files below a folder, by name: ``METRIC``, or ``TASK METRIC`` of lm-eval.

    lm-eval's filter is part of a name where it is not ``none``. Other files are not looked at.

    Args:
        folder: What the command was told to write to.
        who: Whose results these are, for messages.

    Raises:
        RunError: There is no JSON file, one is not of a known layout, a figure is no finite number, or two files
            disagree about one.
    """
    files = sorted(path for path in folder.rglob("*.json") if path.is_file())
    if not files:
        raise RunError(f"the command wrote no JSON file below {{out}} for {who}; it must write {LAYOUTS}.")
    found: dict[str, Metric] = {}
    for file in files:
        where = f"{file.relative_to(folder)}, which the command wrote for {who},"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise RunError(f"{where} is not JSON; it must hold {LAYOUTS}.") from None
        for name, metric in _metrics(content, where):
            if found.setdefault(name, metric) != metric:
                raise RunError(f"{where} gives '{name}' another value than the files before it; write a metric once.")
    if not found:
        raise RunError(f"what the command wrote for {who} holds no metrics; it must hold {LAYOUTS}.")
    return found


def _metrics(content: Any, where: str) -> Iterator[tuple[str, Metric]]:
    if not isinstance(content, Mapping) or not content:
        raise RunError(f"{where} holds no metrics; it must hold {LAYOUTS}.")
    tasks = content.get("results")
    if not isinstance(tasks, Mapping):
        yield from _table(content, {}, where)
        return
    directions = content.get("higher_is_better")
    for task, of in tasks.items():
        if not isinstance(of, Mapping):
            raise RunError(f"{where} has no table of metrics for the task '{task}'; it must hold {LAYOUTS}.")
        better = directions.get(task) if isinstance(directions, Mapping) else None
        # lm-eval writes the task's own name and sizes beside its metrics, which have a comma in their names.
        figures = {name: figure for name, figure in of.items() if "," in name}
        for name, metric in _table(figures, better if isinstance(better, Mapping) else {}, where):
            yield f"{task} {name}", metric


def _table(figures: Mapping[str, Any], better: Mapping[str, Any], where: str) -> Iterator[tuple[str, Metric]]:
    for name, figure in figures.items():
        metric, comma, kind = name.partition(",")
        if metric.endswith(_STDERR):
            continue
        stderr = figures.get(f"{metric}{_STDERR}{comma}{kind}")
        direction = better.get(metric)
        yield (
            metric if kind in ("", "none") else f"{metric} ({kind})",
            Metric(
                _number(figure, name, where),
                # lm-eval writes "N/A" where it knows none.
                None if stderr is None or isinstance(stderr, str) else _number(stderr, f"{metric}{_STDERR}", where),
                direction if isinstance(direction, bool) else None,
            ),
        )


def _number(figure: Any, name: str, where: str) -> float:
    try:
        number = math.nan if isinstance(figure, bool) or not isinstance(figure, int | float) else float(figure)
    except OverflowError:  # JSON knows integers of any length
        number = math.inf
    if not math.isfinite(number):
        raise RunError(
            f"{where} has {str(figure)[:40]!r} for {name}, which is no finite number; it must hold {LAYOUTS}."
        )
    return number
