"""Makes exported adapters loadable by servers that take whole models: links to the base's files beside each."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from valuesoup.endpoint import BASE_NAME
from valuesoup.errors import UserError
from valuesoup.soup.vector import ADAPTER_CONFIG

GENERATION = "generation_config.json"


def link_base(folder: str | Path) -> list[Path]:
    """Let ``transformers serve`` load every candidate in a folder of ``valuesoup export --all``, and the base, by path.

    It loads an adapter only from a folder that holds a whole model too. Each folder is given links to the files of the
    base that it does not have, and a folder ``base`` is made of links and the candidates' generation settings. Nothing
    changes for vLLM and SGLang. Done twice it is as done once.

    Args:
        folder: Holds a folder for each adapter, all of one base, which is on this disk.

    Returns:
        The folders that can be served, the base's first.

    Raises:
        UserError: There are no adapters, or their base is gone.
    """
    out = Path(folder).absolute()
    adapters = sorted(path.parent for path in out.glob(f"*/{ADAPTER_CONFIG}"))
    if not adapters:
        raise UserError(f"{out} holds no adapters; write them with `valuesoup export RUN --all --to {out}`.")
    files = _base_files(adapters[0])
    base = out / BASE_NAME
    base.mkdir(exist_ok=True)
    if (adapters[0] / GENERATION).is_file():
        shutil.copyfile(adapters[0] / GENERATION, base / GENERATION)
    for path in (base, *adapters):
        for file in files:
            if not os.path.lexists(path / file.name):
                (path / file.name).symlink_to(file)
    return [base, *adapters]


def _base_files(adapter: Path) -> Sequence[Path]:
    """Return the files of the base that an adapter names."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    name = str(config["base_model_name_or_path"])
    found = Path(name)
    if not found.is_dir() and not found.is_absolute():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        with suppress(LocalEntryNotFoundError):
            found = Path(snapshot_download(name, revision=config.get("revision"), local_files_only=True))
    if not found.is_dir():
        raise UserError(f"the base of {adapter}, {name}, is not on this disk; put it back, or download it again.")
    return [file for file in sorted(found.resolve().iterdir()) if file.is_file()]
