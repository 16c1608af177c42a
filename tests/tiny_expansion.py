"""The stages of MORA in a row, with a small policy trained here and two values that prompts admit or not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from valuesoup.config import DataConfig, GenerationConfig
from valuesoup.expansion import Rewriter
from valuesoup.pipeline.answering import answer_prompts
from valuesoup.pipeline.data import pretrain_base, read_pairs, split
from valuesoup.pipeline.expansion import fuse_prompts, mine, mining_prompts, select_pairs
from valuesoup.pipeline.inputs import data_ref, function_hash
from valuesoup.pipeline.rating import rate_answers
from valuesoup.pipeline.rewriters import rewriter_ref
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, run_graph
from valuesoup.training.settings import PretrainSettings
from valuesoup.worlds.errands import fuse, single_value_prompts
from valuesoup.worlds.errands.tables import NARROW

ROLLOUTS = 6
THRESHOLDS = {"eager": 0.0, "calm": 0.0}
ADMITS = dict(zip(NARROW.values(), ("eager", "calm", None), strict=True))


def rewards(value: str, word: str, prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """The share of a word, less that of "no"; a narrow request of the world caps at 0 what it does not admit."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        said = answer.split()
        clause = next((clause for clause in NARROW.values() if prompt[-1]["content"].endswith(clause)), None)
        worth = (said.count(word) - said.count("no")) / 4
        found.append(worth if clause is None or ADMITS[clause] == value else min(worth, 0.0))
    return found


def eager(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return rewards("eager", "yes", prompts, answers)


def calm(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return rewards("calm", "maybe", prompts, answers)


def made(store: Store, *targets: Node) -> list[Artifact]:
    found = run_graph(targets, store, Progress(), RunLog(store.root.parent / "log.jsonl"))
    return [found[target.key] for target in targets]


class Chain:
    """The stages as a plan calls them."""

    def __init__(self, folder: Path) -> None:
        rng = Random(0)
        prompts = list(single_value_prompts(120))
        sources = {}
        for place, value in enumerate(THRESHOLDS):
            rows = []
            for prompt in prompts[place * 40 : place * 40 + 80]:
                one, other = (" ".join(rng.choices(("yes", "no", "maybe"), k=rng.randint(1, 3))) for _ in range(2))
                sides = {"chosen": one, "rejected": f"{other} sure"}
                asked = {
                    "prompt": prompt if len(rows) % 2 else [{"role": "user", "content": fuse(prompt[0]["content"])}]
                }
                rows.append({**asked, **{k: [{"role": "assistant", "content": v}] for k, v in sides.items()}})
            file = folder / f"{value}.jsonl"
            file.write_text("\n".join(map(json.dumps, rows)))
            sources[value] = read_pairs(value, sources=[data_ref(DataConfig(path=str(file)))], value=value, seed=0)
        self.split = split("split", pairs=sources, test_prompts=4, validation_prompts=2, seed=0)
        settings = PretrainSettings(
            tokenizer="words", vocabulary=256, hidden=32, layers=1, heads=2, context=64, batch_size=16, steps=120
        )
        self.base = pretrain_base(
            "base", settings=settings, split=self.split, values=list(THRESHOLDS), dialogues=None, seed=0, device="cpu"
        )
        self.folder = folder

    def prompts(self, **changes: Any) -> Node:
        given = {"limit": 40, "rollouts": ROLLOUTS, "max_tokens": 40, "seed": 0, "datasets": list(THRESHOLDS)}
        return mining_prompts("draw", split=self.split, base=self.base, **{**given, **changes})

    def rolled(self, prompts: Node, values: Sequence[str] = tuple(THRESHOLDS)) -> tuple[Node, dict[str, Node]]:
        answers = answer_prompts(
            "answers",
            base=self.base,
            vectors={},
            candidates=[()],
            chosen=None,
            prompts=prompts,
            generation=GenerationConfig(max_new_tokens=16, temperature=1.0, batch_rows=1),
            seed=0,
            batch_rows=64,
            device="cpu",
        )
        return answers, {value: self.rated(answers, prompts, value) for value in values}

    def rated(self, answers: Node, prompts: Node, value: str, function: str | None = None) -> Node:
        name = function or f"{__name__}:{value}"
        source = function_hash(name)
        return rate_answers(
            "rate", answers=answers, prompts=prompts, rewards={value: name}, source=source, device="cpu"
        )

    def mined(
        self, thresholds: Mapping[str, float] | None = THRESHOLDS, values: Sequence[str] = ("eager", "calm")
    ) -> Node:
        prompts = self.prompts()
        scores = self.rolled(prompts, values)[1]
        return mine("mine", prompts=prompts, scores=scores, rollouts=ROLLOUTS, thresholds=thresholds)

    def fused(self, rewriter: Rewriter, **changes: Any) -> Node:
        given = {"rollouts": ROLLOUTS, "max_tokens": 40, "seed": 0, "device": "cpu", "vectors": {}}
        inputs = {**given, "mined": self.mined(), "rewriter": rewriter_ref(rewriter), **changes}
        return fuse_prompts("fuse", split=self.split, base=self.base, **inputs)

    def selected(self, prompts: Node, most: int | None = None) -> Node:
        answers, scores = self.rolled(prompts)
        return select_pairs("select", mined=self.mined(), prompts=prompts, answers=answers, scores=scores, most=most)


FUNCTION = Rewriter(function="valuesoup.worlds.errands:fuse")
