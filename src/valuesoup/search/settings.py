"""The settings of a race."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class RacingSettings(BaseModel):
    """How candidates race: all answer a first part of the validation prompts, then part after part."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    first: Annotated[int, Field(ge=4, le=10**9)] = 16
    """Prompts of the first part that measure each value; all that do where they are fewer."""
    growth: Annotated[float, Field(gt=1, le=1e6)] = 2.0
    """Prompts answered after a part, divided by those before it."""
    keep: Annotated[float, Field(gt=0, le=1e6)] = 0.99
    """The race ends when the frontier is expected to keep this share of the hypervolume that all answers of the
    measured candidates would find."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """With which a candidate of the true frontier never leaves the race."""


def _named(racing: object) -> object:
    """Let true stand for a race with its defaults, and false for none."""
    if isinstance(racing, bool):
        return RacingSettings() if racing else None
    return racing


Racing = Annotated[RacingSettings | None, BeforeValidator(_named)]
"""Settings of a race, true for its defaults, false or nothing for none."""
