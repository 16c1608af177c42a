"""Stages of MORA: prompts to mine, single-reward prompts, their fused forms, and pairs of the largest margin.

The rollouts between them are answers like any others: the prompts artifacts here hold every prompt once per rollout,
each with an id and so with draws of its own, for the stages that answer prompts and rate answers.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuesoup.data import Messages, Pairs
from valuesoup.data.pairs import MESSAGES, single_turns
from valuesoup.data.splits import first_turn
from valuesoup.errors import UserError, did_you_mean
from valuesoup.evaluation.statistics import wilson_interval
from valuesoup.expansion import default_thresholds, fuse, lacking, max_margin, pass_at_n, single_reward
from valuesoup.expansion.fusion import REASONS, Target
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.data import (
    PARTS,
    HeldOutPrompt,
    distinct_prompts,
    held_out_conversations,
    load_prompts,
    prompt_limit,
)
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.rewriters import RewriterRef, open_rewriter, policy_writer
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, Work, fingerprint, stage

EXPANDED = "fused"
"""The new pairs stand in their artifact as the data set of this name, laid out as in the split."""
SINGLE = "single-reward"
AGAIN = "single-reward again"
"""The single-reward prompts that were fused, unfused, with new rollouts. They were chosen because no rollout passed
every value, so some pass by new draws alone: what fusion does shows against these."""
JOINT = "joint"
BINS = 20

Table = NDArray[np.float64]
Scores = Mapping[str, Artifact]


@stage("mining")
def mining_prompts(
    work: Work,
    *,
    split: Artifact,
    base: Artifact | BaseRef,
    datasets: Sequence[str],
    limit: int | None,
    rollouts: int,
    max_tokens: int,
    seed: int,
) -> None:
    """Draw training prompts to mine, each listed once per rollout; too long ones are left out and counted.

    Args:
        work: Of the stage.
        split: The split of all pairs.
        base: Its tokenizer measures the prompts.
        datasets: Data sets of the split whose training prompts are drawn from; a prompt of several counts once.
        limit: Most prompts drawn; None takes all.
        rollouts: Times that each is listed, with ids ``<id>#0``, ``<id>#1``, …
        max_tokens: Longest prompt.
        seed: Chooses the order of the draw, which does not depend on the order of the pairs.
    """
    found = distinct_prompts(split, datasets, "train")
    fits = prompt_limit(base, max_tokens)
    drawn = sorted(found.values(), key=lambda one: blake2b(f"{seed}:{one['id']}".encode(), digest_size=16).digest())
    kept: list[HeldOutPrompt] = []
    too_long = 0
    for prompt in drawn:
        if len(kept) == limit:
            break
        if fits(prompt["messages"]):
            kept.append(prompt)
        else:
            too_long += 1
    if not kept:
        raise UserError(f"every training prompt is longer than generation.max_prompt_tokens = {max_tokens}; raise it.")
    _save_prompts(work, kept, rollouts, {"too_long": too_long})
    left_out = f"; {too_long} of more than {max_tokens} tokens are left out" if too_long else ""
    work.progress.say(f"    {len(kept)} of {len(found)} training prompts, {rollouts} rollouts each{left_out}")


@stage("mined", version=2)
def mine(
    work: Work, *, prompts: Artifact, scores: Scores, rollouts: int, thresholds: Mapping[str, float] | None
) -> None:
    """Find the single-reward prompts and the values that each lacks (step 1), and the pass@N profile of each kind.

    Args:
        work: Of the stage.
        prompts: What was answered, from `mining_prompts`.
        scores: Of the answers, per value.
        rollouts: Answers per prompt.
        thresholds: κ per value, which a reward must be above to pass; by default the medians over all rollouts.

    Raises:
        UserError: There is one value only, the thresholds name other values, no rollout passes some value, or no
            prompt is single-reward.
    """
    values = list(scores)
    if len(values) < 2:
        raise UserError("prompts are expanded towards further values, and this run has one value only; give two.")
    asked, table = _rollouts(prompts, scores, rollouts)
    kappa = default_thresholds(table) if thresholds is None else _ordered(thresholds, values)
    for value, one, best in zip(values, kappa, table.max(axis=(0, 1)), strict=True):
        if best <= one:
            raise UserError(
                f"no rollout passes '{value}': its threshold is {one:g} and its highest reward {best:g}; set a lower "
                "threshold of that value."
            )
    single = single_reward(table, kappa)
    joint = int(np.any(np.all(table > kappa, axis=2), axis=1).sum())
    counts = {"prompts": len(asked), "joint": joint, "none": len(asked) - joint - int(single.sum())}
    counts["single_reward"] = int(single.sum())
    if not single.any():
        raise UserError(
            f"no prompt admits some values but not all: of {len(asked)}, {joint} have a rollout that passes every "
            f"value and {counts['none']} have none that passes any; set other thresholds or mine more prompts."
        )
    places = np.flatnonzero(single)
    missing = lacking(table, kappa, _sigma(table, values))
    found = [
        {**asked[place], "missing": [value for value, lacks in zip(values, missing[place], strict=True) if lacks]}
        for place in places
    ]
    members = {
        name: np.array([name in prompt["datasets"] for prompt in asked])
        for name in dict.fromkeys(dataset for prompt in asked for dataset in prompt["datasets"])
    }
    profile = [
        row for name, mask in {**members, SINGLE: single}.items() for row in _profile(name, table[mask], kappa, values)
    ]
    np.save(work.out / "scores.npy", table[single])
    content = {
        "rollouts": rollouts,
        "thresholds": dict(zip(values, kappa.tolist(), strict=True)),
        "counts": counts,
        "prompts": found,
        "profile": profile,
    }
    (work.out / "mined.json").write_text(json.dumps(content), encoding="utf-8")
    work.progress.say(
        f"    {len(found)} of {len(asked)} prompts admit some values but not all; {joint} pass every value at once, "
        f"{counts['none']} none"
    )


@stage("fusion", version=2, ignore=("device", "split"))  # the mined prompts, which are in the key, come from that split
def fuse_prompts(
    work: Work,
    *,
    split: Artifact,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    mined: Artifact,
    rewriter: RewriterRef,
    rollouts: int,
    max_tokens: int,
    seed: int,
    device: str,
) -> None:
    """Rewrite the single-reward prompts to carry the intents that they lack (step 2), listed once per rollout.

    After the fused prompts come, as often, the prompts that they were made of, see `AGAIN`. An endpoint's answers are
    kept in ``answered.jsonl`` as they come, so that an interrupted stage asks for none again.

    Args:
        work: Of the stage.
        split: Of all pairs; a rewrite that is one of its held-out prompts is dropped and counted.
        base: The base, whose tokenizer measures the prompts.
        vectors: Vectors of the policy, each with weight 1, for the policy as the rewriter; none is the base itself.
        mined: From `mine`.
        rewriter: Who rewrites, from `rewriter_ref`.
        rollouts: Times that each fused prompt is listed.
        max_tokens: Longest fused prompt.
        seed: Of the policy's draws.
        device: Where the policy writes.

    Raises:
        UserError: No rewrite can be used (with the counts), or the rewriter fails for good.
    """
    known = mined.json("mined.json")
    values = list(known["thresholds"])
    targets = [Target(prompt["messages"], tuple(prompt["missing"])) for prompt in known["prompts"]]
    with work.task(len(targets), "prompts") as task:
        policy = partial(policy_writer, base, vectors, max_tokens, seed, device, task.advance)
        write = open_rewriter(rewriter, values, work.out / "answered.jsonl", policy, task.advance)
        fusion = fuse(targets, write, prompt_limit(base, max_tokens), rewriter.attempts)
    judged_on = held_out_conversations(split)
    fused: dict[str, HeldOutPrompt] = {}
    again: list[HeldOutPrompt] = []
    held_out = 0
    for prompt, messages in zip(known["prompts"], fusion.prompts, strict=True):
        identity = fingerprint(messages)
        if messages is not None and first_turn(messages) in judged_on:
            held_out += 1
        elif messages is not None and identity not in fused:
            fused[identity] = {"id": identity, "datasets": prompt["datasets"], "messages": messages}
            again.append({**fused[identity], "id": f"{prompt['id']}#again", "messages": prompt["messages"]})
    duplicate = fusion.counts["fused"] - held_out - len(fused)
    counts = {**fusion.counts, "fused": len(fused), "held_out": held_out, "duplicate": duplicate}
    told = _told(counts, (*REASONS, "held_out", "duplicate"))
    if not fused:
        raise UserError(f"none of the {len(targets)} rewritten prompts can be used: {told}; check the rewriter.")
    _save_prompts(work, [*fused.values(), *again], rollouts, {"counts": counts})
    work.progress.say(f"    {len(fused)} of {len(targets)} prompts fused" + (f" (dropped: {told})" if told else ""))


@stage("expanded")
def select_pairs(
    work: Work, *, mined: Artifact, prompts: Artifact, answers: Artifact, scores: Scores, most: int | None
) -> None:
    """Take for each fused prompt the pair of responses with the largest margin in favour of every value (step 4).

    Responses that are empty or that the length limit cut off are in no pair, and are counted. The pairs are laid out
    like the split, as the training part of the data set `EXPANDED` with nothing held out; ``expansion.json`` holds
    the counts, the pass@N profile and the reward distributions before and after fusion.

    Args:
        work: Of the stage.
        mined: From `mine`.
        prompts: From `fuse_prompts`.
        answers: The policy's responses to them.
        scores: Of the responses, per value.
        most: Keep only so many pairs, those of the largest margins.

    Raises:
        UserError: No pair is left (with the counts of each step).
    """
    known = mined.json("mined.json")
    rollouts, values = int(known["rollouts"]), list(known["thresholds"])
    asked, both = _rollouts(prompts, {value: scores[value] for value in values}, rollouts)
    fusion: dict[str, int] = prompts.json("prompts.json")["counts"]
    asked, table, again = asked[: fusion["fused"]], both[: fusion["fused"]], both[fusion["fused"] :]
    written = load_answers(answers).sort_by("prompt").slice(0, len(asked) * rollouts)
    texts: list[str] = written["text"].to_pylist()
    finished = written["finished"].to_numpy(zero_copy_only=False)
    blank = np.array([not text.strip() for text in texts])
    usable = (finished & ~blank).reshape(len(asked), rollouts)
    sigma = table.std(axis=(0, 1))
    found: list[tuple[float, int, int, int]] = []
    for place in range(len(asked)) if sigma.all() else ():  # a reward that never differs makes no pair
        rows = np.flatnonzero(usable[place])
        pair = max_margin(table[place, rows], sigma)
        if pair is not None:
            found.append((pair[2], place, int(rows[pair[0]]), int(rows[pair[1]])))
    kept = sorted(found, key=lambda one: (-one[0], one[1]))[:most]
    counts = {
        **known["counts"],
        **fusion,
        "without_pair": len(asked) - len(found),
        "left_out": len(found) - len(kept),
        "pairs": len(kept),
        "responses": len(texts),
        "cut_responses": int((~finished).sum()),
        "empty_responses": int((finished & blank).sum()),
    }
    if not kept:
        raise UserError(
            f"no fused prompt has a response that is better than another in every value: of {counts['prompts']} "
            f"prompts {counts['single_reward']} admit some values only, {len(asked)} of them were fused, and of their "
            f"{len(texts)} responses {counts['cut_responses']} were cut off by the length limit and "
            f"{counts['empty_responses']} are empty; mine more prompts, or more rollouts."
        )
    _save_pairs(work, [asked[place]["messages"] for _, place, _, _ in kept], kept, texts, table, values)
    kappa = _ordered(known["thresholds"], values)
    content = {
        "rollouts": rollouts,
        "thresholds": known["thresholds"],
        "counts": counts,
        "profile": [
            *known["profile"],
            *_profile(AGAIN, again, kappa, values),
            *_profile(EXPANDED, table, kappa, values),
        ],
        "distribution": _distribution(np.load(mined.path / "scores.npy"), table, values),
    }
    (work.out / "expansion.json").write_text(json.dumps(content), encoding="utf-8")
    told = _told(counts, ("without_pair", "left_out", "cut_responses", "empty_responses"))
    work.progress.say(f"    {len(kept)} pairs of {len(asked)} fused prompts" + (f" ({told})" if told else ""))


def _save_prompts(work: Work, prompts: Sequence[HeldOutPrompt], rollouts: int, more: Mapping[str, Any]) -> None:
    """Write each prompt once per rollout, with ids and so with draws of their own."""
    listed = [{**prompt, "id": f"{prompt['id']}#{number}"} for prompt in prompts for number in range(rollouts)]
    (work.out / "prompts.json").write_text(json.dumps({"prompts": listed, **more}), encoding="utf-8")


def _rollouts(prompts: Artifact, scores: Scores, rollouts: int) -> tuple[list[HeldOutPrompt], Table]:
    """Return the P prompts, each once, and the (P, R, n) rewards of one policy's rollouts."""
    listed = load_prompts(prompts)[::rollouts]
    asked: list[HeldOutPrompt] = [{**prompt, "id": prompt["id"].rpartition("#")[0]} for prompt in listed]
    (table,) = answer_scores(scores, prompts, own=False).values()
    return asked, table.reshape(len(asked), rollouts, len(scores))


def _sigma(table: Table, values: Sequence[str]) -> Table:
    """Return σ_j over all responses of a (P, R, n) table."""
    items = [str(place) for place in range(len(table))]
    return RewardTable(items, tuple(map(str, range(table.shape[1]))), tuple(values), table, "mined prompts").sigma()


def _ordered(thresholds: Mapping[str, float], values: Sequence[str]) -> Table:
    for name in thresholds:
        if name not in values:
            raise UserError(
                f"there is a threshold of '{name}', which is no value of the run{did_you_mean(name, values)}"
            )
    for value in values:
        if value not in thresholds:
            raise UserError(f"the thresholds lack one of '{value}'; give each value its own, or none any.")
    return np.array([thresholds[value] for value in values], dtype=np.float64)


def _profile(name: str, table: Table, kappa: Table, values: Sequence[str]) -> list[dict[str, Any]]:
    """Return pass@N for N = 1 … R of one kind of prompts, per value and jointly, with Wilson intervals.

    A prompt counts by its own pass@N, which varies no more than the trial that a Wilson interval takes it for.
    """
    size, rollouts = table.shape[:2]
    counts = range(1, rollouts + 1)
    successes = pass_at_n(table, kappa, counts).sum(axis=1).clip(0, size)
    rows = []
    for place, value in enumerate((*values, JOINT)):
        for count, total in zip(counts, successes[:, place].tolist(), strict=True):
            share = wilson_interval(total, size)
            ends = {"pass": share.value, "low": share.low, "high": share.high}
            rows.append({"prompts": name, "value": value, "n": count, **ends, "size": size})
    return rows


def _distribution(before: Table, after: Table, values: Sequence[str]) -> list[dict[str, Any]]:
    """Return the histogram of each reward over the rollouts, before and after fusion, on the same bins."""
    rows = []
    for place, value in enumerate(values):
        sides = {SINGLE: before[:, :, place].ravel(), EXPANDED: after[:, :, place].ravel()}
        edges = np.histogram_bin_edges(np.concatenate(list(sides.values())), bins=BINS)
        for name, rewards in sides.items():
            shares = np.histogram(rewards, edges)[0] / len(rewards)
            for low, high, share in zip(edges[:-1].tolist(), edges[1:].tolist(), shares.tolist(), strict=True):
                rows.append({"prompts": name, "value": value, "low": low, "high": high, "share": share})
    return rows


def _save_pairs(
    work: Work,
    prompts: Sequence[Messages],
    kept: Sequence[tuple[float, int, int, int]],
    texts: Sequence[str],
    table: Table,
    values: Sequence[str],
) -> None:
    """Write the pairs, largest margin first, with their rewards, as the training part of `EXPANDED`."""
    rollouts = table.shape[1]
    sides = [[(place, row[side]) for _, place, *row in kept] for side in range(2)]
    chosen, rejected = (
        single_turns(pa.array([texts[place * rollouts + row] for place, row in side]), "assistant") for side in sides
    )
    rewards = {
        value: (
            np.array([table[place, row, column] for place, row in sides[0]]),
            np.array([table[place, row, column] for place, row in sides[1]]),
        )
        for column, value in enumerate(values)
    }
    rows = np.arange(1, len(kept) + 1)
    pairs = Pairs.from_columns(pa.array(prompts, MESSAGES), chosen, rejected, EXPANDED, rows, rewards)
    folder = work.out / EXPANDED
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        (pairs if part == "train" else pairs.take([])).save(folder / f"{part}.parquet")


def _told(counts: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names if counts[name])
