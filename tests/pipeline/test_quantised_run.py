"""``base.quantize`` from the configuration to the export: a whole tiny run, and what is refused before it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_run
from tiny import save_base
from valuesoup.config import BaseConfig, RunConfig
from valuesoup.configfile import dump_config, parse_config
from valuesoup.doctor import examine
from valuesoup.errors import UserError
from valuesoup.pipeline import inputs
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.inputs import base_ref, open_base, open_training_base
from valuesoup.pipeline.run import open_run
from valuesoup.shipping import export
from valuesoup.store.team import Team
from valuesoup.training.pretrain import pretrain
from valuesoup.training.settings import PretrainSettings
from valuesoup.worlds.errands import dialogues

WEIGHTS = {"helpful": 0.5, "harmless": 0.5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the embedded world whose widths, 128 and 320, are multiples of a block of nf4."""
    folder = tmp_path_factory.mktemp("base") / "made"
    small = PretrainSettings(tokenizer="words", vocabulary=256, hidden=128, layers=1, heads=2, context=64, steps=150)
    pretrain(list(dialogues(size=1500)), small.model_copy(update={"batch_size": 16}), folder, seed=0)
    return folder


def config(base: Path, quantize: str | None, *overrides: str) -> RunConfig:
    world = "valuesoup.worlds.errands"
    content: dict[str, Any] = {
        "values": {
            value: {
                "data": {"function": f"{world}:pairs", "arguments": {"value": value, "size": 300}},
                "reward": {"function": f"{world}:{value}"},
            }
            for value in WEIGHTS
        },
        "base": {"model": str(base), "device": "cpu", "quantize": quantize},
        "training": {"rank": 4, "epochs": 3, "batch_size": 32, "learning_rate": 2e-3},
        "generation": {"max_new_tokens": 12},
        "evaluation": {"test_prompts": 8, "validation_prompts": 6, "resamples": 50, "samples": 2},
        "methods": [{"preset": "soup", "steps": 2}, {"preset": "mva", "mode": "joint", "points": 2}],
    }
    return parse_config(yaml.safe_dump(content, sort_keys=False), "test", overrides)


@pytest.fixture(scope="module")
def done(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the base in nf4."""
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes for this machine")
    root = tmp_path_factory.mktemp("quantised")
    (root / "run.yaml").write_text(dump_config(config(base, "nf4")))
    found = tiny_run.valuesoup(root / "cache", "run", root / "run.yaml", "--out", root / "run")
    assert found.returncode == 0, found.stderr
    assert found.stderr == "", "no notices of the libraries"
    again = tiny_run.valuesoup(root / "cache", "run", root / "run" / "config.yaml")
    count = tiny_run.stages(root / "run")
    assert f"{count} of {count} stages are already done" in again.stdout
    return root / "run"


def test_a_run_on_a_quantised_base_trains_measures_and_opens_again(done: Path) -> None:
    finished = open_run(done)
    assert finished.plan.config.base.quantize == "nf4"
    assert finished.results["methods"].keys() == {"base", "soup", "mva"}
    for value, node in finished.plan.recipes["soup"].vectors.items():
        curves = finished.artifacts[node.key].json("curves.json")
        losses = [row["loss"] for row in curves if "loss" in row]
        assert losses[0] == pytest.approx(0.6931, abs=0.02), value
        assert losses[-1] < losses[0] - 0.03, value
    soup = finished.soup("soup")
    assert type(soup.model.model.layers[0].self_attn.q_proj.layer).__name__ == "Linear4bit"
    assert soup.generate(["how can i bake bread"], WEIGHTS, max_new_tokens=3)


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_export_is_for_the_base_as_it_is_stored_and_its_card_says_so(
    form: Any, done: Path, base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    exported = export(done, tmp_path / "out", method="soup", weights=WEIGHTS, form=form)
    assert exported.policies[0].check.max <= 1e-3
    said = [note for note in exported.notes if "trained and measured on the base quantised to nf4" in note]
    assert len(said) == 1
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "quantised to nf4" in card
    assert "compared with the same vectors on the base as it is stored" in card
    if form == "merged":
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").model.layers[0].mlp.up_proj.weight.dim() == 2
    else:
        assert f'"base_model_name_or_path": "{base}"' in (tmp_path / "out" / "adapter_config.json").read_text()


def test_quantising_makes_another_base_of_it_and_none_leaves_every_key_as_it_was(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "base")
    plain, left_out = base_ref(BaseConfig(model=str(folder), quantize=None)), base_ref(BaseConfig(model=str(folder)))
    assert plain.key_parts() == left_out.key_parts()
    assert "quantize" not in plain.key_parts()["config"]
    assert "quantize" not in dump_config(demo_config())
    keys = [base_ref(BaseConfig(model=str(folder), quantize=kind)).key_parts() for kind in ("nf4", "int8")]
    assert keys[0] != keys[1] != plain.key_parts() != keys[0]
    written = dump_config(config(folder, "int8"))
    assert parse_config(written, "again").base.quantize == "int8"


def test_what_cannot_be_quantised_is_refused_in_the_configuration(base: Path) -> None:
    with pytest.raises(UserError, match=r"base: quantize is for a base that is loaded: give model, or leave"):
        demo_config(overrides=["base.quantize=nf4"])
    with pytest.raises(UserError, match=r"base\.quantize.*'nf4' or 'int8'"):
        config(base, "int4")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_answers_nearly_as_the_whole_one(kind: str, base: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes for this machine")
    import torch

    found = []
    for quantize in (kind, None):
        model, tokenizer = open_base(base_ref(config(base, quantize).base), "cpu")
        texts = [tokenizer.apply_chat_template(text, tokenize=False) for text in dialogues(size=40, seed=9)]
        rows = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
        with torch.no_grad():
            each = [model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).flatten() for ids in rows]
        found.append(torch.cat(each))
    quantised, whole = found
    assert abs(float(quantised.mean() - whole.mean())) < 0.01, "nats per token"
    assert float((quantised - whole).abs().mean()) < {"nf4": 0.15, "int8": 0.05}[kind]


def test_a_quantised_base_is_not_divided_among_processes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "team", lambda: Team(0, 2, divided=True))
    with pytest.raises(UserError, match="FSDP and ZeRO-3 divide it: start the processes without them"):
        open_training_base(base_ref(config(base, "nf4").base), "cpu")


def test_the_doctor_counts_the_bytes_and_asks_for_the_package(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from valuesoup.doctor import checks
    from valuesoup.doctor.sizes import read_config, size_of_config, size_of_number

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    size = size_of_config(read_config(base))
    table, blocks = 2 * size.vocabulary * 128, 4 * 128**2 + 3 * 128 * 320
    assert size.parameters == table + blocks + 3 * 128, "and the norms"
    assert size.weights("bfloat16") == 2 * size.parameters
    assert size.weights("bfloat16", "int8") == 2 * table + blocks + 3 * 128
    assert size.weights("float32", "nf4") == 4 * table + (blocks + 3 * 128) / 2
    large = size_of_number(70 * 10**9)
    assert 35e9 < large.weights("bfloat16", "nf4") < 37e9 and large.weights("bfloat16") == 140e9
    monkeypatch.setattr(checks, "installed_version", lambda name: None)
    report = examine(config(base, "nf4"), out=tmp_path, measure=False)
    (problem,) = [one for one in report.problems if one.where == "base.quantize"]
    assert problem.stops and "pip install 'valuesoup[qlora]'" in problem.text
