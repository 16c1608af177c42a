"""A quantised base: vectors train on it as on the dense model of its rounded weights; what it cannot do is said."""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from valuesoup.errors import UserError
from valuesoup.soup import Soup, ValueVector, load_model, target_layers
from valuesoup.soup.base import features, fingerprint_weights
from valuesoup.soup.in_place import composes
from valuesoup.soup.quantised import is_exact
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TrainingRows, tokenise
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import Trained, train_vectors

pytest.importorskip("bitsandbytes", reason="no bitsandbytes for this machine")
KINDS = ("nf4", "int8")
IDS = torch.arange(5, 45).reshape(2, 20)
ERROR = {"nf4": 0.1, "int8": 0.01}
"""Of a weight matrix, relative (Frobenius), as the two papers' codes have it for normal weights."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as wide as a block of nf4."""
    path = tmp_path_factory.mktemp("base") / "wide"
    tiny.llama(hidden=64).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def rounded(model: Any, folder: Path) -> Any:
    """Return the dense float32 model of a quantised one's weights."""
    import bitsandbytes as bnb

    dense, weights = load_model(folder), {}
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weights[name] = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        elif isinstance(module, bnb.nn.Linear8bitLt):
            scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
            weights[name] = module.weight.data.float() * scale[:, None] / 127
    assert len(weights) == 14, "seven layers in each of two blocks"
    for name, weight in weights.items():
        dense.get_submodule(name).weight.data.copy_(weight)
    return dense


def soup_of(model: Any, *vectors: int) -> Soup:
    soup = Soup(model, tiny.tokenizer(), layers=target_layers(model))
    for seed in vectors:
        soup.add(f"v{seed}", tiny.random_vector(tiny.llama(hidden=64), seed, std=0.1))
    return soup


def far(found: Tensor, wanted: Tensor) -> float:
    """How far logits are, in the spread of the wanted ones."""
    return float((found.float() - wanted.float()).abs().max() / wanted.float().std())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_rounded_as_finely_as_promised_and_all_else_is_kept(
    kind: str, dtype: str, folder: Path
) -> None:
    model, plain = load_model(folder, quantize=kind, dtype=dtype), load_model(folder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for module in (model.get_input_embeddings(), model.get_output_embeddings(), model.model.norm):
        assert module.weight.dtype == getattr(torch, dtype)
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    model(IDS)
    dense = rounded(model, folder)
    for name in target_layers(plain, ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]):
        weight = plain.get_submodule(name).weight
        assert (dense.get_submodule(name).weight - weight).norm() < ERROR[kind] * weight.norm()
        assert features(model.get_submodule(name)) == features(plain.get_submodule(name))
    assert target_layers(model) == target_layers(plain)
    bytes_of = [sum(p.numel() * p.element_size() for p in of.model.layers.parameters()) for of in (model, plain)]
    assert bytes_of[0] < {"nf4": 0.15, "int8": 0.27}[kind] * bytes_of[1]
    assert far(model(IDS).logits, dense(IDS).logits) < {"nf4": 0.15, "int8": 0.3}[kind]  # int8 rounds activations too
    assert fingerprint_weights(model) is None
    assert is_exact(plain) and not is_exact(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_factor_through_the_quantised_layers_also_after_a_pass_without_them(
    kind: str, checkpointing: bool, folder: Path
) -> None:
    model = load_model(folder, quantize=kind)
    with torch.no_grad():
        model(IDS)  # the reference's pass
    found = []
    for base in (model, rounded(model, folder)):
        soup = soup_of(base, 1, 2)
        if checkpointing:
            soup.checkpoint_activations()
        soup.train()
        for factor in soup.parameters_of(soup.names):
            factor.requires_grad_(True)
        logits = soup(torch.tensor([[1.0, 0.0], [0.3, 0.7]]), input_ids=IDS).logits
        logits[:, :-1].log_softmax(-1).gather(2, IDS[:, 1:, None]).sum().backward()
        found.append([factor.grad for factor in soup.parameters_of(soup.names)])
    assert len(found[0]) == 2 * 2 * 8, "A and B of two vectors in four projections of two blocks"
    for one, other in zip(*found, strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), 0) > {"nf4": 0.998, "int8": 0.98}[kind]
        assert one.norm() == pytest.approx(other.norm().item(), rel={"nf4": 0.05, "int8": 0.1}[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_alone_is_what_peft_makes_of_it_on_the_same_quantised_base(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    soup = soup_of(load_model(folder, quantize=kind), 1, 2)
    for place, name in enumerate(soup.names):
        soup.vector(name).save_pretrained(tmp_path / name)
        peft = PeftModel.from_pretrained(load_model(folder, quantize=kind), tmp_path / name).eval()
        with torch.no_grad():
            alone = soup(torch.eye(2)[place : place + 1], input_ids=IDS).logits
            assert far(alone, peft(IDS).logits) < 0.01
            assert far(alone, soup(None, input_ids=IDS).logits) > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_different_weights_in_one_pass_are_what_each_is_alone(kind: str, folder: Path) -> None:
    soup = soup_of(load_model(folder, quantize=kind), 1, 2)
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.4, 0.6], [1.5, -0.5]])
    ids = torch.stack([IDS[0], IDS[1], IDS[1].flip(0), IDS[0].roll(3)])
    with torch.no_grad():
        together = soup(rows, input_ids=ids).logits
        for place, row in enumerate(rows):
            # Which activations count as outliers, LLM.int8() decides over the whole batch.
            alone = soup(row[None], input_ids=ids[place : place + 1]).logits
            assert far(together[place], alone[0]) < {"nf4": 0.05, "int8": 0.15}[kind]
        base = soup(None, input_ids=ids[1:2]).logits
        assert far(together[1], base[0]) < {"nf4": 0.05, "int8": 0.15}[kind]


def trained(
    folder: Path, work: Path, kind: str | None, names: str, parts: list[TrainingRows], **changed: Any
) -> tuple[Soup, Trained]:
    model = load_model(folder, quantize=kind)
    soup = Soup(model, tiny.tokenizer(), layers=target_layers(model))
    for name in names:
        soup.add_fresh(name, rank=4, alpha=8, seed=0)
    settings = TrainingSettings(rank=4, dropout=0, learning_rate=5e-3, batch_size=4, epochs=6, max_length=64)
    settings = settings.model_copy(update=changed)
    made = train_vectors(soup, TrainingRows.concat(parts), None, settings, names=soup.names, work=work, seed=0)
    return soup, made


def rows_of(folder: Path, kind: str | None, seed: int, vector: int = 0) -> TrainingRows:
    model = load_model(folder, quantize=kind)
    pairs = tokenise(tiny.random_pairs(12, seed), tiny.tokenizer(), 64)
    soup = Soup(model, tiny.tokenizer(), layers=target_layers(model))
    return TrainingRows.plain(pairs, pair_log_probs(soup, None, pairs), vector)


def losses(made: Trained) -> list[float]:
    return [row["loss"] for row in made.curves if "loss" in row]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_trained_on_it_starts_at_ln_2_and_learns_checkpointed_or_not(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    rows = rows_of(folder, kind, 0)
    soup, made = trained(folder, tmp_path / "a", kind, "a", [rows])
    found = losses(made)
    assert found[0] == pytest.approx(math.log(2), abs=0.02)
    assert np.mean(found[-3:]) < math.log(2) - 0.1
    assert (soup.base_name, soup.vector("a").base_fingerprint) == (str(folder), None)
    again = trained(folder, tmp_path / "b", kind, "a", [rows], gradient_checkpointing=True)[1]
    assert losses(again) == pytest.approx(found, abs=0.01)


def test_vectors_trained_in_one_pass_are_those_trained_one_by_one(folder: Path, tmp_path: Path) -> None:
    parts = [rows_of(folder, "nf4", seed, vector) for vector, seed in enumerate((0, 1))]
    alone = [
        losses(trained(folder, tmp_path / f"alone{place}", "nf4", "a", [rows_of(folder, "nf4", place)])[1])
        for place in range(2)
    ]
    together = losses(trained(folder, tmp_path / "both", "nf4", "ab", parts, batch_size=8)[1])
    assert np.mean(together[-3:]) == pytest.approx(np.mean([each[-3:] for each in alone]), abs=0.05)
    assert together[0] == pytest.approx(math.log(2), abs=0.02)


def test_a_vector_belongs_to_the_base_of_its_name_quantised_or_not(folder: Path, tmp_path: Path) -> None:
    soup = soup_of(load_model(folder, quantize="nf4"))
    soup.add_fresh("a", rank=4, alpha=8, seed=0)
    soup.vector("a").save_pretrained(tmp_path / "a")
    vector = ValueVector.load(tmp_path / "a")
    assert (vector.base, vector.base_fingerprint) == (str(folder), None)
    Soup.from_adapters(load_model(folder), {"a": vector})
    tiny.llama(hidden=64).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="trained on another base"):
        Soup.from_adapters(load_model(tmp_path / "other", quantize="nf4"), {"a": vector})


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_quantised_base_are_not_composed(kind: str, folder: Path) -> None:
    soup = soup_of(load_model(folder, quantize=kind), 1)
    assert not composes(soup, 10_000)
    assert composes(soup_of(load_model(folder), *range(40)), 10_000), "the unquantised one would be"


def test_a_transposed_layer_is_quantised_as_a_plain_one(tmp_path: Path) -> None:
    tiny.family("gpt2").save_pretrained(tmp_path)
    model, plain = load_model(tmp_path, quantize="int8"), load_model(tmp_path)
    (name, *_) = target_layers(model)
    assert target_layers(plain) == target_layers(model)
    assert features(model.get_submodule(name)) == features(plain.get_submodule(name)) == (32, 96)
    vector = tiny.random_vector(plain, 1)
    soups = [Soup.from_adapters(of, {"a": copy.deepcopy(vector)}, tiny.tokenizer()) for of in (model, plain)]
    one, other = (soup(torch.ones(1, 1), input_ids=IDS).logits for soup in soups)
    assert far(one, other) < 0.2


def test_without_bitsandbytes_one_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"^quantize: nf4 needs .* pip install 'valuesoup\[qlora\]'\.$"):
        load_model(folder, quantize="nf4")


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_what_cannot_be_quantised_is_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be quantised as 'nf5'; did you mean 'nf4'"):
        load_model(folder, quantize="nf5")
    tiny.save_base(tmp_path / "narrow")
    with pytest.raises(UserError, match=r"q_proj of base .* is 32 wide, and on a CPU .* multiples of 64"):
        load_model(tmp_path / "narrow", quantize="nf4")
    load_model(folder, quantize="nf4").save_pretrained(tmp_path / "stored")
    with pytest.raises(UserError, match="is stored quantised already; leave quantize out"):
        load_model(tmp_path / "stored", quantize="nf4")


def test_a_device_that_has_no_such_product_is_found_when_the_base_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes

    def none(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no kernel for this device\nmore")

    monkeypatch.setattr(bitsandbytes, "matmul_4bit", none)
    with pytest.raises(UserError, match=r"do not run on cpu here \(NotImplementedError: no kernel for this device\);"):
        load_model(folder, quantize="nf4")
