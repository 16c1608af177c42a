"""``check.json``: what was measured of each policy, kept as it comes, and what of it still holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valuesoup.errors import UserError
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.run import Finished
from valuesoup.regression.kept_schema import kept_fault, strange
from valuesoup.regression.outputs import Metric
from valuesoup.regression.ratios import difference
from valuesoup.regression.subjects import Subject, current_keys
from valuesoup.store import write_atomic

CHECKED = "check.json"
SCHEMA = 1
TEXT_FACTS = ("name", "documents", "empty", "repeated", "tokens", "bytes", "unknown", "cut", "window", "stride")
FIGURES = ("perplexity", "bits_per_byte", "log_ratio", "bits")

Content = dict[str, Any]
"""``schema``, ``level``, and ``texts`` and ``commands``: what was asked, each with its policies and what was found."""


def read_kept(finished: Finished) -> Content:
    """Read ``check.json`` of a run, or begin one.

    Raises:
        UserError: The file is damaged.
    """
    path = finished.folder / CHECKED
    level = finished.plan.config.evaluation.level
    if not path.is_file():
        return {"schema": SCHEMA, "level": level, "texts": [], "commands": []}
    try:
        content: Content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is no JSON") from None
    if fault := kept_fault(content):
        raise _damaged(path, fault)
    if (who := strange(content, current_keys(finished.plan), finished.results["candidates"])) is not None:
        raise _damaged(path, f"the run knows its '{who}' otherwise")
    return {**content, "level": level}


def write_kept(finished: Finished, content: Content) -> None:
    """Write ``check.json``, whole or not at all."""
    write_atomic(finished.folder / CHECKED, json.dumps(content, indent=1, allow_nan=False))


def take_subjects(entry: dict[str, Any], subjects: Sequence[Subject]) -> None:
    """Put policies into an entry, each once, as they are now."""
    rows = {row["id"]: row for row in entry["policies"]}
    for subject in subjects:
        policy = subject.policy
        told = {"id": policy.id, "method": policy.method, "method_title": subject.method_title, "title": policy.title}
        before = rows.get(policy.id, {})
        kept = before if before.get("key") == subject.key else {}  # else its figures are of another model
        rows[policy.id] = {**kept, **told, "weights": policy.weights, "key": subject.key}
    entry["policies"] = list(rows.values())


def checked_run(finished: Finished) -> dict[str, Any] | None:
    """Return what is known of what alignment cost a run's base, None where nothing was checked.

    Policies that have changed since they were checked are not there, and counted in ``outdated``.

    Returns:
        ``level``; ``outdated``; ``texts``, each with its facts and ``policies``: ``id``, ``method``, ``method_title``,
        ``title``, ``weights``, ``perplexity``, ``bits_per_byte``, and ``log_ratio`` and ``bits``, the differences to
        the base as ``mean``, ``low``, ``high``; ``commands``, each with its text and ``metrics``: ``name``,
        ``higher_is_better``, and ``policies`` with ``value``, ``stderr`` and ``difference``. The base comes first; its
        own differences are None.

    Raises:
        UserError: The file is damaged.
    """
    if not (finished.folder / CHECKED).is_file():
        return None
    return shown(read_kept(finished), current_keys(finished.plan))


def shown(content: Content, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return what `checked_run` does, of the policies of these ids as far as they have these keys."""
    found: dict[str, Any] = {"level": content["level"], "texts": [], "commands": []}
    for entry in content["texts"]:
        rows = [row for row in _current(entry, keys) if row.get("perplexity")]
        if _shows(rows):
            facts = {name: entry[name] for name in TEXT_FACTS}
            policies = [{**_told(row), **{name: row.get(name) for name in FIGURES}} for row in rows]
            found["texts"].append({**facts, "policies": policies})
    for entry in content["commands"]:
        rows = [row for row in _current(entry, keys) if row["key"] in entry["metrics"]]
        if _shows(rows):
            metrics = _by_metric(entry, rows, content["level"])
            found["commands"].append({"command": entry["command"], "metrics": metrics})
    every = [row for part in ("texts", "commands") for entry in content[part] for row in entry["policies"]]
    return {**found, "outdated": sum(row["key"] != keys.get(row["id"], row["key"]) for row in every)}


def _current(entry: Mapping[str, Any], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    return [row for row in entry["policies"] if row["key"] == keys.get(row["id"])]


def _shows(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether there is something to compare: the base, which comes first, and a policy."""
    return len(rows) > 1 and bool(rows[0]["id"] == BASE)


def _by_metric(entry: Mapping[str, Any], rows: list[dict[str, Any]], level: float) -> list[dict[str, Any]]:
    """Return each metric with its figure of every policy; one that a policy lacks is None there."""
    measured = [{name: Metric(**of) for name, of in entry["metrics"][row["key"]].items()} for row in rows]
    found = []
    for name in dict.fromkeys(name for of in measured for name in of):
        base = measured[0].get(name)
        policies = []
        for row, of in zip(rows, measured, strict=True):
            metric = of.get(name)
            gap = difference(metric, base, level)._asdict() if metric and base and row["id"] != BASE else None
            figures = {"value": metric and metric.value, "stderr": metric and metric.stderr, "difference": gap}
            policies.append({**_told(row), **figures})
        better = next(metric.higher_is_better for of in measured if (metric := of.get(name)))
        found.append({"name": name, "higher_is_better": better, "policies": policies})
    return found


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "method", "method_title", "title", "weights")}


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path} is damaged ({how}); remove it and check the run again.")
