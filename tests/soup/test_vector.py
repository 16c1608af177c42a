"""Adapters to and from PEFT: its logits are the Soup's in both directions, and what is not linear is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from valuesoup.errors import UserError
from valuesoup.soup import Factors, Soup, ValueVector, compose, cut

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def ids() -> torch.Tensor:
    return torch.randint(5, 65, (2, 11), generator=torch.Generator().manual_seed(0))


def peft_adapter(model: Any, folder: Path, seed: int = 0, **config: Any) -> torch.Tensor:
    """Train nothing, but give PEFT's own LoRA random factors; save it and return PEFT's logits."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", **config}
    made = get_peft_model(copy.deepcopy(model), LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        logits = made(input_ids=ids()).logits
    made.save_pretrained(folder)
    return logits


@torch.no_grad()
def soup_logits(model: Any, adapters: dict[str, Any], row: list[float]) -> torch.Tensor:
    return Soup.from_adapters(copy.deepcopy(model), adapters)(torch.tensor([row]), input_ids=ids()).logits


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {}),
        ("llama", {"r": 3, "lora_alpha": 1}),
        ("llama", {"use_rslora": True}),
        ("llama", {"alpha_pattern": {"q_proj": 32, "layers.1.self_attn.v_proj": 1}}),
        ("llama", {"rank_pattern": {"k_proj": 2, "layers.0.self_attn.o_proj": 7}}),
        ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 3}}),
        ("llama", {"target_modules": ["v_proj"], "layers_to_transform": [1]}),
        ("llama", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": r".*\.1\..*(up|down)_proj"}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("qwen3", {}),
        ("gemma2", {}),
    ],
    ids=str,
)
def test_an_adapter_saved_by_peft_gives_pefts_own_logits(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    model = tiny.family(kind)
    theirs = peft_adapter(model, tmp_path, **config)
    torch.testing.assert_close(soup_logits(model, {"a": tmp_path}, [1.0]), theirs, rtol=0, atol=1e-5)


def test_adapters_of_different_ranks_alphas_and_layers_mix_as_a_dense_merge_does(tmp_path: Path) -> None:
    model = tiny.llama()
    configs = [{}, {"r": 7, "use_rslora": True}, {"r": 2, "target_modules": ["up_proj", "q_proj"]}]
    for place, config in enumerate(configs):
        peft_adapter(model, tmp_path / str(place), seed=place, **config)
    row = [0.5, -0.3, 0.8]
    made = {str(place): ValueVector.load(tmp_path / str(place)) for place in range(3)}
    with torch.no_grad():
        dense = tiny.merged(model, list(zip(made.values(), row, strict=True)))(input_ids=ids()).logits
    mixed = soup_logits(model, {name: tmp_path / name for name in made}, row)
    torch.testing.assert_close(mixed.double(), dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_what_is_saved_here_loads_in_peft_and_gives_the_soups_logits(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny.family(kind)
    made = {"a": tiny.random_vector(model, 0, rank=4), "b": tiny.random_vector(model, 1, rank=3, scale=0.5)}
    first = next(iter(made["a"].layers))
    made["b"] = ValueVector({name: f for name, f in made["b"].layers.items() if name != first})
    soup = Soup.from_adapters(copy.deepcopy(model), made)
    for weights in ({"a": 1.0}, {"a": 0.7, "b": -0.4}):
        folder = tmp_path / "-".join(weights)
        soup.adapter(weights).save_pretrained(folder)
        theirs = PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()
        with torch.no_grad():
            found = theirs(input_ids=ids()).logits
            mine = soup(soup.weight_rows(weights, 1), input_ids=ids()).logits
        torch.testing.assert_close(found, mine, rtol=0, atol=1e-5)


def test_saving_and_loading_keeps_the_change_of_weights_and_the_base(tmp_path: Path) -> None:
    model = tiny.llama()
    uneven = dict(tiny.random_vector(model, 0, rank=4, scale=0.37).layers)
    name = next(iter(uneven))
    uneven[name] = Factors(uneven[name].A[:1], uneven[name].B[:, :1], 5.0)
    vector = ValueVector(uneven, base="org/llama", base_fingerprint="0123456789abcdef")
    vector.save_pretrained(tmp_path / "new" / "folder")
    back = ValueVector.load(tmp_path / "new" / "folder")
    assert (back.base, back.base_fingerprint, back.rank) == ("org/llama", "0123456789abcdef", 4)
    assert set(back.layers) == set(uneven)
    for layer, factors in uneven.items():
        torch.testing.assert_close(back.layers[layer].delta(), factors.delta(), rtol=0, atol=1e-6)


def test_a_saved_composition_is_the_composition(tmp_path: Path) -> None:
    model = tiny.llama()
    made = {"a": tiny.random_vector(model, 0), "b": tiny.random_vector(model, 1, rank=2)}
    mixed = compose(made, {"a": 0.25, "b": 1.5})
    mixed.save_pretrained(tmp_path)
    torch.testing.assert_close(
        soup_logits(model, {"mixed": tmp_path}, [1.0]), soup_logits(model, made, [0.25, 1.5]), rtol=0, atol=1e-5
    )
    small, error = cut(mixed, 3)
    small.save_pretrained(tmp_path / "cut")
    assert ValueVector.load(tmp_path / "cut").rank == 3
    assert 0 < error < 1


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    tiny.random_vector(tiny.llama(), 0).save_pretrained(folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "uses DoRA"),
        ({"bias": "lora_only"}, "trains biases .bias=lora_only."),
        ({"lora_bias": True}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"init_lora_weights": "pissa"}, "initialised with pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialised with pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "initialised with olora"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "replicates layers"),
        ({"trainable_token_indices": [1]}, "token embeddings"),
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
    ],
    ids=str,
)
def test_what_is_not_a_plain_lora_is_refused(adapter: Path, changes: dict[str, Any], said: str) -> None:
    edit(adapter, **changes)
    with pytest.raises(UserError, match=said) as caught:
        ValueVector.load(adapter)
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_what_peft_itself_saves_of_these_kinds_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    peft_adapter(tiny.llama(), tmp_path, **config)
    with pytest.raises(UserError, match=str(tmp_path)):
        ValueVector.load(tmp_path)


def test_an_adapter_of_embeddings_is_refused(tmp_path: Path) -> None:
    peft_adapter(tiny.llama(), tmp_path, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(UserError, match=r"embed_tokens.* is not a factor of a linear layer"):
        ValueVector.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_config.json", None, "is not a PEFT adapter: it has no adapter_config.json"),
        ("adapter_config.json", b"{", "adapter_config.json is not a valid JSON object"),
        ("adapter_config.json", b"[]", "adapter_config.json is not a valid JSON object"),
        ("adapter_config.json", b"\xff\xfe{}", "adapter_config.json is not a valid JSON object"),
        ("adapter_model.safetensors", None, "has no adapter_model.safetensors"),
        ("adapter_model.safetensors", b"torn", "adapter_model.safetensors is damaged"),
        ("valuesoup.json", b"{", "valuesoup.json is not a valid JSON object"),
    ],
)
def test_missing_and_damaged_files_are_named(adapter: Path, name: str, content: bytes | None, said: str) -> None:
    if content is None:
        (adapter / name).unlink()
    else:
        (adapter / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        ValueVector.load(adapter)
    assert str(adapter) in str(caught.value)


def test_half_a_weight_file_is_damaged(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        ValueVector.load(adapter)


def test_broken_factors_are_refused_by_layer(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    whole = load_file(path)
    key = next(name for name in whole if "lora_A" in name)
    layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    for wrong in (float("nan"), float("inf")):
        spoilt = whole[key].clone()
        spoilt[0, 0] = wrong
        save_file({**whole, key: spoilt}, path)
        with pytest.raises(UserError, match=f"{layer}.* holds NaN or infinite"):
            ValueVector.load(adapter)
    save_file({name: tensor for name, tensor in whole.items() if name != key}, path)
    with pytest.raises(UserError, match=f"factors A and B of {layer} are incomplete"):
        ValueVector.load(adapter)
    save_file({**whole, key: whole[key][:2].clone()}, path)
    with pytest.raises(UserError, match=f"factors of {layer} have ranks 2 and 4"):
        ValueVector.load(adapter)
    save_file({}, path)
    with pytest.raises(UserError, match="incomplete"):
        ValueVector.load(adapter)


def rewritten(folder: Path, change: Any) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 64}, "rank of .* is 64 by r and rank_pattern, but 4 in the weights"),
        ({"r": "4"}, "rank of .* is '4' by r and rank_pattern"),
        ({"rank_pattern": {"q_proj": 2}}, "rank of .*q_proj is 2 by r and rank_pattern, but 4"),
        ({"layers_to_transform": [0], "target_modules": ATTENTION}, r"layers\.1\..* is not adapted, but"),
        ({"layers_to_transform": 1, "target_modules": ATTENTION}, r"layers\.0\..* is not adapted, but"),
        (
            {"layers_to_transform": [0, 1], "layers_pattern": "h", "target_modules": ATTENTION},
            "is not adapted, but there are weights of it",
        ),
        ({"target_modules": ["q_proj"]}, "is not adapted, but there are weights of it"),
        ({"exclude_modules": ["q_proj"]}, "q_proj is not adapted, but there are weights of it"),
        ({"layers_to_transform": ["0"]}, "layers_to_transform must be a list of the layers' numbers"),
        ({"target_modules": 5}, "target_modules must be a list of names"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(
    adapter: Path, changes: dict[str, Any], said: str
) -> None:
    edit(adapter, **changes)
    with pytest.raises(UserError, match=said) as caught:
        ValueVector.load(adapter)
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rank_and_an_alpha_that_are_left_out_are_pefts_own(tmp_path: Path) -> None:
    tiny.random_vector(tiny.llama(), 0, rank=8).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    del config["r"], config["lora_alpha"]
    path.write_text(json.dumps(config))
    assert {factors.scale for factors in ValueVector.load(tmp_path).layers.values()} == {1.0}


@pytest.mark.parametrize("name", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("key", [r"((a|_|\w|\.)*(a|_|\w|\.)*(a|_|\w|\.)*)*Z", "(", "q_proj|k_proj", ""])
def test_a_pattern_that_is_no_plain_layer_name_is_refused_before_it_is_tried(
    adapter: Path, name: str, key: str
) -> None:
    edit(adapter, **{name: {key: 4}})
    with pytest.raises(UserError, match=f"in {name} is no plain name of a layer"):
        ValueVector.load(adapter)


@pytest.mark.parametrize(
    "key", ["q_proj", r"layers\.0\.self_attn\.q_proj", r".*\.q_proj", "^model.layers.0.self_attn.q_proj$"]
)
def test_layer_names_as_peft_users_write_them_are_read(adapter: Path, key: str) -> None:
    edit(adapter, alpha_pattern={key: 12})
    layers = ValueVector.load(adapter).layers
    assert layers["model.layers.0.self_attn.q_proj"].scale == 3.0
    assert layers["model.layers.0.self_attn.k_proj"].scale == 1.0


def test_a_layer_with_and_without_pefts_prefix_is_refused(adapter: Path) -> None:
    def doubled(whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return whole | {key.removeprefix("base_model.model."): 2 * tensor for key, tensor in whole.items()}

    rewritten(adapter, doubled)
    with pytest.raises(UserError, match=r"stands there twice, with and without base_model\.model\.; keep one"):
        ValueVector.load(adapter)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_in_8_bits_are_refused(adapter: Path, dtype: torch.dtype) -> None:
    rewritten(adapter, lambda whole: {key: tensor.to(dtype) for key, tensor in whole.items()})
    with pytest.raises(UserError, match="save it in float32, bfloat16 or float16"):
        ValueVector.load(adapter)
