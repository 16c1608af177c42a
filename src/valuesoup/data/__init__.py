"""Preference pairs: sources, formats, templates, splits and checks."""

from valuesoup.data.checks import check, drop_long, drop_shared_prompts
from valuesoup.data.load import load_pairs
from valuesoup.data.pairs import Message, Messages, Pair, Pairs
from valuesoup.data.sources import load_function, source_hash
from valuesoup.data.splits import Split, split_pairs
from valuesoup.data.templates import Tokenizer, render, render_answer, render_prompt, template_id
from valuesoup.data.transcripts import parse_transcript, render_transcript

__all__ = [
    "Message",
    "Messages",
    "Pair",
    "Pairs",
    "Split",
    "Tokenizer",
    "check",
    "drop_long",
    "drop_shared_prompts",
    "load_function",
    "load_pairs",
    "parse_transcript",
    "render",
    "render_answer",
    "render_prompt",
    "render_transcript",
    "source_hash",
    "split_pairs",
    "template_id",
]
