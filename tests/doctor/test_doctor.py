"""The doctor: everything missing is named at once, sizes are those of the real models, time follows from the plan."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
import tiny_run
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.doctor import examine, measure
from valuesoup.doctor.costs import retained
from valuesoup.doctor.hub import Hub, parameters_by_name
from valuesoup.doctor.machine import free_bytes, look_at_machine
from valuesoup.doctor.report import Machine
from valuesoup.doctor.sizes import size_of_config, size_of_pretrain
from valuesoup.doctor.text import print_report, report_json
from valuesoup.doctor.times import AROUND, duration, wall
from valuesoup.errors import UserError
from valuesoup.store import Node, Work, stage
from valuesoup.training.settings import PretrainSettings

WORLD = "valuesoup.worlds.errands"
SIZES = ["evaluation.test_prompts=12", "evaluation.validation_prompts=8", "methods=[soup, {preset: vc-soup, tau: 0}]"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base") / "tiny")


def config(base: str | Path, *overrides: str) -> RunConfig:
    text = f"base: {{model: {json.dumps(str(base))}, device: cpu}}\nvalues:\n"
    for value in ("helpful", "harmless"):
        text += f"  {value}:\n    data: {{function: '{WORLD}:pairs', arguments: {{value: {value}, size: 120}}}}\n"
        text += f"    reward: {{function: '{WORLD}:{value}'}}\n"
    return parse_config(text, "test", [*SIZES, *overrides])


def stopping(report: Any) -> dict[str, str]:
    return {problem.where: problem.text for problem in report.problems if problem.stops}


def test_a_run_that_needs_nothing_more_is_said_to(base: Path, tmp_path: Path) -> None:
    report = examine(config(base), out=tmp_path, measure=False)
    assert not report.stops
    assert [(one.value, one.pairs) for one in report.data] == [("helpful", 120), ("harmless", 120)]
    assert report.data[0].train is not None and report.data[0].train < 120
    assert report.duration is not None and not report.duration.measured
    assert report.duration.low < report.duration.seconds < report.duration.high
    left = {one.kind: one.left for one in report.duration.stages}
    assert left["training vectors"] == 4
    assert all(need.fits for need in (*report.memory, *report.disk))


def test_every_missing_thing_is_named_at_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rewriter = "{endpoint: {url: 'http://host.invalid/v1', model: m}}"
    wrong = [
        "values.helpful.data={path: nowhere/pairs.jsonl}",
        "values.helpful.reward={model: ./no-reward}",
        f"values.harmless.reward.function={WORLD}:harmles",
        f"values.harmless.truth={WORLD}:nothing_such",
        "training={target_modules: [qurey], report_to: [no_such_tracker]}",
        f"methods=[soup, {{preset: mora, rewriter: {rewriter}}}]",
        "evaluation.fluency=no_module:sound",
    ]
    report = examine(config(base, *wrong), out=tmp_path, measure=False)
    found = stopping(report)
    assert set(found) == {
        "values.helpful.data",
        "values.helpful.reward.model",
        "values.harmless.reward.function",
        "values.harmless.truth",
        "training.target_modules",
        "training.report_to",
        "methods.mora.rewriter.endpoint",
        "evaluation.fluency",
    }
    assert "did you mean 'harmless'?" in found["values.harmless.reward.function"]
    assert "q_proj" in found["training.target_modules"]
    texts = [one.text for one in report.problems if one.where == "methods.mora.rewriter.endpoint"]
    assert len(texts) == 2 and "OPENAI_API_KEY" in texts[0] and "nothing answers" in texts[1]
    assert report.duration is None
    stops = [problem.stops for problem in report.problems]
    assert stops == sorted(stops, reverse=True), "what stops a run comes first"


def test_a_hub_id_that_is_not_cached_is_missing_offline_and_its_size_is_guessed_by_its_name(tmp_path: Path) -> None:
    report = examine(config("someone/Model-7b-hf"), out=tmp_path, measure=False)
    assert "HF_HUB_OFFLINE" in stopping(report)["base.model"]
    assert (report.models[0].parameters, report.models[0].exact) == (7_000_000_000, False)
    assert report.duration is not None, "so that a person sees what it would take"


def test_too_few_pairs_for_the_split_are_missing(base: Path, tmp_path: Path) -> None:
    report = examine(config(base, "evaluation.test_prompts=500"), out=tmp_path, measure=False)
    assert "too few" in stopping(report)["evaluation"]


def test_limits_of_the_base_are_told(base: Path, tmp_path: Path) -> None:
    report = examine(config(base), out=tmp_path, measure=False)
    known = {problem.where: problem.text for problem in report.problems if not problem.stops}
    assert "256 tokens" in known["training.max_length"]
    assert "256 tokens" in known["generation"]
    short = examine(config(base, "training.max_length=4"), out=tmp_path, measure=False)
    assert "100.0% of the pairs" in stopping(short)["training.max_length"]


def test_a_base_without_weights_chat_template_or_enough_vocabulary(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    tokenizer.add_tokens(["more", "words"])
    tiny.llama().config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    report = examine(config(folder), out=tmp_path / "run", measure=False)
    texts = [problem.text for problem in report.problems if problem.where == "base.model"]
    assert any("no weights" in text for text in texts)
    assert any("do not belong together" in text for text in texts)
    assert any("no chat template" in text for text in texts)


def test_a_reward_model_is_checked_by_its_configuration(base: Path, tmp_path: Path) -> None:
    wrong = f"values.helpful.reward={{model: {base}, logit: 5}}"
    found = stopping(examine(config(base, wrong), out=tmp_path, measure=False))
    assert "counted from 0" in found["values.helpful.reward.logit"]
    assert "not a sequence classifier" in found["values.helpful.reward.model"]


def test_what_is_short_of_memory_says_what_would_help(base: Path, tmp_path: Path) -> None:
    big = ["base={pretrain: {hidden: 16384, layers: 64, heads: 64}}", "training.batch_size=64"]
    report = examine(config(base, *big), out=tmp_path, measure=False)
    texts = [problem.text for problem in report.problems if problem.where == "memory" and problem.stops]
    assert any("raise training.accumulate" in text for text in texts)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_sizes_from_the_configuration_are_those_of_the_model(kind: str) -> None:
    model = tiny.family(kind)
    size = size_of_config(model.config)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.positions == 256 and size.layers == 2 and size.vocabulary == tiny.WORDS + 5
    vector = tiny.random_vector(model, 0, rank=4)
    assert size.lora(4) == sum(f.A.numel() + f.B.numel() for f in vector.layers.values())


def test_sizes_of_a_base_that_is_made_here_are_those_of_the_one_made(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from valuesoup.training.pretrain import pretrain

    settings = PretrainSettings(tokenizer="words", vocabulary=30, hidden=32, layers=2, heads=2, context=8, steps=1)
    text = [{"role": "user", "content": " ".join(f"w{i}" for i in range(60))}, {"role": "assistant", "content": "yes"}]
    pretrain([text] * 40, settings, tmp_path, seed=0, device="cpu")
    made = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tmp_path).parameters())
    assert size_of_pretrain(settings).parameters == pytest.approx(made, rel=0.02), "but for the norms"


@pytest.mark.parametrize(
    ("name", "number"),
    [("meta-llama/Llama-2-7b-hf", 7e9), ("Qwen/Qwen2.5-0.5B", 5e8), ("x/pythia-160m", 1.6e8), ("openai/gpt2", None)],
)
def test_parameters_are_read_from_a_name(name: str, number: float | None) -> None:
    assert parameters_by_name(name) == number


def test_a_hub_that_must_not_be_asked_is_not_asked() -> None:
    hub = Hub(offline=True)
    assert hub.model("nobody/nothing").state == "not found"
    assert hub.model("/no/such/folder").why == "there is no folder /no/such/folder"
    assert "HF_HUB_OFFLINE" in hub.dataset("nobody/nothing").why


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub = Hub(offline=False)
    first, second = hub.model("nobody/nothing"), hub.model("nobody/else")
    assert "cannot be reached" in first.why and first.why.endswith(")")
    assert second.why == "it is not in the cache, and the hub cannot be reached from here"


def test_retention_of_unrelated_rewards_is_between_chance_and_all() -> None:
    assert retained(-1.0, 2) == 1.0
    assert retained(0.0, 2) == pytest.approx(0.625, abs=0.02)  # ¾ of half a turn where the label is right, ¼ elsewhere
    assert retained(0.5**0.5, 2) == pytest.approx(0.375, abs=0.02)
    assert retained(1.0, 1) == pytest.approx(0.75, abs=0.02)
    assert retained(0.0, 5) > retained(0.5, 5) > retained(0.9, 5)


@stage("nothing")
def nothing(work: Work, *, number: int, after: list[Any]) -> None: ...


def nodes(*parents: tuple[int, ...]) -> list[Node]:
    made: list[Node] = []
    for number, of in enumerate(parents):
        made.append(nothing(str(number), number=number, after=[made[place] for place in of]))
    return made


def test_the_time_of_side_by_side_stages_by_hand() -> None:
    listed = nodes((), (0,), (0,), (1, 2))
    costs = dict(zip((node.key for node in listed), (10.0, 5.0, 3.0, 1.0), strict=True))
    assert wall(listed, costs, 1) == 19.0
    assert wall(listed, costs, 2) == 16.0
    assert wall(listed[1:], costs, 2) == 6.0, "what is done is nobody's parent any more"
    assert wall([], costs, 2) == 0.0


def test_done_stages_cost_nothing_and_seeds_add_up() -> None:
    listed = nodes((), (0,))
    once = duration([(listed, set())], lambda _: 10.0, 1, measured=True)
    assert once.seconds == 20.0 + AROUND
    assert once.low == once.seconds / 1.5
    part = duration([(listed, {listed[0].key})], lambda _: 10.0, 1, measured=False)
    assert (part.seconds, part.stages[0].done, part.stages[0].left) == (10.0 + AROUND, 1, 1)
    assert part.high == 3 * part.seconds
    twice = duration([(listed, set()), (listed, {node.key for node in listed})], lambda _: 10.0, 1, measured=True)
    assert twice.seconds == once.seconds


def test_the_machine_is_described() -> None:
    machine = look_at_machine(Path("/nowhere/yet"))
    assert {package.name for package in machine.packages if package.version} >= {"valuesoup", "torch", "trl"}
    assert machine.cpus == len(os.sched_getaffinity(0))
    assert machine.memory is None or machine.memory_free is None or machine.memory_free <= machine.memory
    assert [disk.what for disk in machine.disks] == ["hub cache", "valuesoup's cache", "run folder"]
    assert free_bytes(Path("/nowhere/yet")) > 0
    optional = {package.name: package.install for package in machine.packages if package.purpose}
    assert set(optional) == {"openai", "gradio", "ray", "bitsandbytes"}
    assert all(install.startswith("pip install ") for install in optional.values())


def test_a_report_is_json_and_says_what_fits(base: Path, tmp_path: Path) -> None:
    report = examine(config(base), out=tmp_path, measure=False)
    found = json.loads(report_json(report))
    assert found["stops"] is False
    assert all(need["fits"] for need in found["memory"])
    assert isinstance(report.machine, Machine)
    lacking = replace(report, memory=(replace(report.memory[0], free=1),))
    assert json.loads(report_json(lacking))["memory"][0]["fits"] is False


def test_fewer_than_one_job_is_refused(base: Path) -> None:
    with pytest.raises(UserError, match="jobs must be at least 1"):
        examine(config(base), jobs=0)


@pytest.fixture(scope="module")
def finished(demo_run: tuple[Path, str]) -> Iterator[Path]:
    yield demo_run[0]


def test_the_command_counts_what_is_done(finished: Path, tmp_path: Path) -> None:
    done = tiny_run.valuesoup(tmp_path, "doctor", finished / "config.yaml", "--no-measure", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert [one["left"] for one in report["duration"]["stages"]] == [0] * len(report["duration"]["stages"])
    assert report["duration"]["seconds"] == 0


def test_steps_of_the_run_itself_are_timed_and_nothing_is_left_behind(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.2)
    report = examine(finished / "config.yaml", out=tmp_path / "new")
    assert report.duration is not None and report.duration.measured, report.notes
    assert 5 < report.duration.seconds < 600
    assert not (tmp_path / "new").exists()


def test_the_command_ends_with_2_where_something_is_missing(finished: Path, tmp_path: Path) -> None:
    lacking = tiny_run.valuesoup(
        tmp_path, "doctor", finished / "config.yaml", "--set", "base.dialogues={path: no/such.jsonl}", "--no-measure"
    )
    assert lacking.returncode == 2
    assert "base.dialogues.0: there is no file or folder no/such.jsonl." in lacking.stdout
    alone = tiny_run.valuesoup(tmp_path, "doctor", "--set", "seed=1")
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
    with pytest.raises(UserError, match="there is no configuration"):
        examine(tmp_path / "none.yaml")


def test_without_a_configuration_the_machine_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(examine(), Console(width=140))
    told = capsys.readouterr().out
    assert "this machine is ready" in told and "cores usable" in told and "transformers" in told


def test_the_tables_name_what_is_missing_first(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = examine(config(base, "evaluation.fluency=no_module:sound"), out=tmp_path, measure=False)
    print_report(wrong, Console(width=140))
    told = capsys.readouterr().out
    assert told.startswith("missing: 1, each of which would stop the run\n  ✗ evaluation.fluency")
    print_report(examine(config(base), out=tmp_path, measure=False), Console(width=140))
    told = capsys.readouterr().out
    assert "take " in told and "training a vector" in told and "helpful" in told


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": -1}, {"vocab_size": 0}, {"quantization_config": 5}, {"_attn_implementation": "a/b"}],
    ids=str,
)
def test_a_damaged_base_or_classifier_is_a_problem_not_a_crash(tmp_path: Path, change: dict[str, Any]) -> None:
    damaged = tiny.save_base(tmp_path / "damaged")
    path = damaged / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    reward = f"values.helpful.reward={{model: {json.dumps(str(damaged))}}}"
    found = stopping(examine(config(damaged, reward), out=tmp_path / "run", measure=False))
    assert {"base.model", "values.helpful.reward.model"} <= set(found)
    assert not any("\n" in text for text in found.values())


def test_code_that_comes_with_a_model_is_announced(base: Path, tmp_path: Path) -> None:
    def told(*overrides: str) -> list[str]:
        report = examine(config(base, *overrides), out=tmp_path, measure=False)
        return [problem.text for problem in report.problems if problem.where == "trust_remote_code"]

    assert told() == []
    (text,) = told("base.trust_remote_code=true")
    assert text.startswith(f"is set: code that comes with {base} is run")


def test_data_that_are_neither_file_nor_folder_are_a_problem(base: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for name, said in (
        ("pipe.jsonl", "is neither a file nor a folder"),
        ("loop.jsonl", "is a link that leads nowhere"),
    ):
        data = json.dumps(str(tmp_path / name))
        report = examine(config(base, f"values.helpful.data={data}"), out=tmp_path / "run", measure=False)
        assert said in stopping(report)["values.helpful.data"]
