"""The registry of methods: presets found by name, imported when used, built from plain configuration."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import ConfigDict, create_model

from valuesoup.errors import UserError, did_you_mean
from valuesoup.methods.method import Method

BUILT_IN = {
    "dpo": "valuesoup.methods.dpo:dpo",
    "seqt": "valuesoup.methods.seqt:seqt",
    "dpo-lw": "valuesoup.methods.dpo_lw:dpo_lw",
    "modpo": "valuesoup.methods.modpo:modpo",
    "soup": "valuesoup.methods.rewarded_soup:soup",
    "vc-soup": "valuesoup.methods.vc_soup:vc_soup",
    "vc-soup-nll": "valuesoup.methods.vc_soup_nll:vc_soup_nll",
    "mva": "valuesoup.methods.mva:mva",
    "mora": "valuesoup.methods.mora:mora",
}
"""Name of each preset that comes with the package, and where its function is."""

COMPARED = ("dpo", "soup", "vc-soup")
"""What a run compares when its configuration names no methods."""

ENTRY_POINTS = "valuesoup.methods"
"""The entry-point group in which other packages offer methods."""


@dataclass(frozen=True)
class Preset:
    """A named method: a function from its settings to its three choices.

    Attributes:
        name: As written in configurations.
        title: As written in figures.
        paper: Where it comes from.
        formula: What it minimises and which policies it yields, in the notation of the documentation; may be empty.
        function: Its signature is its configuration schema.
    """

    name: str
    title: str
    paper: str
    formula: str
    function: Callable[..., Method]

    @property
    def summary(self) -> str:
        """The first sentence of its function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def defaults(self) -> dict[str, Any]:
        """Its settings with their defaults; a setting without one is ``inspect.Parameter.empty``."""
        return {name: of.default for name, of in inspect.signature(self.function).parameters.items()}

    def __call__(self, **settings: Any) -> Method:
        """Return the method for these settings, as a call of the function would, each checked as in a configuration.

        Raises:
            UserError: As `build`.
            pydantic.ValidationError: As `build`.
        """
        return self.build(settings)

    def build(self, arguments: Mapping[str, Any]) -> Method:
        """Return the method for these settings.

        Raises:
            UserError: A setting is unknown, or the function does not return a method.
            pydantic.ValidationError: A setting has a wrong value.
        """
        # Annotations are text where the function's module imports them from __future__.
        known = inspect.signature(self.function, eval_str=True).parameters
        for name in arguments:
            if name not in known:
                raise UserError(f"method '{self.name}' has no setting '{name}'{did_you_mean(name, known)}")
        fields: dict[str, Any] = {
            name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in known.items()
        }
        schema = create_model(f"{self.name} settings", __config__=ConfigDict(extra="forbid"), **fields)
        given = schema(**arguments)
        for name, value in arguments.items():
            if isinstance(value, bool) and type(getattr(given, name)) in (int, float):  # pydantic takes true for 1
                raise UserError(f"method '{self.name}': {name} is a number, not {str(value).lower()}")
        made = self.function(**{name: getattr(given, name) for name in given.model_fields_set})
        if not isinstance(made, Method):
            raise UserError(f"method '{self.name}' returns {type(made).__name__}, not a valuesoup.methods.Method.")
        return made


def method(name: str, *, title: str, paper: str, formula: str = "") -> Callable[[Callable[..., Method]], Preset]:
    """Turn a function that returns a :class:`Method` into a preset.

    Args:
        name: As written in configurations, e.g. ``vc-soup``.
        title: As written in figures.
        paper: Its source, e.g. ``arXiv:2603.18113``.
        formula: What it minimises and which policies it yields, for ``valuesoup methods``.
    """

    def decorate(function: Callable[..., Method]) -> Preset:
        return Preset(name, title, paper, formula, function)

    return decorate


def preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        UserError: There is none of that name; the sentence names the nearest.
    """
    targets = known_methods()
    if name not in targets:
        raise UserError(f"there is no method '{name}'{did_you_mean(name, targets)}")
    module, _, attribute = targets[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method '{name}' cannot be imported from {targets[name]} ({error}).") from None
    if not isinstance(found, Preset):
        raise UserError(f"{targets[name]}, offered as method '{name}', is not made with @valuesoup.methods.method.")
    return found


@cache
def known_methods() -> Mapping[str, str]:
    """Return where each preset is, ``module:attribute`` by name: those of the package first, then plug-ins."""
    found = dict(BUILT_IN)
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in found:
            raise UserError(f"method '{entry.name}' is offered twice: by {found[entry.name]} and by {entry.value}.")
        found[entry.name] = entry.value
    return found
