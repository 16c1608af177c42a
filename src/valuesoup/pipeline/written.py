"""What the schemas of a run's own JSON files share: how strictly they are read, and how a fault is told."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valuesoup.errors import first_fault

Count = Annotated[int, Field(ge=0, le=10**15)]
"""How many; more than that is no count, and could not be reckoned with."""
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1 - 1e-6, le=1 + 1e-6)]
"""A cosine or a correlation, which rounding takes past its ends."""


class Part(BaseModel):
    """Some keys of a file. Keys that a later version adds do no harm; a number in quotes does."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)


def fault_of(schema: type[Part], content: Any) -> str | None:
    """Say what is wrong with the content of a file: ``key: what``; None where nothing is.

    Args:
        schema: Of the whole file.
        content: The parsed file.
    """
    try:
        schema.model_validate(content)
    except ValidationError as error:
        key, what = first_fault(error)
        return f"{key}: {what}" if key else what
    except UnicodeEncodeError:
        return "a name is not valid Unicode"
    return None
