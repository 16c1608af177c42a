"""Exports of a tiny run as its users meet them: loaded by transformers and PEFT alone, checked, whole or not at all."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import valuesoup as vs
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.answering import prompt_tokens
from valuesoup.pipeline.run import Finished, open_run
from valuesoup.pipeline.serving import candidate_names
from valuesoup.shipping import Exported, check, export
from valuesoup.shipping.card import example_prompt
from valuesoup.shipping.choice import open_trained
from valuesoup.shipping.exporting import _name_revision
from valuesoup.shipping.origin import Origin
from valuesoup.soup import ValueVector, cut
from valuesoup.store import Progress

WEIGHTS = {"helpful": 0.6, "harmless": 0.4}
TEXT = "how can i bake bread"


def soup_logits(run: Finished, method: str, weights: dict[str, float]) -> torch.Tensor:
    soup = run.soup(method)
    assert soup.tokenizer is not None
    ids = soup.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return soup(soup.weight_rows(weights, 1), input_ids=ids).logits


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=tokenizer(TEXT, return_tensors="pt")["input_ids"]).logits


@pytest.fixture(scope="module")
def adapter(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(finished, tmp_path_factory.mktemp("out") / "adapter", method="soup", weights=WEIGHTS)


def test_an_adapter_is_exact_and_peft_loads_it_without_this_package(finished: Finished, adapter: Exported) -> None:
    scope: dict[str, Any] = {}
    exec(adapter.usage, scope)  # what the export says to type
    torch.testing.assert_close(
        logits(scope["model"], scope["tokenizer"]), soup_logits(finished, "soup", WEIGHTS), rtol=0, atol=1e-5
    )
    (policy,) = adapter.policies
    assert (policy.rank, policy.cut, policy.candidate) == (8, None, "soup/helpful=0.6,harmless=0.4")
    assert 0 <= policy.check.mean <= policy.check.max <= policy.check.tolerance == 1e-3
    assert policy.check.change > 100 * policy.check.max
    assert (policy.check.responses, policy.check.skipped) == (20, 0)  # all that such a run has
    assert set(adapter.files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "valuesoup.json",
    }  # fmt: skip
    assert any("was never measured" in note for note in adapter.notes)


def test_others_may_read_the_files_and_the_run_is_as_it_was(adapter: Exported) -> None:
    assert all((adapter.folder / name).stat().st_mode & 0o044 for name in adapter.files) or os.umask(0o022) != 0o022
    assert not list(adapter.folder.parent.glob(".*"))


def test_generation_settings_are_those_that_the_scores_were_measured_with(adapter: Exported) -> None:
    from transformers import GenerationConfig

    settings = GenerationConfig.from_pretrained(adapter.folder)
    assert (settings.do_sample, settings.temperature, settings.max_new_tokens) == (True, 1.0, 12)
    assert (settings.top_k, settings.top_p) == (0, 1.0)


def test_a_policy_without_a_dial_is_exported_by_its_id(finished: Finished, tmp_path: Path) -> None:
    done = vs.export(finished.folder, tmp_path / "one", candidates=["dpo/helpful=1,harmless=0"])
    assert (done.policies[0].method, done.policies[0].rank) == ("dpo", 4)
    assert done.policies[0].check.passed


def test_a_cut_reports_its_error_and_its_divergence_and_is_what_was_checked(finished: Finished, tmp_path: Path) -> None:
    done = export(finished, tmp_path / "cut", method="soup", weights=WEIGHTS, rank=1)
    (policy,) = done.policies
    assert policy.cut is not None
    exact = finished.soup("soup").adapter(WEIGHTS)
    small, error = cut(exact, 1)
    assert policy.cut.relative_error == pytest.approx(error)
    assert 0 < error < 1
    assert (policy.cut.exact_rank, policy.rank, policy.cut.prompts) == (8, 1, 16)
    assert policy.cut.kl > 0
    assert policy.check.passed
    written = ValueVector.load(done.folder)
    assert written.rank == 1
    for name, factors in small.layers.items():
        torch.testing.assert_close(written.layers[name].delta(), factors.delta())
    whole = export(finished, tmp_path / "whole", method="soup", weights=WEIGHTS, rank=8)
    assert whole.policies[0].cut is None
    assert "soup/helpful=0.6,harmless=0.4: exact, for rank 8 cuts nothing." in whole.notes


def test_a_merged_model_needs_nothing_but_transformers(finished: Finished, tmp_path: Path) -> None:
    done = export(finished, tmp_path / "merged", method="vc-soup", weights={"helpful": 1, "harmless": 1}, form="merged")
    scope: dict[str, Any] = {}
    exec(done.usage, scope)
    expected = soup_logits(finished, "vc-soup", {"helpful": 1, "harmless": 1})
    torch.testing.assert_close(logits(scope["model"], scope["tokenizer"]), expected, rtol=0, atol=1e-5)
    assert scope["model"].generation_config.max_new_tokens == 12
    assert 0 < len(scope["answer"][0]) - scope["inputs"]["input_ids"].shape[1] <= 12
    assert (done.policies[0].rank, done.policies[0].check.passed) == (None, True)
    assert not any("local folder" in note for note in done.notes)


def test_the_code_that_is_shown_asks_an_adapter_by_the_runs_own_settings(
    finished: Finished, adapter: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    scope: dict[str, Any] = {}
    exec(adapter.usage, scope)
    assert scope["model"].generation_config.max_new_tokens != 12, "else this shows nothing: PEFT reads the base's"
    assert 0 < len(scope["answer"][0]) - scope["inputs"]["input_ids"].shape[1] <= 12
    assert capsys.readouterr().out.strip()
    soup = finished.soup("soup")
    assert scope["inputs"]["input_ids"][0].tolist() == list(prompt_tokens(soup, {"messages": example_prompt(finished)}))


def test_an_adapter_on_a_revision_names_it_where_peft_looks(adapter: Exported, tmp_path: Path) -> None:
    from peft import PeftConfig

    folder = shutil.copytree(adapter.folder, tmp_path / "adapter")
    before = PeftConfig.from_pretrained(str(folder)).to_dict()
    _name_revision(folder, "v1.0")
    after = PeftConfig.from_pretrained(str(folder)).to_dict()
    assert after == {**before, "revision": "v1.0"}


def test_the_layout_for_vllm_serves_every_candidate_under_a_plain_name(finished: Finished, tmp_path: Path) -> None:
    done = export(
        finished,
        tmp_path / "served",
        method="soup",
        weights=WEIGHTS,
        candidates=["vc-soup/helpful=0.5,harmless=0.5", "dpo/helpful=1,harmless=0"],
        form="vllm",
    )
    names = ["soup-helpful-0.6-harmless-0.4", "vc-soup-helpful-0.5-harmless-0.5", "dpo-helpful-1-harmless-0"]
    assert [policy.name for policy in done.policies] == names
    for name, rank in zip(names, (8, 8, 4), strict=True):
        config = json.loads((done.folder / name / "adapter_config.json").read_text())
        assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", rank, rank, "none")
        assert config["modules_to_save"] is None
        assert (done.folder / name / "tokenizer.json").is_file()
    # The script is run as it is, with a vllm that says what it was asked.
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "vllm").write_text('#!/bin/sh\npwd\nfor word in "$@"; do echo "$word"; done\n')
    (bin_folder / "vllm").chmod(0o755)
    search = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        [done.folder / "serve.sh", "--port", "8001"], env={"PATH": search}, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert Path(said[0]).samefile(done.folder)
    assert said[1] == "serve"
    assert (Path(said[2]) / "config.json").is_file()
    options = said[3:]
    # No top_p or top_k of the base's own settings, under which nothing was measured.
    assert options[:4] == ["--served-model-name", "base", "--generation-config", "vllm"]
    assert options[4:7] == ["--enable-lora", "--max-lora-rank", "8"]
    assert options[7:11] == ["--max-loras", "3", "--max-cpu-loras", "3"]
    assert options[11:] == ["--lora-modules", *(f"{name}=./{name}" for name in names), "--port", "8001"]
    assert "vLLM itself was not run" in (done.folder / "README.md").read_text(encoding="utf-8")


def test_every_candidate_is_exported_under_the_name_that_an_evaluation_by_a_server_asks_for(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(demo_run[0], tmp_path / "run"))
    (run / "results.json").unlink()  # it waits for a server to answer
    done = export(run, tmp_path / "all", everything=True)
    plan = open_trained(run).plan
    names = {name for names in candidate_names(plan.stacks) for name in names} - {"base"}
    assert {policy.name for policy in done.policies} == names
    assert len(done.policies) == len(names) == 6  # DPO's two are SOUP's ends
    assert all(policy.check.passed for policy in done.policies)
    assert done.notes[0] == "The run has not measured any of its candidates yet."
    assert "Not measured when this was written." in (done.folder / "README.md").read_text(encoding="utf-8")
    next(run.glob("artifacts/train-*/adapter/adapter_model.safetensors")).unlink()
    with pytest.raises(UserError, match=r"still has to train the \w+ vector of .*; `valuesoup run .*` goes on"):
        export(run, tmp_path / "more", everything=True)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"form": "mergd"}, "there is no form 'mergd'; did you mean 'merged'?"),
        ({"form": "merged", "rank": 4}, "a merged model has none"),
        ({"everything": True}, "nothing else can be chosen beside --all"),
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"candidates": ["dpo/helpful=1,harmless=0"]}, "an adapter is one policy, and 2 are named"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    asked: dict[str, Any], sentence: str, finished: Finished, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        export(finished, tmp_path / "new" / "x", **{"method": "soup", "weights": WEIGHTS, **asked})
    assert sentence in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_never_written_into(finished: Finished, tmp_path: Path) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for target in (full, file, tmp_path / "link"):
        with pytest.raises(UserError, match=r"is not empty|is a file or a link"):
            export(finished, target, method="soup", weights=WEIGHTS)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert export(finished, tmp_path / "empty", method="soup", weights=WEIGHTS).folder == tmp_path / "empty"


def test_a_16_bit_base_is_rounded_once_and_the_note_says_what_that_costs(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    run = open_run(Path(shutil.copytree(demo_run[0], tmp_path / "run")))
    (file,) = run.folder.glob("artifacts/pretrain-*/model/model.safetensors")
    half = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(half, file, metadata={"format": "pt"})
    done = export(run, tmp_path / "out", method="soup", weights=WEIGHTS, form="merged")
    (policy,) = done.policies
    assert 1e-5 < policy.check.max < policy.check.tolerance == 0.25
    assert {tensor.dtype for tensor in load_file(done.folder / "model.safetensors").values()} == {torch.bfloat16}
    exact = export(run, tmp_path / "adapter", method="soup", weights=WEIGHTS)
    assert exact.policies[0].check.max < 1e-5


class Stop(Progress):
    """Interrupts the export once it says something."""

    def say(self, text: str) -> None:
        if text.startswith("loading it back"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_interrupted_export_leaves_nothing(form: Any, finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(finished, tmp_path / "out", method="soup", weights=WEIGHTS, form=form, progress=Stop())
    assert list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*out*")) == []


def test_an_export_that_answers_otherwise_is_an_error_and_kept_under_a_name_that_says_so(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.TOLERANCE, "float32", 1e-12)  # nothing is as exact as that
    for _ in range(2):
        with pytest.raises(RunError, match=r"does not answer as the Soup does: .* and 1e-12 is allowed; it is kept in"):
            export(finished, tmp_path / "out", method="soup", weights=WEIGHTS)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.failed-check" / "adapter_config.json").is_file()


def test_a_base_whose_weights_changed_since_is_refused(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = open_run(Path(shutil.copytree(demo_run[0], tmp_path / "run")))
    (weights,) = run.folder.glob("artifacts/pretrain-*/model/model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="adapter 'soup/helpful' was trained on another base"):
        export(run, tmp_path / "out", method="soup", weights=WEIGHTS)
    assert not (tmp_path / "out").exists()


def test_the_commands_pick_and_export_end_to_end(finished: Finished, tmp_path: Path) -> None:
    import shlex

    from typer.testing import CliRunner

    from valuesoup.cli.commands import app

    picked = CliRunner().invoke(app, ["pick", str(finished.folder), "--maximise", "helpful", "--method", "soup"])
    assert picked.exit_code == 0, picked.output
    command = shlex.split(picked.output.partition("export it: ")[2])
    assert command[:2] == ["valuesoup", "export"]
    command[-1] = str(tmp_path / "out")
    exported = CliRunner().invoke(app, command[1:])
    assert exported.exit_code == 0, exported.output
    assert "differ from the Soup's by" in exported.output
    assert (tmp_path / "out" / "README.md").is_file()


def test_an_export_says_that_it_runs_code_that_comes_with_the_base(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda _, text: said.append(text))
    config = finished.plan.config
    trusting = config.model_copy(update={"base": config.base.model_copy(update={"trust_remote_code": True})})
    allowed = replace(finished, plan=replace(finished.plan, config=trusting))
    export(allowed, tmp_path / "out", method="soup", weights=WEIGHTS)
    base = Origin.of(finished).path
    assert said.count(f"trust_remote_code is set: code that comes with {base} is run.") == 1
