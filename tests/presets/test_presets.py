"""Presets are whole, true and runnable: every key is there, every commented key is one, and nothing is overwritten."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_run
from valuesoup.config import BaseConfig, EvaluationConfig, GenerationConfig, RunConfig
from valuesoup.configfile import load_config, parse_config
from valuesoup.data import load_pairs
from valuesoup.errors import UserError
from valuesoup.methods.registry import BUILT_IN
from valuesoup.pipeline.plan import make_plan
from valuesoup.presets import PRESETS, preset_text, write_preset
from valuesoup.store import topological
from valuesoup.training.settings import TrainingSettings

OPTIONAL = re.compile(r"^(\s*)#((?:[a-z_\d]+:|- \S).*)$")
INSTEAD = re.compile(r"^(\s*)# or: (.*)$")
SECTIONS: dict[str, Any] = {
    "training": TrainingSettings,
    "generation": GenerationConfig,
    "evaluation": EvaluationConfig,
}
PAPERS = ("hh", "beavertails", "three-values")


def variants(name: str) -> Iterator[tuple[str, str]]:
    """Yield the preset with one optional line switched on, or one line replaced by what may stand instead."""
    lines = preset_text(name, "folder").splitlines()
    for place, line in enumerate(lines):
        before, after = lines[:place], lines[place + 1 :]
        if match := OPTIONAL.match(line):
            yield line, "\n".join([*before, match[1] + match[2], *after])
        elif match := INSTEAD.match(line):
            above = next(p for p in reversed(range(place)) if not lines[p].lstrip().startswith("#"))
            assert lines[above].startswith(match[1]), "it stands instead of a line of the same depth"
            yield line, "\n".join([*before[:above], match[1] + match[2], *before[above + 1 :], *after])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_and_is_planned(name: str, tmp_path: Path) -> None:
    config, *_ = write_preset(name, tmp_path / "mine")
    stages = {node.stage.name for node in topological(make_plan(load_config(config)).targets())}
    assert stages >= {"pairs", "split", "filter", "train", "answers", "frontier"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_commented_key_is_a_key_that_may_be_set(name: str) -> None:
    tried = 0
    for line, text in variants(name):
        try:
            parse_config(text, name)
        except UserError as error:
            pytest.fail(f"{line.strip()}: {error}")
        tried += 1
    assert tried >= 10


@pytest.mark.parametrize("name", PRESETS)
def test_every_section_and_every_setting_of_training_generation_and_evaluation_is_shown(name: str) -> None:
    text = preset_text(name)
    shown = set(re.findall(r"^#?([a-z_\d]+):", text, re.MULTILINE))
    assert shown == set(RunConfig.model_fields)
    for section, model in SECTIONS.items():
        body = re.search(rf"^{section}:.*?\n((?:[ #].*\n|\n)*)", text, re.MULTILINE)
        assert body is not None
        keys = set(re.findall(r"^  #?([a-z_\d]+):", body[1], re.MULTILINE))
        assert keys == set(model.model_fields), section


@pytest.mark.parametrize("name", PRESETS)
def test_every_default_that_a_comment_names_is_the_default(name: str) -> None:
    checked = 0
    section = ""
    for line in preset_text(name).splitlines():
        if top := re.match(r"([a-z]+):", line):
            section = top[1]
        found = re.match(r"\s+#?([a-z_\d]+): .*#.*; default ([\w.-]+?)[.;,]?(?=\s|$)", line)
        model = {**SECTIONS, "base": BaseConfig}.get(section)
        if found is None or model is None:
            continue
        assert model.model_fields[found[1]].default == yaml.safe_load(found[2]), line
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize("name", PAPERS)
def test_the_presets_of_the_papers_have_their_settings(name: str) -> None:
    config = parse_config(preset_text(name), name)
    training = config.training
    assert (training.beta, training.learning_rate, training.batch_size, training.epochs) == (0.1, 1e-5, 2, 3)
    assert training.rank == (16 if name == "beavertails" else 64)
    assert (training.lora_alpha, training.dropout) == (2 * training.rank, 0.05)
    assert (config.evaluation.test_prompts, config.evaluation.validation_prompts) == (200, 50)
    assert config.generation.max_new_tokens == 200
    assert config.base.model == "meta-llama/Llama-2-7b-hf"
    assert {entry.preset for entry in config.methods} == set(BUILT_IN) - {"vc-soup-nll"}


@pytest.mark.parametrize("folder", ["mine", 'with "quotes" and # signs: all', "ähnlich\\etwas"])
def test_the_example_pairs_are_found_in_whatever_folder(folder: str, tmp_path: Path) -> None:
    config, *beside = write_preset("custom", tmp_path / folder)
    for value in load_config(config).values.values():
        path = Path(value.data[0].path or "")
        assert path in beside
        pairs = load_pairs(path)
        assert len(pairs) > 100
        assert not any(pairs.dropped.values())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "warm.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"warm\.jsonl exists and is not overwritten"):
        write_preset("custom", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["warm.jsonl"]
    with pytest.raises(UserError, match="is a file"):
        write_preset("small", tmp_path / "warm.jsonl")


def test_an_unknown_preset_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no preset 'beavertail'; did you mean 'beavertails'"):
        write_preset("beavertail", tmp_path)


def test_the_command_lists_writes_refuses_and_names_what_comes_next(tmp_path: Path) -> None:
    listed = tiny_run.valuesoup(tmp_path, "init", cwd=tmp_path)
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()[: len(PRESETS)]] == list(PRESETS)
    made = tiny_run.valuesoup(tmp_path, "init", "my values", "--preset", "custom", cwd=tmp_path)
    assert made.returncode == 0
    assert "valuesoup doctor 'my values/config.yaml'" in made.stdout
    assert "valuesoup run 'my values/config.yaml' --out 'my values/run'" in made.stdout
    again = tiny_run.valuesoup(tmp_path, "init", "my values", "--preset", "custom", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    nowhere = tiny_run.valuesoup(tmp_path, "init", "--preset", "custom", cwd=tmp_path)
    assert nowhere.returncode == 2
    assert "give a folder" in nowhere.stderr


def test_the_custom_preset_runs_at_once_offline(tmp_path: Path) -> None:
    assert tiny_run.valuesoup(tmp_path, "init", "mine", "--preset", "custom", cwd=tmp_path).returncode == 0
    smaller = ["base.pretrain.steps=20", "training.epochs=0.3", "generation.max_new_tokens=4", "evaluation.samples=1"]
    smaller += ["methods=[soup]", "values.brief.reward.train.epochs=0.5", "values.warm.reward.train.epochs=0.5"]
    settings = [part for setting in smaller for part in ("--set", setting)]
    done = tiny_run.valuesoup(tmp_path, "run", "mine/config.yaml", "--out", "mine/run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "run" / "report.html").is_file()
