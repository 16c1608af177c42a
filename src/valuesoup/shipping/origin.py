"""Where an export comes from: its base and its data, and under which licences they are, as far as that is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valuesoup.config import DataConfig
from valuesoup.pipeline.inputs import base_path, device_of
from valuesoup.pipeline.run import Finished
from valuesoup.store import Node


@dataclass(frozen=True)
class Origin:
    """The base of a run.

    Attributes:
        path: What transformers loads it from: a hub id, or an absolute folder.
        hub: Its hub id, None for a local folder.
        revision: Hub revision.
        trust_remote_code: Whether the run allows code that comes with the model.
        device: Where the run computes.
        quantize: How the run quantised it, None where it did not.
    """

    path: str
    hub: str | None
    revision: str | None
    trust_remote_code: bool
    device: str
    quantize: str | None = None

    @classmethod
    def of(cls, finished: Finished) -> "Origin":
        """Find the base of a run."""
        base, config = finished.plan.base, finished.plan.config.base
        opened = finished.artifacts[base.key] if isinstance(base, Node) else base
        path = base_path(opened)
        local = Path(path).exists()
        return cls(
            path=str(Path(path).absolute()) if local else path,
            hub=None if local else path,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            device=device_of(config.device),
            quantize=config.quantize,
        )

    @property
    def options(self) -> dict[str, Any]:
        """How transformers loads it."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @property
    def licence(self) -> str | None:
        """What its own card states, None where there is no card on this disk."""
        if self.hub is None:
            return _licence(Path(self.path))
        from huggingface_hub import try_to_load_from_cache

        card = try_to_load_from_cache(self.hub, "README.md", revision=self.revision)
        return _licence(Path(card).parent) if isinstance(card, str) else None


@dataclass(frozen=True)
class Source:
    """A data source of a value.

    Attributes:
        value: Whose preferences.
        name: Hub id, name of the file or folder, or function; never a path of this machine.
        hub: Whether it is a hub id.
        licence: What a card beside the files states, None where there is none.
        training: Training pairs of the value, from all of its sources.
        held_out: Validation and test pairs.
    """

    value: str
    name: str
    hub: bool
    licence: str | None
    training: int
    held_out: int


def data_sources(finished: Finished) -> Iterator[Source]:
    """Yield the sources of every value's preference pairs."""
    summary = finished.artifacts[finished.plan.split.key].json("summary.json")
    for value, of in finished.plan.config.values.items():
        sizes: Mapping[str, int] = summary[value]["sizes"]
        for source in of.data:
            name, hub, licence = _describe(source)
            yield Source(value, name, hub, licence, sizes["train"], sizes["validation"] + sizes["test"])


def _describe(source: DataConfig) -> tuple[str, bool, str | None]:
    if source.function is not None:
        return source.function, False, None
    path = Path(source.path or "")
    if not path.exists():
        hub = not path.is_absolute()  # a run notes its files by their absolute paths; this one is gone
        return str(source.path) if hub else path.name, hub, None
    return path.name, False, _licence(path if path.is_dir() else path.parent)


def _licence(folder: Path) -> str | None:
    """Return the licence in the metadata of a folder's README.md."""
    from huggingface_hub import metadata_load

    try:
        found = (metadata_load(folder / "README.md") or {}).get("license")
    except Exception:  # a README of any kind, whose metadata may be any text
        return None
    return found if isinstance(found, str) and found else None
