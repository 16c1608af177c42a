"""The check of a tiny demo run, whole: what it measures, keeps, refuses, and how it runs a command."""

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_run
from valuesoup.config import BaseConfig
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.inputs import base_ref
from valuesoup.pipeline.run import Finished, open_run
from valuesoup.regression import check, checked_run
from valuesoup.regression.command import read_command
from valuesoup.regression.kept import take_subjects
from valuesoup.regression.subjects import current_keys, subjects_of
from valuesoup.regression.texts import held_out_texts
from valuesoup.store import Node

TEXT = "helpful words\n\nof two documents"

# Writes what it was called with, and both the number and the layout that it is told.
SCRIPT = """
import json, pathlib, sys
model, out, layout = sys.argv[1:4]
with open(sys.argv[4], "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
from safetensors.numpy import load_file
figure = sum(float((t.astype("float64") ** 2).sum()) for t in load_file(model + "/model.safetensors").values())
content = {"norm": figure, "norm_stderr": 0.5}
if layout == "lm-eval":
    content = {"results": {"arc": {"acc,none": figure, "acc_stderr,none": 0.5}}}
    content["higher_is_better"] = {"arc": {"acc": True}}
pathlib.Path(out, "results.json").write_text(json.dumps(content))
"""


@pytest.fixture
def finished(demo_run: tuple[Path, str], tmp_path: Path) -> Finished:
    return open_run(shutil.copytree(demo_run[0], tmp_path / "run"))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "a folder").mkdir()
    path = tmp_path / "a folder" / "evaluate.py"
    path.write_text(SCRIPT)
    return path


def command(script: Path, layout: str = "flat") -> str:
    return f"{sys.executable} '{script}' {{model}} {{out}} {layout} '{script.parent / 'log'}'"


def calls(script: Path) -> int:
    log = script.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def dense(finished: Finished, vectors: dict[str, float]) -> Any:
    """The base with W + Σ λ s B A of the adapters on disk, in float64, by transformers alone."""
    from transformers import AutoModelForCausalLM

    assert isinstance(finished.plan.base, Node)
    folder = finished.artifacts[finished.plan.base.key].path / "model"
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    for key, weight in vectors.items():
        adapter = finished.artifacts[key].path / "adapter"
        settings = json.loads((adapter / "adapter_config.json").read_text())
        tensors = load_file(adapter / "adapter_model.safetensors")
        for name, A in tensors.items():
            if name.endswith("lora_A.weight"):
                layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                B = tensors[name.replace("lora_A", "lora_B")]
                scale = settings["lora_alpha"] / settings["r"]
                with torch.no_grad():
                    model.get_submodule(layer).weight += weight * scale * (B.double() @ A.double())
    return model


def vectors_of(finished: Finished, identity: str) -> dict[str, float]:
    row = next(row for row in finished.results["candidates"] if row["id"] == identity)
    if not row["weights"] or not any(row["weights"].values()):
        return {}
    nodes = finished.plan.recipes[row["method"]].vectors
    if set(nodes) == set(row["weights"]):
        return {nodes[value].key: weight for value, weight in row["weights"].items() if weight}
    (value,) = [value for value, weight in row["weights"].items() if weight]  # a policy per value
    return {list(nodes.values())[list(row["weights"]).index(value)].key: 1.0}


def test_the_perplexity_of_every_policy_is_that_of_its_dense_float64_merge(finished: Finished) -> None:
    from transformers import AutoTokenizer

    (text,) = check(finished)["texts"]
    documents = held_out_texts(finished).documents
    assert isinstance(finished.plan.base, Node)
    tokenizer = AutoTokenizer.from_pretrained(finished.artifacts[finished.plan.base.key].path / "model")
    assert text["policies"][0]["id"] == "base"
    assert {row["method"] for row in text["policies"]} == {"base", *finished.plan.recipes}
    nats: dict[str, list[float]] = {}
    for row in text["policies"]:
        model = dense(finished, vectors_of(finished, row["id"]))
        nats[row["id"]] = []
        tokens = 0
        for document in documents:
            ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(document, add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                scores = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
            nats[row["id"]].append(-float(scores.gather(1, ids[0, 1:, None]).sum()))
            tokens += ids.shape[1] - 1
        assert tokens == text["tokens"]
        assert row["perplexity"] == pytest.approx(math.exp(sum(nats[row["id"]]) / tokens), rel=1e-6)
        size = sum(len(document.encode()) for document in documents)
        assert row["bits_per_byte"] == pytest.approx(sum(nats[row["id"]]) / math.log(2) / size, rel=1e-6)
        if row["id"] != "base":
            ratio = row["log_ratio"]
            assert ratio["mean"] == pytest.approx((sum(nats[row["id"]]) - sum(nats["base"])) / tokens, abs=1e-6)
            assert ratio["low"] < ratio["mean"] < ratio["high"]
    assert text["policies"][0]["log_ratio"] is None
    assert len({round(sum(own), 3) for own in nats.values()}) > 2


def test_nothing_is_measured_twice_and_a_higher_limit_or_another_method_only_adds(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valuesoup.regression import perplexity

    whole = check(finished)
    shutil.copy(finished.folder / "check.json", finished.folder / "whole.json")
    (finished.folder / "check.json").unlink()
    asked: list[tuple[int, int]] = []
    true = perplexity.document_nats

    def spy(soup: Any, rows: Any, documents: Any, **options: Any) -> Any:
        asked.append((len(rows), len(documents)))
        return true(soup, rows, documents, **options)

    monkeypatch.setattr(perplexity, "document_nats", spy)
    check(finished, methods=["soup"], limit=5)
    check(finished, methods=["vc-soup"], limit=5)
    check(finished, methods=["vc-soup"], limit=5)
    assert asked == [(2, 5), (1, 5)], "the base is known already"
    check(finished)
    count = len(held_out_texts(finished).documents)
    assert asked[2:] == [(1, 5), (4, count - 5)], "the one behind catches up, then all go on together"
    shown = checked_run(finished)
    assert shown is not None
    assert {row["id"]: row["perplexity"] for row in shown["texts"][0]["policies"]} == pytest.approx(
        {row["id"]: row["perplexity"] for row in whole["texts"][0]["policies"]}, rel=1e-6
    )


def test_an_interrupted_measurement_goes_on_from_its_last_shard(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valuesoup.regression import measuring, perplexity

    monkeypatch.setattr(measuring, "SHARD", 7)
    true = perplexity.document_nats
    done: list[int] = []

    def breaking(soup: Any, rows: Any, documents: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(documents))
        return true(soup, rows, documents, **options)

    monkeypatch.setattr(perplexity, "document_nats", breaking)
    with pytest.raises(KeyboardInterrupt):
        check(finished)
    shown = checked_run(finished)
    assert shown is not None and shown["texts"] == [], "half a text has no perplexity"
    monkeypatch.setattr(perplexity, "document_nats", true)
    again = check(finished)
    (finished.folder / "check.json").unlink()
    assert again == check(finished)


def test_texts_are_kept_by_content_and_replaced_by_name(finished: Finished, tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text(TEXT)
    two.write_text("other words\n\nof two documents\n\nand one")
    found = check(finished, [one, two], methods=["soup"])
    assert [text["name"] for text in found["texts"]] == [str(one), str(two)]
    assert [text["documents"] for text in found["texts"]] == [2, 3]
    one.write_text("something else")
    check(finished, [one], methods=["soup"])
    shown = checked_run(finished)
    assert shown is not None
    assert sorted((text["name"], text["documents"]) for text in shown["texts"]) == [(str(one), 1), (str(two), 3)]


@pytest.mark.parametrize("layout", ["flat", "lm-eval"])
def test_a_command_is_run_once_on_the_base_and_on_each_merged_policy(
    finished: Finished, script: Path, layout: str
) -> None:
    found = check(finished, command=command(script, layout), methods=["soup", "dpo"])
    assert found["texts"] == [], "a command alone asks for no text"
    (of,) = found["commands"]
    (metric,) = of["metrics"]
    assert metric["name"] == ("arc acc" if layout == "lm-eval" else "norm")
    assert metric["higher_is_better"] is (True if layout == "lm-eval" else None)
    assert calls(script) == len(metric["policies"]) == 3
    for row in metric["policies"]:
        model = dense(finished, vectors_of(finished, row["id"]))
        squares = sum(float(tensor.square().sum()) for tensor in model.state_dict().values())
        assert row["value"] == pytest.approx(squares, rel=1e-6)
        if row["id"] == "base":
            assert row["difference"] is None
        else:
            half = 1.959964 * math.sqrt(0.5)
            gap = row["value"] - metric["policies"][0]["value"]
            assert row["difference"] == pytest.approx({"mean": gap, "low": gap - half, "high": gap + half})
    assert len({row["value"] for row in metric["policies"]}) == 3
    assert check(finished, command=command(script, layout), methods=["soup", "dpo"]) == found
    assert calls(script) == 3
    check(finished, command=command(script, layout))
    assert calls(script) == 4, "one more method"
    assert not (finished.folder / ".check").exists()


def test_a_command_is_never_given_to_a_shell(finished: Finished, script: Path, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    bad = f" ; touch {owned} $(touch {owned}) `touch {owned}` > {owned}"
    check(finished, command=command(script) + bad, methods=["soup"])
    assert not owned.exists()
    arguments = json.loads((script.parent / "log").read_text().splitlines()[0])
    assert arguments[5:7] == [";", "touch"]


def test_a_placeholder_stands_anywhere_in_an_argument_and_a_quote_keeps_spaces() -> None:
    text = "lm_eval --model_args 'pretrained={model},dtype=float32' --output_path={out}"
    assert read_command(text)[1:] == ["--model_args", "pretrained={model},dtype=float32", "--output_path={out}"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evaluate --output {out}", r"there is no \{model\}; put it where the folder of the model goes"),
        ("evaluate {model}", r"there is no \{out\}; put it where the folder for its results goes"),
        ("evaluate {modle} {out}", r"there is no \{model\}"),
        ("evaluate '{model} {out}", "no closing quotation"),
        ("", r"there is no \{model\}"),
    ],
)
def test_a_command_that_cannot_work_is_told_before_anything_runs(finished: Finished, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(finished, command=text)
    assert not (finished.folder / "check.json").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import sys\nprint('one\\n\\ntwo\\nthree')\nsys.exit('no tokens left')",
            "ended with exit code 1; the end of its",
        ),
        ("import sys\nsys.exit(3)", "ended with exit code 3; it printed nothing"),
        ("import os\nos.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("pass", "wrote no JSON file"),
        ("import sys, pathlib\npathlib.Path(sys.argv[2], 'a.json').write_text('<html>')", "a.json, .* is not JSON"),
    ],
)
def test_a_command_that_fails_is_one_sentence_and_leaves_no_model_behind(
    finished: Finished, tmp_path: Path, code: str, says: str
) -> None:
    (tmp_path / "fails.py").write_text(code)
    with pytest.raises(RunError, match=says) as caught:
        check(finished, command=f"{sys.executable} {tmp_path / 'fails.py'} {{model}} {{out}}", methods=["soup"])
    assert "\n" not in str(caught.value)
    assert "for base" in str(caught.value)
    if "no tokens" in code:
        assert str(caught.value).endswith("the end of its output: two / three / no tokens left")
    assert not (finished.folder / ".check").exists()


def test_what_a_command_measured_before_it_failed_is_kept(finished: Finished, script: Path) -> None:
    script.write_text(f"import sys, os\nif os.path.exists({str(script.parent / 'log')!r}): sys.exit(9)\n" + SCRIPT)
    with pytest.raises(RunError, match=r"the command for SOUP ended with exit code 9"):
        check(finished, command=command(script), methods=["soup"])
    script.write_text(SCRIPT)
    check(finished, command=command(script), methods=["soup"])
    assert calls(script) == 2


def test_a_program_that_is_not_there_is_told(finished: Finished) -> None:
    with pytest.raises(UserError, match=r"--command: 'lm_evil' cannot be run: No such file or directory"):
        check(finished, command="lm_evil {model} {out}", methods=["soup"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["vc-sop"]}, r"has no method 'vc-sop'; did you mean 'vc-soup'\?"),
        ({"methods": ["base"]}, "no two policies"),
        ({"weights": {"helpfull": 1.0}}, r"no value 'helpfull'; did you mean 'helpful'\?"),
        ({"limit": 0}, "--limit is 0; take at least one document"),
        ({"texts": ["nowhere.txt"]}, r"nowhere\.txt cannot be read"),
    ],
)
def test_what_a_run_does_not_have_is_told(finished: Finished, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(finished, **options)


def test_a_study_is_checked_run_by_run(finished: Finished, tmp_path: Path) -> None:
    shutil.move(finished.folder, tmp_path / "study" / "seed-3")
    with pytest.raises(UserError, match=r"is the folder of a study; check its runs one by one, such as .*seed-3"):
        check(tmp_path / "study")
    with pytest.raises(UserError, match="is not a run folder"):
        check(tmp_path)


def test_candidates_are_chosen_by_their_weights(finished: Finished) -> None:
    tested = [row for row in finished.results["candidates"] if row["test"] and row["method"] == "soup"]
    found = check(finished, methods=["soup"], weights=tested[0]["weights"])
    assert [row["id"] for row in found["texts"][0]["policies"]] == ["base", tested[0]["id"]]


def test_policies_that_have_changed_since_are_not_shown_and_counted(finished: Finished) -> None:
    assert checked_run(finished) is None
    check(finished, limit=3)
    path = finished.folder / "check.json"
    content = json.loads(path.read_text())
    assert {row["key"] for row in content["texts"][0]["policies"]} <= set(current_keys(finished.plan).values())
    text = content["texts"][0]
    text["nats"]["0" * 16] = text["nats"][text["policies"][1]["key"]]
    text["policies"][1]["key"] = "0" * 16
    path.write_text(json.dumps(content))
    shown = checked_run(finished)
    assert shown is not None
    assert shown["outdated"] == 1
    assert len(shown["texts"][0]["policies"]) == len(content["texts"][0]["policies"]) - 1


def test_a_policy_that_is_another_model_now_has_no_figures_until_it_is_measured(finished: Finished) -> None:
    subjects, _ = subjects_of(finished, [], {})
    entry: dict[str, Any] = {"policies": []}
    take_subjects(entry, subjects)
    for row in entry["policies"]:
        row["perplexity"] = 2.0
    changed = replace(subjects[1], key="0" * 16)
    take_subjects(entry, [subjects[0], changed])
    assert entry["policies"][0]["perplexity"] == 2.0
    assert "perplexity" not in entry["policies"][1]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "texts": [3]}'])
def test_a_damaged_file_is_told(finished: Finished, text: str) -> None:
    (finished.folder / "check.json").write_text(text)
    for act in (checked_run, check):
        with pytest.raises(UserError, match=r"check\.json is damaged \(.*\); remove it and check the run again"):
            act(finished)


def test_vectors_that_two_policies_share_make_one_model(finished: Finished) -> None:
    keys = current_keys(finished.plan)
    assert keys["base"] != keys["soup/helpful=1,harmless=0"]
    assert keys["dpo/helpful=1,harmless=0"] == keys["soup/helpful=1,harmless=0"], "both train on every pair"


def test_the_command_line_prints_the_tables_and_writes_the_report(
    finished: Finished, script: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text(TEXT)
    arguments: list[str | Path] = ["check", finished.folder, "--texts", "own.txt", "--methods", "vc-soup"]
    arguments += ["--command", command(script)]
    done = tiny_run.valuesoup(tmp_path / "cache", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Perplexity on own.txt" in done.stdout
    assert re.search(r"own\.txt: 2 documents, \d+ tokens, \d+ bytes", done.stdout)
    assert re.search(r"norm +VC-soup", done.stdout)
    assert done.stdout.rstrip().endswith(f"report: {finished.folder / 'report.html'}")
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "What alignment cost" in page
    for kind in ("png", "svg", "csv"):
        assert (finished.folder / "figures" / f"alignment-cost.{kind}").stat().st_size > 100
    wrong = tiny_run.valuesoup(tmp_path / "cache", "check", finished.folder, "--command", "x {out}", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --command x {out}: there is no {model}")
    assert len(wrong.stderr.splitlines()) == 1


def test_a_base_that_was_not_made_in_the_run_is_checked_on_a_given_text(finished: Finished, tmp_path: Path) -> None:
    base = finished.plan.base
    assert isinstance(base, Node)
    folder = shutil.copytree(finished.artifacts[base.key].path / "model", tmp_path / "base")
    ref = base_ref(BaseConfig(model=str(folder)))
    elsewhere = replace(finished, plan=replace(finished.plan, base=ref))
    (tmp_path / "own.txt").write_text("\n\n".join(held_out_texts(finished).documents))
    with pytest.raises(UserError, match="give held-out text with --texts FILE"):
        check(elsewhere)
    (same,) = check(finished)["texts"]
    (found,) = check(elsewhere, [tmp_path / "own.txt"])["texts"]
    assert [row["perplexity"] for row in found["policies"]] == pytest.approx(
        [row["perplexity"] for row in same["policies"]]
    )
