"""A full model at fixed weights, written shard by shard: W + Σ λ_i s_i B_i A_i in float32, in the base's dtype."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from valuesoup.errors import RunError, UserError
from valuesoup.soup.composition import weight_row
from valuesoup.soup.vector import Factors

if TYPE_CHECKING:
    from valuesoup.soup import Soup

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 2 * 1024**3
"""Most bytes of a shard that is written, so that memory stays low whatever the shards of the base are."""
WRITABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def write_merged(
    soup: "Soup",
    weights: Mapping[str, float],
    to: Path,
    *,
    revision: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the soup at these weights as a full model that transformers loads: config, weights, tokenizer.

    The base's weights are read from its files, a shard at a time; every tensor that no vector adapts is copied as it
    is. All weights zero gives the base itself.

    Args:
        soup: Its base must lie in safetensors files.
        weights: By vector; one left out weighs 0.
        to: A folder, made if need be; its files are replaced.
        revision: Of a base from the hub, where it was loaded at another one than its main branch.
        shard_bytes: Most bytes of a written shard.

    Returns:
        The written files.

    Raises:
        UserError: An unknown name, or a base that cannot be merged so: without safetensors files, quantised, with an
            adapted layer that is tied to another one or has no tensor of its own in the files, or with files that are
            not those that the soup was loaded from.
        RunError: The base's files cannot be read.
    """
    Merge.of(soup, weights, revision).write(to, shard_bytes=shard_bytes)
    if soup.model.generation_config is not None:
        soup.model.generation_config.save_pretrained(to)
    if soup.tokenizer is not None:
        soup.tokenizer.save_pretrained(to)
    return sorted(path for path in to.iterdir() if path.is_file())


@dataclass(frozen=True)
class Merge:
    """What it takes to write a merged model; the soup itself, and its memory, are not needed any more.

    Attributes:
        source: Folder of the base's files.
        factors: The change of each weight by its tensor's name in the files.
        transposed: Names among them whose tensor is (in, out), as GPT-2's are.
    """

    source: Path
    factors: Mapping[str, Factors]
    transposed: frozenset[str]

    @classmethod
    def of(cls, soup: "Soup", weights: Mapping[str, float], revision: str | None = None) -> "Merge":
        """Find the base's files and the tensors to change; raises what :func:`write_merged` raises."""
        source = _base_folder(soup, revision)
        files = _tensor_files(source)
        sizes = _sizes(source, files)
        vector = soup.adapter(weights) if any(weight_row(weights, soup.names)) else None
        factors, transposed = {}, set()
        for layer, change in (vector.layers if vector else {}).items():
            module = soup.model.get_submodule(layer).layer
            name = _tensor_name(soup, layer, module, files)
            factors[name] = change
            if not isinstance(module, nn.Linear):
                transposed.add(name)
            _refuse_unless_it_fits(source / files[name], name, sizes[name], module.weight)
        return cls(source, factors, frozenset(transposed))

    def write(self, to: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """Write weights and configuration; memory stays near one shard. Raises what :func:`write_merged` raises."""
        from huggingface_hub import split_torch_state_dict_into_shards

        to.mkdir(parents=True, exist_ok=True)
        files = _tensor_files(self.source)
        plan = split_torch_state_dict_into_shards(_sizes(self.source, files), max_shard_size=shard_bytes)
        for shard, names in plan.filename_to_tensors.items():
            save_file(self._shard(names, files), to / shard, metadata={"format": "pt"})
        if plan.is_sharded:
            index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
            (to / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        for path in (self.source / "config.json", *sorted(self.source.glob("*.py"))):  # code is run only where allowed
            shutil.copyfile(path, to / path.name)

    def _shard(self, names: Sequence[str], files: Mapping[str, str]) -> dict[str, Tensor]:
        tensors = {}
        for file in dict.fromkeys(files[name] for name in names):
            with _open(self.source / file) as opened:
                for name in names:
                    if files[name] == file:
                        tensors[name] = self._merged(name, opened.get_tensor(name))
        return tensors

    def _merged(self, name: str, tensor: Tensor) -> Tensor:
        change = self.factors.get(name)
        if change is None:
            return tensor
        delta = change.delta()
        # Added in float32: 16 bits would lose much of a small change.
        whole = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        return (whole + (delta.T if name in self.transposed else delta)).to(tensor.dtype).contiguous()


def base_dtype(source: Path) -> torch.dtype:
    """Return the coarsest float dtype in the base's files, in which a merged model is rounded."""
    dtypes = {tensor.dtype for tensor in _sizes(source, _tensor_files(source)).values()}
    return max((dtype for dtype in dtypes if dtype.is_floating_point), key=lambda dtype: torch.finfo(dtype).eps)


def _refuse_unless_it_fits(file: Path, name: str, size: Tensor, loaded: Tensor) -> None:
    """Refuse a tensor of the files that is not the weight that was loaded, up to rounding."""
    if size.shape != loaded.shape or size.dtype not in WRITABLE:
        raise UserError(
            f"{name} in the base's files is {tuple(size.shape)} of {size.dtype}, and its layer is "
            f"{tuple(loaded.shape)} in a float dtype: the base is quantised or packed, and cannot be merged."
        )
    with _open(file) as opened:
        stored = opened.get_slice(name)[:1].float()
    if not torch.allclose(stored, loaded[:1].float().cpu(), rtol=1e-2, atol=1e-6):
        raise UserError(
            f"{name} in {file} is not what the soup was loaded from: the base has changed since, or is of another "
            "revision; load it again."
        )


def _base_folder(soup: "Soup", revision: str | None) -> Path:
    """Return the folder of the base's files: its own, or its snapshot in the hub's cache."""
    name = soup.base_name
    if name and Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, ValueError):
        raise UserError(
            f"the files of the base '{name}' are not on this disk, so it cannot be merged; save it to a folder with "
            "save_pretrained and load it from there."
        ) from None


def _tensor_files(source: Path) -> dict[str, str]:
    """Return the file of each tensor of a model folder, in the files' order."""
    if (source / INDEX).is_file():
        try:
            found: dict[str, str] = json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError):
            raise RunError(f"{source / INDEX} is damaged; fetch the base again.") from None
        for file in dict.fromkeys(found.values()):
            # An index that points outside its folder is no model's.
            if Path(file).name != file or not (source / file).is_file():
                raise RunError(f"{source / INDEX} names {file}, which is not there; fetch the base again.")
        return found
    if not (source / SINGLE).is_file():
        raise UserError(
            f"the base in {source} has no {SINGLE}, so it cannot be merged; save it anew with save_pretrained."
        )
    with _open(source / SINGLE) as opened:
        return dict.fromkeys(opened.keys(), SINGLE)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); fetch the base again.") from None


def _sizes(source: Path, files: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a tensor of the same shape and dtype that holds nothing, for each tensor of a model folder."""
    found = {}
    for file in dict.fromkeys(files.values()):
        with _open(source / file) as opened:
            for name in files:
                if files[name] == file:
                    part = opened.get_slice(name)
                    read = part[:0] if part.get_shape() else opened.get_tensor(name)
                    found[name] = torch.empty(part.get_shape(), dtype=read.dtype, device="meta")
    return {name: found[name] for name in files}


def _tensor_name(soup: "Soup", layer: str, module: nn.Module, named: Mapping[str, str]) -> str:
    """Return the name in the files of a layer's weight: the module's, or without the prefix of the head's model."""
    weight = module.weight
    sharers = [
        other
        for other, parameter in soup.model.named_parameters(remove_duplicate=False)
        if parameter is weight and not other.startswith(f"{layer}.")
    ]
    if sharers:
        raise UserError(
            f"layer {layer} shares its weight with {sharers[0]}, so merging would change both; export an adapter."
        )
    whole = f"{layer}.weight"
    for name in (whole, whole.removeprefix(f"{soup.model.base_model_prefix}.")):
        if name in named:
            return name
    raise UserError(
        f"layer {layer} has no tensor of its own in the files of the base (it is fused or renamed there), so it cannot "
        "be merged; export an adapter."
    )
