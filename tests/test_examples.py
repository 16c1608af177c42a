"""The examples: each configuration reads, and those whose inputs are at hand run in a very small form."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiny_run
from valuesoup.configfile import load_config
from valuesoup.methods.registry import BUILT_IN

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
DIALOGUES = ROOT.parent / "shared" / "data" / "hh-rlhf"


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are run from the repository root: paths and functions count from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_reads(file: Path) -> None:
    config = load_config(file)
    assert len(config.values) >= 2
    assert {"dpo", "soup", "vc-soup"} <= {entry.name for entry in config.methods}


def test_the_dialogues_are_compared_by_every_method_of_the_papers() -> None:
    config = load_config(ROOT / "examples" / "hh-rlhf-cpu.yaml")
    assert set(BUILT_IN) <= {entry.preset for entry in config.methods}


def test_the_rewriter_of_the_dialogues_adds_what_answers_lack() -> None:
    from valuesoup.data import load_function

    fused = load_function("examples.hh:fuse")("How do I fix a fuse?", ["harmless"])
    assert fused.startswith("How do I fix a fuse? ")
    assert "hurt" in fused


def test_the_rewards_of_the_stories_count_by_hand() -> None:
    from valuesoup.data import load_function

    answers = [
        'The big red ball was big. "Look, a ball!" said Tom. "So red!"',
        'She said, "I am',  # a quotation that does not end counts for nothing
        "",
    ]
    vivid, spoken, fluency = (load_function(f"examples.stories:{name}") for name in ("vivid", "spoken", "fluency"))
    assert vivid([""] * 3, answers) == [2.0, 0.0, 0.0]
    assert spoken([""] * 3, answers) == [5.0, 0.0, 0.0]
    assert fluency([""] * 2, ["the dog saw the cat", "no no no no yes"]) == [1.0, 0.0]


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the model ../shared/models/stories260K")
def test_the_stories_run_from_a_real_pretrained_folder(tmp_path: Path) -> None:
    settings = [
        *(f"values.{value}.data.arguments.size=70" for value in ("vivid", "spoken")),
        "training={rank: 4, epochs: 1, batch_size: 4}",
        "generation.max_new_tokens=16",
        "evaluation={test_prompts: 4, validation_prompts: 4, resamples: 20, samples: 2, fluency_bound: 0}",
        "methods=[{preset: vc-soup, tau: -1, steps: 2}]",
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = tiny_run.valuesoup(
        tmp_path / "cache", "run", "examples/stories.yaml", "--out", tmp_path / "run", *arguments, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["values"] == ["vivid", "spoken"]
    for candidate in results["candidates"]:
        assert np.isfinite([candidate["validation"][value]["mean"] for value in results["values"]]).all()
    assert {candidate["method"] for candidate in results["candidates"]} == {"base", "vc-soup"}


@pytest.mark.skipif(not DIALOGUES.is_dir(), reason="needs the data ../shared/data/hh-rlhf")
def test_the_dialogues_are_found_and_planned() -> None:
    from valuesoup.data import drop_long, load_pairs
    from valuesoup.pipeline.plan import make_plan
    from valuesoup.store import topological

    config = load_config(ROOT / "examples" / "hh-rlhf-cpu.yaml")
    for value in config.values.values():
        for source in value.data:
            pairs = load_pairs(source.path or "", data_dir=source.data_dir, split=source.split, limit=50)
            assert source.max_words is not None
            assert 0 < len(drop_long(pairs, source.max_words)) <= 50
    stages = {node.stage.name for node in topological(make_plan(config).targets())}
    assert stages >= {"pairs", "split", "pretrain", "reward", "filter", "train", "answers", "frontier"}
