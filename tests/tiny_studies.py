"""Folders of finished studies whose scores a test writes itself; a comparison of studies reads nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ("clear", "kind", "honest", "short", "calm")

Means = Mapping[str, Sequence[Sequence[float]]]
"""Per method, the mean test scores of its frontier candidates, one row each."""


def estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def results(values: Sequence[str], seed: int, methods: Means) -> dict[str, Any]:
    """Return the content of results.json for a base at zero and these methods."""
    rows = []
    for method, candidates in {"base": [[0.0] * len(values)], **methods}.items():
        for place, scores in enumerate(candidates):
            means = {value: estimate(score) for value, score in zip(values, scores, strict=True)}
            weights = {v: 0.0 if method == "base" else 1 / len(values) for v in values}
            rows.append(
                {
                    **{"id": "base" if method == "base" else f"{method}/{place}", "method": method, "weights": weights},
                    **{"outside_simplex": False, "validation": means, "test": means, "on_frontier": True},
                    **{"frontier_probability": 0.5, "quality": {"fluency": 1.0}},
                }
            )
    cost = {"trainings": 1, "trained_pairs": 100, "train_seconds": 1.0, "expand_seconds": 0, "evaluate_seconds": 2.0}
    volume = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {
        **{"schema": 1, "values": list(values), "seed": seed, "candidates": rows, "filters": {}, "geometry": {}},
        "methods": {
            name: {
                "title": "Base model" if name == "base" else name.capitalize(),
                "hypervolume": volume,
                "frontier_points": len(candidates),
                **cost,
            }
            for name, candidates in {"base": [0], **methods}.items()
        },
        **{"expansions": {}, "reference_point": dict.fromkeys(values, -1.0)},
        "best_point": dict.fromkeys(values, 1.0),
    }


def write_study(folder: Path, values: Sequence[str], seeds: Mapping[int, Means], /, **settings: Any) -> Path:
    """Write a finished study; ``settings`` are top-level keys of its configuration."""
    reward = {"function": "module:reward"}
    content = {
        "values": {value: {"data": "pairs.jsonl", "reward": reward} for value in values},
        "base": {"model": "tiny"},
        "methods": ["soup"],
        **settings,
    }
    for seed, methods in seeds.items():
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(json.dumps({**content, "seed": seed}))  # JSON is YAML
        (run / "results.json").write_text(json.dumps(results(values, seed, methods)))
    (folder / "study.json").write_text(json.dumps({"seeds": list(seeds)}))
    return folder
