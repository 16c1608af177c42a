from pathlib import Path
from typing import Any

import jinja2
import pytest

import tiny
from valuesoup.data import Message, render, render_answer, render_prompt, template_id
from valuesoup.errors import UserError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


class Jinja:
    """A tokenizer with any template, rendered by jinja2 as transformers does."""

    bos_token_id = 1

    def __init__(self, template: str | None, bos: str | None = "<s>", eos: str = "</s>", adds_bos: bool = True):
        self.chat_template = template
        self.bos_token, self.eos_token, self.adds_bos = bos, eos, adds_bos

    def encode(self, text: str) -> list[int]:
        return [1] * self.adds_bos + [5] * len(text)

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        assert options.pop("tokenize") is False
        names = {"bos_token": self.bos_token, "eos_token": self.eos_token, "raise_exception": refuse}
        template = jinja2.Environment().from_string(self.chat_template or "")
        return template.render(messages=conversation, **names, **options)


ASK = [Message(role="user", content="hi")]
SAY = [Message(role="assistant", content="yes")]


def test_without_a_tokenizer_the_text_is_hh_rlhfs_own() -> None:
    assert render(ASK, add_generation_prompt=True) == "\n\nHuman: hi\n\nAssistant:"
    assert render_answer(ASK, SAY) == ("\n\nHuman: hi\n\nAssistant:", " yes")


def test_a_base_model_sees_its_first_and_last_special_tokens_around_the_transcript() -> None:
    assert render_answer(ASK, SAY, Jinja(None)) == ("<s>\n\nHuman: hi\n\nAssistant:", " yes</s>")
    assert render_prompt(ASK, Jinja(None, adds_bos=False)) == "\n\nHuman: hi\n\nAssistant:"


def test_a_chat_template_ends_an_answer_at_its_end_of_sequence_token_once() -> None:
    prompt, answer = render_answer(ASK, SAY, Jinja(CHATML, eos="<|im_end|>"))
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert answer == "yes<|im_end|>"
    assert render_answer(ASK, SAY, Jinja(STRICT)) == ("<s>[INST] hi [/INST]", " yes</s>")


def test_a_chat_template_with_another_end_marker_keeps_it() -> None:
    assert render_answer(ASK, SAY, Jinja(CHATML, eos="<eos>"))[1] == "yes<|im_end|>\n"


def test_a_chat_template_that_ends_nothing_gets_the_end_of_sequence_token() -> None:
    assert render_answer(ASK, SAY, Jinja(NO_END)) == ("user: hi\nassistant:", " yes\n</s>")


def test_a_chat_template_that_trims_answers_still_ends_them() -> None:
    trims = NO_END.replace("m.content", "m.content | trim")
    assert render_answer(ASK, [Message(role="assistant", content=" yes ")], Jinja(trims))[1] == " yes\n</s>"


def test_an_answer_that_spells_the_end_of_sequence_token_still_gets_its_own() -> None:
    spelled = [Message(role="assistant", content="yes</s>")]
    assert render_answer(ASK, spelled, Jinja(None))[1] == " yes</s></s>"
    assert render_answer(ASK, spelled, Jinja(STRICT))[1] == " yes</s></s>"


@pytest.mark.parametrize("template", [None, CHATML, STRICT, NO_END])
@pytest.mark.parametrize("content", ["", "a\n\nHuman: b\n\nAssistant: c", "{{ 7 * 7 }}", "é🦜\u202e", " x "])
def test_prompt_and_answer_joined_are_the_whole_conversation(template: str | None, content: str) -> None:
    tokenizer = Jinja(template)
    ask, say = [Message(role="user", content=content)], [Message(role="assistant", content=content)]
    prompt, answer = render_answer(ask, say, tokenizer)
    assert prompt == render_prompt(ask, tokenizer)
    whole = render([*ask, *say], tokenizer)
    assert (prompt + answer).removesuffix("</s>") == whole.removesuffix("</s>")
    assert content in answer


def test_a_template_that_writes_the_prompt_differently_before_an_answer_is_refused() -> None:
    with pytest.raises(UserError, match="writes a prompt differently once the answer follows"):
        render_answer(ASK, SAY, Jinja(THINKING))


def test_a_conversation_that_the_template_refuses_names_its_roles() -> None:
    with pytest.raises(UserError, match="refuses a conversation of the roles user, user: roles must alternate"):
        render([*ASK, *ASK], Jinja(STRICT))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% break %}", "'break' outside loop"),
        ("{{ 'x' * 10**13 }}", "MemoryError"),
        ("{{ messages[0].content.items() }}", "no attribute 'items'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for", "unexpected"),
        ({"other": "x"}, ""),
    ],
)
def test_what_python_raises_at_a_real_tokenizers_template_is_said_in_a_sentence(template: Any, said: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"the chat template refuses a conversation .*{said}") as caught:
        render(ASK, tokenizer)
    assert "\n" not in str(caught.value)


def test_the_identity_changes_with_what_the_text_depends_on_and_nothing_else() -> None:
    tokenizers = [None, Jinja(None), Jinja(None, adds_bos=False), Jinja(CHATML), Jinja(STRICT), Jinja(CHATML, eos="x")]
    assert len({template_id(tokenizer) for tokenizer in tokenizers}) == len(tokenizers)
    assert template_id(Jinja(CHATML)) == template_id(Jinja(CHATML))
    assert len(template_id()) == 16


def test_a_real_tokenizer_reads_the_special_tokens_in_the_text() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("needs ../shared/models/stories260K")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, answer = render_answer(ASK, SAY, tokenizer)
    ids = tokenizer.encode(prompt + answer, add_special_tokens=False)
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
