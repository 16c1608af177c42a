"""Where a model or a data set is: here, in the cache, or on the hub, which is asked for its metadata alone."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 5.0
"""Seconds after which the hub counts as out of reach."""
_WEIGHTS = ("*.safetensors", "*.bin")
_TEXTS = (".json", ".model", ".txt", ".jinja", ".py")


@dataclass(frozen=True)
class Found:
    """Where something is.

    Attributes:
        state: ``local``, ``cached``, ``to download`` or ``not found``.
        why: Where it is not found or cannot be downloaded, the reason.
        folder: With its files, where it is here.
        download: Bytes to download, None where the hub does not say.
        parameters: As the hub tells them.
        rows: Of a data set, by split, as far as known.
        licence: As the hub tells it.
        gated: Whether its authors must agree.
    """

    state: str
    why: str = ""
    folder: Path | None = None
    download: int | None = 0
    parameters: int | None = None
    rows: dict[str, int] | None = None
    licence: str | None = None
    gated: bool = False


class Hub:
    """Finds models and data sets; asks the hub nothing more once it was out of reach."""

    def __init__(self, *, offline: bool) -> None:
        """Prepare; ``offline`` asks the hub nothing at all."""
        self.silent = "the hub must not be asked (HF_HUB_OFFLINE)" if offline else ""

    def model(self, name: str, revision: str | None = None) -> Found:
        """Return where a model is."""
        if Path(name).is_dir():
            return Found("local", folder=Path(name))
        if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            return Found("not found", f"there is no folder {name}")
        folder = _cached_model(name, revision)
        if folder is not None:
            return Found("cached", folder=folder)
        info = self._ask("model", name, revision)
        if isinstance(info, Found):
            return info
        safe = [one for one in info.siblings or () if one.rfilename.endswith(".safetensors")]
        weights = safe or [one for one in info.siblings or () if one.rfilename.endswith(".bin")]
        others = [one for one in info.siblings or () if one.rfilename.endswith(_TEXTS)]
        sizes = [one.size for one in (*weights, *others)]
        return Found(
            "to download",
            download=sum(sizes) if None not in sizes else None,
            parameters=getattr(info.safetensors, "total", None),
            licence=_licence(info),
            gated=bool(info.gated),
        )

    def dataset(self, name: str) -> Found:
        """Return where a data set of the hub is."""
        from datasets import config

        cached = Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")
        if cached.is_dir():
            return Found("cached", folder=cached)
        info = self._ask("dataset", name, None)
        if isinstance(info, Found):
            return info
        sizes = [one.size for one in info.siblings or ()]
        return Found(
            "to download",
            download=sum(sizes) if None not in sizes else None,
            rows=_rows(info),
            licence=_licence(info),
            gated=bool(info.gated),
        )

    def _ask(self, kind: str, name: str, revision: str | None) -> Any:
        """Return the hub's metadata, or where it gives none, why."""
        if self.silent:
            return Found("not found", f"it is not in the cache, and {self.silent}")
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

        hub = HfApi()
        ask = hub.model_info if kind == "model" else hub.dataset_info
        try:
            info = ask(name, revision=revision, timeout=TIMEOUT, files_metadata=True)
            if info.gated:
                hub.auth_check(name, repo_type=kind)
        except GatedRepoError:
            return Found(
                "not found",
                f"its authors must agree first: ask for access at huggingface.co/{name}, then `hf auth login`",
                gated=True,
            )
        except HFValidationError:
            return Found("not found", f"'{name}' is neither a folder nor a hub id")
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status in (401, 403, 404):
                return Found("not found", f"the hub has no such {kind} that you may read (status {status})")
            return Found("not found", f"it is not in the cache, and the hub answered with status {status}")
        except Exception as error:  # of whatever HTTP library the hub's client has
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.silent = "the hub cannot be reached from here"
            return Found("not found", f"it is not in the cache, and {self.silent} ({reason})")
        return info


def parameters_by_name(name: str) -> int | None:
    """Return how many parameters a model has by its name, such as ``Llama-2-7b``; None where it does not say."""
    found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", name.lower().replace("_", "-").replace("-", " "))
    if found is None:
        return None
    return round(float(found[1]) * (1e9 if found[2] == "b" else 1e6))


def _cached_model(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model in the cache whose configuration and weights are there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any(any(folder.glob(pattern)) for pattern in _WEIGHTS) else None


def _licence(info: Any) -> str | None:
    card = getattr(info, "card_data", None) or {}
    found = card.get("license") if hasattr(card, "get") else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found


def _rows(info: Any) -> dict[str, int] | None:
    card = getattr(info, "card_data", None) or {}
    described = card.get("dataset_info") if hasattr(card, "get") else None
    if not isinstance(described, dict):  # several configurations: which of them is meant is not known here
        return None
    splits = described.get("splits") or []
    return {one["name"]: int(one["num_examples"]) for one in splits if "num_examples" in one} or None
