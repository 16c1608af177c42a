"""Stages of the training: log-probabilities under a policy, trained vectors, composed vectors, their geometry."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valuesoup.data import Pairs
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef, open_training_base
from valuesoup.pipeline.sources import PARTS, Source, save_log_probs, selected, training_rows
from valuesoup.store import Artifact, Work, fingerprint, stage
from valuesoup.training.settings import TrainingSettings

if TYPE_CHECKING:
    from valuesoup.soup import Soup
    from valuesoup.training.decorrelation import Decorrelation
    from valuesoup.training.rows import TrainingRows

POLICY = "policy"
"""What a soup calls the one vector that it trains or that a policy is made of."""
LEAST_VALIDATION = 16
"""With fewer validation pairs left after a filter, the validation loss is taken on all of them (and says so)."""


@stage("reference", version=4, ignore=("device",), together=True)
def reference(
    work: Work,
    *,
    base: Artifact | BaseRef,
    pairs: Artifact,
    dataset: str | None,
    policy: Artifact | None,
    max_length: int,
    bf16: bool,
    device: str,
) -> None:
    """Store log π of both responses of every pair, by the pair's id; NaN for pairs that are too long.

    One pass over the base serves every method, threshold, rank, split and seed.

    Args:
        work: Of the stage.
        base: The base.
        pairs: Pairs as read, or laid out like the split.
        dataset: Which data set of a split, of which the training and validation pairs are taken; None: all as read.
        policy: A trained policy on the base; None: the base itself.
        max_length: Longest prompt + response in tokens.
        bf16: Compute in bfloat16 autocast, as the trainings do that refer to it.
        device: Where to compute.
    """
    from valuesoup.soup import Soup, ValueVector, position_limit, target_layers
    from valuesoup.training.reference import pair_log_probs
    from valuesoup.training.rows import tokenise

    model, tokenizer = open_training_base(base, device)
    weights = None
    if policy is None:
        soup = Soup(model, tokenizer, layers=target_layers(model))
    else:
        soup = Soup.from_adapters(model, {POLICY: ValueVector.load(policy.path / "adapter")}, tokenizer)
        weights = soup.weight_rows({POLICY: 1.0}, 1).to(model.device)
    if dataset is None:
        parts = [Pairs.load(pairs.path / "pairs.parquet")]
    else:
        kept = [part for part in PARTS if (pairs.path / dataset / f"{part}.parquet").is_file()]
        parts = [load_part(pairs, dataset, part) for part in kept]
    listed = Pairs.concat(parts)
    found = np.full((len(listed), 2), np.nan)
    tokens = tokenise(listed, tokenizer, min(max_length, position_limit(model.config)))
    with work.task(len(tokens), "pairs") as task:
        found[tokens.places] = pair_log_probs(
            soup, weights, tokens, bf16=bf16, on_done=task.advance, say=work.progress.say
        )
    save_log_probs(work.out, listed.ids, found)


@stage("train", version=4, ignore=("device", "minimum", "report_to"), together=True)
def train(
    work: Work,
    *,
    base: Artifact | BaseRef,
    sources: Sequence[Source],
    start: Artifact | None,
    away_from: Mapping[str, Artifact],
    alpha: float,
    draw: int,
    minimum: int,
    settings: TrainingSettings,
    report_to: Sequence[str],
    seed: int,
    device: str,
) -> None:
    """Train one vector on the pairs of its sources.

    Args:
        work: Of the stage.
        base: The base.
        sources: Pairs with what the loss wants to know of them.
        start: The policy to go on from, whose log-probabilities are then the reference; None starts at the base.
        away_from: Trained vectors from which this one is decorrelated.
        alpha: Weight of that penalty.
        draw: Which draw of the initial factors: equal ones start from the same A.
        minimum: Fewer pairs than this are an error.
        settings: Of the training; ``bf16`` decided, so that one key never names two precisions.
        report_to: Trackers, in place of those of the settings: they do not change the result.
        seed: Of everything random.
        device: Where to compute.
    """
    from valuesoup.soup import ValueVector
    from valuesoup.training.decorrelation import Decorrelation

    soup, settings = _soup(base, settings, report_to, device)
    if start is None:
        soup.add_fresh(POLICY, rank=settings.rank, alpha=settings.lora_alpha, seed=_drawn(seed, draw))
    else:
        soup.add(POLICY, ValueVector.load(start.path / "adapter"))
    penalty = None
    if away_from and alpha:
        loaded = {name: ValueVector.load(vector.path / "adapter").layers for name, vector in away_from.items()}
        earlier = {name: [layers[layer].A for layer in soup.layer_names] for name, layers in loaded.items()}
        penalty = Decorrelation((POLICY,), alpha, earlier)
    rows, validation, note = _gather(work, base, {POLICY: sources}, minimum, settings)
    summary = _fit(work, soup, rows, validation, settings, [POLICY], penalty, seed)
    _save(work.out, soup, POLICY, {**summary, **note})


@stage("train-joint", version=3, ignore=("device", "minimum", "report_to"), together=True)
def train_joint(
    work: Work,
    *,
    base: Artifact | BaseRef,
    sources: Mapping[str, Sequence[Source]],
    alpha: float,
    minimum: int,
    settings: TrainingSettings,
    report_to: Sequence[str],
    seed: int,
    device: str,
) -> None:
    """Train a vector per value in one pass, each row its own value's, with the penalty on all pairs of vectors.

    Each vector starts from a draw of its own: equal factors would have equal gradients of the penalty, and stay so.
    A step holds ``batch_size`` pairs of each vector (on average, where they have not equally many), and the loss is
    the sum of the vectors' mean losses. Gradients are clipped per vector: without dropout and penalty, vectors of
    equally many pairs go through the steps of their own trainings.
    """
    from valuesoup.training.decorrelation import Decorrelation

    soup, settings = _soup(base, settings, report_to, device)
    for draw, value in enumerate(sources):
        soup.add_fresh(value, rank=settings.rank, alpha=settings.lora_alpha, seed=_drawn(seed, draw))
    settings = settings.model_copy(update={"batch_size": settings.batch_size * len(sources)})
    rows, validation, note = _gather(work, base, sources, minimum, settings)
    penalty = Decorrelation(tuple(sources), alpha, {}) if alpha else None
    summary = _fit(work, soup, rows, validation, settings, list(sources), penalty, seed)
    for value in sources:
        (work.out / value).mkdir(exist_ok=True)
        _save(work.out / value, soup, value, {**summary, **note})
    _save_summary(work.out, {**summary, **note})


@stage("vector")
def take_vector(work: Work, *, joint: Artifact, value: str) -> None:
    """Take one vector out of a joint training."""
    from valuesoup.soup import ValueVector

    ValueVector.load(joint.path / value / "adapter").save_pretrained(work.out / "adapter")


@stage("compose", version=1)
def compose_vectors(
    work: Work,
    *,
    vectors: Mapping[str, Artifact],
    weights: Mapping[str, float],
    kind: str,
    settings: Mapping[str, Any],
) -> None:
    """Mix vectors in another way than linearly, into one adapter, and note what its rank loses."""
    from valuesoup.soup import ValueVector
    from valuesoup.soup.merging import merge

    loaded = {name: ValueVector.load(artifact.path / "adapter") for name, artifact in vectors.items()}
    mixed, error = merge(loaded, weights, kind, **settings)
    mixed.save_pretrained(work.out / "adapter")
    (work.out / "summary.json").write_text(json.dumps({"relative_error": error}))


@stage("geometry", version=2)
def vector_geometry(work: Work, *, vectors: Mapping[str, Artifact]) -> None:
    """Distances, angles and dependence (HSIC) between the vectors of a method, per layer (the paper's Fig. 6)."""
    from valuesoup.soup import ValueVector, geometry
    from valuesoup.training.decorrelation import vector_hsic

    loaded = {name: ValueVector.load(artifact.path / "adapter") for name, artifact in vectors.items()}
    finite = [{**asdict(row), "cosine": row.cosine if np.isfinite(row.cosine) else None} for row in geometry(loaded)]
    (work.out / "geometry.json").write_text(json.dumps(finite))
    (work.out / "hsic.json").write_text(json.dumps([asdict(row) for row in vector_hsic(loaded)]))


def _soup(
    base: Artifact | BaseRef, settings: TrainingSettings, report_to: Sequence[str], device: str
) -> "tuple[Soup, TrainingSettings]":
    """Open the base for training, and the settings that it allows."""
    from valuesoup.soup import Soup, position_limit, target_layers

    model, tokenizer = open_training_base(base, device)
    longest = min(settings.max_length, position_limit(model.config))
    settings = settings.model_copy(update={"report_to": tuple(report_to), "max_length": longest})
    layers = target_layers(model, settings.target_modules)
    return Soup(model, tokenizer, layers=layers, dropout=settings.dropout), settings


def _drawn(seed: int, draw: int) -> int:
    """Return the seed of a vector's initial factors; the first draw is the run's own seed."""
    return seed if draw == 0 else int(fingerprint([seed, draw]), 16)


def _gather(
    work: Work,
    base: Artifact | BaseRef,
    sources: Mapping[str, Sequence[Source]],
    minimum: int,
    settings: TrainingSettings,
) -> "tuple[TrainingRows, TrainingRows | None, dict[str, Any]]":
    """Return training rows, validation rows, and what the training's summary says of them."""
    rows = training_rows(base, sources, "train", settings)
    what = " and ".join(dict.fromkeys(f"'{source['dataset']}'" for of in sources.values() for source in of))
    wanted = sum(selected(source, "train") for of in sources.values() for source in of)
    found = 0 if rows is None else len(rows)
    if too_long := wanted - found:
        work.progress.say(f"    {too_long} of {wanted} pairs are longer than {settings.max_length} tokens: left out")
    if rows is None or not found:
        raise UserError(
            f"every training pair of {what} is longer than {settings.max_length} tokens, the least of "
            "training.max_length and what the base takes; raise it, or give shorter pairs."
        )
    if found < minimum:
        raise UserError(
            f"only {found} pairs of {what} are within {settings.max_length} tokens, and training needs {minimum}; "
            "raise training.max_length, or let the filter keep more."
        )
    filtered = any(source["selection"] is not None for of in sources.values() for source in of)
    validation = training_rows(base, sources, "validation", settings)
    validation_on = "kept pairs" if filtered else "all pairs"
    if filtered and (validation is None or len(validation) < LEAST_VALIDATION):
        unfiltered = {name: [Source({**source, "selection": None}) for source in of] for name, of in sources.items()}
        validation = training_rows(base, unfiltered, "validation", settings)
        validation_on = "all pairs"
        work.progress.say(f"    the filter leaves fewer than {LEAST_VALIDATION} validation pairs: loss taken on all")
    return rows, validation, {"pairs": found, "too_long": too_long, "validation_on": validation_on}


def _fit(
    work: Work,
    soup: "Soup",
    rows: "TrainingRows",
    validation: "TrainingRows | None",
    settings: TrainingSettings,
    names: list[str],
    penalty: "Decorrelation | None",
    seed: int,
) -> dict[str, Any]:
    """Train, write the curves, and return the training's summary."""
    from valuesoup.training.trainer import train_vectors

    before = penalty.per_layer(soup) if penalty is not None else []
    steps = settings.steps(len(rows))
    with work.task(steps, "steps") as task:
        trained = train_vectors(
            soup,
            rows,
            validation,
            settings,
            names=names,
            work=work.out / ".checkpoints",
            seed=seed,
            task=task,
            penalty=penalty,
            say=work.progress.say,
        )
    (work.out / "curves.json").write_text(json.dumps(list(trained.curves)))
    if penalty is not None:
        after = penalty.per_layer(soup)
        changes = [{**asdict(a), "before": b.hsic, "after": a.hsic} for b, a in zip(before, after, strict=True)]
        (work.out / "hsic.json").write_text(json.dumps(changes))
    work.progress.say(
        f"    {len(rows)} pairs, {steps} steps; validation loss {trained.best_loss:.4f} (ln 2 = 0.6931) "
        f"at step {trained.best_step}"
    )
    return {
        "steps": steps,
        "best_step": trained.best_step,
        "best_loss": None if np.isnan(trained.best_loss) else trained.best_loss,
        "validation_pairs": 0 if validation is None else len(validation),
    }


def _save(folder: Path, soup: "Soup", name: str, summary: Mapping[str, Any]) -> None:
    soup.vector(name).save_pretrained(folder / "adapter")
    _save_summary(folder, summary)


def _save_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
