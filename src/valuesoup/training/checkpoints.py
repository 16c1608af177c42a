"""Checkpoints of a training: the factors of its vectors as they are, and which checkpoint is the last whole one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from valuesoup.store.team import ALONE, Team

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup


def save_state(soup: "Soup", name: str, folder: Path) -> None:
    """Write one vector's factors as they are, for a checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {str(place): p.detach().cpu().contiguous() for place, p in enumerate(soup.parameters_of([name]))}
    temporary = folder / "vector.tmp"
    save_file(tensors, temporary)
    temporary.replace(folder / "vector.safetensors")


def load_state(soup: "Soup", name: str, folder: Path) -> None:
    """Read one vector's factors back."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "vector.safetensors")
    with torch.no_grad():
        for place, parameter in enumerate(soup.parameters_of([name])):
            parameter.copy_(tensors[str(place)])


def last_checkpoint(work: Path, team: Team = ALONE) -> Path | None:
    """Return the newest complete checkpoint that every process of the team has; Trainer writes its state file last."""
    whole = {int(path.name.rpartition("-")[2]): path for path in work.glob("checkpoint-*") if _is_whole(path)}
    step = team.least(max(whole, default=0))
    everywhere = team.least(int(step in whole))
    return whole[step] if everywhere else None


def _is_whole(path: Path) -> bool:
    try:
        json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
