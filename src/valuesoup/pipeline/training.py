"""Stages of the training: reference log-probabilities, and the value vectors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef, open_base, open_tokenizer
from valuesoup.store import Artifact, Work, stage
from valuesoup.training.settings import TrainingSettings

if TYPE_CHECKING:
    from valuesoup.training.rows import TrainingRows

PARTS = ("train", "validation")
LEAST_VALIDATION = 16
"""With fewer validation pairs left after a filter, the validation loss is taken on all of them (and says so)."""


@stage("reference", ignore=("device",))
def reference(
    work: Work, *, base: Artifact | BaseRef, split: Artifact, value: str, max_length: int, device: str
) -> None:
    """Store log π_0 of both responses of every training and validation pair; NaN for pairs that are too long.

    One pass serves every method, threshold and rank that trains on these pairs from this base.
    """
    from valuesoup.soup import Soup, position_limit, target_layers
    from valuesoup.training.reference import pair_log_probs
    from valuesoup.training.rows import tokenise

    model, tokenizer = open_base(base, device)
    soup = Soup(model, tokenizer, layers=target_layers(model))
    for part in PARTS:
        pairs = load_part(split, value, part)
        found = np.full((len(pairs), 2), np.nan)
        tokens = tokenise(pairs, tokenizer, min(max_length, position_limit(model.config)))
        with work.task(len(tokens), "pairs") as task:
            found[tokens.places] = pair_log_probs(soup, None, tokens, on_done=task.advance)
        np.save(work.out / f"{part}.npy", found)


@stage("train", ignore=("device", "minimum", "report_to"))
def train(
    work: Work,
    *,
    base: Artifact | BaseRef,
    split: Artifact,
    value: str,
    kept: Artifact | None,
    reference: Artifact,
    minimum: int,
    settings: TrainingSettings,
    report_to: Sequence[str],
    seed: int,
    device: str,
) -> None:
    """Train the vector of one value by DPO, on all its pairs or on those that a filter kept.

    ``report_to`` names the trackers, in place of those of the settings: they do not change the result.
    """
    from valuesoup.soup import Soup, position_limit, target_layers
    from valuesoup.training.trainer import train_vectors

    model, tokenizer = open_base(base, device)
    longest = min(settings.max_length, position_limit(model.config))
    settings = settings.model_copy(update={"report_to": tuple(report_to), "max_length": longest})
    soup = Soup(model, tokenizer, layers=target_layers(model, settings.target_modules), dropout=settings.dropout)
    soup.add_fresh(value, rank=settings.rank, alpha=settings.lora_alpha, seed=seed)
    rows = {part: _rows(base, split, value, part, kept, reference, settings) for part in PARTS}
    validation_on = "kept pairs" if kept is not None else "all pairs"
    if kept is not None and len(rows["validation"]) < LEAST_VALIDATION:
        rows["validation"] = _rows(base, split, value, "validation", None, reference, settings)
        validation_on = "all pairs"
    if not len(rows["train"]):
        raise UserError(
            f"every training pair of '{value}' is longer than {longest} tokens, the least of training.max_length and "
            "what the base takes; raise it, or give shorter pairs."
        )
    listed = load_part(split, value, "train")
    wanted = len(listed) if kept is None else int(np.load(kept.path / "train.npy").sum())
    if too_long := wanted - len(rows["train"]):
        work.progress.say(f"    {too_long} of {wanted} pairs of {value} are longer than {longest} tokens: left out")
    if len(rows["train"]) < minimum:
        raise UserError(
            f"only {len(rows['train'])} pairs of '{value}' are within {longest} tokens, and training needs {minimum}; "
            "raise training.max_length, or let the filter keep more."
        )
    if kept is not None and validation_on == "all pairs":
        work.progress.say(f"    the filter leaves fewer than {LEAST_VALIDATION} validation pairs: loss taken on all")
    checkpoints = work.out / ".checkpoints"
    steps = settings.steps(len(rows["train"]))
    with work.task(steps, "steps") as task:
        trained = train_vectors(
            soup, rows["train"], rows["validation"], settings, names=[value], work=checkpoints, seed=seed, task=task
        )
    trained.vectors[value].save_pretrained(work.out / "adapter")
    (work.out / "curves.json").write_text(json.dumps(list(trained.curves)))
    summary = {
        "pairs": len(rows["train"]),
        "too_long": too_long,
        "steps": steps,
        "best_step": trained.best_step,
        "best_loss": None if np.isnan(trained.best_loss) else trained.best_loss,
        "validation_pairs": len(rows["validation"]),
        "validation_on": validation_on,
    }
    (work.out / "summary.json").write_text(json.dumps(summary, indent=1))
    work.progress.say(
        f"    {summary['pairs']} pairs, {steps} steps; validation loss {trained.best_loss:.4f} (ln 2 = 0.6931) "
        f"at step {trained.best_step}"
    )


@stage("geometry")
def vector_geometry(work: Work, *, vectors: Mapping[str, Artifact]) -> None:
    """Distances and angles between the vectors of a method, per layer and over all layers (the paper's Fig. 6)."""
    from valuesoup.soup import ValueVector, geometry

    rows = geometry({name: ValueVector.load(artifact.path / "adapter") for name, artifact in vectors.items()})
    finite = [{**asdict(row), "cosine": row.cosine if np.isfinite(row.cosine) else None} for row in rows]
    (work.out / "geometry.json").write_text(json.dumps(finite))


def _rows(
    base: Artifact | BaseRef,
    split: Artifact,
    value: str,
    part: str,
    kept: Artifact | None,
    reference: Artifact,
    settings: TrainingSettings,
) -> "TrainingRows":
    from valuesoup.training.rows import TrainingRows, tokenise

    pairs = load_part(split, value, part)
    log_probs = np.load(reference.path / f"{part}.npy")
    if kept is not None and (kept.path / f"{part}.npy").is_file():
        mask = np.load(kept.path / f"{part}.npy")
        pairs, log_probs = pairs.filter(mask), log_probs[mask]
    tokens = tokenise(pairs, open_tokenizer(base), settings.max_length)
    return TrainingRows.plain(tokens, log_probs[tokens.places])
