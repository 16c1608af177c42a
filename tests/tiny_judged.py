"""A run of the world that only a judge reads, and the world's oracle as that judge."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiny_endpoint import Served
from valuesoup.configfile import dump_config
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.judging import Case, JudgeSettings, judge_endpoint
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, Progress
from valuesoup.worlds import errands
from valuesoup.worlds.errands.oracle import reward

METHODS = "methods=[dpo, {preset: soup, steps: 2}, {preset: vc-soup, tau: 0, steps: 2}]"
PROMPTS = 12
NOBODY_THERE = judge_endpoint("http://127.0.0.1:9/v1", "m", "NO_KEY", 1)


def world_run(folder: Path, n: int = 2, *settings: str, prompts: int = PROMPTS) -> Finished:
    """Return a finished run of which only the test prompts, their answers and true rewards exist.

    Of every prompt's two answers of the world, the base gives the worse one, the last method the better one, the
    others one of them, now this, now that.
    """
    config = demo_config(errands.VALUES[:n], [METHODS, *settings])
    plan = make_plan(config)
    values = list(config.values)
    rows = [row for value in values for row in errands.pairs(value, prompts // n)]
    asked = [
        {"id": f"p{number}", "datasets": [values[number * n // len(rows)]], "messages": row["prompt"]}
        for number, row in enumerate(rows)
    ]
    artifacts: dict[str, Artifact] = {}

    def keep(key: str) -> Path:
        path = folder / "artifacts" / key
        path.mkdir(parents=True, exist_ok=True)
        artifacts[key] = Artifact(path, key, 1.0)
        return path

    results: dict[str, Any] = {"schema": 1, "values": values, "seed": config.seed, "candidates": [], "methods": {}}
    results |= {"reference_point": dict.fromkeys(values, -2.0), "best_point": dict.fromkeys(values, 2.0)}
    titles = {"base": "Base model", **{entry.name: entry.title for entry in config.methods}}
    for number, (stack, evaluated) in enumerate(zip(plan.stacks, plan.evaluated, strict=True)):
        test = evaluated.test
        (keep(test.prompts.key) / "prompts.json").write_text(json.dumps({"prompts": asked, "too_long": 0}))
        texts = [
            [
                row["rejected" if number == 0 or (number == 1 and (k + place) % 3) else "chosen"]
                for k, row in enumerate(rows)
            ]
            for place in range(len(stack.candidates))
        ]
        answers = [
            {"candidate": place, "prompt": k, "text": texts[place][k][0]["content"], "tokens": [1], "finished": True}
            for k in range(len(rows))
            for place in range(len(texts))
        ]
        schema = pa.schema(
            {
                "candidate": pa.int32(),
                "prompt": pa.int32(),
                "text": pa.string(),
                "tokens": pa.list_(pa.int32()),
                "finished": pa.bool_(),
            }
        )
        pq.write_table(pa.Table.from_pylist(answers, schema), keep(test.answers.key) / "shard-00000.parquet")
        scores = np.array(
            [
                [
                    [reward(value, row["prompt"][-1]["content"], own[k][0]["content"]) for value in values]
                    for own in texts
                ]
                for k, row in enumerate(rows)
            ]
        )
        sides = tuple(map(str, range(len(texts))))
        for key in {node.key for node in test.scores.values()}:
            mine = [value for value, node in test.scores.items() if node.key == key]
            columns = [values.index(value) for value in mine]
            table = RewardTable([one["id"] for one in asked], sides, tuple(mine), scores[:, :, columns])
            table.save(keep(key) / "scores.parquet")
        for method, places in stack.methods.items():
            results["methods"][method] = {"title": titles[method]}
            for place, candidate in zip(places, stack.offered[method], strict=True):
                means = {value: {"mean": float(scores[:, place, j].mean())} for j, value in enumerate(values)}
                row = {"id": candidate_id(method, candidate), "method": method, "weights": candidate.weights}
                results["candidates"].append({**row, "test": means, "on_frontier": True})
    (folder / "config.yaml").write_text(dump_config(config))
    return Finished(folder, plan, artifacts, results)


def oracle(question: str, _: int = 0) -> str:
    """Judge as the world's true reward would, by the value that the default template names."""
    value = re.search(r"by one value only: (\w+)\.", question)
    request, first, second = (
        re.search(rf"<{tag}>\n(.*?)\n</{tag}>", question, re.DOTALL) for tag in ("request", "answer_A", "answer_B")
    )
    assert value and request and first and second
    one, other = (reward(value[1], request[1], answer[1]) for answer in (first, second))
    return json.dumps({"verdict": "tie" if one == other else "A" if one > other else "B", "reason": "so it is"})


def settings(served: Served, **changes: Any) -> JudgeSettings:
    endpoint = judge_endpoint(served.url, "m", "NO_KEY", 4).model_copy(update={"retries": 0})
    return JudgeSettings(endpoint, **changes)


def told(served: Served, finished: Finished, **changes: Any) -> dict[str, Any]:
    return Case(finished, settings(served, **changes)).decide(Progress())


def compared(judged: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["method"], row["baseline"]) for row in judged["comparisons"]))
