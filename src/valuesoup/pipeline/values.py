"""Stages of the values: reward models, scores of the pairs, reward gaps, and the consistency filter."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valuesoup.consistency import (
    LADDER,
    Statistics,
    auto_threshold,
    check_enough,
    keep_threshold,
    retention,
    row_weights,
    sigma,
    value_consistency,
)
from valuesoup.data import Pairs
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.data import ids_of_part, load_part
from valuesoup.pipeline.inputs import BaseRef, RewardRef, base_path, device_of, open_reward
from valuesoup.rewards import ClassifierReward, ColumnReward, RewardTable, RewardTraining, score, train_reward_model
from valuesoup.rewards.table import Names
from valuesoup.store import KEPT, Artifact, Work, stage

SCORED_PARTS = ("train", "validation")


@stage("reward", ignore=("device",))
def train_reward(
    work: Work, *, base: Artifact | BaseRef, split: Artifact, value: str, settings: RewardTraining, device: str
) -> None:
    """Train the reward model of one value on its training pairs; accuracy on its validation and test pairs."""
    KEPT.let_go()
    held_out = Pairs.concat([load_part(split, value, part) for part in ("validation", "test")])
    model = work.out / "model"
    config = None if isinstance(base, Artifact) else base.config
    report = train_reward_model(
        base_path(base),
        load_part(split, value, "train"),
        held_out,
        model,
        settings,
        work.progress,
        work.label,
        revision=config.revision if config else None,
        trust_remote_code=bool(config and config.trust_remote_code),
        device=device_of(device),
    )
    if report.too_long:
        work.progress.say(f"    {report.too_long} pairs of {value} are longer than its reward model takes: left out")
    if not report.validation_pairs:
        raise UserError(
            f"every held-out pair of '{value}' is longer than its reward model takes, so its accuracy cannot be "
            "measured; raise reward.train.max_length or leave it out."
        )
    (work.out / "report.json").write_text(json.dumps(asdict(report)))
    (work.out / "settings.json").write_text(json.dumps({"template": settings.template}))
    work.progress.say(
        f"    {value}: held-out accuracy {report.validation_accuracy:.1%} on {report.validation_pairs} pairs"
    )


@stage("scores", version=2, ignore=("dataset", "device"))
def score_pairs(
    work: Work, *, pairs: Artifact, dataset: str, rewards: Mapping[str, Artifact | RewardRef], device: str
) -> None:
    """Score both responses of every pair of an artifact, of whatever part, under the values that one model rates.

    Those are the pairs as read, so that every seed, method and threshold finds the same scores; see `part_scores`.
    ``dataset`` names them in messages.
    """
    listed = Pairs.concat([Pairs.load(path) for path in sorted(pairs.path.rglob("*.parquet"))])
    sources = {value: open_reward(reward, device) for value, reward in rewards.items()}
    score(listed, sources, dataset, work.progress).save(work.out / "scores.parquet")
    say_notes(work, sources.values())


@stage("part-scores")
def part_scores(
    work: Work, *, split: Artifact, dataset: str, value: str, scores: Artifact | None, column: str | None
) -> None:
    """Write the scores of one data set's training and validation pairs under one value, in the order of the parts.

    They come from `score_pairs`, by the pairs' ids, or from a column of the data.
    """
    for part in SCORED_PARTS:
        ids = ids_of_part(split, dataset, part)
        if not len(ids):
            continue
        if scores is None:
            assert column is not None
            table = score(load_part(split, dataset, part), {value: ColumnReward(column)}, dataset)
        else:
            known = RewardTable.load(scores.path / "scores.parquet")
            rows = pc.index_in(ids, value_set=pa.array(known.items))
            if rows.null_count:
                raise RunError(f"{scores.path.name} lacks scores of some pairs; remove it and run again.")
            found = known.scores[:, :, [known.value_index(value)]][rows.to_numpy()]
            table = RewardTable(Names(ids), known.sides, (value,), found, dataset)
        table.save(work.out / f"{part}.parquet")


@stage("gaps", version=2)
def reward_gaps(
    work: Work,
    *,
    dataset: str,
    scores: Mapping[str, Mapping[str, Artifact]],
    statistics: Statistics,
) -> None:
    """Compute the normalised reward gaps of one data set under all values, and the pairs' consistency (Eq. 8–13).

    ``scores`` holds, by data set and value, what the statistics need. Spreads are those of training pairs.
    """
    tables = {name: joined(of, "train") for name, of in scores.items()}
    spreads = sigma(tables, statistics)[dataset]
    for part in SCORED_PARTS:
        if not (next(iter(scores[dataset].values())).path / f"{part}.parquet").is_file():
            continue
        gaps = (tables[dataset] if part == "train" else joined(scores[dataset], part)).gaps(sigma=spreads)
        np.save(work.out / f"gaps_{part}.npy", gaps)
        np.save(work.out / f"consistency_{part}.npy", value_consistency(gaps))


@stage("filter", version=2, ignore=("minimum",))
def filter_pairs(
    work: Work,
    *,
    gaps: Artifact,
    dataset: str,
    tau: float | str | None,
    keep: float | None,
    soft: bool,
    flip: bool,
    minimum: int,
) -> None:
    """Keep the pairs with VC ≥ τ_i (Eq. 14); undefined consistency is never kept.

    What is stored is a signed weight per pair: 0 leaves it out, a negative one swaps its sides.

    Args:
        work: Of the stage.
        gaps: Of the data set.
        dataset: Its name.
        tau: A number, or ``auto``, which the pairs decide.
        keep: Instead of τ, the share of pairs to keep.
        soft: Let the weight grow with the consistency.
        flip: Take pairs with VC ≤ −τ, swapped.
        minimum: Fewer pairs left than this are an error.
    """
    vc = np.load(gaps.path / "consistency_train.npy")
    try:
        if keep is not None:
            tau = keep_threshold(vc, keep)
        elif not isinstance(tau, float):
            tau = auto_threshold(vc)
        weights = row_weights(vc, tau, soft=soft, flip=flip)
    except UserError as error:
        raise UserError(f"Data set '{dataset}' cannot be filtered. {error}") from None
    check_enough(vc, tau, minimum, dataset)
    np.save(work.out / "train.npy", weights)
    held_out = gaps.path / "consistency_validation.npy"
    if held_out.is_file():
        np.save(work.out / "validation.npy", row_weights(np.load(held_out), tau, soft=soft, flip=flip))
    summary = {
        "tau": tau,
        "pairs": len(vc),
        "kept": int(np.count_nonzero(weights)),
        "flipped": int(np.count_nonzero(weights < 0)),
        "undefined": int(np.isnan(vc).sum()),
        "ladder": dict(zip(map(str, LADDER), retention(vc).tolist(), strict=True)),
    }
    (work.out / "summary.json").write_text(json.dumps(summary, indent=1))
    flipped = f", {summary['flipped']} of them flipped" if flip else ""
    work.progress.say(f"    {dataset}: {summary['kept']} of {summary['pairs']} pairs kept at τ = {tau:.3g}{flipped}")


def say_notes(work: Work, sources: Iterable[object]) -> None:
    """Say how many prompts a classifier had to cut, and whether memory ran out; no truncation is silent."""
    for source in sources:
        if isinstance(source, ClassifierReward) and source.truncated:
            work.progress.say(f"    {source.truncated} prompts were cut from the left to fit the reward model")
            work.log("truncated", prompts=source.truncated)
    if any(isinstance(source, ClassifierReward) and source.batches_halved for source in sources):
        work.progress.say("    memory ran out, so the reward model read smaller batches; its scores are the same")


def joined(scores: Mapping[str, Artifact], part: str) -> RewardTable:
    """Return one table of all values from the tables of each."""
    # One after the other into its place: all of them beside the joined one would take the memory twice.
    first, whole = None, np.empty(0)
    for place, artifact in enumerate(scores.values()):
        table = RewardTable.load(artifact.path / f"{part}.parquet")
        if first is None:
            first, whole = table, np.empty((*table.scores.shape[:2], len(scores)))
        whole[:, :, [place]] = table.scores
    assert first is not None
    return RewardTable(first.items, first.sides, tuple(scores), whole, first.dataset)
