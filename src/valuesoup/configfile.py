"""Reading a configuration file: YAML with overrides; every mistake is answered with file, line and the right key."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from valuesoup.config import RunConfig
from valuesoup.errors import UserError, did_you_mean

Place = tuple[str | int, ...]
MOST_NODES = 100_000
"""Entries of a configuration, what anchors repeat counted each time."""
MOST_TOLD = 20
"""Mistakes of one configuration that are told at once."""


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
    except (OSError, ValueError) as error:
        raise UserError(f"configuration {file} cannot be read: {error}.") from None
    return parse_config(text, str(file), overrides)


def parse_config(text: str, name: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Check a configuration given as YAML text; ``name`` is what messages call it."""
    tree, content = _read(text, name)
    if not isinstance(content, dict):
        raise UserError(f"{name}: a configuration is a mapping of keys such as values, base and methods.")
    lines = _lines(tree)
    origins = {tuple(map(str, place)): f"{name}, line {line}" for place, line in lines.items()}
    for override in overrides:
        keys = _override(content, override)
        shown = f"--set {'.'.join(keys)}"
        origins = {place: origin for place, origin in origins.items() if place[: len(keys)] != keys}
        origins[keys] = shown
        for end in range(1, len(keys)):  # sections that the override makes
            origins.setdefault(keys[:end], shown)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        places = [fault["loc"] for fault in faults]
        # A list whose items are wrong is also reported as too short.
        told = [
            fault
            for fault in faults
            if fault["type"] != "too_short"
            or not any(place[: len(fault["loc"])] == fault["loc"] for place in places if len(place) > len(fault["loc"]))
        ]
        sentences = list(dict.fromkeys(_sentence(fault, name, origins, content) for fault in told))
        more = len(sentences) - MOST_TOLD
        raise UserError(
            *sentences[:MOST_TOLD], *([f"{name}: {more} more such mistakes are not shown."] if more > 0 else [])
        ) from None
    for place, value in _truths(content, config):
        where = next((origins[place[:end]] for end in range(len(place), 0, -1) if place[:end] in origins), name)
        raise UserError(f"{where}: {'.'.join(place)}: input should be a number, not {str(value).lower()}.")
    return config


def dump_config(config: RunConfig) -> str:
    """Return the resolved configuration as YAML; ``valuesoup run`` on it repeats the run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _read(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML into its tree, which knows the lines, and its content."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_tree(tree, name)
        return tree, _plain(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{name}{where}: not valid YAML ({problem}).") from None
    except (AttributeError, KeyError, TypeError):  # of PyYAML, where a tag such as !!timestamp belies its text
        raise UserError(f"{name}: not valid YAML (a tag that begins with !! does not fit what follows it).") from None


def _check_tree(tree: yaml.Node | None, name: str) -> None:
    """Refuse keys given twice, of which YAML silently takes the last, anchors without end, and halves of characters."""
    waiting, seen = [tree], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            raise UserError(f"{name}: its anchors (&, *) repeat each other to more than {MOST_NODES} entries.")
        if isinstance(node, yaml.ScalarNode) and not _is_text(node.value):
            raise UserError(
                f"{name}, line {node.start_mark.line + 1}: holds half a character (\\ud800 to \\udfff), which no file "
                "takes; write the whole character."
            )
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if str(key.value) in first:
                    raise UserError(
                        f"{name}, line {line}: key {key.value} is given twice, first in line {first[key.value]}."
                    )
                first[str(key.value)] = line
                waiting += [key, value]


def _is_text(value: str) -> bool:
    """Tell whether a text can be written to a file; JSON's two escapes of one emoji are two halves in YAML."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """Copy YAML content with text keys: 1: and true: are keys that a person meant as names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _truths(content: Any, read: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the places where true or false (in YAML also yes, no, on and off) was read as the number 1 or 0."""
    if isinstance(content, bool):
        if type(read) in (int, float):
            yield place, content
    elif isinstance(content, Mapping):
        for key, item in content.items():
            inner = read.get(key) if isinstance(read, Mapping) else getattr(read, key, None)
            yield from _truths(item, inner, (*place, key))
    elif isinstance(content, list) and isinstance(read, tuple) and len(content) == len(read):
        for index, (item, inner) in enumerate(zip(content, read, strict=True)):
            yield from _truths(item, inner, (*place, str(index)))


def _override(content: dict[str, Any], override: str) -> tuple[str, ...]:
    """Set what an override says and return its place; its value may be a secret, and is in no message."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        shown = f" {path}" if equals and path.strip() else ""
        raise UserError(f"--set{shown}: write key.path=value, e.g. --set training.epochs=1.")
    if not _is_text(path):
        raise UserError(f"--set {path}: a key is text in UTF-8.")
    name = f"--set {path.strip()}"
    _, value = _read(text, name)
    here: Any = content
    for place, key in enumerate(keys):
        last = place == len(keys) - 1
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise UserError(f"{name}: '{key}' must be a place in a list of {len(here)}, counted from 0.")
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
            raise UserError(f"{name}: {'.'.join(keys[:place])} is not a section.")
    return tuple(keys)


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


def _sentence(fault: Any, name: str, origins: Mapping[tuple[str, ...], str], content: Any) -> str:
    loc: Place = tuple(part for part in fault["loc"] if part != "[key]")
    place = _as_written(loc, content)
    where = next((origins[place[:end]] for end in range(len(place), 0, -1) if place[:end] in origins), name)
    key = ".".join(place)
    kind = fault["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key {key}{did_you_mean(place[-1], _siblings(loc))}"
    if kind == "missing":
        return f"{where}: {key} is missing; it is required."
    if kind == "union_tag_invalid":
        known = [tag.strip(" '") for tag in fault["ctx"]["expected_tags"].split(",")]
        return f"{where}: {key}.kind: there is no '{fault['ctx']['tag']}'{did_you_mean(fault['ctx']['tag'], known)}"
    given = fault.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) or given is None else ""
    if isinstance(given, str) and "://" in given:  # an address may hold a key
        shown = ", not an address"
    message = fault["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
    if kind == "value_error":
        shown = ""
    text = f"{message[0].lower()}{message[1:]}{shown}"
    if kind != "value_error":
        text = text.replace("dictionary", "mapping").replace("tuple", "list").replace(" after validation", "")
    return f"{where}: {f'{key}: ' if key else ''}{text}{'' if text[-1] in '.?' else '.'}"


def _as_written(loc: Place, content: Any) -> tuple[str, ...]:
    """Return the keys as a person wrote them, without pydantic's marks of union arms and of a list left out."""
    here = content
    place = []
    for part in loc:
        if isinstance(here, Mapping):
            if part not in here and (isinstance(part, int) or part == here.get("kind")):
                continue
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(part, int):
            continue
        place.append(str(part))
    return tuple(place)


def _siblings(place: Place) -> list[str]:
    """Return the keys known where an unknown one was found."""
    here: Any = RunConfig
    for part in place[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        elif get_origin(here) in (dict, tuple):  # the part is a key or a place in it
            here = get_args(here)[1 if get_origin(here) is dict else 0]
        elif get_origin(here) in (Union, UnionType):  # the part is the kind of one of its arms
            here = next((arm for arm in get_args(here) if arm.model_fields["kind"].default == part), None)
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
