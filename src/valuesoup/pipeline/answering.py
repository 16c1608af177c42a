"""Stage in which candidates answer held-out prompts, many candidates in one batch."""

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

SHARD_ROWS = 1024
"""Answers written between two saves: the most that an interruption costs."""


@stage("answers", ignore=("batch_rows", "device"))
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
    from valuesoup.soup import position_limit
    from valuesoup.soup.generation import Row, generate

    soup = open_soup(base, vectors, device)
    places = list(range(len(candidates))) if chosen is None else chosen.json("chosen.json")["test"]
    asked = load_prompts(prompts)
    tokens = [prompt_tokens(soup, prompt) for prompt in asked]
    longest, limit = max(map(len, tokens)) + generation.max_new_tokens, position_limit(soup.model.config)
    if longest > limit:
        raise UserError(
            f"the longest prompt and generation.max_new_tokens together are {longest} tokens, and the base takes "
            f"{limit}; lower generation.max_prompt_tokens or max_new_tokens."
        )
    queue = [(place, number) for number in range(len(asked)) for place in places]
    with work.task(len(queue), "answers") as task:
        for start in range(0, len(queue), SHARD_ROWS):
            shard = work.out / f"shard-{start // SHARD_ROWS:05d}.parquet"
            todo = queue[start : start + SHARD_ROWS]
            if shard.is_file():
                task.advance(len(todo))
                continue
            rows = [
                Row(tokens[number], tuple(candidates[place]), int(fingerprint([seed, asked[number]["id"]]), 16))
                for place, number in todo
            ]
            found = generate(
                soup,
                rows,
                max_new_tokens=generation.max_new_tokens,
                temperature=generation.temperature,
                batch_rows=batch_rows,
                on_done=task.advance,
            )
            assert soup.tokenizer is not None
            table = pa.table(
                {
                    "candidate": pa.array([place for place, _ in todo], pa.int32()),
                    "prompt": pa.array([number for _, number in todo], pa.int32()),
                    "text": [soup.tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in found],
                    "tokens": pa.array([list(answer.tokens) for answer in found], pa.list_(pa.int32())),
                    "finished": [answer.finished for answer in found],
                }
            )
            temporary = work.out / ".shard.tmp"
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(shard)


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


def load_answers(answers: Artifact) -> Any:
    """Return all answers of an artifact as an Arrow table."""
    return pa.concat_tables(pq.read_table(shard) for shard in sorted(Path(answers.path).glob("shard-*.parquet")))
