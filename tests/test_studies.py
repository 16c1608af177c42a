"""The papers' studies: every configuration reads, each small form has its full one, and a study runs over seeds."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import tiny_run
from valuesoup.config import RunConfig
from valuesoup.configfile import load_config
from valuesoup.pipeline.plan import make_plan
from valuesoup.store import topological

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "examples" / "studies"
FULL = sorted(STUDIES.glob("*.full.yaml"))
SMALL = sorted(set(STUDIES.glob("*.yaml")) - set(FULL))
OF_PAPERS = {
    "table-1": 3,
    "table-2": 2,
    "figure-3": 2,
    "figure-5": 2,
    "figure-6": 2,
    "figure-7": 2,
    "mora-sequential": 2,
    "mora-simultaneous": 3,
    "mora-scaling": 2,
}
"""Number of values of each study that is in a paper."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are run from the repository root: functions count from there."""
    monkeypatch.chdir(ROOT)


def choices(config: RunConfig) -> list[tuple[str, str, str]]:
    methods = [entry.method for entry in config.methods]
    return [(of.pairs.kind, of.objective.kind, of.composition.kind) for of in methods]


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.name)
def test_a_small_form_plans_over_at_least_three_seeds_from_nothing(file: Path) -> None:
    config = load_config(file)
    assert len(config.seeds) >= 3
    assert len(config.values) == OF_PAPERS.get(file.stem, 2)
    assert config.base.pretrain is not None
    nodes = topological(make_plan(config).targets())
    assert {"train", "answers", "frontier"} <= {node.stage.name for node in nodes}
    assert f"valuesoup run {file.relative_to(ROOT)}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OF_PAPERS)
def test_the_full_form_has_the_choices_of_its_small_one_and_the_papers_settings(name: str) -> None:
    small = load_config(STUDIES / f"{name}.yaml")
    fulls = [load_config(file) for file in FULL if file.name.startswith(name)]
    assert fulls
    for full in fulls:
        assert full.base.model == "meta-llama/Llama-2-7b-hf"
        assert (full.training.beta, full.training.learning_rate, full.training.batch_size) == (0.1, 1e-5, 2)
        assert choices(full) == choices(small)
        assert len(full.values) == len(small.values)


SETTINGS = [
    *tiny_run.overrides("helpful", "harmless"),
    "seeds=[3, 4]",
    "methods=[dpo, {preset: vc-soup, name: low, tau: -1, steps: 2}, {preset: vc-soup, name: high, tau: 0, steps: 2}]",
]


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study whose seeds ran one after the other."""
    root = tmp_path_factory.mktemp("study")
    done = tiny_run.valuesoup(root / "cache", *tiny_run.demo_arguments(root / "study", SETTINGS))
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "study"


def test_seeds_side_by_side_have_the_figures_of_seeds_one_by_one(one_by_one: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "study", tmp_path / "cache"
    for stage in ("pretrain", "train", "answers"):  # seed 3 got as far as this once
        for folder in (one_by_one / "seed-3" / "artifacts").glob(f"{stage}-*"):
            shutil.copytree(folder, out / "seed-3" / "artifacts" / folder.name)
    arguments = tiny_run.demo_arguments(out, SETTINGS, jobs=2)
    with subprocess.Popen(
        tiny_run.command(*arguments), env=tiny_run.environment(cache), stdout=subprocess.PIPE, text=True
    ) as first:
        deadline = time.monotonic() + 60
        while not list((out / "artifacts").glob("reward-*")) and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.02)
        done = tiny_run.valuesoup(cache, "status", out)
        counts = [int(line.split()[1]) for line in done.stdout.splitlines()]
        assert counts[0] > counts[1] > 0, "of seed 3 and seed 4, while both are made"
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert first.returncode == 130
    done = tiny_run.valuesoup(cache, *arguments)
    assert done.returncode == 0, done.stderr
    assert " stages are already done" in done.stdout
    for seed in (3, 4):
        assert tiny_run.figures(out / f"seed-{seed}") == tiny_run.figures(one_by_one / f"seed-{seed}")
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [event["label"] for event in events if event["event"] == "done" and event["stage"] == "train"]
    assert trained and all(label.startswith("seed 4: ") for label in trained), "those of seed 3 were there"
    assert not (out / "artifacts").exists()
    done = tiny_run.valuesoup(cache, "status", out / "seed-3")
    assert "to do" not in done.stdout, "each seed stands by itself"


def test_a_study_runs_once_per_seed_and_combines_the_results(one_by_one: Path) -> None:
    settings, out, cache = SETTINGS, one_by_one, one_by_one.parent / "cache"
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert study["seeds"] == [3, 4]
    each = [json.loads((out / f"seed-{seed}" / "results.json").read_text(encoding="utf-8")) for seed in (3, 4)]
    volumes = [run["methods"]["high"]["hypervolume"]["value"] for run in each]
    assert study["methods"]["high"]["hypervolume"]["each"] == volumes
    assert study["methods"]["high"]["hypervolume"]["mean"] == pytest.approx(sum(volumes) / 2)
    for page in (out / "report.html", out / "seed-3" / "report.html"):
        assert page.stat().st_size > 10_000
    again = tiny_run.valuesoup(cache, *tiny_run.demo_arguments(out, settings))
    assert again.returncode == 0
    assert "seed 4" in again.stdout
    done = tiny_run.valuesoup(cache, "status", out)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["seed-3", "seed-4"]
    (out / "report.html").unlink()
    done = tiny_run.valuesoup(cache, "report", out)
    assert (done.returncode, done.stdout.strip()) == (0, str(out / "report.html"))
    assert json.loads((out / "study.json").read_text(encoding="utf-8")) == study
    for folder, seeds, says in ((out, "[]", "holds a study over seeds"), (out / "seed-3", "[3]", "of a single run")):
        done = tiny_run.valuesoup(cache, *tiny_run.demo_arguments(folder, [*settings, f"seeds={seeds}"]))
        assert (done.returncode, says in done.stderr) == (2, True)
    (out / "study.json").unlink()
    done = tiny_run.valuesoup(cache, "report", out)
    assert done.returncode == 2
    assert "holds no finished study" in done.stderr
