"""Stages of the values: reward models, scores of the pairs, reward gaps, and the consistency filter."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from valuesoup.consistency import (
    LADDER,
    Statistics,
    check_enough,
    keep_threshold,
    retention,
    sigma,
    threshold,
    value_consistency,
)
from valuesoup.data import Pairs
from valuesoup.errors import UserError
from valuesoup.methods.choices import Consistent
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import BaseRef, RewardRef, base_path, device_of, open_reward
from valuesoup.rewards import ClassifierReward, ColumnReward, RewardTable, RewardTraining, score, train_reward_model
from valuesoup.store import Artifact, Work, stage

SCORED_PARTS = ("train", "validation")


@stage("reward", ignore=("device",))
def train_reward(
    work: Work, *, base: Artifact | BaseRef, split: Artifact, value: str, settings: RewardTraining, device: str
) -> None:
    """Train the reward model of one value on its training pairs; accuracy on its validation and test pairs."""
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


@stage("scores", ignore=("device",))
def score_pairs(
    work: Work, *, split: Artifact, dataset: str, value: str, reward: Artifact | RewardRef | str, device: str
) -> None:
    """Score both responses of every training and validation pair of one data set under one value.

    ``reward`` is a reward, or the name of a column of the data.
    """
    source = ColumnReward(reward) if isinstance(reward, str) else open_reward(reward, device)
    for part in SCORED_PARTS:
        pairs = load_part(split, dataset, part)
        if len(pairs):
            table = score(pairs, {value: source}, dataset, work.progress)
            table.save(work.out / f"{part}.parquet")
    say_truncated(work, source)


@stage("gaps")
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
        gaps = joined(scores[dataset], part).gaps(sigma=spreads)
        np.save(work.out / f"gaps_{part}.npy", gaps)
        np.save(work.out / f"consistency_{part}.npy", value_consistency(gaps))


@stage("filter")
def filter_pairs(
    work: Work, *, gaps: Artifact, dataset: str, rule: Consistent, values: Sequence[str], batch: int
) -> None:
    """Keep the pairs with VC ≥ τ_i (Eq. 14); undefined consistency is never kept, and a batch must be left."""
    vc = np.load(gaps.path / "consistency_train.npy")
    tau = keep_threshold(vc, rule.keep) if rule.keep is not None else threshold(rule.tau_of(dataset), len(values))
    kept = check_enough(vc, tau, max(rule.minimum_pairs, batch), dataset)
    np.save(work.out / "train.npy", kept)
    held_out = gaps.path / "consistency_validation.npy"
    if held_out.is_file():
        with np.errstate(invalid="ignore"):
            np.save(work.out / "validation.npy", np.load(held_out) >= tau)
    summary = {
        "tau": tau,
        "pairs": len(vc),
        "kept": int(kept.sum()),
        "undefined": int(np.isnan(vc).sum()),
        "ladder": dict(zip(map(str, LADDER), retention(vc).tolist(), strict=True)),
    }
    (work.out / "summary.json").write_text(json.dumps(summary, indent=1))
    work.progress.say(f"    {dataset}: {summary['kept']} of {summary['pairs']} pairs have consistency ≥ {tau:.3g}")


def say_truncated(work: Work, source: object) -> None:
    """Say how many prompts a classifier had to cut; no truncation is silent."""
    if isinstance(source, ClassifierReward) and source.truncated:
        work.progress.say(f"    {source.truncated} prompts were cut from the left to fit the reward model")
        work.log("truncated", prompts=source.truncated)


def joined(scores: Mapping[str, Artifact], part: str) -> RewardTable:
    """Return one table of all values from the tables of each."""
    tables = [RewardTable.load(artifact.path / f"{part}.parquet") for artifact in scores.values()]
    first = tables[0]
    return RewardTable(
        first.items,
        first.sides,
        tuple(scores),
        np.concatenate([table.scores for table in tables], axis=2),
        first.dataset,
    )
