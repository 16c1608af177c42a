"""Settings of a server that writes the answers of a run's evaluation, its candidates being models there."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from valuesoup.endpoint.asking import Server

BASE_NAME = "base"
"""Of the base, among the names of candidates."""


class ParityConfig(BaseModel):
    """How a server is compared with the local generator before it writes any answer that counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    prompts: int = Field(8, gt=0, le=10**9)
    """Held-out prompts that the base and one candidate answer; every other candidate answers one of them."""
    tolerance: float = Field(0.05, gt=0, le=1e6)
    """How far a server's answers may be from the policy's own, in nats per token; rounding makes about 0.01."""


class GenerationServer(Server):
    """A server that writes the answers of the evaluation."""

    models: str = "{name}"
    """The server's name of a candidate; {name} is its folder's in what `valuesoup export --all` writes, or base."""
    base: str | None = Field(None, min_length=1)
    """The server's name of the base; by default as of a candidate that is called base."""
    parity: ParityConfig = ParityConfig()
    """The check against the local generator."""

    @field_validator("models")
    @classmethod
    def _named(cls, models: str) -> str:
        if "{" in models.replace("{name}", "") or "}" in models.replace("{name}", "") or "{name}" not in models:
            raise ValueError("models is a text that holds {name}, such as {name} or /srv/candidates/{name}")
        return models

    def model_of(self, name: str) -> str:
        """Return the server's name of a candidate, or of the base."""
        if name == BASE_NAME and self.base is not None:
            return self.base
        return self.models.replace("{name}", name)
