"""A run as a graph: stages are plain functions, nodes are their calls, keys follow from the inputs alone.

A node's key is computed without running anything, from the stage's name and version, its plain inputs and the keys
of the nodes that it reads. So the whole graph, and what of it is already done, is known before the first stage
runs, and changing one setting changes the keys of what depends on it and of nothing else.
"""

import hashlib
import json
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from valuesoup.store.progress import Progress, Task


@dataclass(frozen=True)
class Work:
    """What a running stage is given beside its inputs.

    Attributes:
        out: The folder to write into. It survives an interruption until the stage is done, so that a stage can
            keep checkpoints there and continue; whatever stands in it at the end is the artifact.
        progress: Where to report advance.
        label: The node's name for people.
        log: Writes one event of this stage to the run's log, as keyword arguments.
    """

    out: Path
    progress: Progress
    label: str
    log: Callable[..., None]

    def task(self, total: int, unit: str = "") -> Task:
        """Start a progress bar of ``total`` steps under this node's name."""
        return self.progress.task(self.label, total, unit)


@dataclass(frozen=True)
class Stage:
    """A stage function with its name, its version (raised when its results change) and inputs without effect.

    One that is done ``together`` is called in every process of a team (see ``store/team.py``).
    """

    name: str
    version: int
    function: Callable[..., None]
    ignore: frozenset[str] = frozenset()
    together: bool = False

    def __call__(self, label: str, **inputs: Any) -> "Node":
        """Return the deferred call of this stage with these inputs; nothing runs yet.

        Args:
            label: The name shown to people; it does not enter the key.
            inputs: Nodes, pydantic models, JSON values, or lists and mappings of those.
        """
        return Node(self, label, inputs)

    def __reduce__(self) -> tuple[Callable[..., "Stage"], tuple[str, str]]:
        """Pickle by name, as a function is: the stage stands in its module under its function's name."""
        module, name = self.function.__module__, self.function.__qualname__
        if getattr(sys.modules.get(module), name, None) is not self:
            raise pickle.PicklingError(f"stage '{self.name}' is not the attribute {name} of module {module}")
        return _stage_named, (module, name)


def _stage_named(module: str, name: str) -> Stage:
    found = getattr(import_module(module), name)
    assert isinstance(found, Stage)
    return found


def stage(
    name: str, *, version: int = 1, ignore: Iterable[str] = (), together: bool = False
) -> Callable[[Callable[..., None]], Stage]:
    """Turn a function ``f(work, *, inputs…)`` that writes into ``work.out`` into a stage.

    Args:
        name: Used in the artifact's folder name.
        version: Part of the key; raise it when the same inputs give other results than before.
        ignore: Inputs that change how the work is done but not its result (batch sizes, devices).
        together: Processes that train together each do a share of it.
    """

    def decorate(function: Callable[..., None]) -> Stage:
        return Stage(name, version, function, frozenset(ignore), together)

    return decorate


@dataclass(frozen=True)
class Node:
    """One deferred call of a stage."""

    stage: Stage
    label: str
    inputs: Mapping[str, Any] = field(repr=False)

    @cached_property
    def key(self) -> str:
        """16 hex digits that name the result: equal keys mean equal results."""
        return fingerprint(self.identity)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The named parts from which the key is made, kept in the manifest so that a key can be explained."""
        inputs = {name: value for name, value in self.inputs.items() if name not in self.stage.ignore}
        return {"stage": self.stage.name, "version": self.stage.version, "inputs": _plain(inputs)}

    @cached_property
    def parents(self) -> tuple["Node", ...]:
        """The nodes whose results this one reads, each once, in the order of its inputs."""
        return tuple({node.key: node for node in _nodes(self.inputs)}.values())

    @property
    def folder(self) -> str:
        """The name of the artifact's folder."""
        return f"{self.stage.name}-{self.key}"


class Identified(BaseModel):
    """An input that is known by something better than its fields: by the content of a file, not by its path."""

    model_config = ConfigDict(frozen=True)

    def key_parts(self) -> Any:
        """Return the JSON value that enters keys in its place."""
        return self.model_dump(mode="json")


def topological(targets: Iterable[Node]) -> list[Node]:
    """Return every node that the targets need, each key once, parents before children."""
    order: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key not in order:
            for parent in node.parents:
                visit(parent)
            order[node.key] = node

    for target in targets:
        visit(target)
    return list(order.values())


def fingerprint(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of a JSON value (or pydantic model) in canonical form."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def substitute(value: Any, found: Callable[[Node], Any]) -> Any:
    """Return ``value`` with every node in it, however deep in lists and mappings, replaced by ``found(node)``."""
    if isinstance(value, Node):
        return found(value)
    if isinstance(value, Mapping):
        return {name: substitute(item, found) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(substitute(item, found) for item in value)
    return value


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _nodes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _nodes(item)


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return {"artifact": value.key}
    if isinstance(value, Identified):
        return value.key_parts()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a stage input must be a node, a model or a JSON value, not {type(value).__name__}")
