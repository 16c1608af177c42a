"""Merged models against dense float64 sums: any family, dtype and sharding; what cannot be merged is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from valuesoup.errors import RunError, UserError
from valuesoup.shipping import write_merged
from valuesoup.soup import Soup

WEIGHTS = {"a": 0.6, "b": 0.7}


def saved(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def soup_on(folder: Path, dtype: str = "float32") -> tuple[Soup, dict[str, Any]]:
    from valuesoup.soup import load_model, load_tokenizer

    model = load_model(folder, dtype=dtype)
    vectors = {name: tiny.random_vector(model, seed) for seed, name in enumerate("ab")}
    return Soup.from_adapters(model, vectors, load_tokenizer(folder)), vectors


def loaded(folder: Path | str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(2, 22).reshape(2, 10)
    with torch.no_grad():
        return model(input_ids=ids).logits.double()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma2"])
def test_a_merged_model_is_the_dense_sum_in_every_family(kind: str, tmp_path: Path) -> None:
    base = tiny.family(kind)  # gpt2 keeps its weights transposed, gemma2 ties its head to the embedding
    soup, vectors = soup_on(saved(base, tmp_path / "base"))
    files = write_merged(soup, WEIGHTS, tmp_path / "merged")
    truth = tiny.merged(base, [(vectors[name], weight) for name, weight in WEIGHTS.items()])
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    torch.testing.assert_close(logits(loaded(tmp_path / "merged")), logits(truth), rtol=0, atol=2e-4)


def test_files_without_the_models_prefix_are_merged_as_published_gpt2_is(tmp_path: Path) -> None:
    base = tiny.family("gpt2")
    folder = saved(base, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert set(bare) != set(tensors)
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    soup, vectors = soup_on(folder)
    write_merged(soup, WEIGHTS, tmp_path / "merged")
    truth = tiny.merged(base, [(vectors[name], weight) for name, weight in WEIGHTS.items()])
    torch.testing.assert_close(logits(loaded(tmp_path / "merged")), logits(truth), rtol=0, atol=2e-4)


def test_a_base_of_many_shards_is_written_in_shards_and_what_is_not_adapted_stays_bit_by_bit(tmp_path: Path) -> None:
    base = tiny.llama(layers=3)
    folder = saved(base, tmp_path / "base", max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    soup, vectors = soup_on(folder)
    out = tmp_path / "merged"
    write_merged(soup, WEIGHTS, out, shard_bytes=30_000)
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert all(shard.stat().st_size < 40_000 for shard in shards)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    tensors = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert index["weight_map"].keys() == tensors.keys()
    for name, tensor in base.state_dict().items():
        if "self_attn" not in name:
            assert torch.equal(tensors[name], tensor), name
    truth = tiny.merged(base, [(vectors[name], weight) for name, weight in WEIGHTS.items()])
    torch.testing.assert_close(logits(loaded(out)), logits(truth), rtol=0, atol=2e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_16_bit_base_is_summed_in_float32_and_rounded_once(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    folder = saved(tiny.llama().to(kind), tmp_path / "base")
    soup, vectors = soup_on(folder)  # in float32, the files stay what they are
    write_merged(soup, WEIGHTS, tmp_path / "merged")
    tensors, before = (load_file(of / "model.safetensors") for of in (tmp_path / "merged", folder))
    name = "model.layers.1.self_attn.v_proj"
    change = sum(weight * vectors[of].layers[name].delta().double() for of, weight in WEIGHTS.items())
    whole = (before[f"{name}.weight"].double() + change).float()
    assert tensors[f"{name}.weight"].dtype == kind
    difference = (tensors[f"{name}.weight"].float() - whole).abs() / whole.abs().clamp(min=1e-3)
    assert float(difference.max()) <= torch.finfo(kind).eps  # one rounding, and no more


def test_zero_weights_give_the_base_itself_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    soup, _ = soup_on(saved(tiny.llama(), tmp_path / "base"))
    write_merged(soup, {"a": 0.0}, tmp_path / "merged")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match="no vector 'c'"):
        write_merged(soup, {"c": 1.0}, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_layer_that_is_tied_to_the_embedding_is_refused(tmp_path: Path) -> None:
    from valuesoup.soup import Factors, ValueVector, load_model

    model = load_model(saved(tiny.family("gemma2"), tmp_path / "base"))
    head = Factors(torch.randn(2, 32), torch.randn(tiny.WORDS + 5, 2), 1.0)
    soup = Soup.from_adapters(model, {"a": ValueVector({"lm_head": head})}, tiny.tokenizer())
    with pytest.raises(UserError, match=r"lm_head shares its weight with model\.embed_tokens\.weight"):
        write_merged(soup, {"a": 1.0}, tmp_path / "merged")


def test_a_base_whose_files_cannot_be_merged_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = saved(tiny.llama(), tmp_path / "base")
    soup, _ = soup_on(folder)
    tensors = load_file(folder / "model.safetensors")

    def rewritten(change: dict[str, torch.Tensor], without: str = "") -> None:
        kept = {name: tensor for name, tensor in tensors.items() if name != without}
        save_file({**kept, **change}, folder / "model.safetensors")

    name = "model.layers.0.self_attn.q_proj.weight"
    rewritten({"model.layers.0.self_attn.qkv_proj.weight": torch.zeros(64, 32)}, without=name)
    with pytest.raises(UserError, match="q_proj has no tensor of its own in the files of the base"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")
    rewritten({name: torch.zeros(32, 32, dtype=torch.int8)})
    with pytest.raises(UserError, match="quantised or packed"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")
    (folder / "model.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors, so it cannot be merged"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {name: "../secret.safetensors"}}))
    with pytest.raises(RunError, match=r"names \.\./secret\.safetensors, which is not there"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="are not on this disk"):
        write_merged(soup, WEIGHTS, tmp_path / "merged")


def test_a_base_of_the_hub_is_read_at_the_revision_that_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder, first, second = tmp_path / "hub" / "models--org--tiny", "0" * 40, "f" * 40
    base = tiny.llama(0)
    saved(base, folder / "snapshots" / first)
    saved(tiny.llama(1), folder / "snapshots" / second)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(first)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = loaded("org/tiny")
    vector = tiny.random_vector(model, 0)
    soup = Soup.from_adapters(model, {"a": vector}, tiny.tokenizer())
    assert soup.base_name == "org/tiny"
    (folder / "refs" / "main").write_text(second)  # the hub has moved on
    with pytest.raises(UserError, match="is not what the soup was loaded from: the base has changed since, or is of"):
        write_merged(soup, {"a": 1.0}, tmp_path / "merged")
    write_merged(soup, {"a": 1.0}, tmp_path / "merged", revision=first)
    truth = tiny.merged(base, [(vector, 1.0)])
    torch.testing.assert_close(logits(loaded(tmp_path / "merged")), logits(truth), rtol=0, atol=2e-4)
