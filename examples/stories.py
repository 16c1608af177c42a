"""Story openings continued by the base itself, and two rewards that pull apart: vivid and spoken.

`stories.yaml` beside it names these functions; ``valuesoup run`` finds them from the repository root.
"""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import product

MODEL = "../shared/models/stories260K"
NAMES = ("Lily", "Tom", "Anna", "Ben", "Mia", "Max", "Sara", "Tim", "Lucy", "Sam")
PLACES = ("park", "garden", "forest", "kitchen", "river", "beach", "school", "farm")
THINGS = ("ball", "kite", "cake", "doll", "box", "boat", "bird", "flower", "hat", "puppy")
OPENINGS = (
    "Once upon a time, there was a child named {name} who played in the {place} and found a {thing}.",
    "One day, {name} took a {thing} to the {place} and met a friend there.",
)
DESCRIBING = """
    beautiful big black blue bright brown clean cold colorful cozy dark deep dirty fast fluffy gray
    green hard heavy high hot huge little long loud new old orange pink pretty purple quiet red
    round shiny silver small smooth soft strong sweet tall thin tiny warm wet white yellow
"""


def openings(seed: int) -> list[str]:
    """Return all 1600 different openings in an order that the seed decides."""
    choices = product(OPENINGS, NAMES, PLACES, THINGS)
    texts = [opening.format(name=name, place=place, thing=thing) for opening, name, place, thing in choices]
    random.Random(seed).shuffle(texts)
    return texts


def pairs(value: str, size: int = 400, seed: int = 0, model: str = MODEL) -> Iterator[dict[str, object]]:
    """Yield TRL preference rows: the best and the worst of four continuations of an opening under one value.

    Args:
        value: ``vivid`` or ``spoken``; each has openings of its own.
        size: Openings, at most 800; those whose continuations all score the same give no row.
        seed: Of the openings and the draws.
        model: Folder or hub id of the storyteller.
    """
    reward = {"vivid": vivid, "spoken": spoken}[value]
    texts = openings(seed)[value == "spoken" :: 2][:size]
    for opening, stories in zip(texts, continuations(texts, seed, model), strict=True):
        prompt = [{"role": "user", "content": opening}]
        scores = reward([prompt] * len(stories), stories)
        if max(scores) > min(scores):
            best, worst = (stories[scores.index(end)] for end in (max(scores), min(scores)))
            yield {"prompt": prompt, "chosen": _answer(best), "rejected": _answer(worst)}


def continuations(texts: Sequence[str], seed: int, model: str, each: int = 4) -> list[list[str]]:
    """Let the model go on ``each`` times after each text, for about four sentences."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    teller = AutoModelForCausalLM.from_pretrained(model)
    written: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(texts), 50):
            batch = tokenizer(list(texts[start : start + 50]), return_tensors="pt", padding=True)
            ids = teller.generate(**batch, max_new_tokens=80, do_sample=True, top_k=0, num_return_sequences=each)
            written += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    whole = [_whole_sentences(story) for story in written]
    return [whole[start : start + each] for start in range(0, len(whole), each)]


def vivid(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    """Return how many different describing words each answer has."""
    return [float(len({*_words(answer)} & {*_words(DESCRIBING)})) for answer in answers]


def spoken(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    """Return how many words of each answer stand between quotation marks."""
    return [float(sum(len(_words(said)) for said in re.findall(r'"([^"]+)"', answer))) for answer in answers]


def fluency(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    """Return 1 where at most four in ten words repeat an earlier one (the base: two in ten), else 0."""
    return [float(len(set(_words(answer))) >= 0.6 * max(len(_words(answer)), 1)) for answer in answers]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _whole_sentences(story: str) -> str:
    """Cut after the last sentence that has an end, with the quotation mark that closes it."""
    ends = [found.end() for found in re.finditer(r'[.!?]+"?(?=\s|$)', story)]
    return story[: ends[-1]].strip() if ends else story.strip()


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
