"""The stage in which candidates answer: whole shards only, the same bytes after any interruption."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tiny
import tiny_answering
from valuesoup.config import GenerationConfig
from valuesoup.pipeline import answering
from valuesoup.pipeline.answering import answer_prompts, load_answers
from valuesoup.soup import Soup
from valuesoup.store import Artifact, Progress, Work

CANDIDATES = ((1.0, 0.0), (0.5, 0.5), (0.0, 0.0), (-0.5, 1.2))
PROMPTS = 13


class Stage:
    """The stage over a tiny base and two vectors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = io.StringIO()
        tiny.save_base(folder / "base")
        generation = GenerationConfig(max_new_tokens=12, temperature=1.0)
        self.given = tiny_answering.inputs(folder, CANDIDATES, PROMPTS, generation)

    def run(self, name: str, **changes: Any) -> dict[str, bytes]:
        """Run it in a folder, which may hold shards already, and return the files there."""
        out = self.folder / name
        out.mkdir(exist_ok=True)
        progress = Progress(Console(file=self.said), live=False)
        answer_prompts.function(Work(out, progress, "answers", lambda **_: None), **{**self.given, **changes})
        return self.files(name)

    def files(self, name: str) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (self.folder / name).iterdir()}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(answering, "SHARD_ROWS", 10)
    return Stage(tmp_path)


def test_every_candidate_answers_every_prompt_once_whatever_the_shards(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stage.run("small")
    assert sorted(found) == [f"shard-{shard:05d}.parquet" for shard in range(6)]
    small = load_answers(Artifact(stage.folder / "small", "s", 0.0))
    asked = list(zip(small["candidate"].to_pylist(), small["prompt"].to_pylist(), strict=True))
    assert sorted(asked) == [(place, number) for place in range(len(CANDIDATES)) for number in range(PROMPTS)]
    monkeypatch.setattr(answering, "SHARD_ROWS", 1000)
    assert list(stage.run("large")) == ["shard-00000.parquet"]
    assert load_answers(Artifact(stage.folder / "large", "l", 0.0)).equals(small)


def test_shards_are_filled_in_one_queue_that_is_never_drained_between_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = Soup.forward

    def count(self: Soup, weights: torch.Tensor | None, **inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        return forward(self, weights, **inputs)

    monkeypatch.setattr(Soup, "forward", count)
    stage.run("out")
    full = max(place for place, size in enumerate(rows) if size == 8)
    steps = [size for size in rows[:full] if size != 8]
    assert len(steps) < full / 2  # the passes between full ones are those of newcomers


@pytest.mark.parametrize("after", [1, 7, 16, 40])
def test_an_interruption_costs_no_whole_shard_and_leaves_no_trace(stage: Stage, after: int) -> None:
    whole = stage.run("whole")

    class Stopping(Progress):
        def _show(self, task: Any) -> None:
            if task.done >= after:
                raise KeyboardInterrupt

    out = stage.folder / "broken"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "_show", Stopping._show)
        stage.run("broken")
    kept = stage.files("broken")
    assert all(whole[name] == data for name, data in kept.items())
    assert after - 10 * len(kept) < 3 * 10
    written = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert stage.run("broken") == whole
    assert all((out / name).stat().st_mtime_ns == time for name, time in written.items())


def test_the_shards_that_are_there_may_be_any(stage: Stage) -> None:
    whole = stage.run("whole")
    for shard in (0, 2, 5):
        (stage.folder / "whole" / f"shard-{shard:05d}.parquet").unlink()
    assert stage.run("whole") == whole
    assert stage.run("whole") == whole


def test_only_chosen_candidates_answer(stage: Stage) -> None:
    (stage.folder / "chosen").mkdir()
    (stage.folder / "chosen" / "chosen.json").write_text(json.dumps({"test": [3, 1]}))
    stage.run("out", chosen=Artifact(stage.folder / "chosen", "c", 0.0))
    table = load_answers(Artifact(stage.folder / "out", "o", 0.0))
    assert set(table["candidate"].to_pylist()) == {1, 3}
    assert table.num_rows == 2 * PROMPTS


def test_short_memory_is_said_and_changes_no_byte(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stage.run("whole")
    forward = Soup.forward

    def short(self: Soup, weights: torch.Tensor | None, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 3:
            torch.empty(1 << 50)  # fails as any allocation does for which there is no memory
        return forward(self, weights, **inputs)

    monkeypatch.setattr(Soup, "forward", short)
    assert stage.run("short") == whole
    assert stage.said.getvalue().count("memory does not suffice for 8 answers at a time: 2 from here on") == 1
