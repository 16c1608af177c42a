"""Malformed adapters: a sentence, or the value vector that the files hold."""

import json
import math
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import fuzz.oracle as oracle
from fuzz.cases import CASES
from valuesoup.soup import ValueVector

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": True,
    "modules_to_save": None,
    "rank_pattern": {"model.layers.1.q_proj": 1},
    "alpha_pattern": {"model.layers.1.q_proj": 8},
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "some/base",
    "inference_mode": True,
    "fan_in_fan_out": False,
}
LAYERS = {"model.layers.0.q_proj": 2, "model.layers.1.q_proj": 1}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {}
    for layer, rank in LAYERS.items():
        found[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(rank, 6)
        found[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(4, rank)
    return found


def write(folder: Path, config: Any = CONFIG, weights: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors() if weights is None else weights, folder / "adapter_model.safetensors")
    return folder


def check(vector: ValueVector | None, folder: Path) -> None:
    """Hold that every delta is finite and survives being saved."""
    if vector is None:
        return
    assert vector.layers
    for factors in vector.layers.values():
        assert math.isfinite(factors.scale)
        assert factors.A.dtype.is_floating_point
        assert factors.delta().isfinite().all()
    vector.save_pretrained(folder / "saved")
    again = ValueVector.load(folder / "saved")
    for name, factors in vector.layers.items():
        torch.testing.assert_close(again.layers[name].delta(), factors.delta(), rtol=1e-2, atol=1e-4)


def test_what_is_changed_here_is_right_before(tmp_path: Path) -> None:
    vector = ValueVector.load(write(tmp_path / "a"))
    assert {name: factors.scale for name, factors in vector.layers.items()} == dict(
        zip(LAYERS, (2.0, 8.0), strict=True)
    )
    check(vector, tmp_path)


def test_a_configuration_with_anything_changed_is_refused_in_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    right = {name: factors.delta() for name, factors in ValueVector.load(folder).layers.items()}
    meant = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
    for seed in range(CASES["adapters"]):
        changed = oracle.mutated(CONFIG, Random(seed))
        (folder / "adapter_config.json").write_text(json.dumps(changed))
        found = oracle.answer(lambda: ValueVector.load(folder))
        check(found, tmp_path)
        if found is not None and all(changed.get(key) == CONFIG[key] for key in meant):
            for name, delta in right.items():
                assert torch.equal(found.layers[name].delta(), delta), changed


def test_files_that_are_cut_or_damaged_are_refused_in_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    names = ("adapter_model.safetensors", "adapter_config.json")
    whole = {name: (folder / name).read_bytes() for name in names}
    for seed in range(CASES["damaged adapters"]):
        random = Random(seed)
        name = random.choice(names)
        (folder / name).write_bytes(oracle.damaged(whole[name], random))
        check(oracle.answer(lambda: ValueVector.load(folder)), tmp_path)
        (folder / name).write_bytes(whole[name])


A, B = (f"base_model.model.model.layers.0.q_proj.lora_{side}.weight" for side in "AB")
WEIGHTS: dict[str, dict[str, torch.Tensor]] = {
    "nothing": {},
    "A alone": {A: torch.ones(2, 6)},
    "another rank": {A: torch.ones(2, 6), B: torch.ones(4, 3)},
    "rank 0": {A: torch.ones(0, 6), B: torch.ones(4, 0)},
    "no inputs": {A: torch.ones(2, 0), B: torch.ones(4, 2)},
    "no outputs": {A: torch.ones(2, 6), B: torch.ones(0, 2)},
    "whole numbers": {A: torch.ones(2, 6, dtype=torch.int32), B: torch.ones(4, 2, dtype=torch.int32)},
    "bytes": {A: torch.ones(2, 6, dtype=torch.uint8), B: torch.ones(4, 2, dtype=torch.uint8)},
    "booleans": {A: torch.ones(2, 6, dtype=torch.bool), B: torch.ones(4, 2, dtype=torch.bool)},
    "mixed kinds": {A: torch.ones(2, 6, dtype=torch.int64), B: torch.ones(4, 2)},
    "one dimension": {A: torch.ones(6), B: torch.ones(4)},
    "three dimensions": {A: torch.ones(2, 6, 1), B: torch.ones(4, 2, 1)},
    "NaN": {A: torch.full((2, 6), torch.nan), B: torch.ones(4, 2)},
    "infinite": {A: torch.full((2, 6), torch.inf), B: torch.ones(4, 2)},
    "a product that overflows": {A: torch.full((2, 6), 3e38), B: torch.full((4, 2), 3e38)},
    "a bias": {A: torch.ones(2, 6), B: torch.ones(4, 2), "base_model.model.q_proj.bias": torch.ones(4)},
    "no name": {".lora_A.weight": torch.ones(2, 6), ".lora_B.weight": torch.ones(4, 2)},
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_another_shape_are_refused_in_words(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {**CONFIG, "rank_pattern": {}, "alpha_pattern": {}}, WEIGHTS[name])
    assert oracle.answer(lambda: ValueVector.load(folder)) is None


def header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 8,
        header(b"{}", 2**63),
        header(b"{}", 2**40),
        header(b"[]"),
        header(b"[" * 100_000),
        header(b'{"a": 1}'),
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,999999999999]}}'),
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"\x00" * 4,
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + b"\x00" * 4,
        header(b'{"a":{"dtype":"NO","shape":[1],"data_offsets":[0,4]}}') + b"\x00" * 4,
        header(b'{"__metadata__":{"format":3}}'),
        b"\x80\x04\x95" + b"\x00" * 50,
        b"PK\x03\x04" + b"\x00" * 50,
    ],
)
def test_known_traps_of_safetensors_are_refused_in_words(data: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(data)
    assert oracle.answer(lambda: ValueVector.load(folder)) is None


@pytest.mark.parametrize(
    "record", ["", "{", "[]", "3", '{"base_fingerprint": 3}', '{"base_fingerprint": ["x"]}', "[" * 99999]
)
def test_a_record_of_the_base_of_another_shape_is_refused_in_words(record: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "valuesoup.json").write_text(record)
    assert oracle.answer(lambda: ValueVector.load(folder)) is None


def test_folders_that_are_no_adapter_are_refused_in_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        other = write(tmp_path / name)
        (other / name).unlink()
        assert oracle.answer(lambda other=other: ValueVector.load(other)) is None
        (other / name).mkdir()
        assert oracle.answer(lambda other=other: ValueVector.load(other)) is None
    for path in (tmp_path, tmp_path / "none", folder / "adapter_config.json", "a\0b", "x" * 5000, "\ud800", ""):
        assert oracle.answer(lambda path=path: ValueVector.load(path)) is None
