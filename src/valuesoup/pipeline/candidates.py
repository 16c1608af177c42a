"""Stages of the choice: the frontier on validation, and what rewards do not see of the answers on test."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from valuesoup.pipeline.answering import load_answers, open_soup, prompt_tokens
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.pipeline.rating import answer_scores
from valuesoup.pipeline.rounds import pareto_places
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, Work, stage


@stage("frontier", version=2)
def choose_candidates(
    work: Work,
    *,
    scores: Mapping[str, Artifact],
    fluency: Artifact | None,
    bound: float,
    prompts: Artifact,
    own: bool,
    groups: Mapping[str, Sequence[int]],
    always: Sequence[int],
) -> None:
    """Take the Pareto set of each method on validation (Eq. 5, 19); those candidates are scored again on test.

    A candidate whose fluency is below the bound is on no frontier: broken text must not win by a reward model that
    never saw any. It is scored on test all the same where its rewards alone would have put it there.

    Args:
        work: Of the stage.
        scores: Of the answers, per value.
        fluency: Of the answers, or None where it is not measured.
        bound: Least fluency.
        prompts: What was answered.
        own: Measure value i on its own prompts.
        groups: Places of each method's candidates.
        always: Places that are scored on test whatever comes out.
    """
    means = {place: score.mean(axis=0) for place, score in answer_scores(scores, prompts, own=own).items()}
    broken: set[int] = set()
    if fluency is not None:
        table = RewardTable.load(fluency.path / "scores.parquet")
        shares = table.scores[:, :, 0].mean(axis=0)
        broken = {int(side) for side, share in zip(table.sides, shares, strict=True) if share < bound}
    test = set(always)
    frontier = {}
    for name, places in groups.items():
        frontier[name] = pareto_places(means, [place for place in places if place not in broken])
        test.update(frontier[name], pareto_places(means, places))
    (work.out / "chosen.json").write_text(
        json.dumps({"frontier": frontier, "test": sorted(test), "broken": sorted(broken)})
    )


@stage("quality", version=2, ignore=("batch_rows", "device"))
def answer_quality(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    answers: Artifact,
    prompts: Artifact,
    fluency: Artifact | None,
    batch_rows: int,
    device: str,
) -> None:
    """Measure what a reward does not see, per candidate: the signs of a policy that has learnt to please the reward.

    Those are fluency, KL from the base, perplexity under the base, length, truncation, repetition within an answer and
    variety over answers. KL(π_λ ‖ π_0) of an answer is the sum over its tokens of the exact divergence of the
    next-token distributions, in nats, averaged over answers.
    """
    from valuesoup.evaluation.divergence import answer_divergence, perplexity
    from valuesoup.evaluation.text_signs import distinct, repetition

    soup = open_soup(base, vectors, device)
    table = load_answers(answers)
    tokens = [prompt_tokens(soup, prompt) for prompt in load_prompts(prompts)]
    places = table["candidate"].to_numpy()
    written: list[list[int]] = table["tokens"].to_pylist()
    finished = table["finished"].to_numpy(zero_copy_only=False)
    with work.task(len(written), "answers") as task:
        divergence = answer_divergence(
            soup,
            [tokens[number] for number in table["prompt"].to_pylist()],
            written,
            np.array([candidates[place] for place in places], dtype=np.float32).reshape(len(places), -1),
            batch_rows=batch_rows,
            on_done=task.advance,
        )
    lengths = np.array([len(ids) for ids in written])
    fluent = None if fluency is None else RewardTable.load(fluency.path / "scores.parquet")
    found = {}
    for place in np.unique(places):
        mine = places == place
        texts = [written[row] for row in np.flatnonzero(mine)]
        found[str(place)] = {
            "fluency": None if fluent is None else float(fluent.scores[:, fluent.sides.index(str(place)), 0].mean()),
            "kl": float(divergence.kl[mine].mean()),
            "perplexity": perplexity(divergence.base_log_probs[mine], lengths[mine]),
            "tokens": float(lengths[mine].mean()),
            "truncated": float(1.0 - finished[mine].mean()),
            "repetition": repetition(texts),
            "distinct_1": distinct(texts, 1),
            "distinct_2": distinct(texts, 2),
        }
    (work.out / "quality.json").write_text(json.dumps(found, indent=1))
