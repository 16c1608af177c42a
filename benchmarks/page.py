"""Writes ``docs/performance.md`` from the results of the benchmarks."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

GOALS = {
    "dpo-train-fp32": ("DPO training, float32", 3.0),
    "dpo-train-bf16": ("DPO training, bfloat16", 2.5),
    "study-train": ("training a VC-soup study: 3 values, 3 thresholds", 2.5),
    "candidates-k11": ("11 candidates, 50 prompts", 2.0),
    "candidates-k11-published": ("11 candidates, 50 prompts", 14.0),
    "candidates-k66-few-prompts": ("66 candidates, 4 prompts", 3.0),
    "score": ("scoring texts of mixed length", 3.0),
    "score-shared-prompt": ("scoring 11 answers to each prompt", 1.8),
    "search-rows": ("adaptive search and racing", 3.0),
    "filter": ("filtering 10 million pairs under 3 values", 5.0),
}
"""What each claim is called on the page, and the ratio that it should reach."""
LIMITS = {
    "candidates-k66-few-prompts": "What stops it: every candidate must read the prompts itself, since keys and values "
    "depend on the weights from the first layer on. Of our 4.1 s, 2.9 are matrix products and 0.8 attention, which no "
    "order of the rows changes; were all else free, the ratio would be 3.1. Between 96 and 264 rows at a time, "
    "refilled at 15 to 25 % of free places, the time is the same within its noise",
    "candidates-k11-published": "What stops it: the prompts and the ragged answers are about 0.54 TFLOP for whoever "
    "computes each once, 4.7 s at the 115 GFLOP/s that a core reached in matrix products; one prompt at a time took "
    "39 s there, so 8 is the most that any batching could reach. Two thirds of our time are such products",
}
"""Of goals that were missed: the measured limit."""

HEAD = """# Performance

Made by `make bench`; do not edit. Every ratio compares valuesoup with another way to the same results: both run in turn
in one process on one CPU thread, the results are checked to be equal, and the ratio is that of the processor times
(above 1: valuesoup is faster), the median over the repeats with the smallest and the largest.

| job | opponent | ratio | range | goal |
| --- | --- | --- | --- | --- |
"""


def write_page(results: Path, page: Path) -> None:
    """Write the page from the results in a folder."""
    claims = {entry["name"]: entry for entry in _read(results / "cpu.json")}
    text = HEAD
    for name, (title, goal) in GOALS.items():
        if name in claims:
            text += _row(title, claims[name], goal)
    text += "\n## What each claim measured\n\n"
    for name in (name for name in GOALS if name in claims):
        text += f"* **{name}**: {claims[name]['note']}.{f' {LIMITS[name]}.' if name in LIMITS else ''}\n"
    text += _growth(_read(results / "growth.json"))
    text += _gpu(_read(results / "gpu.json"))
    page.write_text(text, encoding="utf-8")


def _row(title: str, claim: dict[str, Any], goal: float) -> str:
    reached = "" if claim["ratio"] >= goal else ", missed"
    return (
        f"| {title} `{claim['name']}` | {claim['opponent']} | **{claim['ratio']:.2f}** | "
        f"{claim['low']:.2f} to {claim['high']:.2f} | {goal:g}{reached} |\n"
    )


def _growth(points: list[dict[str, Any]]) -> str:
    if not points:
        return ""
    text = (
        "\n## How cost grows\n\nSeconds of processor time on one thread, and memory beyond what the input takes, each "
        "size in a process of its own.\n"
    )
    for job, group in groupby(points, key=lambda point: str(point["job"])):
        text += f"\n### {job[0].upper()}{job[1:]}\n\n| size | seconds | memory, MiB |\n| --- | --- | --- |\n"
        text += "".join(f"| {point['size']} | {point['seconds']:.3g} | {point['peak']:,.0f} |\n" for point in group)
    return text


def _gpu(entries: list[dict[str, Any]]) -> str:
    text = "\n## On a GPU\n\n"
    if not entries:
        return text + (
            "Nothing has been measured on a GPU yet. `python -m benchmarks.gpu` measures there in one call under nine "
            "minutes, and writes `benchmarks/results/gpu.json`, from which this section is made; without a GPU it runs "
            "the same jobs small, to show that they work.\n"
        )
    text += "Command: `python -m benchmarks.gpu`.\n\n| job | opponent | ratio | note |\n| --- | --- | --- | --- |\n"
    return text + "".join(f"| {e['name']} | {e['opponent']} | {e['ratio']:.2f} | {e['note']} |\n" for e in entries)


def _read(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return found
