"""Stages that do little, in a module that worker processes can import."""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from valuesoup.errors import UserError
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, Work, run_graph, stage

PATIENCE = 30.0
"""Seconds after which what should have happened has not."""


def await_file(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.is_file():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody wrote {path.name}")
        time.sleep(0.01)


@stage("add")
def add(work: Work, *, one: int, to: Sequence[Artifact]) -> None:
    """Write a number plus those of the parents."""
    with work.task(2, "steps") as task:
        task.update(2)
    work.progress.say(f"    a word of {one}")
    work.log("noted", where=work.out, number=one)
    (work.out / "sum.json").write_text(json.dumps(one + sum(parent.json("sum.json") for parent in to)))


@stage("meet")
def meet(work: Work, *, place: str, me: str, other: str) -> None:
    """Come to a place and wait there for another stage."""
    (Path(place) / me).write_text("here")
    await_file(Path(place) / other)
    (work.out / "met").write_text(other)


@stage("process")
def process(work: Work, *, of: str, with_torch: bool = False) -> None:
    """Write what this process is."""
    about = {"pid": os.getpid(), "asked": os.environ.get("OMP_NUM_THREADS")}
    if with_torch:
        import torch

        about["threads"] = torch.get_num_threads()
    (work.out / "process.json").write_text(json.dumps(about))


class OddError(UserError):
    """An error whose text is not what its constructor takes."""

    def __init__(self, count: int, of: str) -> None:
        super().__init__(f"{count} {of} are odd.")


@stage("fail")
def fail(work: Work, *, how: str, when: str) -> None:
    """Fail as soon as a file is there."""
    await_file(Path(when))
    match how:
        case "user":
            raise UserError("the input is wrong.")
        case "odd":
            raise OddError(3, "rows")
        case "value":
            raise ValueError("halfway")
        case "full":
            with Path("/dev/full").open("w") as file:
                file.write("x" * 100_000)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)


@stage("endless", ignore=("place", "how"))
def endless(work: Work, *, place: str, how: str) -> None:
    """Tell the process, leave a checkpoint, and never end; at the second attempt end at once."""
    checkpoint = work.out / ".checkpoint"
    if checkpoint.is_file():
        (work.out / "resumed").write_text(checkpoint.read_text())
        return
    checkpoint.write_text("step 3")
    started = Path(place) / "endless.tmp"
    started.write_text(str(os.getpid()))
    started.rename(Path(place) / "endless")
    if how == "computes":
        sum(range(10**15))  # never lets another thread of Python run
    time.sleep(10**6)


@stage("share", together=True)
def share(work: Work, *, place: str, how: str, of: Artifact | None = None) -> None:
    """Add up what each process of a team is, three times; perhaps end in the second round, at the first attempt."""
    import torch

    from valuesoup.store.team import team

    one = 10 ** team().rank
    (work.out / ".checkpoints").mkdir(exist_ok=True)
    attempt = work.out / ".checkpoints" / f"attempt-{team().rank}"
    first = not attempt.is_file()
    attempt.write_text("begun")
    total = 0.0
    for step in range(3):
        if step == 1 and first and how.endswith(str(team().rank)):
            if how.startswith("killed"):
                (Path(place) / "killed").write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            raise OddError(team().rank, "processes")
        whole = torch.tensor(float(one))
        team().add(whole)
        total += whole.item()
    work.log("shared", first=first)
    about = {"total": total, "size": team().size, "first": first, "of": of.json("sum.json") if of else None}
    (work.out / "share.json").write_text(json.dumps(about))


def graph(place: Path, how: str) -> list[Node]:
    return [add("first", one=1, to=[]), endless("endless", place=str(place), how=how)]


if __name__ == "__main__":
    home = Path(sys.argv[1])
    run_graph(graph(home, sys.argv[2]), Store(home / "store"), Progress(), RunLog(home / "log.jsonl"), jobs=2)
