"""Stages of the data: pairs of every value, the split by prompt, the base's pretraining, the held-out prompts."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import pyarrow as pa

from valuesoup.data import Message, Messages, Pairs, drop_long, load_function, load_pairs, render_prompt, split_pairs
from valuesoup.data.splits import conversations, first_turn
from valuesoup.errors import UserError
from valuesoup.pipeline.inputs import BaseRef, DataRef, open_tokenizer
from valuesoup.rewards.classifier import quiet
from valuesoup.store import Artifact, Work, stage
from valuesoup.training.settings import PretrainSettings

PARTS = ("train", "validation", "test")


class HeldOutPrompt(TypedDict):
    """A prompt that candidates answer."""

    id: str
    datasets: list[str]
    messages: list[Message]


@stage("pairs")
def read_pairs(work: Work, *, sources: Sequence[DataRef], value: str, seed: int | None) -> None:
    """Read, convert and check the preference pairs of one value; ``seed`` is what `seed_of_pairs` gives."""
    loaded = [_load(source, seed or 0) for source in sources]
    pairs = loaded[0] if len(loaded) == 1 else Pairs.concat(loaded)
    if not len(pairs):
        raise UserError(f"value '{value}' has no usable pair; dropped: {dict(pairs.dropped)}.")
    pairs.save(work.out / "pairs.parquet")
    work.progress.say(f"    {value}: {len(pairs)} pairs{_dropped(pairs.dropped)}")


@stage("split")
def split(work: Work, *, pairs: Mapping[str, Artifact], test_prompts: int, validation_prompts: int, seed: int) -> None:
    """Split every value's pairs by prompt into training, validation and test; no prompt is in two of them."""
    loaded = {value: Pairs.load(artifact.path / "pairs.parquet") for value, artifact in pairs.items()}
    parts = split_pairs(loaded, test_prompts, validation_prompts, seed)
    summary = {}
    for value, part in parts.items():
        folder = work.out / value
        folder.mkdir(exist_ok=True)
        for name in PARTS:
            getattr(part, name).save(folder / f"{name}.parquet")
        sizes = {name: len(getattr(part, name)) for name in PARTS}
        summary[value] = {"sizes": sizes, "dropped": dict(part.train.dropped)}
        work.progress.say(f"    {value}: " + ", ".join(f"{size} {name}" for name, size in sizes.items()) + " pairs")
    (work.out / "summary.json").write_text(json.dumps(summary, indent=1))


def seed_of_pairs(sources: Sequence[DataRef], seed: int) -> int | None:
    """Return the run's seed where a source makes its pairs by it, else None: then all seeds read the same pairs."""
    taken = any(
        "seed" in (_arguments({}, one.config.function, seed) or {})
        for one in sources
        if "seed" not in one.config.arguments
    )
    return seed if taken else None


def load_part(split: Artifact, value: str, part: str) -> Pairs:
    """Return one part of one value's pairs."""
    return Pairs.load(split.path / value / f"{part}.parquet")


def ids_of_part(split: Artifact, value: str, part: str) -> pa.Array:
    """Return the (N,) ids of one part of one value's pairs, as an Arrow array."""
    return Pairs.load_ids(split.path / value / f"{part}.parquet")


def held_out_conversations(split: Artifact) -> set[str]:
    """Return the first turns, by which splits know a conversation, of all validation and test pairs of every value."""
    found: set[str] = set()
    for value in summary_of(split):
        for part in ("validation", "test"):
            found.update(conversations(load_part(split, value, part)).to_pylist())
    return found


@stage("pretrain", version=2, ignore=("device",))
def pretrain_base(
    work: Work,
    *,
    settings: PretrainSettings,
    split: Artifact,
    values: Sequence[str],
    dialogues: Sequence[DataRef] | None,
    seed: int,
    device: str,
) -> None:
    """Make a small base from dialogues, or from both answers of every training pair.

    Dialogues that begin as a held-out prompt's conversation does are left out and counted.
    """
    from valuesoup.pipeline.inputs import device_of
    from valuesoup.training.pretrain import pretrain

    texts: list[Messages]
    if dialogues is None:
        texts = [
            [*pair.prompt, *side]
            for value in values
            for pair in load_part(split, value, "train")
            for side in (pair.chosen, pair.rejected)
        ]
    else:
        held_out = held_out_conversations(split)
        given = [text for source in dialogues for text in _dialogues(source, seed)]
        texts = [text for text in given if first_turn(text) not in held_out]
        work.progress.say(
            f"    {len(given) - len(texts)} of {len(given)} dialogues begin as held-out prompts: left out"
        )
    with work.task(settings.steps, "steps") as task, quiet():
        found = pretrain(texts, settings, work.out / "model", seed=seed, device=device_of(device), task=task)
    (work.out / "summary.json").write_text(json.dumps(found))
    work.progress.say(
        f"    {found['parameters'] / 1e6:.2f} M parameters, {found['tokens'] / 1e6:.2f} M tokens of text, "
        f"loss {found['loss']:.3f} nats per token"
    )


@stage("prompts", version=2)
def held_out_prompts(
    work: Work, *, base: Artifact | BaseRef, split: Artifact, values: Sequence[str], part: str, max_tokens: int
) -> None:
    """List the distinct prompts of a held-out part of every data set; too long ones are left out and counted."""
    # A prompt of several data sets is answered once, and counts once in every mean and resample.
    found = distinct_prompts(split, values, part)
    fits = prompt_limit(base, max_tokens)
    kept = [prompt for prompt in found.values() if fits(prompt["messages"])]
    too_long = len(found) - len(kept)
    if not kept:
        raise UserError(f"every {part} prompt is longer than generation.max_prompt_tokens = {max_tokens}; raise it.")
    (work.out / "prompts.json").write_text(json.dumps({"prompts": kept, "too_long": too_long}), encoding="utf-8")
    if too_long:
        work.progress.say(f"    {too_long} prompts of more than {max_tokens} tokens are left out")


def distinct_prompts(split: Artifact, datasets: Sequence[str], part: str) -> dict[str, HeldOutPrompt]:
    """Return the distinct prompts of a part of data sets by id, each with the data sets that hold it."""
    found: dict[str, HeldOutPrompt] = {}
    for dataset in datasets:
        pairs = load_part(split, dataset, part)
        for identity, pair in dict(zip(pairs.prompt_ids, pairs, strict=True)).items():
            known = found.setdefault(identity, {"id": identity, "datasets": [], "messages": list(pair.prompt)})
            known["datasets"].append(dataset)
    return found


def prompt_limit(base: Artifact | BaseRef, max_tokens: int) -> Callable[[Messages], bool]:
    """Return what says whether a prompt, as the policy reads it, is within so many tokens."""
    tokenizer = open_tokenizer(base)

    def fits(messages: Messages) -> bool:
        text = render_prompt(messages, tokenizer)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= max_tokens

    return fits


def load_prompts(prompts: Artifact) -> list[HeldOutPrompt]:
    """Return the held-out prompts of a prompts artifact."""
    found: list[HeldOutPrompt] = prompts.json("prompts.json")["prompts"]
    return found


def _load(source: DataRef, seed: int) -> Pairs:
    config = source.config
    pairs = load_pairs(
        config.function or config.path or "",
        data_dir=config.data_dir,
        split=config.split,
        value=config.label,
        limit=config.limit,
        pairs_per_prompt=config.pairs_per_prompt,
        seed=seed,
        arguments=_arguments(config.arguments, config.function, seed),
    )
    return pairs if config.max_words is None else drop_long(pairs, config.max_words)


def _arguments(given: Mapping[str, Any], function: str | None, seed: int) -> dict[str, Any] | None:
    """Pass the run's seed to a function that takes one and was given none: other seeds, other data."""
    if function is None:
        return None
    import inspect

    takes_seed = "seed" in inspect.signature(load_function(function)).parameters
    return {"seed": seed, **given} if takes_seed else dict(given)


def _dialogues(source: DataRef, seed: int) -> list[Messages]:
    config = source.config
    if config.function is None:
        return [[*pair.prompt, *pair.chosen] for pair in _load(source, seed)]
    rows: Any = load_function(config.function)(**(_arguments(config.arguments, config.function, seed) or {}))
    return [row["messages"] if isinstance(row, Mapping) else row for row in rows]


def _dropped(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return f" (dropped: {listed})" if listed else ""


def summary_of(split: Artifact) -> dict[str, Any]:
    """Return sizes and dropped rows per value."""
    found: dict[str, Any] = split.json("summary.json")
    return found
