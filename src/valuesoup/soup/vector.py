"""Value vectors: the change of weights that training on one value made, kept as LoRA factors, in PEFT's format."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from valuesoup.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_RECORD = "valuesoup.json"
_PREFIX = "base_model.model."

# Settings of a LoRA adapter under which it is not a plain sum s·B·A on top of the base, with what to say of them.
_NOT_LINEAR = {
    "use_dora": "uses DoRA, which rescales the base's own weights",
    "modules_to_save": "replaces whole modules (modules_to_save)",
    "lora_bias": "trains biases (lora_bias)",
    "layer_replication": "replicates layers of the base",
    "trainable_token_indices": "retrains token embeddings",
    "target_parameters": "adapts bare parameters (target_parameters)",
    "alora_invocation_tokens": "switches on only after certain tokens (aLoRA)",
    "use_qalora": "pools its input (QA-LoRA)",
    "use_bdlora": "is block-diagonal (BD-LoRA)",
    "arrow_config": "routes between experts (Arrow)",
    "kasa_config": "truncates the base's own weights (KaSA)",
    "monteclora_config": "samples its weights (MonteCLoRA)",
    "velora_config": "compresses its activations (VeLoRA)",
}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_UNSET = 8
"""What PEFT takes for a rank or an alpha that a configuration leaves out."""
# PEFT takes the keys of rank_pattern and alpha_pattern for regular expressions, of which some never end.
_LAYER_KEY = re.compile(r"\^?(\.\*\\?\.)?([A-Za-z0-9_-]|\\?\.)+\$?")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Factors:
    """The LoRA of one linear layer: ΔW = scale · B · A.

    Attributes:
        A: (rank, in features).
        B: (out features, rank).
        scale: alpha / rank, or alpha / √rank for rsLoRA.
    """

    A: Tensor
    B: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return int(self.A.shape[0])

    def delta(self) -> Tensor:
        """Return ΔW, shape (out features, in features), in float32; forms the dense matrix."""
        return self.scale * (self.B.float() @ self.A.float())


@dataclass(frozen=True)
class ValueVector:
    """θ_i = π_i − π_0 as LoRA factors per adapted layer (Eq. 7); also any composition of such vectors.

    Attributes:
        layers: Factors by the layer's name in the base model, e.g. ``model.layers.0.self_attn.q_proj``.
        base: The base's hub id or path.
        base_fingerprint: A hash of a sample of the base's weights, or None where it is not known.
    """

    layers: Mapping[str, Factors]
    base: str = ""
    base_fingerprint: str | None = None

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(factors.rank for factors in self.layers.values())

    @classmethod
    def load(cls, path: str | Path) -> "ValueVector":
        """Read a PEFT LoRA adapter from a folder.

        Different ranks, alphas (also per layer) and rsLoRA are understood.

        Raises:
            UserError: The folder holds no LoRA adapter, a damaged one, one that is not linear in its weights
                (DoRA, trained biases, modules_to_save, …), or one whose configuration does not fit its weights, of
                which PEFT would load something else.
        """
        folder = Path(path)
        config = _read_config(folder)
        _refuse_unless_linear(config, folder)
        try:
            tensors = load_file(folder / ADAPTER_WEIGHTS)
        except FileNotFoundError:
            raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}; a PEFT adapter folder holds one.") from None
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / ADAPTER_WEIGHTS} is damaged ({error}); save the adapter again.") from None
        record = folder / BASE_RECORD
        known = _read_json(record) if record.is_file() else {}
        if not isinstance(known.get("base_fingerprint"), str | None):
            raise UserError(f"{record} is damaged: base_fingerprint must be a text; save the adapter again.")
        return cls(
            layers=_pair_factors(tensors, config, folder),
            base=str(config.get("base_model_name_or_path") or ""),
            base_fingerprint=known.get("base_fingerprint"),
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Write a PEFT adapter that PEFT, transformers and vLLM load; scales are folded into B, alpha = rank.

        Layers of lower rank are padded with zeros to the largest rank, which changes nothing in ΔW.

        Args:
            path: A folder, made if need be.
        """
        from peft import LoraConfig, TaskType

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        rank = self.rank
        tensors = {}
        for name, factors in self.layers.items():
            A = torch.zeros(rank, factors.A.shape[1], dtype=factors.A.dtype)
            B = torch.zeros(factors.B.shape[0], rank, dtype=factors.B.dtype)
            A[: factors.rank] = factors.A.detach().cpu()
            B[:, : factors.rank] = (factors.scale * factors.B.detach().float()).to(factors.B.dtype).cpu()
            tensors[f"{_PREFIX}{name}.lora_A.weight"] = A
            tensors[f"{_PREFIX}{name}.lora_B.weight"] = B
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        LoraConfig(
            r=rank,
            lora_alpha=rank,
            lora_dropout=0.0,
            target_modules=sorted(self.layers),
            task_type=TaskType.CAUSAL_LM,
            base_model_name_or_path=self.base,
            inference_mode=True,
        ).save_pretrained(str(folder))
        record = {"base_fingerprint": self.base_fingerprint}
        (folder / BASE_RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        there = path.is_file()
    except (OSError, ValueError):  # no name that a folder can have
        there = False
    if not there:
        raise UserError(f"{folder} is not a PEFT adapter: it has no {ADAPTER_CONFIG}.")
    config = _read_json(path)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder} is a {config.get('peft_type')} adapter; a soup is made of LORA adapters.")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a valid JSON object; save the adapter again.")
    return found


def _refuse_unless_linear(config: Mapping[str, Any], folder: Path) -> None:
    for key, reason in _NOT_LINEAR.items():
        if config.get(key):
            raise UserError(f"adapter {folder} {reason}, so it cannot be mixed linearly; train a plain LoRA.")
    if config.get("bias", "none") != "none":
        raise UserError(f"adapter {folder} trains biases (bias={config['bias']}); train it again with bias='none'.")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UserError(
            f"adapter {folder} was initialised with {start}, which changes the base's weights; convert it to a plain "
            "LoRA first (PEFT: path_initial_model_for_weight_conversion)."
        )


def _pair_factors(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> dict[str, Factors]:
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if not tensor.is_floating_point():
            raise UserError(f"adapter {folder}: {key} holds {tensor.dtype}, not floating-point numbers.")
        if tensor.dtype not in _DTYPES:
            raise UserError(f"adapter {folder}: {key} holds {tensor.dtype}; save it in float32, bfloat16 or float16.")
        if not torch.isfinite(tensor).all():
            raise UserError(f"adapter {folder}: {key} holds NaN or infinite numbers; train it again.")
        side = down if name.endswith(".lora_A.weight") else up
        layer = name.removesuffix(".lora_A.weight" if side is down else ".lora_B.weight")
        if layer == name or tensor.dim() != 2:
            raise UserError(f"adapter {folder}: {key} is not a factor of a linear layer, so it cannot be mixed.")
        if layer in side:
            raise UserError(f"adapter {folder}: {layer} stands there twice, with and without {_PREFIX}; keep one.")
        side[layer] = tensor
    if not down or set(down) != set(up):
        odd = sorted(set(down) ^ set(up))
        where = odd[0] if odd else "every layer"
        raise UserError(f"adapter {folder}: the factors A and B of {where} are incomplete.")
    read = _Configuration.of(config, folder)
    layers = {}
    for name, A in down.items():
        if not name or not A.numel() or not up[name].numel():
            raise UserError(f"adapter {folder}: the factors of '{name}' are empty, or belong to no layer.")
        if A.shape[0] != up[name].shape[1]:
            raise UserError(f"adapter {folder}: the factors of {name} have ranks {A.shape[0]} and {up[name].shape[1]}.")
        layers[name] = Factors(A, up[name], read.scale(name, int(A.shape[0])))
        # A bound on every entry of ΔW, without forming it.
        largest = layers[name].scale * A.abs().max().double() * up[name].abs().max().double() * A.shape[0]
        if largest.abs() > torch.finfo(torch.float32).max:
            raise UserError(f"adapter {folder}: the weights of {name} are too large for float32; train it again.")
    return layers


@dataclass(frozen=True)
class _Configuration:
    """What an adapter's configuration says of its layers, checked, and read as PEFT reads it."""

    where: Path
    rank: Any
    alpha: Any
    rank_pattern: Mapping[str, Any]
    alpha_pattern: Mapping[str, Any]
    rooted: bool
    chosen: SimpleNamespace

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path) -> "_Configuration":
        where = folder / ADAPTER_CONFIG
        patterns = {}
        for name in ("rank_pattern", "alpha_pattern"):
            patterns[name] = config.get(name) or {}
            if not isinstance(patterns[name], Mapping):
                raise UserError(f"{where}: {name} must be a mapping of layer names to numbers.")
            _refuse_unless_plain(patterns[name], name, where)
        rooted = config.get("use_rslora") or False
        if not isinstance(rooted, bool):
            raise UserError(f"{where}: use_rslora must be true or false.")
        numbers = config.get("layers_to_transform")
        numbers = [numbers] if isinstance(numbers, int) else numbers or []
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise UserError(f"{where}: layers_to_transform must be a list of the layers' numbers.")
        chosen = {}
        for name in ("target_modules", "exclude_modules", "layers_pattern"):
            found = config.get(name)
            if found is not None and not isinstance(found, str | list):
                raise UserError(f"{where}: {name} must be a list of names.")
            chosen[name] = [found] if name == "layers_pattern" and isinstance(found, str) else found
            if isinstance(found, list) and not all(isinstance(item, str) for item in found):
                raise UserError(f"{where}: {name} must be a list of names.")
        _refuse_unless_plain(chosen["layers_pattern"] or (), "layers_pattern", where)
        return cls(
            where=where,
            rank=config.get("r", _UNSET),
            alpha=config.get("lora_alpha", _UNSET),
            **patterns,
            rooted=rooted,
            chosen=SimpleNamespace(**chosen, layers_to_transform=numbers, target_parameters=None),
        )

    def scale(self, layer: str, rank: int) -> float:
        """Return alpha / rank (or / √rank) of a layer whose weights have that rank."""
        from peft.utils.other import get_pattern_key

        if not self._adapts(layer):
            raise UserError(
                f"{self.where}: by target_modules, exclude_modules and layers_to_transform {layer} is not adapted, but "
                "there are weights of it; correct them, or train the adapter again."
            )
        said = self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), layer), self.rank)
        if type(said) is not int or said != rank:
            raise UserError(
                f"{self.where}: the rank of {layer} is {said!r:.40} by r and rank_pattern, but {rank} in the weights; "
                "correct it, or save the adapter again."
            )
        alpha = self.alpha_pattern.get(get_pattern_key(list(self.alpha_pattern), layer), self.alpha)
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < abs(alpha) < 1e30:
            raise UserError(f"{self.where}: the alpha of {layer} must be a number other than 0, not {alpha!r:.40}.")
        return float(alpha / rank**0.5) if self.rooted else alpha / rank

    def _adapts(self, layer: str) -> bool:
        from peft.tuners.tuners_utils import check_target_module_exists

        chosen = SimpleNamespace(**vars(self.chosen))
        # As regular expressions they may never end; of such a choice the weights that are there are the only witness.
        if not isinstance(chosen.target_modules, list):
            chosen.target_modules = [layer.rpartition(".")[2]]
        if isinstance(chosen.exclude_modules, str):
            chosen.exclude_modules = None
        return bool(check_target_module_exists(chosen, layer))


def _refuse_unless_plain(keys: Iterable[str], name: str, where: Path) -> None:
    for key in keys:
        if not _LAYER_KEY.fullmatch(key):
            raise UserError(f"{where}: '{key:.60}' in {name} is no plain name of a layer, such as layers.0.q_proj.")
