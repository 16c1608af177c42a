"""What ``valuesoup methods`` prints."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from valuesoup.methods import preset

if TYPE_CHECKING:
    from rich.console import Console


def print_methods(names: Sequence[str], console: "Console") -> None:
    """Print title, source, purpose, formula, settings and choices of each method.

    Raises:
        valuesoup.errors.UserError: There is no method of a name; the sentence names the nearest.
    """
    from rich.padding import Padding
    from rich.text import Text

    for name in names:
        found = preset(name)
        console.print(Text.assemble((name, "bold"), f"  {found.title}, {found.paper}"))
        lines = [found.summary]
        if found.formula:
            lines.append(found.formula)
        needed = [setting for setting, default in found.defaults.items() if default is inspect.Parameter.empty]
        if not needed:
            made = found.build({})
            lines.append(f"pairs: {made.pairs.kind}   objective: {made.objective.kind}   weights: {made.weights.kind}")
        settings = ", ".join(f"{setting}: {_written(default)}" for setting, default in found.defaults.items())
        lines.append(f"settings: {settings or 'none'}")
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 4)))
        console.print()


def _written(default: Any) -> str:
    """Return a default as a configuration would write it."""
    if default is inspect.Parameter.empty:
        return "needed"
    if isinstance(default, BaseModel):
        given = default.model_dump(exclude_none=True, exclude_defaults=True)
        return "{" + ", ".join(f"{name}: {_written(item)}" for name, item in given.items()) + "}"
    if isinstance(default, tuple):
        return "[" + ", ".join(map(_written, default)) + "]"
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)
