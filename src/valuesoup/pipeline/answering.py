"""Stage in which candidates answer held-out prompts, many candidates in one batch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from valuesoup.config import GenerationConfig
from valuesoup.errors import UserError
from valuesoup.pipeline.data import HeldOutPrompt, load_prompts
from valuesoup.pipeline.inputs import BaseRef, open_base
from valuesoup.store import Artifact, Work, fingerprint, stage

if TYPE_CHECKING:
    from valuesoup.soup import Soup
    from valuesoup.soup.generation import Answer, Row

SHARD_ROWS = 512
"""Answers saved together: an interruption costs about two such shards, since one begins while the last ones of the
shard before are still being written."""
HASH = b"valuesoup"
"""Under this name a file of answers has the hash of its content."""


@stage("answers", version=2, ignore=("batch_rows", "device"))
def answer_prompts(
    work: Work,
    *,
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    candidates: Sequence[Sequence[float]],
    chosen: Artifact | None,
    prompts: Artifact,
    generation: GenerationConfig,
    seed: int,
    batch_rows: int,
    device: str,
) -> None:
    """Let candidates (rows of weights over the vectors) answer the prompts, many candidates in one batch.

    Only the candidates listed in ``chosen`` answer, where it is given. The draws of an answer depend on the seed and
    the prompt, so that all candidates meet the same chance.
    """
    from valuesoup.soup.generation import write
    from valuesoup.soup.in_place import composes

    soup = open_soup(base, vectors, device)
    places = list(range(len(candidates))) if chosen is None else chosen.json("chosen.json")["test"]
    asked = load_prompts(prompts)
    asking = Asking(soup, candidates, asked, generation, seed)
    by_length = sorted(range(len(asked)), key=lambda number: -len(asking.tokens[number]))
    compose = composes(soup, len(asked))  # decided for the whole job, whatever of it is done already
    if compose:
        queue = [(place, number) for place in places for number in by_length]
    else:
        queue = [(place, number) for number in by_length for place in places]
    shards = _Shards(work.out, queue, asking)
    with work.task(shards.count, "answers") as task:
        todo = shards.missing()
        task.advance(shards.count - len(todo))
        written = write(
            soup,
            [asking.row(*queue[place]) for place in todo],
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            batch_rows=batch_rows,
            compose=compose,
            on_shrink=lambda text: work.progress.say(f"    {text}"),
        )
        for place, answer in written:
            shards.put(todo[place], answer)
            task.advance()


class Asking:
    """Candidates and prompts as a soup takes them, and its answers as the table that stages write."""

    def __init__(
        self,
        soup: "Soup",
        candidates: Sequence[Sequence[float]],
        asked: Sequence[HeldOutPrompt],
        generation: GenerationConfig,
        seed: int,
    ) -> None:
        """Read the prompts; the draws of an answer depend on ``seed`` and its prompt alone.

        Raises:
            UserError: A prompt and the longest answer to it are longer than the base takes.
        """
        from valuesoup.soup import position_limit

        self.soup, self.candidates = soup, candidates
        self.tokens = [prompt_tokens(soup, prompt) for prompt in asked]
        self.seeds = [int(fingerprint([seed, prompt["id"]]), 16) for prompt in asked]
        longest, limit = max(map(len, self.tokens)) + generation.max_new_tokens, position_limit(soup.model.config)
        if longest > limit:
            raise UserError(
                f"the longest prompt and generation.max_new_tokens together are {longest} tokens, and the base takes "
                f"{limit}; lower generation.max_prompt_tokens or max_new_tokens."
            )

    def row(self, place: int, number: int) -> "Row":
        """Return what asks the candidate at ``place`` the prompt at ``number``."""
        from valuesoup.soup.generation import Row

        return Row(self.tokens[number], tuple(self.candidates[place]), self.seeds[number])

    def table(
        self, rows: Sequence[tuple[int, int]], answers: Sequence["Answer"], texts: Sequence[str] | None = None
    ) -> Any:
        """Return answers as an Arrow table; ``rows`` holds the places of their candidates and prompts.

        ``texts`` are the answers' own where they came as texts, and what their tokens spell by default.
        """
        tokenizer = self.soup.tokenizer
        assert tokenizer is not None
        texts = texts or [tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in answers]
        return pa.table(
            {
                "candidate": pa.array([place for place, _ in rows], pa.int32()),
                "prompt": pa.array([number for _, number in rows], pa.int32()),
                "text": texts,
                "tokens": pa.array([list(answer.tokens) for answer in answers], pa.list_(pa.int32())),
                "finished": [answer.finished for answer in answers],
            }
        )


class _Shards:
    """Answers on their way into files of ``SHARD_ROWS`` each; a file is written once it is whole."""

    def __init__(self, folder: Path, queue: Sequence[tuple[int, int]], asking: Asking) -> None:
        """Take the (candidate, prompt) pairs that shall be answered, in the order of the files."""
        self.folder = folder
        self.queue = queue
        self.count = len(queue)
        self.asking = asking
        self._parts: dict[int, dict[int, Answer]] = {}

    def missing(self) -> list[int]:
        """Return the places in the queue whose shard is not there yet."""
        whole = {shard for shard in range(-(-self.count // SHARD_ROWS)) if saved_shard(self._file(shard)) is not None}
        return [place for place in range(self.count) if place // SHARD_ROWS not in whole]

    def put(self, place: int, answer: "Answer") -> None:
        """Keep the answer to a place of the queue."""
        shard = place // SHARD_ROWS
        part = self._parts.setdefault(shard, {})
        part[place] = answer
        if len(part) == min(SHARD_ROWS, self.count - shard * SHARD_ROWS):
            self._save(shard, [part[place] for place in sorted(part)])
            del self._parts[shard]

    def _save(self, shard: int, answers: Sequence["Answer"]) -> None:
        table = self.asking.table(self.queue[shard * SHARD_ROWS :][: len(answers)], answers)
        save_shard(table, self._file(shard))

    def _file(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"


def open_soup(base: Artifact | BaseRef, vectors: Mapping[str, Artifact], device: str) -> "Soup":
    """Load the base with the vectors of a stack of adapters."""
    from valuesoup.soup import Soup, target_layers

    model, tokenizer = open_base(base, device)
    if not vectors:
        return Soup(model, tokenizer, layers=target_layers(model)).eval()
    adapters = {name: artifact.path / "adapter" for name, artifact in vectors.items()}
    return Soup.from_adapters(model, adapters, tokenizer)


def prompt_tokens(soup: "Soup", prompt: HeldOutPrompt) -> tuple[int, ...]:
    """Return the token ids after which the policy answers."""
    from valuesoup.data import render_prompt

    assert soup.tokenizer is not None
    text = render_prompt(prompt["messages"], soup.tokenizer)
    return tuple(soup.tokenizer(text, add_special_tokens=False)["input_ids"])


def save_shard(table: Any, path: Path) -> None:
    """Write a table of answers, whole or not at all, and in it its own hash, for :func:`saved_shard`."""
    temporary = path.with_name(".shard.tmp")
    told = {**(table.schema.metadata or {}), HASH: _digest(table)}
    pq.write_table(table.replace_schema_metadata(told), temporary, compression="zstd")
    temporary.replace(path)


def saved_shard(path: Path) -> Any | None:
    """Return the answers that an earlier attempt wrote; None where there are none, or not as it wrote them."""
    try:
        table = pq.read_table(path)
        return table if (table.schema.metadata or {}).get(HASH) == _digest(table) else None
    except (pa.ArrowException, OSError, ValueError, TypeError):  # a power cut left a part of it, or the disk changed it
        return None


def _digest(table: Any) -> bytes:
    told = {name.decode(): of.decode() for name, of in (table.schema.metadata or {}).items() if name != HASH}
    return hashlib.sha256(json.dumps([told, table.to_pydict()], sort_keys=True).encode()).hexdigest().encode()


def load_answers(answers: Artifact) -> Any:
    """Return all answers of an artifact as an Arrow table."""
    return pa.concat_tables(pq.read_table(shard) for shard in sorted(Path(answers.path).glob("shard-*.parquet")))
