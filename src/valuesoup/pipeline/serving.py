"""Stage in which a server writes the answers to held-out prompts, once it is shown to answer as the policies do."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.config import GenerationConfig
from valuesoup.endpoint import (
    BASE_NAME,
    Completion,
    Continuation,
    GenerationServer,
    complete,
    read_continuations,
    served_models,
)
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.answering import SHARD_ROWS, Asking, open_soup, save_shard
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.store import Artifact, Work, stage

if TYPE_CHECKING:
    from valuesoup.pipeline.plan import Plan, Stack

ANSWERED = ".answers.jsonl"
"""A server's answers as they come; not part of the artifact."""
PARITY = "parity.json"


def plain_name(label: str) -> str:
    """Return a name of letters, digits, ``.``, ``_`` and ``-`` alone, for folders and servers."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "policy"


def candidate_names(stacks: Sequence["Stack"]) -> list[list[str]]:
    """Return a name for each candidate of each stack, e.g. ``vc-soup-helpful-0.6-harmless-0.4``; each once.

    A candidate that weighs nothing is the base, under the name ``base``. One that several methods offer has the name
    that it has in the first.
    """
    taken = {BASE_NAME}
    found = []
    for stack in stacks:
        labels: dict[int, str] = {}
        for method, places in stack.methods.items():
            for place, candidate in zip(places, stack.offered[method], strict=True):
                labels.setdefault(place, f"{method}/{candidate.label}")
        names = []
        for place, row in enumerate(stack.candidates):
            name = plain = plain_name(labels[place]) if any(row) else BASE_NAME
            count = 1
            while any(row) and name in taken:
                count += 1
                name = f"{plain}-{count}"
            taken.add(name)
            names.append(name)
        found.append(names)
    return found


@stage("served", ignore=("names", "trained", "server", "batch_rows", "device"))
def serve_answers(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    names: Sequence[str],
    trained: Sequence[Artifact],
    chosen: Artifact | None,
    prompts: Artifact,
    generation: GenerationConfig,
    server: GenerationServer,
    extra: Mapping[str, Any],
    seed: int,
    batch_rows: int,
    device: str,
) -> None:
    """Let a server's models answer the prompts as :func:`valuesoup.pipeline.answering.answer_prompts` lets candidates.

    The stage writes what that one writes, and ``parity.json``. Which server it was does not enter its key, because the
    check has shown that it answers as the policies do; that it was a server does.

    Args:
        work: Of the stage.
        base: The base.
        vectors: Of the stack.
        candidates: Rows of weights over the vectors.
        names: Of the candidates, see :func:`candidate_names`.
        trained: The vectors of all stacks, which must be there first: a server is given every candidate at once.
        chosen: Only the candidates listed there answer, where it is given.
        prompts: Held-out prompts.
        generation: How to answer.
        server: Who answers.
        extra: Further fields of the requests; ``server.extra``, which answers may depend on.
        seed: Of the draws; all candidates meet the same chance as far as the server lets them.
        batch_rows: Rows in a local forward pass of the check.
        device: Where to compute it.
    """
    from valuesoup.data import render_prompt
    from valuesoup.pipeline.parity import Parity, Policy, Wording
    from valuesoup.soup.generation import Answer

    soup = open_soup(base, vectors, device)
    places = list(range(len(candidates))) if chosen is None else chosen.json("chosen.json")["test"]
    asked = load_prompts(prompts)
    asking = Asking(soup, candidates, asked, generation, seed)
    wording = Wording(soup.tokenizer)
    sent = [
        wording.prompt(render_prompt(prompt["messages"], soup.tokenizer), tokens)
        for prompt, tokens in zip(asked, asking.tokens, strict=True)
    ]
    # One candidate after the other: a server keeps few adapters at hand at a time.
    queue = [(place, number) for place in places for number in range(len(asked))]
    requests = [
        Completion(
            server.model_of(names[place]),
            sent[number],
            generation.max_new_tokens,
            generation.temperature,
            asking.seeds[number] % 2**31,
        )
        for place, number in queue
    ]
    answered = work.out / ANSWERED
    kept = read_continuations(answered)
    if any(request.key(server) not in kept for request in requests):
        policies = [Policy(server.model_of(names[place]), tuple(candidates[place])) for place in places]
        at_base = Policy(server.model_of(BASE_NAME), (0.0,) * len(vectors))
        others = [policy for policy in policies if any(policy.weights)]
        _find_models(server, [at_base.model, *(policy.model for policy in others)], sent[0], work.out)
        pairs = list(zip(sent, asking.tokens, strict=True))
        parity = Parity(soup, server, generation, pairs, wording, batch_rows)
        record = parity.check(at_base, others, work.out / ".parity.jsonl")
        (work.out / PARITY).write_text(json.dumps(record, indent=1, allow_nan=False))
        work.progress.say(f"    {server.url} answers as the policies do, by {record['prompts']} prompts")
    with work.task(len(queue), "answers") as task:
        replies = complete(server, requests, answered, task.advance)
    _refuse_unanswered(server, requests, replies)
    read = [wording.answer(reply.text or "") for reply in replies]
    for shard, start in enumerate(range(0, len(queue), SHARD_ROWS)):
        part = slice(start, start + SHARD_ROWS)
        answers = [Answer(tokens, reply.finished) for (_, tokens), reply in zip(read[part], replies[part], strict=True)]
        table = asking.table(queue[part], answers, [text for text, _ in read[part]])
        save_shard(table, work.out / f"shard-{shard:05d}.parquet")


def generator(plan: "Plan", found: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what ``results.json`` says of who wrote the answers; nothing where the local generator did.

    Args:
        plan: Of the run.
        found: Every artifact by its node's key.
    """
    server = plan.config.generation.endpoint
    if server is None:
        return {}
    checks = [
        {"methods": list(stack.methods), "part": part, **found[measured.answers.key].json(PARITY)}
        for stack, evaluated in zip(plan.stacks, plan.evaluated, strict=True)
        for part, measured in (("validation", evaluated.validation), ("test", evaluated.test))
    ]
    return {"generator": {"backend": "endpoint", "parity": checks}}


def _find_models(server: GenerationServer, models: Sequence[str], prompt: str | tuple[int, ...], out: Path) -> None:
    """Stop where the server lacks a model. One that it does not list is asked for a token: some load on demand."""
    run = out.parent.parent  # the stage writes into the store's folder in the run's
    export = f"valuesoup export {run} --all --to DIR"
    advice = f"write them with `{export}`, start DIR/serve.sh, and run the same command again"
    listed = served_models(server)
    if listed is None:
        raise RunError(f"nobody answers at {server.url}, where the candidates are to be served; {advice}.")
    unlisted = [model for model in models if model not in listed]
    once = server.model_copy(update={"retries": 0})
    scratch = out / ".found.jsonl"
    for place, model in enumerate(unlisted):
        try:
            (reply,) = complete(once, [Completion(model, prompt, 1, 0.0, 0)], scratch)
            failure = reply.failure
        except (RunError, UserError) as error:
            failure = str(error)
        scratch.unlink(missing_ok=True)
        if failure:
            more = f" ({len(unlisted) - place - 1} more are not listed either)" if place + 1 < len(unlisted) else ""
            raise RunError(f"the server {server.url} has no model '{model}'{more}; {advice}.")


def _refuse_unanswered(
    server: GenerationServer, requests: Sequence[Completion], replies: Sequence[Continuation]
) -> None:
    missing = [place for place, reply in enumerate(replies) if reply.text is None]
    if missing:
        first = missing[0]
        raise RunError(
            f"the server {server.url} gave no answer to {len(missing)} of {len(replies)} prompts, the first as "
            f"'{requests[first].model}': {replies[first].failure}; what it answered is kept, and the same command goes "
            "on from there."
        )
