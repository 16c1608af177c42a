"""The papers' studies: every configuration reads, each small form has its full one, and a study runs over seeds."""

import json
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


def test_a_study_runs_once_per_seed_and_combines_the_results(tmp_path: Path) -> None:
    settings = [
        *tiny_run.overrides("helpful", "harmless"),
        "seeds=[3, 4]",
        "methods=[dpo, {preset: vc-soup, name: low, tau: -1, steps: 2}, "
        "{preset: vc-soup, name: high, tau: 0, steps: 2}]",
    ]
    out, cache = tmp_path / "study", tmp_path / "cache"
    done = tiny_run.valuesoup(cache, *tiny_run.demo_arguments(out, settings))
    assert done.returncode == 0, done.stdout + done.stderr
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
