"""Pretraining of a small base: a folder that loads, the same for the same seed, with a tokenizer that loses nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.data.templates import render, render_answer, render_prompt
from valuesoup.errors import RunError, UserError
from valuesoup.soup import Soup, load_model, load_tokenizer, target_layers
from valuesoup.training.pretrain import build_tokenizer, pretrain
from valuesoup.training.settings import PretrainSettings

TURNS = [
    ("how do I bake bread", "mix the flour and water, then wait"),
    ("how do I fix a bike", "turn the wheel and look at the chain"),
    ("tell me of the sea", "the sea is wide and blue"),
]
DIALOGUES: list[Any] = [
    [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}] for ask, answer in TURNS * 8
]
SMALL = PretrainSettings(vocabulary=300, hidden=32, layers=1, heads=2, context=32, steps=30, batch_size=8)
WORDS = SMALL.model_copy(update={"tokenizer": "words"})
BPE = build_tokenizer(DIALOGUES, SMALL)


@pytest.mark.parametrize("given", [SMALL, WORDS], ids=["bpe", "words"])
def test_the_folder_is_a_base_that_has_learnt_and_that_a_soup_takes(given: PretrainSettings, tmp_path: Path) -> None:
    shown: list[int] = []

    class Steps:
        update = staticmethod(shown.append)

    record = pretrain(DIALOGUES, given, tmp_path / "base", seed=0, task=Steps())  # type: ignore[arg-type]
    model, tokenizer = load_model(tmp_path / "base"), load_tokenizer(tmp_path / "base")
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["tokens"] % 32 == 0
    assert 0 < record["loss"] < 0.9 * torch.log(torch.tensor(float(len(tokenizer))))
    assert shown == list(range(1, 31))
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    soup = Soup(model, tokenizer, layers=target_layers(model))
    soup.add_fresh("a", rank=2, alpha=4, seed=0)
    assert len(soup.generate(["how do I bake bread"], {}, max_new_tokens=5)) == 1


def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(tmp_path: Path) -> None:
    short = SMALL.model_copy(update={"steps": 3})
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        pretrain(DIALOGUES, short, tmp_path / name, seed=seed)
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]


@settings(max_examples=60)
@given(st.text(min_size=1).filter(lambda text: "<" not in text))
def test_byte_pairs_give_any_text_back(text: str) -> None:
    ids = BPE(text, add_special_tokens=False)["input_ids"]
    assert BPE.unk_token_id not in ids
    assert BPE.decode(ids) == text


@pytest.mark.parametrize("text", ["naïve café", "日本語 と 😀", "  two  spaces\n\ttabs ", "it 's , don 't .", "مرحبا"])
def test_byte_pairs_round_trip_through_the_saved_folder(text: str, tmp_path: Path) -> None:
    BPE.save_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    assert back.decode(back(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True) == text


def test_the_template_marks_who_speaks_and_ends_each_answer() -> None:
    talk = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]
    assert render(talk, BPE) == "<system> be kind <user> hello <assistant> hi<end><user> bye "
    assert render_prompt(talk[:2], BPE) == "<system> be kind <user> hello <assistant> "
    assert render_answer(talk[:2], talk[2:3], BPE) == ("<system> be kind <user> hello <assistant> ", "hi<end>")
    ids = BPE(render_prompt(talk[:2], BPE), add_special_tokens=False)["input_ids"]
    assert ids[0] == BPE.convert_tokens_to_ids("<system>")
    assert BPE("hi<end>", add_special_tokens=False)["input_ids"][-1] == BPE.eos_token_id


def test_words_that_were_never_seen_are_unknown_and_no_others() -> None:
    words = build_tokenizer(DIALOGUES, WORDS)
    ids = words("how do I bake zebras", add_special_tokens=False)["input_ids"]
    assert [token == words.unk_token_id for token in ids] == [False] * 4 + [True]
    assert words.decode(ids[:4]) == "how do I bake"


def test_too_little_text_and_a_diverging_training_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2048 tokens of dialogues"):
        pretrain(DIALOGUES[:1], SMALL.model_copy(update={"context": 2048}), tmp_path / "a", seed=0)
    with pytest.raises(RunError, match="loss became NaN at step"):
        pretrain(DIALOGUES, SMALL.model_copy(update={"learning_rate": 1e30}), tmp_path / "b", seed=0)
