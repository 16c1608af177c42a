"""Annotated configurations to start from: which there are, and how one is written into a folder."""

import json
from importlib.resources import files
from pathlib import Path

from valuesoup.errors import UserError, did_you_mean

CONFIG = "config.yaml"
FOLDER = "{folder}"
"""In a preset: the folder that it is written into, as configurations name it."""

PRESETS = {
    "hh": "helpful against harmless on Anthropic-HH, Llama-2-7B, the paper's settings: needs the hub and a GPU",
    "beavertails": "helpful against safe on PKU-SafeRLHF, Llama-2-7B, the paper's settings: needs the hub and a GPU",
    "three-values": "helpful, harmless and honest, Llama-2-7B, the paper's settings: needs the hub and a GPU",
    "small": "two values on the embedded world, everything made offline on a CPU: to learn what a run does",
    "custom": "your own values and data, with a few example pairs that run at once, offline, on a CPU",
}
"""What each preset is for, by name."""

_BESIDE = {"custom": ("brief.jsonl", "warm.jsonl")}
"""Files that a preset's configuration names."""


def preset_text(name: str, folder: str = "") -> str:
    """Return the text of a preset's configuration.

    Args:
        name: One of ``PRESETS``.
        folder: Where the files beside it will lie, as seen from where valuesoup is called.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset '{name}'{did_you_mean(name, PRESETS)}")
    return _packaged(f"{name}.yaml").replace(FOLDER, json.dumps(folder or ".", ensure_ascii=False)[1:-1])


def write_preset(name: str, folder: str | Path) -> list[Path]:
    """Write a preset's configuration, and the files that it needs, into a folder, made if need be.

    Args:
        name: One of ``PRESETS``.
        folder: Where to.

    Returns:
        The files, the configuration first.

    Raises:
        UserError: There is no such preset, the folder is a file, or one of the files exists already; nothing is
            written then. The folder cannot be written.
    """
    out = Path(folder)
    texts = {CONFIG: preset_text(name, out.as_posix())}
    texts |= {beside: _packaged(beside) for beside in _BESIDE.get(name, ())}
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the configuration.")
    for file in texts:
        if (out / file).exists():
            raise UserError(f"{out / file} exists and is not overwritten; give another folder, or move it away.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (out / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}; give another folder.") from None
    return [out / file for file in texts]


def _packaged(file: str) -> str:
    return files("valuesoup.presets").joinpath(file).read_text(encoding="utf-8")
