"""Reading a configuration file: YAML with overrides; every mistake is answered with file, line and the right key."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from valuesoup.config import RunConfig
from valuesoup.errors import UserError, did_you_mean

Place = tuple[str | int, ...]


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read and check a configuration.

    Args:
        path: A YAML file.
        overrides: ``key.path=value`` texts; the value is YAML.

    Raises:
        UserError: No such file, no YAML, an unknown key (with the nearest one), or a wrong value; with file and line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no configuration {file}; `valuesoup demo` runs without one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration {file} cannot be read: {error}.") from None
    return parse_config(text, str(file), overrides)


def parse_config(text: str, name: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Check a configuration given as YAML text; ``name`` is what messages call it."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{name}{where}: not valid YAML ({problem}).") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: a configuration is a mapping of keys such as values, base and methods.")
    content = _plain(content)
    for override in overrides:
        _override(content, override)
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        lines = _lines(tree)
        faults = [_sentence(fault, name, lines, content) for fault in error.errors()]
        raise UserError("\n".join(dict.fromkeys(faults))) from None


def dump_config(config: RunConfig) -> str:
    """Return the resolved configuration as YAML; ``valuesoup run`` on it repeats the run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    """Copy YAML content with text keys: 1: and true: are keys that a person meant as names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _override(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override}: write key.path=value, e.g. --set training.epochs=1.")
    try:
        value = _plain(yaml.safe_load(text))
    except yaml.YAMLError:
        raise UserError(f"--set {override}: '{text}' is not a YAML value.") from None
    here: Any = content
    for place, key in enumerate(keys):
        last = place == len(keys) - 1
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise UserError(f"--set {override}: '{key}' must be a place in a list of {len(here)}.")
            if last:
                here[int(key)] = value
            else:
                here = here[int(key)]
        elif isinstance(here, dict):
            if last:
                here[key] = value
            else:
                here = here.setdefault(key, {})
        else:
            raise UserError(f"--set {override}: {'.'.join(keys[:place])} is not a section.")


def _lines(node: yaml.Node | None, place: Place = ()) -> dict[Place, int]:
    """Return the line of every key of a composed document."""
    if node is None:
        return {}
    found = {place: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            found.update(_lines(value, inner))
            found[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found.update(_lines(value, (*place, index)))
    return found


def _sentence(fault: Any, name: str, lines: Mapping[Place, int], content: Any) -> str:
    place: Place = tuple(part for part in fault["loc"] if part != "[key]")
    line = next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), None)
    where = name if line is None else f"{name}, line {line}"
    key = ".".join(str(part) for part in place if not _is_tag(part, place, content)) or "the configuration"
    kind = fault["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key {key}{did_you_mean(str(place[-1]), _siblings(place))}"
    if kind == "missing":
        return f"{where}: {key} is missing; it is required."
    given = fault.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) or given is None else ""
    message = fault["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {key}: {message}."
    return f"{where}: {key}: {message[0].lower()}{message[1:]}{shown}."


def _is_tag(part: str | int, place: Place, content: Any) -> bool:
    """Say whether a part of a location is pydantic's mark of a union's arm instead of a key."""
    here = content
    for step in place[: place.index(part)]:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            continue
    return isinstance(part, str) and isinstance(here, Mapping) and part not in here and part == here.get("kind")


def _siblings(place: Place) -> list[str]:
    """Return the keys known where an unknown one was found."""
    here: Any = RunConfig
    for part in place[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        elif get_origin(here) in (dict, tuple):  # the part is a key or a place in it
            here = get_args(here)[1 if get_origin(here) is dict else 0]
        here = _without_none(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _without_none(annotation: Any) -> Any:
    """Strip Annotated and Optional from an annotation."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        return _without_none(arms[0]) if len(arms) == 1 else annotation
    return annotation
