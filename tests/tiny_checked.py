"""What the tests of checks share: a command that measures a model, and each policy as one dense model."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from valuesoup.pipeline.run import Finished
from valuesoup.store import Node

TEXT = "helpful words\n\nof two documents"

# Writes what it was called with, and both the number and the layout that it is told.
SCRIPT = """
import json, pathlib, sys
model, out, layout = sys.argv[1:4]
with open(sys.argv[4], "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
from safetensors.numpy import load_file
figure = sum(float((t.astype("float64") ** 2).sum()) for t in load_file(model + "/model.safetensors").values())
content = {"norm": figure, "norm_stderr": 0.5}
if layout == "lm-eval":
    content = {"results": {"arc": {"acc,none": figure, "acc_stderr,none": 0.5}}}
    content["higher_is_better"] = {"arc": {"acc": True}}
pathlib.Path(out, "results.json").write_text(json.dumps(content))
"""


def command(script: Path, layout: str = "flat") -> str:
    return f"{sys.executable} '{script}' {{model}} {{out}} {layout} '{script.parent / 'log'}'"


def calls(script: Path) -> int:
    log = script.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def dense(finished: Finished, vectors: dict[str, float]) -> Any:
    """The base with W + Σ λ s B A of the adapters on disk, in float64, by transformers alone."""
    from transformers import AutoModelForCausalLM

    assert isinstance(finished.plan.base, Node)
    folder = finished.artifacts[finished.plan.base.key].path / "model"
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    for key, weight in vectors.items():
        adapter = finished.artifacts[key].path / "adapter"
        settings = json.loads((adapter / "adapter_config.json").read_text())
        tensors = load_file(adapter / "adapter_model.safetensors")
        for name, A in tensors.items():
            if name.endswith("lora_A.weight"):
                layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                B = tensors[name.replace("lora_A", "lora_B")]
                scale = settings["lora_alpha"] / settings["r"]
                with torch.no_grad():
                    model.get_submodule(layer).weight += weight * scale * (B.double() @ A.double())
    return model


def vectors_of(finished: Finished, identity: str) -> dict[str, float]:
    row = next(row for row in finished.results["candidates"] if row["id"] == identity)
    if not row["weights"] or not any(row["weights"].values()):
        return {}
    nodes = finished.plan.recipes[row["method"]].vectors
    if set(nodes) == set(row["weights"]):
        return {nodes[value].key: weight for value, weight in row["weights"].items() if weight}
    (value,) = [value for value, weight in row["weights"].items() if weight]  # a policy per value
    return {list(nodes.values())[list(row["weights"]).index(value)].key: 1.0}
