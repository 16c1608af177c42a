"""A training that is stopped anywhere and started again ends in the same vectors and curves, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from valuesoup.soup import Soup
from valuesoup.training.checkpoints import last_checkpoint
from valuesoup.training.rows import TrainingRows
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import Trained

Run = Callable[..., Trained]
STEPS, EVERY = 18, 3  # 17 rows in batches of 2 over 2 epochs; three validations an epoch


class StopAt:
    """A display that is interrupted as it shows a step, as by Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int) -> None:
        if done == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def run(fresh: Callable[..., Soup], rows: Callable[..., TrainingRows], train: Run, small: TrainingSettings) -> Run:
    settings = small.model_copy(
        update={"dropout": 0.2, "batch_size": 2, "accumulate": 2, "evaluations": 3, "schedule": "cosine", "warmup": 0.1}
    )

    def again(work: str, stop: int | None = None) -> Trained:
        task = StopAt(stop) if stop is not None else None
        return train(fresh("a", dropout=0.2), rows(17), settings, rows(9, seed=1), work=work, seed=3, task=task)

    return again


def assert_same(one: Trained, other: Trained) -> None:
    for layer, factors in one.vectors["a"].layers.items():
        assert torch.equal(factors.A, other.vectors["a"].layers[layer].A)
        assert torch.equal(factors.B, other.vectors["a"].layers[layer].B)
    assert [dict(row) for row in one.curves] == [dict(row) for row in other.curves]
    assert (one.best_step, one.best_loss) == (other.best_step, other.best_loss)


def interrupt(run: Run, work: str, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(work, stop=step)


def test_stopped_anywhere_it_ends_as_if_it_had_never_stopped(run: Run, tmp_path: Path) -> None:
    whole = run("whole")
    assert [row["step"] for row in whole.curves if "eval_loss" in row] == list(range(EVERY, STEPS + 1, EVERY))
    for step in (1, EVERY, EVERY + 1, STEPS // 2, STEPS // 2 + 1, STEPS):
        interrupt(run, f"at-{step}", step)
        assert (last_checkpoint(tmp_path / f"at-{step}") is None) == (step <= EVERY)
        assert_same(run(f"at-{step}"), whole)


def test_stopped_many_times_and_after_the_end_it_is_the_same(run: Run) -> None:
    whole = run("whole")
    for step in (2, 5, 8, 13):
        interrupt(run, "often", step)
    assert_same(run("often"), whole)
    assert_same(run("often"), whole)


@pytest.mark.parametrize("damage", ["no state", "half a state", "empty"])
def test_a_torn_last_checkpoint_is_passed_over(run: Run, tmp_path: Path, damage: str) -> None:
    whole = run("whole")
    interrupt(run, "torn", 8)
    good = last_checkpoint(tmp_path / "torn")
    assert good is not None and good.name == "checkpoint-6"
    torn = tmp_path / "torn" / "checkpoint-9"
    if damage == "empty":
        torn.mkdir()
    else:
        shutil.copytree(good, torn)
        (torn / "a" / "vector.safetensors").write_bytes(b"half")
        state = torn / "trainer_state.json"
        if damage == "no state":
            state.unlink()
        else:
            state.write_bytes(state.read_bytes()[:50])
    assert last_checkpoint(tmp_path / "torn") == good
    assert_same(run("torn"), whole)


def test_a_file_of_a_checkpoint_that_a_power_cut_has_torn_is_never_gone_on_with(run: Run, tmp_path: Path) -> None:
    whole = run("whole")
    interrupt(run, "cut", 8)
    sealed = last_checkpoint(tmp_path / "cut")
    assert sealed is not None
    files = [path.relative_to(sealed) for path in sealed.rglob("*") if path.is_file()]
    assert len(files) >= 8, files
    for place, name in enumerate(files):
        work = shutil.copytree(tmp_path / "cut", tmp_path / f"cut-{place}")
        torn = work / sealed.name / name
        torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
        for best in (work / "best").rglob("*.*"):
            best.write_bytes(b"")
        assert last_checkpoint(work) is None, name
        if place % 4 == 0:
            assert_same(run(work.name), whole)


def test_the_best_of_a_step_behind_the_checkpoint_is_not_gone_on_with(run: Run, tmp_path: Path) -> None:
    whole = run("whole")
    interrupt(run, "behind", 8)
    for name in ("best.json", "a/vector.safetensors"):
        shutil.copy(tmp_path / "whole" / "best" / name, tmp_path / "behind" / "best" / name)
    (tmp_path / "behind" / "best" / "best.json").write_text('{"step": 99, "loss": -1.0}')
    assert_same(run("behind"), whole)


def test_with_only_a_torn_checkpoint_it_starts_from_the_beginning(run: Run, tmp_path: Path) -> None:
    whole = run("whole")
    interrupt(run, "torn", 4)
    (tmp_path / "torn" / "checkpoint-3" / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path / "torn") is None
    assert_same(run("torn"), whole)


def test_only_the_vectors_are_in_a_checkpoint_and_only_the_last_one_is_kept(run: Run, tmp_path: Path) -> None:
    run("whole")
    found = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert found == ["best", f"checkpoint-{STEPS}"]
    weights = [path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*.safetensors")]
    assert sorted(weights) == [
        "best/a/vector.safetensors",
        f"checkpoint-{STEPS}/a/vector.safetensors",
        f"checkpoint-{STEPS}/best/a/vector.safetensors",
    ]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
import tiny, torch
from valuesoup.soup import Soup, target_layers
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TrainingRows, tokenise
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import train_vectors

torch.set_num_threads(1)

class Kill:
    def update(self, done):
        if done == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

def rows(count, seed):
    pairs = tokenise(tiny.random_pairs(count, seed), tiny.tokenizer(), 64)
    return TrainingRows.plain(pairs, pair_log_probs(Soup(tiny.family("llama"), layers=[]), None, pairs))

model = tiny.family("llama")
soup = Soup(model, layers=target_layers(model), dropout=0.2)
soup.add_fresh("a", rank=4, alpha=8, seed=0)
settings = TrainingSettings(rank=4, dropout=0.2, learning_rate=5e-3, batch_size=2, accumulate=2, epochs=2,
                            max_length=64, evaluations=3, schedule="cosine", warmup=0.1)
train_vectors(soup, rows(17, 0), rows(9, 1), settings, names=["a"], work=Path(sys.argv[1]), seed=3, task=Kill())
"""


def test_a_killed_process_is_continued_by_another_one(run: Run, tmp_path: Path) -> None:
    import valuesoup

    paths: list[Any] = [Path(valuesoup.__file__).parents[1], Path(__file__).parents[1]]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "killed", "11", *paths],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    checkpoint = last_checkpoint(tmp_path / "killed")
    assert checkpoint is not None and checkpoint.name == "checkpoint-9"
    assert_same(run("killed"), run("whole"))
