"""What the schemas of a run's own JSON files share: how strictly they are read, and how a fault is told."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from valuesoup.errors import first_fault


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
