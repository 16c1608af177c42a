"""Exported adapters for servers that load whole models: links to what is missing of their base."""

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from tiny_sweep import save_base
from valuesoup.errors import UserError
from valuesoup.pipeline.served import link_base


def test_adapters_are_given_what_is_missing_of_their_base_and_nothing_else(tmp_path: Path) -> None:
    base, out = save_base(tmp_path / "base"), tmp_path / "out"
    vector = replace(tiny.random_vector(tiny.llama(), 0), base=str(base))
    for name in ("one", "two"):
        vector.save_pretrained(out / name)
        (out / name / "generation_config.json").write_text('{"do_sample": true}')
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    folders = link_base(out)
    assert folders == [out / "base", out / "one", out / "two"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {path.name for path in folders[1].iterdir()} == {
        *(path.name for path in base.iterdir()),
        "adapter_config.json",
        "adapter_model.safetensors",
        "valuesoup.json",
    }
    assert (out / "base" / "generation_config.json").read_text() == '{"do_sample": true}'
    assert (out / "two" / "model.safetensors").samefile(base / "model.safetensors")
    assert link_base(out) == folders


def test_a_folder_without_adapters_or_whose_base_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="holds no adapters; write them with `valuesoup export RUN --all"):
        link_base(tmp_path)
    for name in (str(tmp_path / "gone"), "nobody/nothing"):
        replace(tiny.random_vector(tiny.llama(), 0), base=name).save_pretrained(tmp_path / "one")
        with pytest.raises(UserError, match=f"{name}, is not on this disk"):
            link_base(tmp_path)
