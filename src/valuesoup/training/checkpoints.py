"""Checkpoints of a training: the factors of its vectors as they are, and which checkpoint is the last whole one."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from valuesoup.store.files import files_below, hash_file, write_atomic
from valuesoup.store.team import ALONE, Team

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

SEAL = "seal.json"
BEST = "best"
"""Folder of the vectors of the best validation loss: beside the checkpoints, and in each as it was then."""


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


def seal(checkpoint: Path, keep: int) -> None:
    """Note the hash of every file of a finished checkpoint, see them on the disk, and remove older checkpoints.

    Args:
        checkpoint: The folder.
        keep: How many to keep, the newest.
    """
    files = files_below(checkpoint)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # before what it replaces is removed
    write_atomic(
        checkpoint / SEAL, json.dumps({path.relative_to(checkpoint).as_posix(): hash_file(path) for path in files})
    )
    for old in sorted(checkpoint.parent.glob("checkpoint-*"), key=_step)[:-keep]:
        shutil.rmtree(old)


def last_checkpoint(work: Path, team: Team = ALONE) -> Path | None:
    """Return the newest checkpoint that is as it was sealed, and that every process of the team has."""
    whole = {_step(path): path for path in work.glob("checkpoint-*") if _is_whole(path)}
    step = team.least(max(whole, default=0))
    everywhere = team.least(int(step in whole))
    return whole[step] if everywhere else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    """Say whether a checkpoint is as it was sealed: a power cut may have left a part of it."""
    try:
        hashes = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        found = {path.relative_to(checkpoint).as_posix(): hash_file(path) for path in files_below(checkpoint)}
    except (OSError, ValueError):
        return False
    found.pop(SEAL)
    return bool(found == hashes)
