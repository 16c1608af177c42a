"""Loading a base: what is missing or damaged is said in one sentence; which layers are adapted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from valuesoup.errors import UserError
from valuesoup.limits import loading_fault
from valuesoup.soup import Soup, load_model, load_tokenizer, target_layers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_base(tmp_path / "base")


def test_a_base_is_loaded_frozen_in_evaluation_mode_and_in_the_dtype_asked_for(folder: Path) -> None:
    model = load_model(folder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.float32
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_a_base_and_its_adapters_load_from_their_folders(folder: Path, tmp_path: Path) -> None:
    tiny.random_vector(tiny.llama(), 0).save_pretrained(tmp_path / "a")
    soup = Soup.from_adapters(folder, {"a": tmp_path / "a"})
    assert soup.tokenizer is not None
    assert soup.base_name == str(folder)
    assert len(soup.generate(["w1 w2"], {"a": 1.0}, max_new_tokens=3)) == 1


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base '.*/none' does not exist"):
        load_model(tmp_path / "none")


def test_a_base_without_a_tokenizer_is_named(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match=f"base '{folder}' has no tokenizer that loads"):
        load_tokenizer(folder)


def test_a_tokenizer_without_an_end_is_refused_and_one_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    made = tiny.tokenizer()
    made.pad_token = None
    made.save_pretrained(tmp_path / "no-pad")
    assert load_tokenizer(tmp_path / "no-pad").pad_token == "</s>"
    made.eos_token = None
    made.save_pretrained(tmp_path / "no-end")
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(tmp_path / "no-end")


def test_damaged_weights_and_configurations_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for torn in (whole[:4], whole[:1000], whole[:-8]):
        weights.write_bytes(torn)
        with pytest.raises(UserError, match=f"base '{folder}' does not load"):
            load_model(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=f"base '{folder}' does not load"):
        load_model(folder)


def test_a_classifier_is_not_taken_for_a_language_model_with_a_random_head(tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    LlamaForSequenceClassification(tiny.llama().config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no weights for lm_head\.weight"):
        load_model(tmp_path)


def test_tied_embeddings_are_not_missing_weights(tmp_path: Path) -> None:
    tiny.family("gpt2").save_pretrained(tmp_path)
    assert load_model(tmp_path).get_output_embeddings() is not None


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="'flaot32' is no torch dtype"):
        load_model(folder, dtype="flaot32")


def test_the_attention_projections_are_adapted_where_the_model_has_them_else_pefts_default() -> None:
    llama = target_layers(tiny.llama())
    assert [name.rsplit(".", 1)[-1] for name in llama] == ["q_proj", "k_proj", "v_proj", "o_proj"] * 2
    assert target_layers(tiny.family("gpt2")) == ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]


def test_targets_match_as_in_peft() -> None:
    model = tiny.llama()
    assert len(target_layers(model, ["q_proj", "down_proj"])) == 4
    assert target_layers(model, ["layers.1.mlp.up_proj"]) == ["model.layers.1.mlp.up_proj"]
    for wrong in (["query"], ["proj"], []):
        with pytest.raises(UserError, match=r"no linear layer matches target_modules.*k_proj, .*q_proj"):
            target_layers(model, wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": -1},
        {"hidden_size": "x"},
        {"vocab_size": 0},
        {"num_attention_heads": 0},
        {"quantization_config": 5},
        {"quantization_config": {"quant_method": "gptq"}},
        {"_attn_implementation": "evil/repo"},
        {"_attn_implementation": "flash_attention_2"},
        {"auto_map": 5},
        {"dtype": "x"},
        {"rope_parameters": {"rope_type": "x"}},
    ],
    ids=str,
)
def test_a_damaged_configuration_is_named_whatever_python_makes_of_it(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = []
    for load in (load_model, load_tokenizer):
        try:
            load(folder)
        except UserError as error:
            said.append(str(error))
    assert said
    assert all(str(folder) in text and "\n" not in text for text in said)


def test_memory_that_is_short_is_no_fault_of_a_model() -> None:
    with pytest.raises(MemoryError):
        loading_fault(MemoryError())
