"""Stages of the diagnostics: gradient conflict at the base, and the loss on the way between value vectors."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valuesoup.pipeline.answering import open_soup
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef, open_base
from valuesoup.pipeline.shared import Shared
from valuesoup.pipeline.sources import load_log_probs
from valuesoup.pipeline.training import POLICY
from valuesoup.store import Artifact, Node, Work, stage

if TYPE_CHECKING:
    from valuesoup.training.connectivity import Path
    from valuesoup.training.rows import TokenPairs

MOST_PAIRS = 512
"""Pairs of each value that a diagnostic takes, drawn at random: their gradients, or their held-out losses."""
BLOCKS = 16
"""Blocks of these pairs, left out one at a time for the standard error of a cosine."""


@stage("conflict", ignore=("batch_pairs", "checkpointing", "device"))
def gradient_conflict(
    work: Work,
    *,
    base: Artifact | BaseRef,
    split: Artifact,
    selections: Mapping[str, Artifact | None],
    rank: int,
    alpha: float,
    target_modules: Sequence[str] | None,
    max_length: int,
    seed: int,
    batch_pairs: int,
    checkpointing: bool,
    device: str,
) -> None:
    """Measure the cosine of every two values' DPO gradients at the base, on a sample of their training pairs (Eq. 16).

    Args:
        work: Of the stage.
        base: The base.
        split: Holds the training pairs of each value.
        selections: By value, signed weights of its pairs by a filter, or None for all of them.
        rank: Of the fresh adapter in whose B factors the gradient is taken.
        alpha: Its LoRA alpha.
        target_modules: The layers that it adapts, None for the usual ones.
        max_length: Longest prompt + response in tokens; a longer pair is left out and counted.
        seed: Of the sample and of the adapter's A.
        batch_pairs: Pairs in a forward pass.
        checkpointing: Compute activations again in the backward pass to save memory.
        device: Where to compute.
    """
    from valuesoup.soup import Soup, position_limit, target_layers
    from valuesoup.training.conflict import block_gradients, conflicts
    from valuesoup.training.rows import tokenise

    model, tokenizer = open_base(base, device)
    longest = min(max_length, position_limit(model.config))
    soup = Soup(model, tokenizer, layers=target_layers(model, target_modules))
    soup.add_fresh(POLICY, rank=rank, alpha=alpha, seed=seed)
    if checkpointing:
        soup.checkpoint_activations()
        soup.train()  # checkpoints are made in training alone; this soup has no dropout
    samples: dict[str, tuple[TokenPairs, NDArray[np.float64]]] = {}
    left_out = {}
    for value, selection in selections.items():
        pairs = load_part(split, value, "train")
        weight = np.ones(len(pairs)) if selection is None else np.load(selection.path / "train.npy")
        # Equal data sets have equal samples, whatever they are called.
        drawn = _sample(np.flatnonzero(weight), seed)
        tokens = tokenise(pairs.take(drawn), tokenizer, longest)
        samples[value] = (tokens, weight[drawn][tokens.places])
        left_out[value] = len(drawn) - len(tokens)
    fewest = min(len(tokens) for tokens, _ in samples.values())
    count = min(BLOCKS, fewest)
    if too_long := sum(left_out.values()):
        work.progress.say(f"    {too_long} of the sampled pairs are longer than {longest} tokens: left out")
    found = []
    if count >= 2:
        with work.task(sum(len(tokens) for tokens, _ in samples.values()), "pairs") as task:
            gradients = {
                value: block_gradients(
                    soup,
                    tokens,
                    weight,
                    [places.tolist() for places in np.array_split(np.arange(len(tokens)), count)],
                    batch_pairs=batch_pairs,
                    on_done=task.advance,
                )
                for value, (tokens, weight) in samples.items()
            }
        found = [
            {**vars(row), "cosine": None if np.isnan(row.cosine) else row.cosine, "error": _finite(row.error)}
            for row in conflicts(gradients)
        ]
    else:
        work.progress.say("    too few pairs are short enough to compare their gradients")
    content = {
        "pairs": {value: len(tokens) for value, (tokens, _) in samples.items()},
        "too_long": left_out,
        "conflicts": found,
    }
    (work.out / "conflict.json").write_text(json.dumps(content, indent=1))


@stage("connectivity", ignore=("batch_pairs", "device"))
def mode_connectivity(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    split: Artifact,
    references: Mapping[str, Artifact],
    beta: float,
    max_length: int,
    seed: int,
    batch_pairs: int,
    device: str,
) -> None:
    """Measure the merging gap between every two vectors, the curvature there, and their distance (Eq. 22, 24, 27).

    The loss f is DPO's on held-out validation pairs as they are, no filter applied: the mean over the values' data
    sets, so that it is the same for all methods of a run.

    Args:
        work: Of the stage.
        base: The base.
        vectors: Trained vectors by value.
        split: Holds the validation pairs of each value.
        references: By value, log-probabilities of its pairs under the base.
        beta: DPO's β.
        max_length: Longest prompt + response in tokens; a longer pair is left out and counted.
        seed: Of the sample of pairs.
        batch_pairs: Pairs in a forward pass.
        device: Where to compute.
    """
    from valuesoup.data import Pairs
    from valuesoup.soup import ValueVector, geometry, position_limit
    from valuesoup.training.connectivity import LADDER, HeldOutLoss, path_between
    from valuesoup.training.rows import tokenise

    soup = open_soup(base, vectors, device)
    assert soup.tokenizer is not None
    samples, known = [], []
    for value, reference in references.items():
        pairs = load_part(split, value, "validation")
        taken = pairs.take(_sample(np.arange(len(pairs)), seed))
        samples.append(taken)
        known.append(load_log_probs(reference, taken.ids))
    tokens = tokenise(Pairs.concat(samples), soup.tokenizer, min(max_length, position_limit(soup.model.config)))
    owner = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])[tokens.places]
    counts = np.bincount(owner, minlength=len(samples))
    if too_long := sum(map(len, samples)) - len(tokens):
        work.progress.say(f"    {too_long} of the sampled pairs are longer than {max_length} tokens: left out")
    loaded = {name: ValueVector.load(artifact.path / "adapter") for name, artifact in vectors.items()}
    squares = {(row.first, row.second): row.l2**2 for row in geometry(loaded) if row.layer == ""}
    rows = []
    if len(tokens):
        between = list(combinations(vectors, 2))
        # The losses of the ladder, those at its ends once per vector, and two slopes per pair of vectors.
        passes = len(between) * len(LADDER) - 2 * len(between) + len(vectors) + 2 * len(between)
        with work.task(passes * len(tokens), "pairs") as task:
            loss = HeldOutLoss(
                soup,
                tokens,
                np.concatenate(known)[tokens.places],
                beta,
                batch_pairs=batch_pairs,
                on_done=task.advance,
            )
            for first, second in between:
                path = path_between(
                    soup.names.index(first), soup.names.index(second), len(soup.names), loss.losses, loss.slopes
                )
                between_two = {"first": first, "second": second, "squared_distance": squares[first, second]}
                rows.append({**between_two, **_path(path, owner)})
    else:
        work.progress.say("    no validation pair is short enough to measure the merging gap")
    content = {"pairs": dict(zip(references, counts.tolist(), strict=True)), "too_long": too_long, "paths": rows}
    (work.out / "connectivity.json").write_text(json.dumps(content, indent=1))


def plan_conflicts(shared: Shared, filters: Mapping[str, Mapping[str, Node]]) -> dict[str, Node]:
    """Return the conflict between the values on all pairs (under "") and on the pairs of each filter, by method."""
    if len(shared.values) < 2:
        return {}
    settings = shared.config.training
    selections = {"": dict.fromkeys(shared.values), **filters}
    return {
        method: gradient_conflict(
            f"gradient conflict on {f'the pairs of {method}' if method else 'all pairs'}",
            base=shared.base,
            split=shared.split,
            selections=of,
            rank=settings.rank,
            alpha=settings.lora_alpha,
            target_modules=settings.target_modules,
            max_length=settings.max_length,
            seed=shared.config.seed,
            batch_pairs=settings.batch_size // settings.accumulate,
            checkpointing=settings.gradient_checkpointing,
            device=shared.device,
        )
        for method, of in selections.items()
    }


def plan_connectivity(shared: Shared, vectors: Mapping[str, Mapping[str, Node]]) -> dict[str, Node]:
    """Return the connectivity of the value vectors of each method that has two at least, by method."""
    settings = shared.config.training
    return {
        method: mode_connectivity(
            f"loss between the vectors of {method}",
            base=shared.base,
            vectors=of,
            split=shared.split,
            # In float32, as the stage computes.
            references={value: shared.log_probs(shared.split, value, None, bf16=False) for value in shared.values},
            beta=settings.beta,
            max_length=settings.max_length,
            seed=shared.config.seed,
            # Weights that require gradients are spread over the layers once, so no layer can be computed again.
            batch_pairs=1 if settings.gradient_checkpointing else settings.batch_size // settings.accumulate,
            device=shared.device,
        )
        for method, of in vectors.items()
        if len(of) > 1
    }


def _sample(places: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return at most ``MOST_PAIRS`` of the places, in a random order."""
    return np.asarray(np.random.default_rng(seed).permutation(places)[:MOST_PAIRS])


def _path(path: "Path", owner: NDArray[np.int64]) -> dict[str, Any]:
    """Return the curvature and the rungs of a path as JSON values, means over the data sets that own the pairs."""
    from valuesoup.training.connectivity import predicted_gap

    curvature, error = _mean(path.curvature, owner)
    gaps = [_mean(of, owner) for of in path.gaps]
    ladder = [
        {
            "weight": float(weight),
            "loss": _mean(losses, owner)[0],
            "gap": gap,
            "error": off,
            "predicted": predicted_gap(float(weight), curvature),
        }
        for weight, losses, (gap, off) in zip(path.ladder, path.losses, gaps, strict=True)
    ]
    return {"curvature": curvature, "curvature_error": error, "ladder": ladder}


def _mean(found: NDArray[np.float64], owner: NDArray[np.int64]) -> tuple[float, float | None]:
    """Return the mean over data sets of the means over their pairs, and its standard error.

    The error is None where a data set has one pair alone, which tells nothing of their spread.
    """
    parts = [found[owner == one] for one in np.unique(owner)]
    mean = float(np.mean([part.mean() for part in parts]))
    if min(map(len, parts)) < 2:
        return mean, None
    return mean, float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / len(parts))


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
