"""Runs that are stopped, repeated, or given something wrong: nothing is lost, and one sentence says what to do."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_run
from tiny import save_base
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import run, shared_between_runs
from valuesoup.pipeline.status import run_status
from valuesoup.store import Progress, topological
from valuesoup.store.artifacts import lock_run
from valuesoup.worlds.errands import pairs as errands

SETTINGS = tiny_run.overrides("helpful", "harmless")


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def stopped_at(folder: Path, cache: Path, reached: Callable[[], bool], how: signal.Signals) -> tuple[int, str]:
    """Start the tiny demo, stop it as soon as a point is reached, and return its exit code and its errors."""
    with subprocess.Popen(
        tiny_run.command(*tiny_run.demo_arguments(folder, SETTINGS)),
        env=tiny_run.environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be stopped"
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_run_stopped_again_and_again_ends_in_the_same_results(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    artifacts = folder / "artifacts"

    def seen(pattern: str, after: float = 0.0) -> Callable[[], bool]:
        def reached() -> bool:
            if not any(artifacts.glob(pattern)):
                return False
            time.sleep(after)
            return True

        return reached

    points: list[tuple[Callable[[], bool], signal.Signals]] = [
        (seen(".partial-pretrain-*", after=0.2), signal.SIGINT),
        (seen(".partial-reward-*", after=0.3), signal.SIGTERM),
        (seen(".partial-reference-*"), signal.SIGKILL),
        (seen(".partial-train-*/.checkpoints/*"), signal.SIGKILL),
        (seen(".partial-answers-*", after=0.01), signal.SIGKILL),
    ]
    done = 0
    for reached, how in points:
        code, errors = stopped_at(folder, tmp_path / "cache", reached, how)
        if how == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 130
            assert errors == tiny_run.interrupted(*tiny_run.demo_arguments(folder, SETTINGS))
        stages = run_status(folder)
        now = sum(stage.done for stage in stages)
        assert done <= now < len(stages)
        done = now
    last = tiny_run.valuesoup(tmp_path / "cache", *tiny_run.demo_arguments(folder, SETTINGS))
    assert last.returncode == 0, last.stderr
    assert f"{done} of " in last.stdout
    assert all(stage.done for stage in run_status(folder))
    assert tiny_run.figures(folder) == tiny_run.figures(demo_run[0])
    assert not list(artifacts.glob(".*"))
    finished = [event["key"] for event in events(folder) if event["event"] == "done"]
    assert len(set(finished)) == len(finished), "no stage was made twice"


def test_the_log_tells_every_stage_in_json(demo_run: tuple[Path, str]) -> None:
    written = events(demo_run[0])
    assert written[0]["event"] == "run"
    assert written[-1]["event"] == "finished"
    starts = [event["key"] for event in written if event["event"] == "start"]
    assert starts == [event["key"] for event in written if event["event"] == "done"]
    assert len(starts) == written[0]["stages"]


def test_the_second_run_does_nothing(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in ("log.jsonl", ".lock")}
    before.pop(folder / "figures", None)
    done = tiny_run.valuesoup(tmp_path / "cache", "run", folder / "config.yaml")
    assert done.returncode == 0, done.stderr
    count = tiny_run.stages(folder)
    assert f"{count} of {count} stages are already done" in done.stdout
    assert "[1/" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_folder_in_use_is_refused(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    with lock_run(folder):
        done = tiny_run.valuesoup(tmp_path / "cache", "run", folder / "config.yaml")
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"error: run folder {folder} is in use by another process; wait for it, or choose another --out."
    )


class Said(Progress):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base")


def quick(folder: Path, base: Path, *overrides: str, rows: int = 60) -> RunConfig:
    """A run of two values whose rewards are functions, on a base that exists already."""
    lines = [f"base: {{model: {base}, device: cpu}}", "values:"]
    for value, reward in (("long", "length"), ("open", "vowels")):
        data = folder / f"{value}.jsonl"
        data.parent.mkdir(parents=True, exist_ok=True)
        kind = {"long": "helpful", "open": "harmless"}[value]
        data.write_text("".join(json.dumps(row) + "\n" for row in errands(kind, rows)), encoding="utf-8")
        lines.append(f"  {value}: {{data: {data}, reward: {{function: 'tiny_rewards:{reward}'}}}}")
    lines += [
        "methods: [{preset: vc-soup, tau: 0, steps: 2, minimum_pairs: 4}]",
        "training: {rank: 2, epochs: 1, batch_size: 4, learning_rate: 1.0e-3}",
        "generation: {max_new_tokens: 4}",
        "evaluation: {test_prompts: 6, validation_prompts: 4, resamples: 20}",
    ]
    return parse_config("\n".join(lines), "quick", overrides)


def failure(config: RunConfig, folder: Path) -> str:
    with pytest.raises((UserError, RunError)) as caught:
        run(config, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def done_stages(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "artifacts").iterdir() if not path.name.startswith(".")}


def test_the_same_seed_gives_the_same_figures_in_another_folder_and_another_seed_others(
    tmp_path: Path, base: Path
) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        config = quick(tmp_path / "data", base, f"seed={seed}")
        run(config, tmp_path / name)
        shutil.rmtree(tmp_path / "cache")
    one, two, three = (tiny_run.figures(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert three["candidates"] != one["candidates"]
    assert one["reward_models"] == {}


def test_batch_size_of_the_generation_does_not_change_the_answers(tmp_path: Path, base: Path) -> None:
    run(quick(tmp_path / "data", base), tmp_path / "one")
    run(quick(tmp_path / "data", base, "generation.batch_rows=7"), tmp_path / "two")
    one, two = (tiny_run.figures(tmp_path / name)["candidates"] for name in ("one", "two"))
    for row in (*one, *two):
        if row["quality"] is not None:  # sums of other batches, other last digits
            assert row["quality"].pop("kl") >= 0
            assert row["quality"].pop("perplexity") >= 1
    assert one == two


def test_data_and_base_may_move_without_anything_being_made_again(tmp_path: Path, base: Path) -> None:
    first = quick(tmp_path / "data", base)
    shutil.copytree(base, tmp_path / "moved")
    second = quick(tmp_path / "elsewhere", tmp_path / "moved")
    keys = [{node.key for node in topological(make_plan(config).targets())} for config in (first, second)]
    assert keys[0] == keys[1]


def test_a_run_on_relative_paths_is_opened_from_anywhere(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(tmp_path / "data", base)
    monkeypatch.chdir(tmp_path)
    relative = [f"values.{value}.data=data/{value}.jsonl" for value in ("long", "open")]
    run(quick(tmp_path / "data", base, *relative), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert all(stage.done for stage in run_status(tmp_path / "run"))


def test_references_are_shared_between_runs(tmp_path: Path, base: Path) -> None:
    run(quick(tmp_path / "data", base), tmp_path / "one")
    run(quick(tmp_path / "data", base, "training.rank=3"), tmp_path / "two")
    started = [event["stage"] for event in events(tmp_path / "two") if event["event"] == "start"]
    assert "train" in started
    assert "reference" not in started


def test_too_few_pairs_after_filtering_shows_the_retention_and_finished_stages_stay(tmp_path: Path, base: Path) -> None:
    config = quick(tmp_path / "data", base, "methods=[{preset: vc-soup, tau: 1}]")
    text = failure(config, tmp_path / "run")
    assert "of data set 'long' have a value consistency of at least 1" in text
    assert "(threshold: pairs kept): " in text
    assert "training needs 16" in text
    assert {"pairs", "split", "scores", "gaps"} <= done_stages(tmp_path / "run")
    again = Said()
    run(quick(tmp_path / "data", base), tmp_path / "run", again)
    assert not [line for line in again.lines if "read the pairs" in line]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("values.open.reward.function=tiny_rewards:constant", ["value 'open'", "data set 'long'", "the same score"]),
        ("values.long.reward.function=tiny_rewards:too_few", ["tiny_rewards:too_few", "one number per answer"]),
        (
            "evaluation.test_prompts=500",
            ["value 'long' has", "conversations, too few for 500 test and 4"],
        ),
        ("values.long.data=nowhere/gone.jsonl", ["gone.jsonl"]),
        ("values.long.data=gone.jsonl", ["gone.jsonl"]),
        ("base.model=/nowhere/base", ["/nowhere/base"]),
        ("training.max_length=3", ["every training pair of 'long' is longer than 3 tokens", "training.max_length"]),
        ("generation.max_prompt_tokens=1", ["every validation prompt is longer than generation.max_prompt_tokens = 1"]),
        ("generation.max_new_tokens=255", ["generation.max_new_tokens together are", "the base takes 256"]),
        ("evaluation.fluency=tiny_rewards:too_few", ["tiny_rewards:too_few", "one number per answer"]),
        ("values.open.truth=tiny_rewards:not_a_number", ["tiny_rewards:not_a_number", "nan"]),
        ("training.target_modules=[nothing]", ["target_modules", "q_proj"]),
    ],
)
def test_wrong_input_ends_in_one_sentence(tmp_path: Path, base: Path, override: str, says: list[str]) -> None:
    text = failure(quick(tmp_path / "data", base, override), tmp_path / "run")
    for part in says:
        assert part in text


def test_a_score_that_is_no_number_names_the_pair(tmp_path: Path, base: Path) -> None:
    config = quick(tmp_path / "data", base, "values.open.reward.function=tiny_rewards:not_a_number")
    text = failure(config, tmp_path / "run")
    from valuesoup.data import load_pairs

    named = text.split()[1]
    assert named in load_pairs(tmp_path / "data" / "long.jsonl").ids
    assert text.startswith(f"Pair {named} of data set 'long', value 'open': ")


def test_own_prompts_of_a_data_set_that_has_none_short_enough_are_missed_by_name(tmp_path: Path, base: Path) -> None:
    settings = ("evaluation.prompts=own", "generation.max_prompt_tokens=60")
    config = quick(tmp_path / "data", base, *settings)
    data = tmp_path / "data" / "open.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        row["prompt"][0]["content"] += " word" * 60
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert failure(config, tmp_path / "run").startswith("no held-out prompt of 'open' is short enough to answer")


def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, base: Path) -> None:
    config = quick(tmp_path / "data", base)
    data = tmp_path / "data" / "long.jsonl"
    lines = data.read_text().splitlines()
    for wrong, says in (('{"prompt": ', "line 4"), ('{"prompt": "a", "chosen": 3}', "4"), ("[1]", "line 4")):
        data.write_text("\n".join([*lines[:3], wrong, *lines[3:]]))
        text = failure(config, tmp_path / "run")
        assert "long.jsonl" in text
        assert says in text


def test_a_base_without_a_tokenizer_is_refused(tmp_path: Path, base: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    for path in bare.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            path.unlink()
    text = failure(quick(tmp_path / "data", bare), tmp_path / "run")
    assert "tokenizer" in text
    assert str(bare) in text


MOUNTED = """
mount -t tmpfs -o size={size} tmpfs {folder} || exit 77
{before}
exec "$@"
"""


def on_small_disk(tmp_path: Path, size: str, before: str = "true") -> subprocess.CompletedProcess[str]:
    """Run the tiny demo in a folder that is a small disk of its own, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = MOUNTED.format(size=size, folder=disk, before=before.format(disk))
    demo = tiny_run.command(*tiny_run.demo_arguments(disk / "run", SETTINGS))
    after = f'"$@"; code=$?; ls {disk}/run/artifacts >&2; exit $code'
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", "sh", "-c", after, "sh", *demo],
            env=tiny_run.environment(tmp_path / "cache"),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("needs the unshare command")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("needs mount namespaces")
    return done


def test_a_disk_that_fills_up_gives_one_sentence_and_finished_stages_stay(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path, "400k")
    assert done.returncode == 1, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in error
    assert "finished stages stay" in error
    assert "Traceback" not in done.stderr
    assert "pairs-" in done.stderr


def test_a_disk_that_cannot_be_written_gives_one_sentence(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path, "400k", "mount -o remount,ro {}")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_from_the_start_gives_one_sentence(tmp_path: Path) -> None:
    fill = "mkdir {0}/run; dd if=/dev/zero of={0}/fill 2>/dev/null"
    done = on_small_disk(tmp_path, "400k", fill)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, base: Path) -> None:
    (tmp_path / "run").write_text("x")
    assert "cannot be written" in failure(quick(tmp_path / "data", base), tmp_path / "run")


def test_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valuesoup.pipeline.run import cache_folder

    assert cache_folder() == Path(os.environ["VALUESOUP_CACHE"])
    monkeypatch.delenv("VALUESOUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "valuesoup"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "valuesoup"


def test_scores_of_functions_stay_in_their_run_and_those_of_models_serve_others() -> None:
    plan = make_plan(demo_config(overrides=["values.harmless.reward={function: 'valuesoup.worlds.errands:harmless'}"]))
    scored = [node for node in topological(plan.targets()) if node.stage.name in ("scores", "rated", "reference")]
    shared = {node.label for node in scored if shared_between_runs(node)}
    own = {node.label for node in scored} - shared
    assert "score the helpful pairs by helpful" in shared
    assert "score the helpful pairs by harmless" in own
    assert any(label.startswith("reference log-probabilities") for label in shared)
