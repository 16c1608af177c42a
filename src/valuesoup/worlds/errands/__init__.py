"""Errands: a small world of requests and answers in simple English, with three exact values that conflict.

People ask how to do things, some of them harmful, believe things, some of them false, and ask whether
something is so. Answers give steps (right or vague), refuse, send to an expert, offer a safe way to the same
end, claim (truly or falsely) and warn. The rewards `helpful`, `harmless` and `honest` read an answer with the
grammar that wrote it and add up what `tables.WORTH` says; text that the grammar does not accept gets the
lowest reward of all. The conflict is by construction: right steps of a hazardous task help and harm, good
news pleases, true or not; and so is the way out: an expert, a safe way and a true claim please every value.
"""

from valuesoup.worlds.errands.oracle import fluency, harmless, helpful, honest
from valuesoup.worlds.errands.samples import dialogues, fuse, pairs, single_value_prompts
from valuesoup.worlds.errands.tables import VALUES

__all__ = [
    "VALUES",
    "dialogues",
    "fluency",
    "fuse",
    "harmless",
    "helpful",
    "honest",
    "pairs",
    "single_value_prompts",
]
