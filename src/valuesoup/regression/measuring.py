"""The perplexity of some policies on one text: what is missing is measured, shard by shard, and kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from valuesoup.errors import RunError, UserError
from valuesoup.evaluation.statistics import resamples
from valuesoup.pipeline.inputs import device_of, open_tokenizer
from valuesoup.pipeline.run import Finished
from valuesoup.regression.kept import Content, take_subjects, write_kept
from valuesoup.regression.ratios import perplexity
from valuesoup.regression.subjects import Subject, open_subjects
from valuesoup.regression.texts import Texts
from valuesoup.store import Node, Progress, fingerprint

SHARD = 256
"""Documents between two writes: an interruption costs at most these."""

Tokens = list[list[int]]


def measure(
    finished: Finished, content: Content, texts: Texts, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    """Measure policies on a text where that is not done, and write ``check.json``.

    Returns:
        The text's entry in ``content``.

    Raises:
        UserError: A document has no token.
        RunError: A log-probability is not a number.
    """
    from valuesoup.regression.perplexity import document_tokens

    base = finished.plan.base
    tokenizer = open_tokenizer(finished.artifacts[base.key] if isinstance(base, Node) else base)
    tokens = document_tokens(tokenizer, texts.documents)
    for document, own in zip(texts.documents, tokens, strict=True):
        if len(own) < 2:
            raise UserError(f"{texts.name}: the document {document[:40]!r} has no token of this base; leave it out.")
    entry = _entry(content, texts)
    take_subjects(entry, subjects)
    entry["tokens"] = sum(map(len, tokens)) - len(tokens)
    entry["bytes"] = sum(len(document.encode()) for document in texts.documents)
    unknown = tokenizer.unk_token_id
    # Some tokenizers call the end of sequence their unknown token; they have none in truth.
    known = unknown is None or unknown == tokenizer.eos_token_id
    entry["unknown"] = 0 if known else sum(own.count(unknown) for own in tokens)
    policies = list({one.key: one for one in subjects}.values())
    if min(len(entry["nats"].setdefault(one.key, [])) for one in policies) < len(tokens):
        _measure(finished, content, entry, policies, tokens, progress)
    _figure(finished, entry, texts, tokens)
    write_kept(finished, content)
    return entry


def _entry(content: Content, texts: Texts) -> dict[str, Any]:
    """Return the text's entry; that of a beginning of it is continued, another one of its name replaced."""
    entries: list[dict[str, Any]] = content["texts"]

    def begins(entry: dict[str, Any]) -> bool:
        count = entry["documents"]
        return bool(count < len(texts.documents) and entry["key"] == fingerprint(list(texts.documents[:count])))

    found = next((entry for entry in entries if entry["key"] == texts.key or begins(entry)), None)
    if found is None:
        found = {"policies": [], "nats": {}}
    found |= {"name": texts.name, "key": texts.key, "documents": len(texts.documents)}
    found |= {"empty": texts.empty, "repeated": texts.repeated}
    for row in found["policies"]:
        row["perplexity"] = None  # of as many documents as there were
    entries[:] = [*(entry for entry in entries if entry is not found and entry["name"] != texts.name), found]
    return found


def _measure(
    finished: Finished,
    content: Content,
    entry: dict[str, Any],
    policies: Sequence[Subject],
    tokens: Tokens,
    progress: Progress,
) -> None:
    """Fill in the nats of every document under every policy."""
    from valuesoup.regression.perplexity import context_of, document_nats, windows

    nats: dict[str, list[float]] = entry["nats"]
    soup, rows, _ = open_subjects(finished, policies, device_of(finished.plan.config.base.device))
    context = context_of(soup)
    counts = [len(windows(place, own, context)) for place, own in enumerate(tokens)]
    entry |= {"window": context, "stride": context // 2, "cut": sum(count > 1 for count in counts)}
    total = sum(sum(counts[len(nats[one.key]) :]) for one in policies)
    with progress.task(f"perplexity on {entry['name']}", total, "windows") as task:
        while (start := min(len(nats[one.key]) for one in policies)) < len(tokens):
            # Policies that were measured before are further on; the others catch up with them first.
            todo = [place for place, one in enumerate(policies) if len(nats[one.key]) == start]
            ahead = [len(nats[one.key]) for one in policies if len(nats[one.key]) > start]
            end = min(start + SHARD, len(tokens), *ahead)
            found = document_nats(soup, rows[todo], tokens[start:end], on_done=task.advance)
            for place, row in zip(todo, found, strict=True):
                if not np.isfinite(row).all():
                    raise RunError(
                        f"the perplexity of {policies[place].policy.title} on {entry['name']} is not a number: its "
                        f"weights overflow in the base's dtype; set base.dtype to float32 or bfloat16."
                    )
                nats[policies[place].key] += row.tolist()
            write_kept(finished, content)


def _figure(finished: Finished, entry: dict[str, Any], texts: Texts, tokens: Tokens) -> None:
    """Work out the figures of every policy that is measured on every document."""
    config = finished.plan.config
    draws = resamples(len(tokens), config.evaluation.resamples, config.seed)
    lengths = np.array([len(own) - 1 for own in tokens])
    sizes = np.array([len(document.encode()) for document in texts.documents])
    nats = entry["nats"]
    base = nats[entry["policies"][0]["key"]]
    for row in entry["policies"]:
        if len(nats.get(row["key"], ())) == len(tokens):
            found = perplexity(nats[row["key"]], base, lengths, sizes, draws, config.evaluation.level)
            row |= {"perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}
            is_base = row is entry["policies"][0]
            row |= {"log_ratio": None if is_base else found.log_ratio._asdict()}
            row |= {"bits": None if is_base else found.bits._asdict()}
