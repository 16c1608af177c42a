"""How the vectors of a candidate are composed: exactly linear, or one of the ways that others use, to compare."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from valuesoup.limits import Rank, Seed
from valuesoup.methods.choices import Choice

Density = Annotated[float, Field(gt=0, le=1)]
"""A share of the entries of ΔW."""


class Linear(Choice):
    """Σ λ_i ΔW_i, exactly (Eq. 7, 17)."""

    kind: Literal["linear"] = "linear"


class Factorwise(Choice):
    """A and B averaged separately, what published scripts do; needs equal ranks."""

    kind: Literal["factorwise"] = "factorwise"


class Ties(Choice):
    """Trim, elect signs, average those who agree (arXiv:2306.01708); only the ratios of the weights count."""

    kind: Literal["ties"] = "ties"
    density: Density = 0.5
    """Share of the entries of each ΔW that stay, the largest ones."""
    rank: Rank | None = None
    """Cut the result to this rank; by default it is exact and has the layer's full rank."""


class Dare(Choice):
    """Drop entries at random, rescale the rest, add up (arXiv:2311.03099)."""

    kind: Literal["dare"] = "dare"
    density: Density = 0.5
    """Probability that an entry of ΔW stays."""
    seed: Seed = 0
    """Of the draws."""
    rank: Rank | None = None
    """Cut the result to this rank; by default it is exact and has the layer's full rank."""


class Slerp(Choice):
    """On the arc between two vectors; only for two, with weights on the simplex."""

    kind: Literal["slerp"] = "slerp"

    def check(self, values: Sequence[str]) -> None:
        """There must be two values."""
        if len(values) != 2:
            raise ValueError(f"slerp goes between two vectors, and there are {len(values)} values: {', '.join(values)}")


class Magnitude(Choice):
    """Keep the largest entries of each ΔW, add up."""

    kind: Literal["magnitude"] = "magnitude"
    density: Density = 0.5
    """Share of the entries of each ΔW that stay."""
    rank: Rank | None = None
    """Cut the result to this rank; by default it is exact and has the layer's full rank."""


class Svd(Choice):
    """Linear, then cut to a low rank by SVD."""

    kind: Literal["svd"] = "svd"
    rank: Rank | None = None
    """The rank; by default the largest one of the vectors."""


CompositionChoice = Annotated[Linear | Factorwise | Ties | Dare | Slerp | Magnitude | Svd, Field(discriminator="kind")]
