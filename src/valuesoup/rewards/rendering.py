"""How a reward model sees a prompt and a response: its template, token by token."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuesoup.data.pairs import Messages
from valuesoup.data.templates import render, render_prompt
from valuesoup.data.transcripts import render_transcript
from valuesoup.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED_TEMPLATES = ("chat", "human-assistant")
_SLOT = re.compile(r"\{(prompt|response)\}")
_CHUNK = 4096


def check_template(template: str | None) -> None:
    """Refuse what is neither a named template nor a text with the slots {prompt} and {response}.

    Raises:
        UserError: Names the nearest named template, or the slot that is missing or repeated.
    """
    if template is None or template in NAMED_TEMPLATES:
        return
    slots = _SLOT.findall(template)
    if not slots:
        raise UserError(
            f"There is no reward template '{template}'{did_you_mean(template, NAMED_TEMPLATES)} "
            "(or give a text with {prompt} and {response})"
        )
    if slots != ["prompt", "response"]:
        raise UserError(
            f"The reward template {template!r} must hold {{prompt}} and then {{response}}, each exactly once."
        )


class Renderer:
    """Turns prompts and responses into the token ids that a reward model reads.

    Args:
        tokenizer: The reward model's tokenizer.
        template: ``chat`` is the tokenizer's chat template, ``human-assistant`` the Anthropic-HH transcript, None
            the first where the tokenizer has one, else the second. Any other text must hold the slots {prompt}
            and {response}; a prompt of one user turn fills its slot bare, a longer one as a transcript.

    Raises:
        UserError: The template is unknown, or ``chat`` was asked of a tokenizer without a chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str | None = None) -> None:
        check_template(template)
        if template is None:
            template = "chat" if tokenizer.chat_template else "human-assistant"
        if template == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"The tokenizer of '{tokenizer.name_or_path}' has no chat template; use the template "
                "'human-assistant', or a text with {prompt} and {response}."
            )
        self.tokenizer = tokenizer
        self.template = template

    def encode(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids of each prompt with its answer; nothing is cut.

        Raises:
            UserError: The chat template refuses a conversation, or a text has no token (names the position).
        """
        sequences: list[NDArray[np.int32]] = []
        # Arrays at once, since a Python list of numbers takes nine times their memory.
        for start in range(0, len(prompts), _CHUNK):
            part = slice(start, start + _CHUNK)
            texts = [self._text(*row) for row in zip(prompts[part], answers[part], strict=True)]
            # A chat template writes its own special tokens; plain text gets what the tokenizer adds to any text.
            sequences += self._tokenise(texts, special=self.template != "chat")
        for position, ids in enumerate(sequences):
            if not len(ids):
                raise UserError(f"Prompt and response {position} have no token in the reward model's template.")
        return sequences

    def prompt_length(self, prompt: Messages) -> int:
        """Return how many tokens come before the response; all others count as the response's."""
        return len(self._tokenise([self._head(prompt)], special=False)[0])

    def _tokenise(self, texts: list[str], special: bool) -> list[NDArray[np.int32]]:
        ids = self.tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
        return [np.array(row, dtype=np.int32) for row in ids]

    def _text(self, prompt: Messages, answer: str) -> str:
        if self.template == "chat":
            return render([*prompt, {"role": "assistant", "content": answer}], self.tokenizer)
        if self.template == "human-assistant":
            return render_transcript([*prompt, {"role": "assistant", "content": answer}])
        return self._filled(prompt, answer)

    def _head(self, prompt: Messages) -> str:
        if self.template == "chat":
            return render_prompt(prompt, self.tokenizer)
        if self.template == "human-assistant":
            return render_transcript(prompt, add_generation_prompt=True)
        return self._filled(prompt, "\0").partition("\0")[0]

    def _filled(self, prompt: Messages, answer: str) -> str:
        plain = len(prompt) == 1 and prompt[0]["role"] == "user"
        slots = {"prompt": prompt[0]["content"] if plain else render_transcript(prompt), "response": answer}
        # One pass, so that braces inside a prompt or an answer stay as they are.
        return _SLOT.sub(lambda slot: slots[slot[1]], self.template)
