"""Runs the claims and figures and writes the claims to ``benchmarks/results/cpu.json``."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks import auditing, consistency, filtering, startup, training
from benchmarks.timing import Claim

RESULTS = Path(__file__).parent / "results" / "cpu.json"
CLAIMS: dict[str, Callable[[int], Claim]] = {"filter": filtering.claim, "dpo-train-fp32": training.claim}
FIGURES: dict[str, Callable[[int], list[str]]] = {
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
    for name in names:
        if name in FIGURES:
            print("\n".join(FIGURES[name](arguments.repeats)), flush=True)
        else:
            claim = CLAIMS[name](arguments.repeats)
            print(f"{claim.name} against {claim.opponent}: {claim.ratio} [{claim.low}, {claim.high}] ({claim.note})")
            _keep(claim)


def _keep(claim: Claim) -> None:
    """Write a claim in place of an older one of the same name and opponent."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    others = [entry for entry in known if (entry["name"], entry["opponent"]) != (claim.name, claim.opponent)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*others, asdict(claim)], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
