"""A synthetic report for n values, in which every part of the page has something to show."""

from functools import cache
from typing import Any

import numpy as np

from valuesoup.data.pairs import Message
from valuesoup.evaluation.frontier import pareto
from valuesoup.report.model import (
    Answer,
    ConflictPair,
    CurvePoint,
    Expansion,
    GapTable,
    LayerDependence,
    LayerGeometry,
    ReportData,
    SampleAnswers,
)
from valuesoup.search import simplex_grid

NAMES = ("helpful", "harmless", "honest", "concise", "kind")
METHODS = ("dpo", "soup", "vc-soup")


def estimate(mean: float, half: float = 0.05) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def candidate(id: str, method: str, weights: Any, scores: dict[str, float], **changes: Any) -> dict[str, Any]:
    estimates = {value: estimate(score) for value, score in scores.items()}
    return {
        "id": id,
        "method": method,
        "weights": weights,
        "validation": estimates,
        "test": estimates,
        "truth": None,
        "quality": {"fluency": 0.95, "kl": 1.2, "tokens": 21.0},
        "on_frontier": True,
        "frontier_probability": 0.7,
        **changes,
    }


def results(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values = list(NAMES[:n])
    zero = dict.fromkeys(values, 0.0)
    candidates = [candidate("base", "base", zero, dict.fromkeys(values, -0.6), on_frontier=False)]
    for m, method in enumerate(METHODS):
        for k in range(n if method == "dpo" else 9):
            raw = np.eye(n)[k] if method == "dpo" else rng.dirichlet(np.ones(n))
            spread = np.sqrt(raw) * (0.7 + 0.25 * m) + rng.normal(0, 0.03, n) - 0.3
            chosen = method == "dpo" or k % 3 < 2
            candidates.append(
                candidate(
                    f"{method}-{k}",
                    method,
                    dict(zip(values, raw.round(3).tolist(), strict=True)),
                    dict(zip(values, spread.tolist(), strict=True)),
                    on_frontier=chosen,
                    quality={"fluency": 0.55 if k == 1 else 0.93, "kl": 2.0 + k, "tokens": 20.0 + k},
                    **(
                        {"truth": dict(zip(values, (0.9 * spread).tolist(), strict=True))} if chosen else {"test": None}
                    ),
                )
            )
    volumes = {
        "base": (0.02, 0.01, 0.03),
        "dpo": (0.31, 0.28, 0.34),
        "soup": (0.44, 0.40, 0.48),
        "vc-soup": (0.58, 0.54, 0.62),
    }
    return {
        "schema": 1,
        "values": values,
        "seed": seed,
        "reward_models": {
            v: {"validation_accuracy": 0.72 - 0.05 * j, "validation_pairs": 200, "pairs": 400}
            for j, v in enumerate(values)
        },
        "filters": {"vc-soup": {v: {"tau": 0.7, "pairs": 3000, "kept": 1100, "undefined": 30} for v in values}},
        "candidates": candidates,
        "methods": {
            name: {
                "hypervolume": {"value": value, "low": low, "high": high},
                "trainings": n,
                "trained_pairs": 1000 * n,
                "train_seconds": 61.2,
                "evaluate_seconds": 12.9,
            }
            for name, (value, low, high) in volumes.items()
        },
        "geometry": {"soup": {"cosine": -0.03, "l2": 2.1}, "vc-soup": {"cosine": 0.49, "l2": 1.2}},
    }


def gap_table(n: int, seed: int, pairs: int = 3000) -> GapTable:
    rng = np.random.default_rng(seed)
    cov = np.full((n, n), -0.45 / max(n - 1, 1)) + np.eye(n) * (1 + 0.45 / max(n - 1, 1))
    mean = np.zeros(n)
    mean[seed % n] = 0.7
    gaps = rng.multivariate_normal(mean, cov, pairs)
    gaps[: pairs // 100] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        consistency = gaps.sum(axis=1) / (np.linalg.norm(gaps, axis=1) * np.sqrt(n))
    return GapTable(gaps, consistency, {"vc-soup": 0.7})


def curve(seed: int) -> list[CurvePoint]:
    rng = np.random.default_rng(seed)
    return [
        CurvePoint(
            step=step,
            loss=0.69 * float(np.exp(-step / 90)) + 0.1 + float(rng.normal(0, 0.02)),
            eval_loss=0.69 * float(np.exp(-step / 110)) + 0.14 if step % 20 == 0 else None,
            chosen=-20 - step / 30,
            rejected=-22 - step / 10,
            margin=step / 40,
            accuracy=min(0.95, 0.5 + step / 200),
        )
        for step in range(0, 120, 2)
    ]


def messages(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def report_data(n: int = 2, **changes: Any) -> ReportData:
    values = NAMES[:n]
    answers = {
        id: Answer(f"{text} Then rest for a day and ask an expert if it hurts.", dict.fromkeys(values, 0.4))
        for id, text in (
            ("base", "Take the rope and hold it."),
            ("soup-0", "First warm up for ten minutes, then climb slowly."),
            ("vc-soup-0", "Warm up, check the rope twice, climb with a partner, and never climb in the rain."),
        )
    }
    pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    layers = [f"model.layers.{k}.self_attn.{m}_proj" for k in range(6) for m in "qkvo"]
    geometry = {
        method: [
            entry
            for a, b in pairs
            for entry in (
                LayerGeometry(None, a, b, shift, 2 - shift),
                *(
                    LayerGeometry(layer, a, b, shift + 0.05 * float(np.sin(i)), 2 - shift + 0.1 * float(np.cos(i)))
                    for i, layer in enumerate(layers)
                ),
            )
        ]
        for method, shift in (("soup", 0.0), ("vc-soup", 0.45))
        if pairs
    }
    parts: dict[str, Any] = {
        "results": results(n),
        "title": "Three methods on a small world",
        "created": "2026-03-01 12:00 UTC",
        "config_yaml": "seed: 0\nmethods: [dpo, soup, vc-soup]\n",
        "made_with": {"versions": "Python 3.11.9, valuesoup 0.1.0, torch 2.13.0"},
        "gaps": {v: gap_table(n, j) for j, v in enumerate(values)},
        "dropped": {values[0]: {"empty side": 3, "equal sides": 11}},
        "sizes": {v: {"train": 3000, "validation": 50, "test": 200} for v in values},
        "answers": [SampleAnswers(messages("How do I climb a rock safely?"), answers)] * 2,
        "geometry": geometry,
        "curves": {f"{m}/{v}": curve(7 * i + j) for i, m in enumerate(METHODS) for j, v in enumerate(values)},
        "conflicts": {
            values[0]: [
                ConflictPair(
                    "00aa",
                    messages("How do I start a fire?"),
                    "Use petrol.",
                    "Ask for help.",
                    dict.fromkeys(values, -0.4),
                    -0.9,
                )
            ]
        },
    }
    return ReportData(**(parts | changes))


def profile(kinds: dict[str, float], values: list[str], rollouts: int = 8, size: int = 60) -> list[Any]:
    """Pass@N that rises with N; ``kinds`` gives each kind's chance of one rollout."""
    rows = []
    for kind, chance in kinds.items():
        for j, value in enumerate([*values, "joint"]):
            one = chance / (j + 1)
            for n in range(1, rollouts + 1):
                share = 1 - (1 - one) ** n
                ends = {"low": max(share - 0.1, 0.0), "high": min(share + 0.1, 1.0)}
                rows.append({"prompts": kind, "value": value, "n": n, "pass": share, "size": size, **ends})
    return rows


def expansion(n: int = 2, pairs: int = 40, **changes: Any) -> Expansion:
    """An expansion of which every step dropped something."""
    values = list(NAMES[:n])
    edges = np.linspace(-2, 2, 21)
    distribution: list[Any] = []
    for value in values:
        for kind, mean in (("single-reward", -0.4), ("fused", 0.5)):
            weights = np.exp(-(((edges[:-1] + 0.1) - mean) ** 2))
            for low, high, share in zip(edges[:-1], edges[1:], weights / weights.sum(), strict=True):
                distribution.append(
                    {
                        "prompts": kind,
                        "value": value,
                        "low": float(low),
                        "high": float(high),
                        "share": float(share),
                    }
                )
    counts = {
        **{"prompts": 200, "joint": 60, "none": 20, "single_reward": 120},
        **{"fused": 90, "failed": 5, "empty": 3, "unchanged": 12, "too_long": 0, "held_out": 0, "duplicate": 10},
        **{"without_pair": 50 - min(pairs, 50), "left_out": 0, "pairs": pairs},
    }
    kinds = {**dict.fromkeys(values, 0.4), "single-reward": 0.2, "fused": 0.5}
    parts = {"counts": counts, "rollouts": 8, "thresholds": dict.fromkeys(values, 0.1)}
    return Expansion(**{**parts, "profile": profile(kinds, values), "distribution": distribution, **changes})


MANY = {  # method: candidates, trainings, height of its frontier
    "DPO": (2, 2, 0.5),
    "SeqT": (2, 4, 0.55),
    "DPO-LW": (11, 11, 0.75),
    "MODPO": (11, 12, 0.8),
    "SOUP": (11, 2, 0.7),
    "VC-soup": (11, 2, 0.95),
    "MVA": (100, 2, 0.9),
    "MORA": (2, 4, 0.85),
    "MORA, 80 pairs": (2, 4, 0.9),
    "SOUP, likelihood": (11, 2, 0.78),
    "VC-soup + MVA": (11, 2, 0.98),
    "VC-soup, soft": (11, 2, 0.88),
}


@cache
def many_methods(n: int = 2, count: int = len(MANY)) -> ReportData:
    """A report of many methods: 100 weights from a cube, policies without weights, expansions, penalised vectors."""
    rng = np.random.default_rng(1)
    values = list(NAMES[:n])
    shown = dict(list(MANY.items())[:count])
    candidates = [candidate("base", "base", None, dict.fromkeys(values, -0.6), on_frontier=False)]
    methods: dict[str, Any] = {"base": {"hypervolume": {"value": 0.02, "low": 0.01, "high": 0.03}}}
    methods["base"] |= {"trainings": 0, "frontier_points": 1, "train_seconds": 0, "evaluate_seconds": 3.1}
    for method, (size, trainings, height) in shown.items():
        for k in range(size):
            alone, cube = method in ("SeqT", "MORA", "MORA, 80 pairs"), size == 100
            raw = np.eye(n)[k % n] if size == 2 else rng.dirichlet(np.ones(n))
            if cube:
                raw = rng.uniform(0, 1, n)
            elif n == 2 and size > 2:
                raw = np.array([k / (size - 1), 1 - k / (size - 1)])
            share = raw / (raw.sum() or 1)
            reach = np.sqrt(share) * height + rng.normal(0, 0.02, n) - 0.3
            reach -= 0.5 * abs(raw.sum() - 1) if cube else 0
            order = ">".join(values if k else reversed(values))
            candidates.append(
                candidate(
                    f"{method}/{order}" if alone else f"{method}/{k}",
                    method,
                    None if alone else dict(zip(values, raw.round(3).tolist(), strict=True)),
                    dict(zip(values, reach.tolist(), strict=True)),
                    outside_simplex=bool(cube and abs(raw.sum() - 1) > 0.01),
                    on_frontier=not cube or bool(abs(raw.sum() - 1) < 0.3),
                    quality={"fluency": 0.6 if k == 5 else 0.9, "kl": 2.0, "tokens": 20.0},
                    **({"test": None} if cube and abs(raw.sum() - 1) > 0.5 else {}),
                )
            )
        points = sum(one["on_frontier"] for one in candidates if one["method"] == method)
        value = height**2 * 0.6
        methods[method] = {
            "hypervolume": {"value": value, "low": value - 0.04, "high": value + 0.04},
            "frontier_points": points,
            "trainings": trainings,
            "trained_pairs": 1000 * trainings,
            "train_seconds": 11.5 * trainings,
            "expand_seconds": 30.0 if method.startswith("MORA") else 0.0,
            "evaluate_seconds": 0.6 * size,
        }
    pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    composed = [method for method in shown if method in ("SOUP", "VC-soup", "MVA", "VC-soup + MVA")]
    layers = [f"model.layers.{k}.self_attn.{m}_proj" for k in range(6) for m in "qv"]
    dependence = {
        method: [
            LayerDependence(layer, a, b, 0.002 * height + 0.0004 * i, 0.03 + 0.004 * i)
            if "MVA" in method
            else LayerDependence(layer, a, b, 0.02 * height + 0.004 * i)
            for a, b in pairs
            for i, layer in enumerate(layers)
        ]
        for method, (_, _, height) in shown.items()
        if method in composed
    }
    full = results(n) | {"candidates": candidates, "methods": methods, "differences": []}
    full["filters"] = {"VC-soup": full["filters"]["vc-soup"]}
    full["geometry"] = {
        method: {"cosine": 0.3, "l2": 1.2, "hsic": sum(e.after for e in dependence[method])}
        for method in composed
        if pairs
    }
    grown = {"MORA": 40, "MORA, 80 pairs": 80}
    return report_data(
        n,
        results=full,
        title="Every method on a small world",
        gaps={v: gap_table(n, j, 400) for j, v in enumerate(values)},
        geometry={
            m: [LayerGeometry(layer, a, b, 0.1 * k, 2 - 0.1 * k) for a, b in pairs for layer in (None, *layers)]
            for k, m in enumerate(composed)
            if pairs
        },
        dependence=dependence if pairs else {},
        expansions={m: {"policy": expansion(n, grown[m])} for m in shown if m in grown} if pairs else {},
        curves={f"{m}/{k}": curve(7 * i + k) for i, m in enumerate(shown) for k in range(shown[m][1])},
    )


@cache
def landscape(n: int = 3, count: int = 5, steps: int = 10, samples: int = 8, words: int = 60) -> ReportData:
    """A report of methods that each mix the whole grid of weights, every candidate tested and answering."""
    rng = np.random.default_rng(2)
    values = list(NAMES[:n])
    grid = simplex_grid(n, steps)
    zero = dict.fromkeys(values, 0.0)
    candidates = [candidate("base", "base", zero, dict.fromkeys(values, -0.6))]
    names = list(MANY)[-count:]
    for m, method in enumerate(names):
        reach = np.sqrt(grid) * (0.6 + 0.08 * m) + rng.normal(0, 0.02, grid.shape) - 0.3
        keep = pareto(reach)
        for weights, scores, on in zip(grid.tolist(), reach.tolist(), keep.tolist(), strict=True):
            own = dict(zip(values, weights, strict=True))
            name = ",".join(f"{value}={weight:.3g}" for value, weight in own.items())
            told = dict(zip(values, scores, strict=True))
            quality = {"fluency": 0.9, "kl": 1 + float(np.max(weights)), "tokens": 20.0, "perplexity": 1.6}
            quality |= {"repetition": 0.01, "distinct_1": 0.03, "distinct_2": 0.06, "truncated": 0.0}
            candidates.append(candidate(f"{method}/{name}", method, own, told, on_frontier=on, quality=quality))
    volumes = {name: 0.3 + 0.08 * m for m, name in enumerate(names)}
    methods = {
        name: {
            "hypervolume": {"value": value, "low": value - 0.03, "high": value + 0.03},
            **{"trainings": n, "train_seconds": 60.0, "evaluate_seconds": 30.0, "trained_pairs": 1000 * n},
        }
        for name, value in volumes.items()
    }
    lexicon = np.array(
        ["rope", "climb", "slowly", "check", "partner", "rain", "warm", "rest", "first", "then", "ask", "expert"]
    )
    answers = [
        SampleAnswers(
            messages(f"How do I climb rock number {k} safely?"),
            {
                one["id"]: Answer(" ".join(rng.choice(lexicon, words)) + ".", dict.fromkeys(values, 0.4))
                for one in candidates
            },
        )
        for k in range(samples)
    ]
    full = results(n) | {"candidates": candidates, "methods": methods, "filters": {}}
    full["geometry"] = {name: {"cosine": 0.1 * m, "l2": 1.2, "hsic": 0.02} for m, name in enumerate(names)}
    middle = [next(one["id"] for one in candidates if one["method"] == name and one["on_frontier"]) for name in names]
    return report_data(
        n,
        results=full,
        title="Methods over the whole simplex",
        answers=answers,
        representatives=["base", *middle],
        gaps={v: gap_table(n, j, 400) for j, v in enumerate(values)},
        geometry={},
        curves={},
    )
