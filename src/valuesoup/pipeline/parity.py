"""The check before a sweep: a server answers a few prompts, and the local policies say whether those are theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valuesoup.config import GenerationConfig
from valuesoup.endpoint import Completion, Continuation, GenerationServer, complete
from valuesoup.errors import RunError

if TYPE_CHECKING:
    from valuesoup.evaluation.parity import Reading
    from valuesoup.soup import Soup

DRAWS = 4
"""Answers drawn to each prompt, where the run draws its answers."""
SURE = 4.0
"""Standard errors from which a surplus is no chance: one check in 16,000 of a faultless server."""
SHOWN = 80
"""Characters of a text that an error shows."""


class Wording:
    """Turns what the policy sees into what a server is sent, and what it sends into what the policy wrote."""

    def __init__(self, tokenizer: Any) -> None:
        """Take the base's tokenizer."""
        self.tokenizer = tokenizer
        # Such tokenizers write a text's first word with a space before it and leave that out on reading; servers that
        # read the answer after its prompt do not.
        self._spaced = str(tokenizer.tokenize("a")[:1]).find("▁") >= 0

    def prompt(self, text: str, tokens: tuple[int, ...]) -> str | tuple[int, ...]:
        """Return the text that a server reads as these tokens, or the tokens where there is no such text.

        Servers add special tokens to a text, so one that begins with such a token already is sent without it.
        """
        begin = self.tokenizer.bos_token or ""
        for sent in (text, text.removeprefix(begin)):
            if tuple(self.tokenizer(sent)["input_ids"]) == tokens:
                return sent
        return tokens

    def answer(self, text: str) -> tuple[str, tuple[int, ...]]:
        """Return an answer as the local generator would have written it: its text and its tokens."""
        if self._spaced:
            text = text.removeprefix(" ")
        return text, tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def is_whole(self, text: str, tokens: Sequence[int], written: int | None) -> bool:
        """Return whether a text tells its tokens: special tokens and halves of characters are lost in it.

        Args:
            text: Of an answer.
            tokens: Of the text.
            written: What the server has written, its end maybe counted.
        """
        counted = written is None or written - len(tokens) in (0, 1)
        return counted and bool(self.tokenizer.decode(tokens, skip_special_tokens=True) == text)


@dataclass(frozen=True)
class Policy:
    """A candidate, or the base, by its name on the server and its weights."""

    model: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """What the check found of a policy.

    Attributes:
        greedy: Answers with temperature 0 that were asked for.
        identical: How many of them are the local ones, None where there are no local ones.
        regret: Of those whose tokens are known, in nats per token; None without any.
        log_prob_gap: Mean distance of the server's log-probabilities from the local ones, None where it gives none.
    """

    greedy: int
    identical: int | None
    regret: float | None
    log_prob_gap: float | None


class Parity:
    """Compares a server with the local policies."""

    def __init__(
        self,
        soup: "Soup",
        server: GenerationServer,
        generation: GenerationConfig,
        prompts: Sequence[tuple[str | tuple[int, ...], tuple[int, ...]]],
        wording: Wording,
        batch_rows: int,
    ) -> None:
        """Prepare a check.

        Args:
            soup: Holds the vectors.
            server: To be checked.
            generation: How the run's answers are written.
            prompts: What is sent and the tokens that it stands for, of every held-out prompt.
            wording: Of the base's tokenizer.
            batch_rows: Rows in a local forward pass.
        """
        self.soup, self.server, self.generation, self.wording = soup, server, generation, wording
        self.batch_rows = batch_rows
        count = min(server.parity.prompts, len(prompts))
        self.prompts = [prompts[place * len(prompts) // count] for place in range(count)]
        self._local: dict[tuple[Policy, int], tuple[str, tuple[int, ...]]] = {}

    def check(self, base: Policy, candidates: Sequence[Policy], scratch: Path) -> dict[str, Any]:
        """Let the base and the middle candidate answer every prompt of the check, the other candidates one each.

        A candidate that looks wrong on its one prompt answers the others too before it is judged.

        Args:
            base: The base.
            candidates: The other policies.
            scratch: File for the server's answers; what is there is not used, for the server may be another by now.

        Returns:
            What is recorded with the answers.

        Raises:
            UserError: The server refuses every request.
            RunError: It does not answer, or not as the policies do.
        """
        scratch.unlink(missing_ok=True)
        middle = candidates[len(candidates) // 2 : len(candidates) // 2 + 1]
        whole = [base, *middle]
        others = [policy for policy in candidates if policy not in middle]
        every = range(len(self.prompts))
        asked = [(policy, place) for policy in whole for place in every]
        glanced = [(policy, number % len(self.prompts)) for number, policy in enumerate(others)]
        replies = dict(zip(asked + glanced, self._greedy(asked + glanced, scratch), strict=True))
        one = {policy: self._found([(policy, place)], replies) for policy, place in glanced}
        suspects = [policy for policy, found in one.items() if not self._agrees(found)]
        again = [(policy, place) for policy in suspects for place in every]
        replies.update(zip(again, self._greedy(again, scratch), strict=True))
        found = dict(one)
        self._write_here(asked + again)
        for policy in whole + suspects:
            found[policy] = self._found([(policy, place) for place in every], replies)
            if not self._agrees(found[policy]):
                raise RunError(self._differs(policy, found[policy], replies))
        drawn = self._drawn(whole, scratch) if self.generation.temperature > 0 else None
        scratch.unlink(missing_ok=True)
        return {
            "url": self.server.url,
            "prompts": len(self.prompts),
            "tolerance": self.server.parity.tolerance,
            "drawn": drawn,
            "policies": {policy.model: asdict(of) for policy, of in found.items()},
        }

    def _greedy(self, asked: Sequence[tuple[Policy, int]], scratch: Path) -> list[Continuation]:
        return self._ask(asked, scratch, 0.0, [0] * len(asked))

    def _ask(
        self, asked: Sequence[tuple[Policy, int]], scratch: Path, temperature: float, seeds: Sequence[int]
    ) -> list[Continuation]:
        """Return the server's answers, with prompts of the expected lengths."""
        requests = [
            Completion(
                policy.model, self.prompts[place][0], self.generation.max_new_tokens, temperature, seed, log_probs=True
            )
            for (policy, place), seed in zip(asked, seeds, strict=True)
        ]
        replies = complete(self.server, requests, scratch)
        for (policy, place), reply in zip(asked, replies, strict=True):
            where = f"the server {self.server.url} as '{policy.model}'"
            if reply.text is None:
                raise RunError(f"{where} does not answer a prompt of the parity check: {reply.failure}.")
            expected = len(self.prompts[place][1])
            if reply.prompt_tokens not in (None, expected):
                raise RunError(
                    f"{where} reads a prompt of {expected} tokens as {reply.prompt_tokens}: it puts special tokens "
                    "(such as a second beginning of sequence) or a template of its own around it, or has another "
                    "tokenizer; serve the base with its own tokenizer and nothing added."
                )
        return replies

    def _found(self, rows: Sequence[tuple[Policy, int]], replies: Mapping[tuple[Policy, int], Continuation]) -> Found:
        """Return what greedy answers of one policy say."""
        mine = [replies[row] for row in rows]
        here = [self._local.get(row, (None, ())) for row in rows]
        same = [text == self._text(reply) for (text, _), reply in zip(here, mine, strict=True)]
        # A text that is the local one has the local tokens, also where the text does not tell them.
        known = [tokens if alike else None for (_, tokens), alike in zip(here, same, strict=True)]
        reading, kept = self._read(rows, mine, known, 1.0)
        gaps = []
        for place, ours in zip(kept, () if reading is None else reading.log_probs, strict=True):
            theirs = mine[place].log_probs
            if theirs is not None and 0 <= len(ours) - len(theirs) <= 1:  # the end's is given or not
                gaps.append(np.abs(np.array(theirs, dtype=np.float64) - ours[: len(theirs)]))
        gaps = [gap for gap in gaps if len(gap)]
        return Found(
            greedy=len(rows),
            identical=sum(same) if all(row in self._local for row in rows) else None,
            regret=None if reading is None else reading.regret_per_token(),
            log_prob_gap=float(np.concatenate(gaps).mean()) if gaps else None,
        )

    def _drawn(self, policies: Sequence[Policy], scratch: Path) -> dict[str, Any]:
        """Compare draws at the run's temperature with local ones, and stop where they are not from the policies."""
        from valuesoup.evaluation.parity import surplus_difference

        temperature = self.generation.temperature
        asked = [(policy, place) for policy in policies for place in range(len(self.prompts)) for _ in range(DRAWS)]
        seeds = range(1, len(asked) + 1)
        theirs = self._ask(asked, scratch, temperature, seeds)
        counted = all(reply.written_tokens is not None for reply in theirs)  # else no answer is left out for its count
        ours = [
            Continuation(text, finished, written_tokens=len(tokens) + finished if counted else None)
            for text, tokens, finished in self._generate(asked, temperature, seeds)
        ]
        (served, kept), (local, _) = (self._read(asked, of, [None] * len(asked), temperature) for of in (theirs, ours))
        if served is None or local is None or min(len(served.tokens), len(local.tokens)) < 2:
            raise RunError(
                f"the answers that the server {self.server.url} and the local generator draw cannot be compared: their "
                "texts do not tell their tokens; leave out generation.endpoint."
            )
        surplus, z = surplus_difference(served, local)
        if abs(surplus) > self.server.parity.tolerance and abs(z) > SURE:
            raise RunError(self._biased(surplus, z))
        return {"answers": len(kept), "of": len(asked), "surplus": surplus, "z": z if np.isfinite(z) else None}

    def _agrees(self, found: Found) -> bool:
        """Return whether greedy answers are the policy's own."""
        if found.regret is None:  # no text that can be read as tokens
            return found.identical == found.greedy
        return max(found.regret, found.log_prob_gap or 0.0) <= self.server.parity.tolerance

    def _read(
        self,
        rows: Sequence[tuple[Policy, int]],
        replies: Sequence[Continuation],
        known: Sequence[tuple[int, ...] | None],
        temperature: float,
    ) -> tuple["Reading | None", list[int]]:
        """Read answers under their policies; return the places of those whose tokens are known or told by the text."""
        from valuesoup.evaluation.parity import read_answers
        from valuesoup.soup.generation import end_tokens

        answers: dict[int, tuple[int, ...]] = {}
        for place, (reply, given) in enumerate(zip(replies, known, strict=True)):
            text, tokens = self.wording.answer(reply.text or "")
            if given is not None:
                tokens = given
            elif not self.wording.is_whole(text, tokens, reply.written_tokens):
                continue
            if tokens or reply.finished:
                answers[place] = tokens
        kept = list(answers)
        if not kept:
            return None, []
        reading = read_answers(
            self.soup,
            [self.prompts[rows[place][1]][1] for place in kept],
            list(answers.values()),
            [replies[place].finished for place in kept],
            np.array([rows[place][0].weights for place in kept], dtype=np.float32).reshape(len(kept), -1),
            sorted(end_tokens(self.soup)),
            temperature=temperature,
            batch_rows=self.batch_rows,
        )
        return reading, kept

    def _write_here(self, rows: Sequence[tuple[Policy, int]]) -> None:
        """Let the local generator answer greedily too."""
        found = self._generate(rows, 0.0, [0] * len(rows))
        self._local.update({row: (text, tokens) for row, (text, tokens, _) in zip(rows, found, strict=True)})

    def _generate(
        self, rows: Sequence[tuple[Policy, int]], temperature: float, seeds: Sequence[int]
    ) -> list[tuple[str, tuple[int, ...], bool]]:
        """Return text, tokens, and whether it came to its end, of local answers."""
        from valuesoup.soup.generation import Row, generate

        answers = generate(
            self.soup,
            [
                Row(self.prompts[place][1], policy.weights, seed)
                for (policy, place), seed in zip(rows, seeds, strict=True)
            ],
            max_new_tokens=self.generation.max_new_tokens,
            temperature=temperature,
            batch_rows=self.batch_rows,
        )
        decode = self.wording.tokenizer.decode
        return [(decode(of.tokens, skip_special_tokens=True), of.tokens, of.finished) for of in answers]

    def _text(self, reply: Continuation) -> str:
        return self.wording.answer(reply.text or "")[0]

    def _differs(self, policy: Policy, found: Found, replies: Mapping[tuple[Policy, int], Continuation]) -> str:
        """Return the sentence that says how greedy answers differ, with the first that do."""
        measured = f"regret {_nats(found.regret)}"
        if found.log_prob_gap is not None:
            measured += f", log-probabilities {_nats(found.log_prob_gap)} apart"
        text = (
            f"the server {self.server.url} as '{policy.model}' is not the policy of this run: by greedy answers to "
            f"{found.greedy} prompts it is too far from it ({measured}, parity.tolerance "
            f"{self.server.parity.tolerance:g})"
        )
        rows = [(policy, place) for place in range(len(self.prompts))]
        odd = [row for row in rows if self._text(replies[row]) != self._local[row][0]]
        if odd:
            sent = self.prompts[odd[0][1]][0]
            prompt = sent if isinstance(sent, str) else self.wording.tokenizer.decode(list(sent))
            text += (
                f"; to {_short(prompt, end=True)} it answers {_short(self._text(replies[odd[0]]))}, the local "
                f"generator {_short(self._local[odd[0]][0])}"
            )
        return f"{text}; serve this run's base with the adapters that this run wrote, and nothing around the prompt."

    def _biased(self, surplus: float, z: float) -> str:
        """Return the sentence that says how drawn answers differ."""
        cause = (
            "it leaves out unlikely tokens or takes the likeliest: turn off its own sampling defaults (vLLM: "
            "--generation-config vllm; top_k, min_p and do_sample in generation_config.json; generation.endpoint.extra)"
            if surplus > 0
            else "it draws them hotter, or from another policy"
        )
        how = "likelier" if surplus > 0 else "less likely"
        return (
            f"the server {self.server.url} does not draw from the policies of this run at temperature "
            f"{self.generation.temperature:g}: its tokens are {abs(surplus):.2g} nats {how} than those that the local "
            f"generator draws ({abs(z):.1f} standard errors, parity.tolerance "
            f"{self.server.parity.tolerance:g}); {cause}."
        )


def _nats(number: float | None) -> str:
    return "unreadable" if number is None else f"{number:.2g} nats per token"


def _short(text: str, *, end: bool = False) -> str:
    """Return a text for a sentence: its beginning, or its end."""
    if len(text) <= SHOWN:
        return repr(text)
    return repr(f"…{text[-SHOWN:]}" if end else f"{text[:SHOWN]}…")
