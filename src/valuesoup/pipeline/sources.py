"""Sources of a training: pairs of a data set, with the weight, scale, margin and reference that the loss wants."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from valuesoup.errors import RunError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef, open_tokenizer
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact
from valuesoup.training.settings import TrainingSettings

if TYPE_CHECKING:
    from valuesoup.training.rows import TrainingRows

PARTS = ("train", "validation")


class MarginSource(TypedDict):
    """Where the gap Δr_j of another value comes from, and its share w_j in the margin Σ_j w_j Δr_j.

    Either ``policy``, the log-probabilities of the policy trained on value j beside those of the base (``base``): the
    implicit reward β·log(π_j/π_0); or ``scores`` by the value's reward, divided by their σ_j where ``normalise``.
    """

    share: float
    policy: Artifact | None
    base: Artifact | None
    scores: Artifact | None
    normalise: bool


class Source(TypedDict):
    """Pairs of one data set as a training takes them.

    ``pairs`` is laid out like the split; ``selection`` holds a signed weight per pair (0 leaves it out, a negative one
    swaps its sides), None takes all; ``reference`` holds log π_ref.
    """

    pairs: Artifact
    dataset: str
    selection: Artifact | None
    reference: Artifact
    weight: float
    scale: float
    margins: Sequence[MarginSource]


def training_rows(
    base: Artifact | BaseRef, sources: Mapping[str, Sequence[Source]], part: str, settings: TrainingSettings
) -> "TrainingRows | None":
    """Return the rows of one part of all sources, those of the k-th vector's sources training vector k.

    Returns:
        The rows, or None where no source has that part or a pair in it.
    """
    from valuesoup.training.rows import TrainingRows

    found = [
        rows
        for vector, of in enumerate(sources.values())
        for source in of
        if (rows := _rows(base, source, part, vector, settings)) is not None
    ]
    return TrainingRows.concat(found) if found else None


def selected(source: Source, part: str) -> int:
    """Return how many pairs of a source are to be trained on, too long ones included."""
    weights = _selection(source, part)
    if weights is None:
        return len(load_part(source["pairs"], source["dataset"], part))
    return int(np.count_nonzero(weights))


def save_log_probs(folder: Path, ids: Sequence[str], found: NDArray[np.float64]) -> None:
    """Store (N, 2) log-probabilities of chosen and rejected by the ids of their pairs."""
    np.save(folder / "ids.npy", np.asarray(ids, dtype=str))
    np.save(folder / "log_probs.npy", found)


def load_log_probs(artifact: Artifact, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return the stored log-probabilities of these pairs, (N, 2), NaN for pairs that are too long.

    Raises:
        RunError: A pair is not among those stored.
    """
    known, found = np.load(artifact.path / "ids.npy"), np.load(artifact.path / "log_probs.npy")
    wanted = np.asarray(ids, dtype=str)
    order = np.argsort(known, kind="stable")
    places = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)] if len(known) else order
    if len(places) != len(wanted) or (known[places] != wanted).any():
        raise RunError(f"{artifact.path.name} lacks log-probabilities of some pairs; remove it and run again.")
    return np.asarray(found[places], dtype=np.float64)


def _rows(
    base: Artifact | BaseRef, source: Source, part: str, vector: int, settings: TrainingSettings
) -> "TrainingRows | None":
    from valuesoup.training.rows import TrainingRows, tokenise

    if not (source["pairs"].path / source["dataset"] / f"{part}.parquet").is_file():
        return None
    pairs = load_part(source["pairs"], source["dataset"], part)
    if not len(pairs):
        return None  # and no scores of it
    reference = load_log_probs(source["reference"], pairs.ids)
    margin = sum((_margin(one, part, pairs.ids, settings.beta) for one in source["margins"]), np.zeros(len(pairs)))
    weights = _selection(source, part)
    if weights is None:
        weights = np.ones(len(pairs))
    kept = weights != 0
    tokens = tokenise(pairs.filter(kept), open_tokenizer(base), settings.max_length)
    if not len(tokens):
        return None
    places = np.flatnonzero(kept)[tokens.places]
    rows = TrainingRows(
        pairs=tokens,
        reference=reference[places],
        weight=source["weight"] * np.abs(weights[places]),
        scale=np.full(len(places), source["scale"]),
        margin=margin[places],
        vector=np.full(len(places), vector),
    )
    return rows.swapped(weights[places] < 0)


def _selection(source: Source, part: str) -> NDArray[np.float64] | None:
    if source["selection"] is None:
        return None
    path = source["selection"].path / f"{part}.npy"
    found: NDArray[np.float64] | None = np.load(path) if path.is_file() else None
    return found


def _margin(margin: MarginSource, part: str, ids: Sequence[str], beta: float) -> NDArray[np.float64]:
    """Return w_j·Δr_j of each pair, NaN where a pair is too long for the policy."""
    if margin["scores"] is not None:
        table = RewardTable.load(margin["scores"].path / f"{part}.parquet")
        sigma = None
        if margin["normalise"]:
            sigma = RewardTable.load(margin["scores"].path / "train.parquet").sigma()
        gaps = table.gaps(normalise=margin["normalise"], sigma=sigma)[:, 0]
    else:
        assert margin["policy"] is not None
        assert margin["base"] is not None
        ratio = load_log_probs(margin["policy"], ids) - load_log_probs(margin["base"], ids)
        gaps = beta * (ratio[:, 0] - ratio[:, 1])
    return np.asarray(margin["share"] * gaps)
