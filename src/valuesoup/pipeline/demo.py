"""The demo's configuration: the main job on the embedded world."""

from collections.abc import Sequence
from importlib.resources import files

import yaml

from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.errors import UserError, did_you_mean
from valuesoup.worlds.errands import VALUES


def demo_config(values: Sequence[str] = VALUES[:2], overrides: Sequence[str] = ()) -> RunConfig:
    """Return the demo's configuration for some of the world's values.

    Args:
        values: Any subset of the world's values, at least one.
        overrides: ``key.path=value`` texts.

    Raises:
        UserError: A value that the world does not have, one given twice, none, or a wrong override.
    """
    chosen = list(values)
    for value in chosen:
        if value not in VALUES:
            raise UserError(f"the embedded world has no value '{value}'{did_you_mean(value, VALUES)}")
        if chosen.count(value) > 1:
            raise UserError(f"value '{value}' is given twice; name each once.")
    if not chosen:
        raise UserError(f"name at least one value of {', '.join(VALUES)}.")
    text = files("valuesoup.worlds").joinpath("demo.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    template = yaml.safe_dump(content["values"][VALUES[0]])
    content["values"] = {value: yaml.safe_load(template.replace(VALUES[0], value)) for value in chosen}
    return parse_config(yaml.safe_dump(content, sort_keys=False), "the demo", overrides)
