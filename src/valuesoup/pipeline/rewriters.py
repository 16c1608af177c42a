"""Who rewrites prompts: a rewriter with an identity that enters keys, how it is opened, and the policy as one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from valuesoup.data import render_prompt
from valuesoup.endpoint import Reply
from valuesoup.errors import UserError
from valuesoup.expansion.fusion import Rewriter, Write, by_endpoint, by_function, by_model, read_template
from valuesoup.pipeline.answering import open_soup
from valuesoup.pipeline.inputs import BaseRef, function_hash
from valuesoup.store import Artifact, Identified, fingerprint

BATCH_ROWS = 32
"""Rows in a batch where the policy itself rewrites."""

Generate = Callable[[Sequence[str], int], list[Reply]]
"""Answers instructions at the given attempt (from 0)."""


class RewriterRef(Identified):
    """A rewriter."""

    config: Rewriter
    template: str | None
    """Text of the instruction; None for a function, which has none."""
    code: str | None
    """Hash of the function's source."""

    @property
    def attempts(self) -> int:
        """The most times that one prompt is rewritten: once by a function, which would return the same again."""
        return self.config.attempts if self.config.function is None else 1

    def key_parts(self) -> Any:
        """Know a rewriter by what its rewrites depend on, wherever template and function lie."""
        endpoint = self.config.endpoint.identity() if self.config.endpoint else None
        who = {"endpoint": endpoint, "function": self.config.function, "policy": self.config.policy}
        return {**who, "attempts": self.attempts, "template": self.template, "code": self.code}


def rewriter_ref(config: Rewriter) -> RewriterRef:
    """Identify a rewriter by its template's content, or by its function's source.

    Raises:
        UserError: The template cannot be read, or there is no such function.
    """
    if config.function is not None:
        return RewriterRef(config=config, template=None, code=function_hash(config.function))
    return RewriterRef(config=config, template=read_template(config.template), code=None)


def open_rewriter(
    rewriter: RewriterRef,
    values: Sequence[str],
    answered: Path,
    policy: Callable[[], Generate],
    on_done: Callable[[int], None],
) -> Write:
    """Return the rewriter that a stage was given.

    Args:
        rewriter: From `rewriter_ref`.
        values: Names of all values.
        answered: File in which an endpoint's answers are kept.
        policy: Opens the policy; called only where it rewrites.
        on_done: Called with the number of prompts that an endpoint settled at the first attempt.
    """
    if rewriter.config.function is not None:
        return by_function(rewriter.config.function)
    assert rewriter.template is not None
    if rewriter.config.endpoint is not None:
        return by_endpoint(rewriter.config.endpoint, rewriter.template, values, answered, on_done)
    return by_model(policy(), rewriter.template, values)


def policy_writer(
    base: Artifact | BaseRef,
    vectors: Mapping[str, Artifact],
    max_tokens: int,
    seed: int,
    device: str,
    on_done: Callable[[int], None],
) -> Generate:
    """Let the policy answer instructions, at temperature 1, and at further attempts with other draws.

    Args:
        base: The base.
        vectors: Vectors of the policy, each with weight 1; none is the base itself.
        max_tokens: Longest answer.
        seed: Of the draws.
        device: Where it writes.
        on_done: Called with the number of instructions answered since the last call, at the first attempt.

    Raises:
        UserError: Later, where an instruction and its answer are longer than the policy takes.
    """
    from valuesoup.soup import position_limit
    from valuesoup.soup.generation import Row, generate

    soup = open_soup(base, vectors, device)
    assert soup.tokenizer is not None
    tokenizer, limit = soup.tokenizer, position_limit(soup.model.config)

    def answer(instructions: Sequence[str], attempt: int) -> list[Reply]:
        rendered = [render_prompt([{"role": "user", "content": text}], tokenizer) for text in instructions]
        tokens = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rendered]
        longest = max(map(len, tokens)) + max_tokens
        if longest > limit:
            raise UserError(
                f"the fusion template with the longest prompt and its rewrite are {longest} tokens, and the policy "
                f"takes {limit}; shorten the template, or rewrite by an endpoint or a function."
            )
        rows = [
            Row(ids, (1.0,) * len(vectors), int(fingerprint([seed, text, attempt]), 16))
            for ids, text in zip(tokens, rendered, strict=True)
        ]
        found = generate(
            soup,
            rows,
            max_new_tokens=max_tokens,
            batch_rows=BATCH_ROWS,
            on_done=(lambda _: None) if attempt else on_done,
        )
        texts = [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in found]
        return [Reply(text, one.finished) for text, one in zip(texts, found, strict=True)]

    return answer
