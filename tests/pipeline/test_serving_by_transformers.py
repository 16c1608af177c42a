"""A run answered by `transformers serve`: the same answers as here, and other weights or draws are caught."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils.import_utils import is_serve_available

import tiny_run
from tiny_sweep import PROMPTS, Sweep, only_base, parity, save_base, table
from valuesoup.errors import RunError
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.run import run
from valuesoup.shipping import export


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
    exported = export(folder, out, everything=True)
    assert any("links to the files of the base" in note for note in exported.notes)
    folders = sorted(path for path in out.iterdir() if path.is_dir())
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
