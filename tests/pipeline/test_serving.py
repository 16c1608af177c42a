"""Answers by a server: only from one that is shown to serve the run's own policies, and each is asked for once."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers.utils.import_utils import is_serve_available

import tiny
import tiny_run
from tiny_server import Fake, serving
from valuesoup.config import BaseConfig, GenerationConfig
from valuesoup.endpoint import GenerationServer
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.answering import answer_prompts, load_answers, open_soup
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.pipeline.parity import Wording
from valuesoup.pipeline.plan import Stack, make_plan
from valuesoup.pipeline.recipes import Candidate
from valuesoup.pipeline.run import run
from valuesoup.pipeline.served import link_base
from valuesoup.pipeline.serving import candidate_names, serve_answers
from valuesoup.shipping import export
from valuesoup.soup import Soup
from valuesoup.store import Artifact, Node, Progress, Work, topological

CANDIDATES = ((1.0, 0.0), (0.5, 0.5), (0.0, 0.0), (-0.5, 1.2), (0.0, 1.0))
NAMES = ("one", "half", "base", "odd", "two")
MODELS = dict(zip(NAMES, CANDIDATES, strict=True))
PROMPTS = 7
TEMPLATE = "<s> " + tiny.TEMPLATE
WORDS = ["<pad>", "</s>", "<s>", "<user>", "<asst>", *(f"w{place}" for place in range(tiny.WORDS))]


def tokenizer(*, ended: bool = False) -> Any:
    """A word tokenizer that sets ``<s>`` before every text, as Llama's does, and where asked ``</s>`` after it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({name: place for place, name in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = "<s> $A </s>" if ended else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 2), ("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made.chat_template = TEMPLATE
    return made


def save_base(folder: Path, seed: int = 0) -> Path:
    model = tiny.llama(seed)
    model.generation_config.eos_token_id = [1, 0, 2]  # whatever special token it writes ends an answer
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


class Sweep:
    """The stage over a tiny base and two vectors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        save_base(folder / "base")
        for place, name in enumerate("ab"):
            tiny.random_vector(tiny.llama(), place).save_pretrained(folder / name / "adapter")
        draw = Random(0)
        asked = [
            {
                "id": f"p{number}",
                "datasets": ["d"],
                "messages": [{"role": "user", "content": " ".join(f"w{draw.randrange(60)}" for _ in range(length))}],
            }
            for number, length in enumerate(draw.choices(range(1, 20), k=PROMPTS))
        ]
        (folder / "prompts").mkdir()
        (folder / "prompts" / "prompts.json").write_text(json.dumps({"prompts": asked}))
        self.vectors = {name: Artifact(folder / name, name, 0.0) for name in "ab"}
        self.base = BaseRef(config=BaseConfig(model=str(folder / "base")), content=None)

    def soup(self) -> Soup:
        return open_soup(self.base, self.vectors, "cpu")

    def inputs(self, temperature: float, **changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "base": self.base,
            "vectors": self.vectors,
            "candidates": CANDIDATES,
            "chosen": None,
            "prompts": Artifact(self.folder / "prompts", "p", 0.0),
            "generation": GenerationConfig(max_new_tokens=10, temperature=temperature),
            "seed": 0,
            "batch_rows": 8,
            "device": "cpu",
        }
        return {**given, **changes}

    def work(self, name: str) -> Work:
        out = self.folder / "run" / "artifacts" / name
        out.mkdir(parents=True, exist_ok=True)
        return Work(out, Progress(), "answers", lambda **_: None)

    def ask(self, url: str, name: str = "served", temperature: float = 0.0, **changes: Any) -> Artifact:
        settings = {"retries": 0, "concurrency": 2, "extra": {}, **changes.pop("server", {})}
        server = GenerationServer(url=url, **settings)
        given = self.inputs(temperature, names=NAMES, trained=[], server=server, extra=server.extra)
        work = self.work(name)
        serve_answers.function(work, **{**given, **changes})
        return Artifact(work.out, name, 0.0)

    def local(self, **changes: Any) -> Artifact:
        work = self.work("local")
        answer_prompts.function(work, **self.inputs(0.0, **changes))
        return Artifact(work.out, "local", 0.0)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def table(answers: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_answers(answers).to_pylist()
    return sorted(rows, key=lambda row: (row["candidate"], row["prompt"]))


def parity(answers: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = answers.json("parity.json")["policies"]
    return found


def only_base(**changes: Any) -> dict[str, Any]:
    """What a stack of the base alone has."""
    return {"vectors": {}, "candidates": ((),), **changes}


# Against `transformers serve`.


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real server, which serves folders by their path."""
    if not is_serve_available():
        pytest.skip("`transformers serve` lacks a package; it needs fastapi, uvicorn, pydantic and openai")
    home = tmp_path_factory.mktemp("hub")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    command = [sys.executable, "-c", code, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with (home / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            _await_health(f"http://127.0.0.1:{port}/health", process, home / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _await_health(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def test_a_run_stops_for_its_server_and_goes_on_with_the_candidates_served(real: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "candidates"
    endpoint = f'generation.endpoint={{url: "{real}", models: "{out}/{{name}}", parity: {{prompts: 3}}}}'
    small = ["evaluation.test_prompts=5", "evaluation.validation_prompts=4", "evaluation.diagnostics=false"]
    methods = "methods=[{preset: soup, steps: 2}]"
    config = demo_config(overrides=[*tiny_run.overrides("helpful", "harmless"), *small, methods, endpoint])
    with pytest.raises(RunError, match=rf"has no model '{out}/base'; write them with `valuesoup export {folder} --all"):
        run(config, folder)
    export(folder, out, everything=True)
    folders = link_base(out)
    assert [path.name for path in folders] == [
        "base",
        "soup-helpful-0-harmless-1",
        "soup-helpful-0.5-harmless-0.5",
        "soup-helpful-1-harmless-0",
    ]
    finished = run(config, folder)
    told = finished.results["generator"]
    assert told["backend"] == "endpoint"
    assert [(check["methods"], check["part"]) for check in told["parity"]] == [
        (["base"], "validation"),
        (["base"], "test"),
        (["soup"], "validation"),
        (["soup"], "test"),
    ]
    everyone = told["parity"][2]["policies"]
    assert set(everyone) == set(map(str, folders))
    assert all(of["regret"] < 1e-3 for of in everyone.values())
    assert told["parity"][2]["drawn"]["of"] == 24, "answers of the run are drawn"
    stages = {artifact.path.name.partition("-")[0] for artifact in finished.artifacts.values()}
    assert "served" in stages and "answers" not in stages
    assert all(row["quality"]["kl"] >= 0 for row in finished.results["candidates"] if row["quality"])


def test_greedy_answers_of_a_real_server_are_those_of_the_local_generator(real: str, sweep: Sweep) -> None:
    server = {"models": f"{sweep.folder}/{{name}}"}
    answers = sweep.ask(real, **only_base(names=["base"]), server=server)
    assert table(answers) == table(sweep.local(**only_base()))
    assert parity(answers)[f"{sweep.folder}/base"] == {
        "greedy": PROMPTS,
        "identical": PROMPTS,
        "regret": pytest.approx(0, abs=1e-5),
        "log_prob_gap": None,
    }


def test_a_real_server_of_other_weights_is_caught_with_the_first_answers_that_differ(real: str, sweep: Sweep) -> None:
    save_base(sweep.folder / "other" / "base", seed=1)
    with pytest.raises(
        RunError, match=r"is not the policy of this run.* nats per token.* to ' <user> w.* it answers 'w"
    ):
        sweep.ask(real, **only_base(names=["base"]), server={"models": f"{sweep.folder}/other/{{name}}"})
    assert not list((sweep.folder / "run" / "artifacts" / "served").glob("shard-*"))


def test_a_real_server_that_answers_greedily_where_draws_are_asked_for_is_caught(real: str, sweep: Sweep) -> None:
    # It takes the temperature, and draws only where generation_config.json says so, which the base's does not.
    with pytest.raises(RunError, match=r"does not draw from the policies .* likelier than .* do_sample"):
        sweep.ask(real, temperature=1.0, **only_base(names=["base"]), server={"models": f"{sweep.folder}/{{name}}"})


# Against a server that lists its models, and may be wrong in other ways.


@pytest.mark.parametrize("listed", [True, False])
def test_every_answer_of_a_faithful_server_is_the_local_one_token_by_token(sweep: Sweep, listed: bool) -> None:
    with serving(Fake(sweep.soup(), MODELS, listed=listed)) as fake:
        answers = sweep.ask(fake.url)
    assert table(answers) == table(sweep.local())
    assert [parity(answers)[name]["greedy"] for name in ("base", "one", "half", "odd", "two")] == [7, 1, 1, 7, 1]
    assert all(body["top_p"] == 1 for body in fake.bodies), "a server's own default must not cut the policy"


def test_only_chosen_candidates_are_asked_for(sweep: Sweep) -> None:
    (sweep.folder / "chosen").mkdir()
    (sweep.folder / "chosen" / "chosen.json").write_text(json.dumps({"test": [3, 1]}))
    with serving(Fake(sweep.soup(), MODELS)) as fake:
        answers = sweep.ask(fake.url, chosen=Artifact(sweep.folder / "chosen", "c", 0.0))
    assert {row["candidate"] for row in table(answers)} == {1, 3}
    assert {body["model"] for body in fake.bodies} == {"base", "half", "odd"}


def test_a_second_beginning_of_sequence_is_seen_in_the_count_of_tokens(sweep: Sweep) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, before=(2,))) as fake,
        pytest.raises(RunError, match=r"reads a prompt of (\d+) tokens as \d+: it puts special tokens \(such as a sec"),
    ):
        sweep.ask(fake.url)


@pytest.mark.parametrize("before", [(2,), (3, 5, 9, 4)], ids=["beginning", "template"])
def test_what_a_server_that_counts_nothing_puts_before_a_prompt_is_seen_in_its_answers(
    sweep: Sweep, before: tuple[int, ...]
) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, before=before, usage=False)) as fake,
        pytest.raises(RunError, match="is not the policy of this run"),
    ):
        sweep.ask(fake.url)


def test_two_candidates_that_a_server_confuses_are_seen_though_each_answers_one_prompt_only(sweep: Sweep) -> None:
    swapped = {**MODELS, "one": MODELS["two"], "two": MODELS["one"]}
    with (
        serving(Fake(sweep.soup(), swapped)) as fake,
        pytest.raises(RunError, match=r"as '(one|two)' is not the policy of this run"),
    ):
        sweep.ask(fake.url)


def test_log_probabilities_are_compared_where_the_server_gives_them(sweep: Sweep) -> None:
    soup = sweep.soup()
    with serving(Fake(soup, MODELS, shift=0.02)) as fake:
        found = parity(sweep.ask(fake.url))
    assert all(of["log_prob_gap"] == pytest.approx(0.02, abs=1e-4) for of in found.values())
    with (
        serving(Fake(soup, MODELS, shift=-0.3)) as fake,
        pytest.raises(RunError, match=r"regret 0 nats per token, log-probabilities 0\.3 nats per token apart"),
    ):
        sweep.ask(fake.url, "other")


@pytest.mark.parametrize(("warmth", "how"), [(0.0, "likelier"), (0.6, "likelier"), (1.6, "less likely")])
def test_a_server_that_draws_from_another_distribution_is_caught(sweep: Sweep, warmth: float, how: str) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, warmth=warmth)) as fake,
        pytest.raises(RunError, match=f"does not draw from the policies of this run at temperature 1: .* {how} than"),
    ):
        sweep.ask(fake.url, temperature=1.0)


def test_draws_of_a_faithful_server_pass_and_meet_the_same_seed_for_every_candidate(sweep: Sweep) -> None:
    with serving(Fake(sweep.soup(), MODELS)) as fake:
        answers = sweep.ask(fake.url, temperature=1.0)
    assert abs(answers.json("parity.json")["drawn"]["z"]) < 4
    seeds = [body["seed"] for body in fake.bodies[-len(CANDIDATES) * PROMPTS :]]
    assert len(set(seeds)) == PROMPTS
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_base_may_have_a_name_of_another_form_than_the_candidates(sweep: Sweep) -> None:
    models = {"llama" if name == "base" else f"llama:{name}": of for name, of in MODELS.items()}
    with serving(Fake(sweep.soup(), models)) as fake:
        answers = sweep.ask(fake.url, server={"models": "llama:{name}", "base": "llama"})
    assert set(parity(answers)) == set(models)
    assert table(answers) == table(sweep.local())


@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_model_is_named_with_what_to_do_before_anything_is_asked(sweep: Sweep, listed: bool) -> None:
    models = {name: of for name, of in MODELS.items() if name not in ("half", "two")}
    with (
        serving(Fake(sweep.soup(), models, listed=listed)) as fake,
        pytest.raises(RunError) as stopped,
    ):
        sweep.ask(fake.url)
    said = str(stopped.value)
    assert f"the server {fake.url} has no model 'half'" in said
    assert f"`valuesoup export {sweep.folder / 'run'} --all --to DIR`, start DIR/serve.sh" in said
    assert all(body["max_tokens"] == 1 for body in fake.bodies)


def test_nobody_there_is_one_sentence_with_what_to_do(sweep: Sweep) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=r"nobody answers at http://127.*; write them with `valuesoup export"):
        sweep.ask(f"http://127.0.0.1:{port}/v1")


def test_a_server_that_dies_midway_loses_no_answer_and_another_goes_on_after_the_same_check(sweep: Sweep) -> None:
    soup = sweep.soup()
    checked = 2 * PROMPTS + 3  # the base and a candidate whole, three others one prompt each
    with (
        serving(Fake(soup, MODELS, refuse=lambda _, before: 503 if before >= checked + 20 else 0)) as dying,
        pytest.raises(RunError, match="what it answered is kept, and the same command goes on from there"),
    ):
        sweep.ask(dying.url)
    with serving(Fake(soup, MODELS)) as fake:
        answers = sweep.ask(fake.url)
    assert len(fake.bodies) == checked + len(CANDIDATES) * PROMPTS - 20
    assert table(answers) == table(sweep.local())
    with serving(Fake(soup, {})) as nothing:
        again = sweep.ask(nothing.url)
    assert nothing.bodies == [], "everything is answered already"
    assert table(again) == table(answers)


def test_a_prompt_that_is_never_answered_is_named_and_the_others_are_kept(sweep: Sweep) -> None:
    soup = sweep.soup()
    checked = 2 * PROMPTS + 3
    with (
        serving(Fake(soup, MODELS, refuse=lambda _, before: 400 if before == checked + 3 else 0)) as fake,
        pytest.raises(
            RunError, match=r"gave no answer to 1 of 35 prompts, the first as 'one': status 400 \(not this\)"
        ),
    ):
        sweep.ask(fake.url)
    with serving(Fake(soup, MODELS)) as fake:
        sweep.ask(fake.url)
    assert len(fake.bodies) == checked + 1


# What is sent and read.


def test_a_prompt_is_sent_so_that_the_special_tokens_of_the_server_make_it_what_the_policy_sees() -> None:
    text = "<s> <user> w3 <asst> "
    wording = Wording(tokenizer())
    sent = wording.prompt(text, (2, 3, 8, 4))
    assert sent == " <user> w3 <asst> "
    assert tuple(wording.tokenizer(sent)["input_ids"]) == (2, 3, 8, 4)
    assert Wording(tiny.tokenizer()).prompt("<user> w3 <asst> ", (2, 8, 3)) == "<user> w3 <asst> "


def test_a_prompt_that_no_text_makes_is_sent_as_tokens() -> None:
    assert Wording(tokenizer(ended=True)).prompt("<s> <user> w3 <asst> ", (2, 3, 8, 4)) == (2, 3, 8, 4)


def test_the_space_that_some_tokenizers_set_before_a_text_is_not_part_of_an_answer() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0, "▁a": 1, "▁b": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    wording = Wording(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?"))
    assert wording.answer("a b") == wording.answer(" a b") == ("a b", (1, 2))


def test_an_answer_whose_special_tokens_are_lost_is_not_taken_for_its_words() -> None:
    wording = Wording(tokenizer())
    assert wording.is_whole("w1 w2", (6, 7), 2)
    assert wording.is_whole("w1 w2", (6, 7), 3), "its end may be counted"
    assert wording.is_whole("w1 w2", (6, 7), None)
    assert not wording.is_whole("w1 w2", (6, 7), 5)


# The plan.


def planned(*overrides: str) -> list[Node]:
    return topological(make_plan(demo_config(overrides=overrides)).targets())


def keys(found: list[Node]) -> set[str]:
    return {node.key for node in found}


ENDPOINT = 'generation.endpoint={url: "http://127.0.0.1:8000/v1"}'


def test_all_answers_of_an_evaluation_are_by_one_back_end_and_rollouts_stay_local() -> None:
    here, there = planned(), planned(ENDPOINT)
    evaluated = [node for node in there if "answers the" in node.label and "prompts" in node.label]
    assert {node.stage.name for node in evaluated} == {"served"}
    assert {node.stage.name for node in here} - {node.stage.name for node in there} == set()
    rollouts = {node.key for node in there if node.stage.name == "answers"}
    assert rollouts and rollouts <= keys(here), "what a vector is trained on does not change"
    assert not [node for node in here if node.stage.name == "served"]


def test_nothing_is_asked_of_a_server_before_every_vector_of_the_run_is_trained() -> None:
    found = planned(ENDPOINT)
    vectors = {node.key for stack in make_plan(demo_config()).stacks for node in stack.vectors.values()}
    for node in found:
        if node.stage.name == "served":
            assert vectors <= keys(topological([node]))


@pytest.mark.parametrize("change", ["url=http://other:1/v1", "key_env=K", "concurrency=2", "models=x/{name}"])
def test_where_a_server_is_and_how_it_is_asked_makes_nothing_anew(change: str) -> None:
    assert keys(planned(ENDPOINT, f"generation.endpoint.{change}")) == keys(planned(ENDPOINT))


@pytest.mark.parametrize("change", ["generation.endpoint.extra={top_k: 5}", "generation.temperature=0.5"])
def test_what_answers_depend_on_makes_them_anew(change: str) -> None:
    served = {node.key for node in planned(ENDPOINT, change) if node.stage.name == "served"}
    assert not served & keys(planned(ENDPOINT))


def test_a_search_by_a_server_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.racing .* generation\.endpoint does not serve"):
        planned(ENDPOINT, "evaluation.racing=true")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("generation.endpoint={url: localhost}", "url is like http"),
        ('generation.endpoint={url: "http://h/v1", models: all}', "models is a text that holds {name}"),
        ('generation.endpoint={url: "http://h/v1", models: "{id}-{name}"}', "models is a text that holds {name}"),
        ('generation.endpoint={url: "http://h/v1", parity: {prompts: 0}}', "parity.prompts"),
        ('generation.endpoint={url: "http://h/v1", model: x}', "did you mean 'models'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_key(setting: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        demo_config(overrides=[setting])
    assert said in str(refused.value)


# Names and adapters.


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_names_are_safe_and_each_is_given_once(n: int) -> None:
    values = [f"v{place}" for place in range(n)]
    stacks = [Stack({}), Stack({}), Stack({})]
    stacks[0].add("base", [Candidate((), dict.fromkeys(values, 0.0), "base")], always=True)
    weights = [tuple(float(place == at) for place in range(n)) for at in range(n)] + [(0.0,) * n]
    for stack, methods in ((stacks[1], ["m/τ=0.7", "again"]), (stacks[2], ["m/ρ=0.7"])):
        for method in methods:
            labels = [
                ",".join(f"{value}={share:g}" for value, share in zip(values, row, strict=True)) for row in weights
            ]
            offered = [Candidate(row, None, label) for row, label in zip(weights, labels, strict=True)]
            stack.add(method, offered, always=False)
    found = candidate_names(stacks)
    assert found[0] == ["base"]
    assert [of[-1] for of in found[1:]] == ["base", "base"], "without weights it is the base"
    flat = [name for of in found[1:] for name in of[:-1]]
    assert len(set(flat)) == len(flat) == 2 * n
    assert all(name.isascii() and not set(name) & set("/=, ") for name in flat)
    assert found[1][0].startswith("m-0.7-v0-1"), "of the first method that offers it"


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
