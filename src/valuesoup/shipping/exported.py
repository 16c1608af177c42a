"""What an export reports of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["adapter", "merged", "vllm"]


@dataclass(frozen=True)
class Check:
    """The comparison of an export with the Soup, in nats per token of a response, in float32.

    Attributes:
        responses: How many were compared.
        skipped: How many were too long for the base.
        mean: Mean over responses of |log π_soup(y | x) − log π_export(y | x)| / |y|.
        max: The largest.
        tolerance: What ``max`` must not pass.
        change: Mean over responses of |log π_soup(y | x) − log π_0(y | x)| / |y|: how far the soup is from the base.
    """

    responses: int
    skipped: int
    mean: float
    max: float
    tolerance: float
    change: float

    @property
    def passed(self) -> bool:
        """Whether the export is within the tolerance; a NaN is not."""
        return self.max <= self.tolerance


@dataclass(frozen=True)
class Cut:
    """What a cut to a lower rank lost.

    Attributes:
        exact_rank: Rank of the exact adapter.
        relative_error: ‖ΔW − ΔW_r‖ / ‖ΔW‖ in the Frobenius norm, over all layers.
        kl: KL(π_exact ‖ π_cut) of whole answers to validation prompts, in nats, their mean.
        prompts: How many prompts that is.
    """

    exact_rank: int
    relative_error: float
    kl: float
    prompts: int


@dataclass(frozen=True)
class ExportedPolicy:
    """One policy of an export.

    Attributes:
        name: Of its folder, or of the model on a server.
        candidate: Its id in the run, or what its id would be.
        method: That trained its vectors.
        weights: By value; None where the policy has none.
        rank: Of the adapter; None for a merged model.
        check: Comparison with the Soup.
        cut: Where an adapter was cut to a lower rank.
    """

    name: str
    candidate: str
    method: str
    weights: Mapping[str, float] | None
    rank: int | None
    check: Check
    cut: Cut | None


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: Where it is.
        form: adapter, merged or vllm.
        files: Names of all files in it.
        policies: One, or for vllm one per adapter.
        usage: What to type to use it: Python for adapter and merged, a shell's command for vllm.
        notes: What a person should know before shipping it.
    """

    folder: Path
    form: Form
    files: tuple[str, ...]
    policies: tuple[ExportedPolicy, ...]
    usage: str
    notes: tuple[str, ...]
