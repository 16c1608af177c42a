"""What the stages in which candidates answer take: two random vectors over a tiny base, and random prompts."""

import json
from pathlib import Path
from random import Random
from typing import Any

import tiny
from valuesoup.config import BaseConfig, GenerationConfig
from valuesoup.pipeline.inputs import BaseRef
from valuesoup.store import Artifact


def inputs(
    folder: Path, candidates: tuple[tuple[float, ...], ...], prompts: int, generation: GenerationConfig
) -> dict[str, Any]:
    """Write vectors and prompts beside ``folder/base``, which must be there, and return the stage's inputs."""
    for place, name in enumerate("ab"):
        tiny.random_vector(tiny.llama(), place).save_pretrained(folder / name / "adapter")
    draw = Random(0)
    asked = [
        {
            "id": f"p{number}",
            "datasets": ["d"],
            "messages": [{"role": "user", "content": " ".join(f"w{draw.randrange(60)}" for _ in range(length))}],
        }
        for number, length in enumerate(draw.choices(range(1, 20), k=prompts))
    ]
    (folder / "prompts").mkdir()
    (folder / "prompts" / "prompts.json").write_text(json.dumps({"prompts": asked}))
    return {
        "base": BaseRef(config=BaseConfig(model=str(folder / "base")), content=None),
        "vectors": {name: Artifact(folder / name, name, 0.0) for name in "ab"},
        "candidates": candidates,
        "chosen": None,
        "prompts": Artifact(folder / "prompts", "p", 0.0),
        "generation": generation,
        "seed": 0,
        "batch_rows": 8,
        "device": "cpu",
    }
