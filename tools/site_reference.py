"""The reference pages, made from the commands, the configuration's models, the methods and the docstrings."""

import html
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

PYTHON = {
    "valuesoup.methods": "A method of one's own names these choices.",
    "valuesoup.worlds.errands": "The embedded world of the demo: data and exact rewards.",
    "valuesoup.presets": ("write_preset",),
    "valuesoup.doctor": ("examine",),
    "valuesoup.pipeline.demo": ("demo_config",),
    "valuesoup.pipeline.study": ("run_study", "open_study"),
    "valuesoup.pipeline.status": ("run_status",),
    "valuesoup.pipeline.comparison": ("compare_runs",),
    "valuesoup.pipeline.judging": ("JudgeSettings", "judge_endpoint", "open_docket"),
    "valuesoup.regression": ("check", "checked_run"),
    "valuesoup.report.assemble": ("write_run_report", "write_study_report", "write_audit_report"),
    "valuesoup.report.comparison": ("write_comparison",),
    "valuesoup.shipping": ("push", "write_merged"),
    "valuesoup.consistency": ("keep_threshold",),
    "valuesoup.rewards": ("ClassifierReward",),
    "valuesoup.search": ("simplex_grid",),
    "valuesoup.soup.composition": ("compose",),
    "valuesoup.soup.geometry": ("inner",),
    "valuesoup.soup.merging": ("factorwise",),
    "valuesoup.explorer": ("launch", "build"),
    "valuesoup.store": ("Cluster", "Progress"),
    "valuesoup.errors": ("UserError", "RunError"),
}
"""What a user meets beside the names of ``import valuesoup``: names, or a sentence about all that a module offers."""


def pages() -> dict[str, str]:
    """Return the reference pages in Markdown, by name."""
    return {
        "commands": commands_page(),
        "configuration": configuration_page(),
        "methods": methods_page(),
        "python": python_page(),
    }


# ---- commands


def commands_page() -> str:
    """Describe every command with its arguments and options."""
    import typer

    from valuesoup.cli.commands import COMMANDS, app

    group: Any = typer.main.get_command(app)
    blocks = [
        "# Commands",
        "What `valuesoup COMMAND --help` prints. A mistake in what was given ends a command with one sentence and exit "
        "code 2, a run that failed with 1, an interruption with 130; the same command goes on where it stopped.",
    ]
    for function in COMMANDS:
        name = function.__name__
        blocks.append(_command(name, group.commands[name], get_type_hints(function)))
    blocks += [
        "## valuesoup",
        _parameters([part for part in group.params if "--version" in part.opts], {"version": bool}),
    ]
    return "\n\n".join(blocks) + "\n"


def _command(name: str, command: Any, types: Mapping[str, Any]) -> str:
    required = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
    needed = [f"{one.opts[0]} {_metavar(one)}" for one in command.params if _is_option(one) and one.required]
    usage = " ".join(["valuesoup", name, *required, *needed, "[OPTIONS]"])
    head = f"## valuesoup {name}\n\n{_prose(inspect.cleandoc(command.help))}\n\n~~~~text\n{usage}\n~~~~"
    return f"{head}\n\n{_parameters(command.params, types)}"


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _metavar(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    if parameter.nargs == -1:
        name += "…"
    return name if parameter.required or _is_option(parameter) else f"[{name}]"


def _parameters(parameters: list[Any], types: Mapping[str, Any]) -> str:
    entries = []
    for one in parameters:
        if not _is_option(one):
            entries.append(_entry(_metavar(one), "needed" if one.required else "may be left out", one.help))
            continue
        kind = types[one.name]
        parts = [] if kind is bool else [_option_type(kind)]
        if one.required:
            parts.append("needed")
        elif isinstance(one.show_default, str):
            parts.append(f"default: {one.show_default}")
        elif kind is bool and one.secondary_opts:
            parts.append(f"default `{one.opts[0] if one.default else one.secondary_opts[0]}`")
        elif kind is not bool and one.default not in (None, "", []):
            parts.append(f"default `{one.default}`")
        if one.multiple:
            parts.append("repeatable")
        names = "` `".join([*one.opts, *one.secondary_opts])
        entries.append(_entry(names, ", ".join(parts), one.help.removesuffix(" Repeatable.")))
    return "\n\n".join(entries)


def _option_type(kind: Any) -> str:
    """Say in words what one value of an option is."""
    kinds = [part for part in get_args(kind) or (kind,) if part is not NoneType]
    if get_origin(kinds[0]) is list:
        kinds = list(get_args(kinds[0]))
    return " or ".join("path" if one is Path else _type(one) if isinstance(one, type) else f"`{one}`" for one in kinds)


# ---- configuration


def configuration_page() -> str:
    """Describe every key of a configuration: type, default, meaning."""
    from valuesoup.config import RunConfig

    blocks = [
        "# Configuration",
        "Every key of a run's YAML file, as `valuesoup run` reads it. Unknown keys and wrong values are refused, with "
        "the line and the nearest key. On the command line "
        "`--set key.path=value` sets any of them; [presets](../init.md) are files to start from.",
    ]
    blocks += list(_sections(RunConfig, "", {}))
    return "\n\n".join(blocks) + "\n"


def _sections(model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """Yield a model's section, then those of the models in it; a model that is met twice has one section."""
    seen[model] = path
    kind = _kind(model)
    level = 2 if path.count(".") == 0 else 3
    title = path or "The whole file"
    if kind is None:
        yield f"{'#' * level} {title}" + (f" {{#{_anchor(path)}}}" if path else "")
    else:
        yield f"#### {title.rpartition('.')[2]}: {kind} {{#{_anchor(path)}-{kind}}}"
    yield _prose(inspect.cleandoc(model.__doc__ or ""))
    inner: list[tuple[type[BaseModel], str]] = []
    entries = []
    for name, field in model.model_fields.items():
        if name == "kind":
            entries.append(_entry("kind", f"`{field.default}`", "Says which of the choices it is."))
            continue
        place = f"{path}.{name}" if path else name
        found = [(one, place + suffix) for one, suffix in _models(field.annotation)]
        inner += [one for one in found if one[0] not in seen and one[0] not in dict(inner)]
        where = {**dict(found), **seen, **dict(inner)}
        limits = _limits(field.metadata, field.annotation)
        kinds = _type(field.annotation, {one: _target(one, where[one]) for one in where})
        kinds = f"{kinds.removesuffix(' or null')}{limits}"
        entries.append(_entry(name, f"{kinds}, {_default(field)}", field.description or ""))
    yield "\n\n".join(entries)
    for one, place in inner:
        if one not in seen:
            if _kind(one) is not None and place not in seen.values():
                yield f"### {place} {{#{_anchor(place)}}}"
            yield from _sections(one, place, seen)


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)


def _anchor(path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-") or "the-whole-file"


def _target(model: type[BaseModel], path: str) -> str:
    kind = _kind(model)
    text = kind or path
    return f"[{text}](#{_anchor(path)}{f'-{kind}' if kind else ''})"


def _models(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the models in an annotation, and what their path has behind the key's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    elif get_origin(annotation) is dict:
        yield from _models(get_args(annotation)[1], f"{suffix}.NAME")
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _models(part, suffix)


def _type(annotation: Any, links: Mapping[type[BaseModel], str] = {}) -> str:
    """Say in words which values an annotation takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0], links) + _limits(parts[1:], parts[0])
    if origin in (Union, UnionType):
        return " or ".join(_type(part, links) for part in parts)
    if origin is Literal:
        return " or ".join(f"`{_written(part)}`" for part in parts)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {_plural(_type(parts[0], links))}"
    if origin is tuple:
        return f"list of {len(parts)} texts"
    if origin is dict:
        return f"mapping of {_type(parts[0], links)} to {_type(parts[1], links)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return links.get(annotation, "settings")
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", NoneType: "null"}
    return names.get(annotation, "anything")


def _plural(kind: str) -> str:
    return re.sub(r"^(whole number|number|text|list|mapping)\b", r"\1s", kind)


def _limits(metadata: Any, annotation: Any) -> str:
    """Say the bounds of a number or the form of a text, as pydantic notes them."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = []
    for note in metadata:
        for part in (note, *getattr(note, "metadata", ())):
            found += [f"{sign} {getattr(part, name)}" for name, sign in signs.items() if hasattr(part, name)]
    unique = list(dict.fromkeys(found))
    return f" {', '.join(unique)}" if unique and annotation is not str else ""


def _default(field: Any) -> str:
    if field.is_required():
        return "**needed**"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        given = _written(default)
        return f"default `{given}`" if given != "{}" else "its defaults"
    if default is None:
        return "optional"
    return f"default `{_written(default)}`"


def _written(value: Any) -> str:
    """Return a value as a configuration would write it."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- methods


def methods_page() -> str:
    """Describe every method that comes with the package: what `valuesoup methods` shows, what each setting means."""
    from valuesoup.methods import preset
    from valuesoup.methods.registry import BUILT_IN

    blocks = [
        "# Methods, their settings",
        "What `valuesoup methods NAME` shows. A method stands in the list `methods` of a configuration by its name, or "
        "with settings: `{preset: vc-soup, tau: 0.5}`. The three choices and the training can be set beside the "
        "preset: `{preset: soup, name: my-soup, pairs: {kind: consistent}}`; they are in the [configuration]"
        "(configuration.md).",
    ]
    for name in BUILT_IN:
        found = preset(name)
        made = found.build({})
        choices = [(one, getattr(made, one)) for one in ("pairs", "objective", "weights")]
        links = ", ".join(f"{one} [{it.kind}](configuration.md#methods-{one}-{it.kind})" for one, it in choices)
        source = found.paper
        if number := re.search(r"arXiv:(\d+\.\d+)", source):
            source = source.replace(number[0], f"[{number[0]}](https://arxiv.org/abs/{number[1]})")
        meanings = dict(_meanings([it for _, it in choices]))
        entries = []
        for setting, parameter in inspect.signature(found.function, eval_str=True).parameters.items():
            optional = "optional" if parameter.default is None else f"default `{_written(parameter.default)}`"
            wanted = f"{_type(parameter.annotation).removesuffix(' or null')}, {optional}"
            entries.append(_entry(setting, wanted, meanings.get(setting, "")))
        blocks += [
            f"## {name}",
            f"**{found.title}**, {source}. {_prose(inspect.cleandoc(found.function.__doc__ or ''))}",
            f"~~~~text\n{found.formula}\n~~~~",
            f"Choices: {links}.",
            "\n\n".join(entries) or "No settings.",
        ]
    return "\n\n".join(blocks) + "\n"


def _meanings(choices: list[BaseModel]) -> Iterator[tuple[str, str]]:
    for choice in choices:
        for name, field in type(choice).model_fields.items():
            if name != "kind" and field.description:
                yield name, field.description


# ---- Python


def python_page() -> str:
    """Name what mkdocstrings shall describe."""
    import importlib

    import valuesoup

    blocks = [
        "# Python",
        "Shapes, units and errors are said with each. [From Python, by command](../python.md) has examples that run.",
        "## valuesoup",
        "`import valuesoup as vs`; nothing heavy is loaded until a name is used.",
        *(f"::: valuesoup.{name}" for name in valuesoup.__all__ if not name.startswith("_")),
        "### valuesoup.\\_\\_version\\_\\_\n\nThe version, as `valuesoup --version` prints it.",
    ]
    for module, names in PYTHON.items():
        blocks.append(f"## {module}")
        if isinstance(names, str):
            blocks.append(names)
            names = tuple(importlib.import_module(module).__all__)
        blocks += [f"::: {module}.{name}" for name in names]
    return "\n\n".join(blocks) + "\n"


# ---- Markdown


def _entry(name: str, kind: str, meaning: str) -> str:
    """Return one key as an item of a definition list."""
    term = f"`{name}`" + (f" <small>{kind}</small>" if kind else "")
    return f"{term}\n:   {_prose(meaning) or '–'}"


def _prose(text: str) -> str:
    """Return a docstring or help text as Markdown that shows it as it is."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    plain = (part if number % 2 else _escaped(part) for number, part in enumerate(parts))
    return re.sub(r"\s*\n\s*(?=\S)", " ", "".join(plain).replace("\n\n", "\0")).replace("\0", "\n\n")


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]|])", r"\\\1", html.escape(text, quote=False))
