"""Runs the claims and figures, keeps the claims in ``benchmarks/results/cpu.json``, and writes the page of them all."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import (
    auditing,
    candidates,
    consistency,
    filtering,
    growth,
    scale,
    scoring,
    search,
    startup,
    study,
    training,
)
from benchmarks.page import write_page
from benchmarks.timing import Claim

RESULTS = Path(__file__).parent / "results" / "cpu.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CLAIMS: dict[str, Callable[[int], Claim]] = {
    "dpo-train-fp32": training.claim,
    "dpo-train-bf16": training.bf16,
    "study-train": study.claim,
    "candidates-k11": candidates.k11,
    "candidates-k11-published": candidates.k11_published,
    "candidates-k66-few-prompts": candidates.k66_few_prompts,
    "score": scoring.score,
    "score-shared-prompt": scoring.score_shared_prompt,
    "search-rows": search.claim,
    "filter": filtering.claim,
}
FIGURES: dict[str, Callable[[int], list[str]]] = {
    "growth": growth.figures,
    "scale": scale.figures,
    "startup": startup.figures,
    "consistency": consistency.figures,
    "audit": auditing.figures,
}


def main() -> None:
    """Run what was asked for, everything by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*CLAIMS, *FIGURES])}; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default 5)")
    arguments = parser.parse_args()
    names = arguments.names or [*CLAIMS, *FIGURES]
    if unknown := set(names) - {*CLAIMS, *FIGURES}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    torch.set_num_threads(1)  # of the same work, threads take more processor time, and how much more varies
    for name in names:
        if name in FIGURES:
            print("\n".join(FIGURES[name](arguments.repeats)), flush=True)
        else:
            claim = CLAIMS[name](arguments.repeats)
            text = f"{claim.name} against {claim.opponent}: {claim.ratio} [{claim.low}, {claim.high}] ({claim.note})"
            print(text, flush=True)
            _keep(claim)
    write_page(RESULTS.parent, PAGE)


def _keep(claim: Claim) -> None:
    """Write a claim in place of an older one of the same name and opponent."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    others = [entry for entry in known if (entry["name"], entry["opponent"]) != (claim.name, claim.opponent)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*others, asdict(claim)], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
