"""What the stages of the data cost as pairs and values grow: time, peak memory, disk; a process for each stage."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.growth import memory

RESULTS = Path(__file__).parent / "results" / "scale.json"
FORMATS = ("jsonl", "parquet", "hf")
VALUES = ("short", "vowels", "letters", "early", "late")
DATASET = "pairs"
WORDS = 4096
_CHUNK = 1 << 16
_MIB = 1 << 20


@dataclass(frozen=True)
class Point:
    """The cost of one stage at one size.

    Attributes:
        stage: What is done.
        pairs: How many pairs are read.
        values: How many values the stage handles.
        seconds: By the clock.
        cpu: Seconds of processor time.
        peak: MiB of resident memory of the whole process at its peak, mapped files included.
        written: MiB of its result on disk.
    """

    stage: str
    pairs: int
    values: int
    seconds: float
    cpu: float
    peak: float
    written: float


def write_pairs(folder: Path, count: int, seed: int = 0) -> dict[str, Path]:
    """Write ``count`` rows of about 250 bytes (prompt, chosen, rejected) in each of the `FORMATS`.

    Every second prompt has two pairs; one row in 200 repeats the one before it, one in 200 has equal sides.
    """
    import datasets
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    random = np.random.default_rng(seed)
    letters = np.array(list("aaeeiioubcdfghklmnprstvw"))
    words = pa.array(
        [*("".join(random.choice(letters, length)) for length in random.integers(2, 9, WORDS - 1)), "and,"]
    )

    def texts(rows: int, length: int) -> pa.Array:
        columns = [words.take(pa.array(random.integers(0, WORDS, rows))) for _ in range(length)]
        return pc.binary_join_element_wise(*columns, " ")

    paths = {"jsonl": folder / "pairs.jsonl", "parquet": folder / "pairs.parquet", "hf": folder / "pairs"}
    schema = pa.schema([(name, pa.string()) for name in ("prompt", "chosen", "rejected")])
    with paths["jsonl"].open("wb") as lines, pq.ParquetWriter(paths["parquet"], schema) as parquet:
        for start in range(0, count, _CHUNK):
            rows = min(_CHUNK, count - start)
            prompt, chosen, rejected = texts(rows, 9), texts(rows, 12), texts(rows, 12)
            place = np.arange(rows)
            shared = np.where((place % 3 == 2) | (place % 200 == 199), place - 1, place)
            again = np.where(place % 200 == 199, place - 1, place)
            same = pa.array(place % 200 == 100)
            chosen, rejected = chosen.take(pa.array(again)), rejected.take(pa.array(again))
            rejected = pc.if_else(same, chosen, rejected)
            table = pa.table([prompt.take(pa.array(shared)), chosen, rejected], schema)
            parquet.write_table(table)
            pl.DataFrame(table).write_ndjson(lines)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        datasets.disable_progress_bars()
        datasets.Dataset.from_parquet(str(paths["parquet"]), cache_dir=cache).save_to_disk(paths["hf"])
    return paths


def short(_: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """Reward short answers."""
    return [-len(answer) / 10 for answer in answers]


def vowels(_: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """Reward the letter a against the letter o."""
    return [float(answer.count("a") - answer.count("o")) for answer in answers]


def letters(_: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """Reward the letter e against the letter u."""
    return [float(answer.count("e") - answer.count("u")) for answer in answers]


def early(_: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """Reward an early first letter."""
    return [-float(ord(answer[0])) for answer in answers]


def late(_: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """Reward a late last letter."""
    return [float(ord(answer[-1])) for answer in answers]


def run_stage(name: str, folder: Path, values: int) -> Path:
    """Run one stage of the data on what the stages before it left in ``folder``; return its result's folder."""
    from valuesoup.config import DataConfig, RewardConfig
    from valuesoup.pipeline import data
    from valuesoup.pipeline import values as stages
    from valuesoup.pipeline.inputs import DataRef, RewardRef
    from valuesoup.store import Artifact, Progress, Work

    def artifact(of: str) -> Artifact:
        return Artifact(folder / of, of, 0.0)

    kind, _, value = name.partition(" ")
    out = folder / (f"{kind}-{values}" if kind in ("gaps", "filter") else name.replace(" ", "-"))
    out.mkdir()
    work = Work(out, Progress(), name, lambda **_: None)
    wanted = VALUES[:values]
    if kind == "read":
        path = {"jsonl": "pairs.jsonl", "parquet": "pairs.parquet", "hf": "pairs"}[value]
        source = DataRef(config=DataConfig(path=str(folder / path)), content=None)
        data.read_pairs.function(work, sources=[source], value=DATASET, seed=None)
    elif kind == "split":
        pairs = {DATASET: artifact("read-jsonl")}
        data.split.function(work, pairs=pairs, test_prompts=200, validation_prompts=50, seed=0)
    elif kind == "score":
        reward = RewardRef(config=RewardConfig(function=f"{__spec__.name}:{value}"), fingerprint={})
        stages.score_pairs.function(
            work, pairs=artifact("read-jsonl"), dataset=DATASET, rewards={value: reward}, device="cpu"
        )
    elif kind == "part-scores":
        scores = artifact(f"score-{value}")
        stages.part_scores.function(
            work, split=artifact("split"), dataset=DATASET, value=value, scores=scores, column=None
        )
    elif kind == "gaps":
        scores_of = {DATASET: {one: artifact(f"part-scores-{one}") for one in wanted}}
        stages.reward_gaps.function(work, dataset=DATASET, scores=scores_of, statistics="dataset")
    else:
        gaps = artifact(f"gaps-{values}")
        stages.filter_pairs.function(
            work, gaps=gaps, dataset=DATASET, tau=0.7, keep=None, soft=False, flip=False, minimum=1
        )
    return out


def stages_of(values: int) -> list[tuple[str, int]]:
    """Return the stages in order, each with how many values it handles; gaps and filter with 2 and with all."""
    wanted = VALUES[:values]
    scored = [(f"{kind} {value}", 1) for value in wanted for kind in ("score", "part-scores")]
    joined = [(kind, n) for n in sorted({min(2, values), values}) for kind in ("gaps", "filter")]
    return [*((f"read {kind}", 1) for kind in FORMATS), ("split", 1), *scored, *joined]


def measure(pairs: int, values: int, folder: Path) -> list[Point]:
    """Generate pairs in ``folder`` and measure every stage on them, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale"]
    subprocess.run([*command, "--write", str(pairs), "--folder", str(folder)], check=True)
    points = []
    for name, n in stages_of(values):
        done = subprocess.run(
            [*command, "--stage", name, "--values", str(n), "--folder", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{name} of {pairs} pairs ended with {done.returncode}: {done.stderr[-2000:]}")
        points.append(Point(name, pairs, n, **json.loads(done.stdout)))
        print(points[-1], file=sys.stderr, flush=True)
    return points


def _measured(name: str, folder: Path, values: int) -> dict[str, float]:
    start, cpu = time.perf_counter(), time.process_time()
    out = run_stage(name, folder, values)
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "peak": round(memory("VmHWM")),
        "written": round(written / _MIB, 1),
    }


def figures(_: int) -> list[str]:
    """Measure up to 10 million pairs and five values, keep the points, and return them as lines of text."""
    points = []
    for pairs in (100_000, 1_000_000, 10_000_000):
        folder = Path(tempfile.mkdtemp(prefix="valuesoup-scale-"))
        try:
            points += measure(pairs, len(VALUES), folder)
        finally:
            shutil.rmtree(folder)
    RESULTS.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n", encoding="utf-8")
    return [
        f"{p.stage}, {p.pairs:,} pairs × {p.values} values: {p.seconds:.1f} s, peak {p.peak:,.0f} MiB, "
        f"{p.written:,.0f} MiB written"
        for p in points
    ]


def main() -> None:
    """Write pairs, or measure one stage on pairs that were written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the pairs and the stages' results lie")
    parser.add_argument("--write", type=int, metavar="PAIRS", help="write so many pairs")
    parser.add_argument("--stage", help="run this stage, such as 'read jsonl' or 'score short'")
    parser.add_argument("--values", type=int, default=1, help="how many values it handles")
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_pairs(arguments.folder, arguments.write)
    else:
        print(json.dumps(_measured(arguments.stage, arguments.folder, arguments.values)))
        sys.stdout.flush()
        os._exit(0)  # what was measured is over; freeing it takes seconds


if __name__ == "__main__":
    main()
