"""Held-out text: documents from files, data sets, or the dialogues that a run kept from its base's pretraining."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valuesoup.data import Messages, render
from valuesoup.data.sources import open_source
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import open_tokenizer
from valuesoup.pipeline.run import Finished
from valuesoup.store import Node, fingerprint

COLUMN = "text"
"""Where rows have their text."""
HELD_OUT = "held-out dialogues"
"""What the default texts are called."""
_BLANK = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Texts:
    """Documents on which perplexity is measured.

    Attributes:
        name: The file or data set, or `HELD_OUT`.
        documents: Distinct ones, none of them empty.
        empty: Documents left out because they hold nothing but white space.
        repeated: Documents left out because they occurred before.
    """

    name: str
    documents: Sequence[str]
    empty: int = 0
    repeated: int = 0

    @property
    def key(self) -> str:
        """16 hex digits of the content, whatever file it is in."""
        return fingerprint(list(self.documents))


def read_texts(source: str | Path, split: str = "test", limit: int | None = None) -> Texts:
    """Read documents.

    Args:
        source: A ``.txt`` file, whose documents are separated by blank lines; or what `open_source` takes (a file of
            kind jsonl, json, csv or parquet, a folder of such, a hub id), with a column ``text``, a document per row.
        split: Of a folder or hub data set; a file has none.
        limit: At most the first so many rows, or documents of a ``.txt`` file.

    Raises:
        UserError: There is no such source, it cannot be read, a row has no text (file and row), or nothing is left.
    """
    path = Path(source)
    if path.suffix == ".txt":
        found = _paragraphs(path)[:limit]
    else:
        found = [
            text for block in open_source(source, split=split, limit=limit) for text in block.texts(COLUMN).to_pylist()
        ]
    return _cleaned(str(source), found)


def held_out_texts(finished: Finished, limit: int | None = None) -> Texts:
    """Return the dialogues of the test pairs' prompts, from which nothing of a run was trained, its base included.

    Pretraining leaves out whatever begins as a held-out prompt does. Each prompt gives one document: with the chosen
    answer and the rejected one by turns, so that neither kind of answer, nor a prompt, counts twice.

    Raises:
        UserError: The base was not pretrained in this run, so that no text is known to be new to it.
    """
    if not isinstance(finished.plan.base, Node):
        raise UserError(
            f"the base of the run in {finished.folder} was trained elsewhere, so no text is known to be new to it; "
            "give held-out text with --texts FILE, or a --command."
        )
    split = finished.artifacts[finished.plan.split.key]
    tokenizer = open_tokenizer(finished.artifacts[finished.plan.base.key])
    dialogues: dict[str, Messages] = {}
    for value in finished.plan.config.values:
        pairs = load_part(split, value, "test")
        for identity, pair in zip(pairs.prompt_ids, pairs, strict=True):
            side = pair.rejected if len(dialogues) % 2 else pair.chosen
            dialogues.setdefault(identity, [*pair.prompt, *side])
    texts = [render(messages, tokenizer) for messages in dialogues.values()]
    return _cleaned(HELD_OUT, texts[:limit])


def _paragraphs(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as such.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give a file of text, or a data set.") from None
    return _BLANK.split(text.strip())


def _cleaned(name: str, texts: Sequence[str]) -> Texts:
    full = [text for text in texts if text.strip()]
    distinct = list(dict.fromkeys(full))
    if not distinct:
        raise UserError(f"{name} holds no text; give documents that are not empty.")
    return Texts(name, distinct, len(texts) - len(full), len(full) - len(distinct))
