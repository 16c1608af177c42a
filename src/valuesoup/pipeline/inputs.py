"""What stages take as inputs: the base and the rewards with an identity that enters keys, and how they are opened."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuesoup.config import BaseConfig, DataConfig, RewardConfig
from valuesoup.data import load_function, source_hash
from valuesoup.errors import UserError
from valuesoup.rewards import CallableReward, ClassifierReward, RewardSource
from valuesoup.rewards.classifier import quiet
from valuesoup.store import KEPT, Artifact, Identified, fingerprint, hash_path
from valuesoup.store.team import team

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class BaseRef(Identified):
    """A base that exists already."""

    config: BaseConfig
    content: str | None
    """Hash of the local folder, None for a hub id (its revision is in the configuration)."""

    def key_parts(self) -> Any:
        """Know a local folder by its content, wherever it lies, and a base by what it is, wherever it runs."""
        config = self.config.model_dump(mode="json", exclude={"device"} | ({"model"} if self.content else set()))
        return {"config": config, "content": self.content}


class DataRef(Identified):
    """A data source."""

    config: DataConfig
    content: str | None
    """Hash of the local files or of the function's source."""

    def key_parts(self) -> Any:
        """Know local files by their content, wherever they lie."""
        local = self.content is not None and self.config.path is not None
        config = self.config.model_dump(mode="json", exclude={"path"} if local else set())
        return {"config": config, "content": self.content}


class RewardRef(Identified):
    """A reward that exists already."""

    config: RewardConfig
    fingerprint: dict[str, Any]

    def key_parts(self) -> Any:
        """Know a reward by its fingerprint, which holds all that its scores depend on."""
        return self.fingerprint

    def reads_as(self, other: "RewardRef") -> bool:
        """Return whether both are outputs of one model, which then is loaded and run once for both."""
        return self.config.model is not None and self._model() == other._model()

    def _model(self) -> dict[str, Any]:
        return {name: part for name, part in self.fingerprint.items() if name not in ("logit", "sign", "self_check")}


def base_ref(config: BaseConfig) -> BaseRef:
    """Identify a base by its files or its hub id."""
    path = Path(config.model or "")
    return BaseRef(config=config, content=hash_path(path) if path.exists() else None)


def data_ref(config: DataConfig) -> DataRef:
    """Identify a data source by its files, its function's source, or its hub id."""
    if config.function is not None:
        return DataRef(config=config, content=function_hash(config.function))
    path = Path(config.path or "")
    if not path.exists():
        return DataRef(config=config, content=None)
    inner = path / config.data_dir if config.data_dir else path
    return DataRef(config=config, content=hash_path(inner) if inner.exists() else None)


def reward_ref(config: RewardConfig) -> RewardRef:
    """Identify a reward by its files, its function's source, or its hub id."""
    return RewardRef(config=config, fingerprint=dict(_source(config).fingerprint))


def function_hash(name: str) -> str:
    """Hash the source of a function given by its name."""
    return source_hash(load_function(name))


def device_of(name: str) -> str:
    """Return the device that a setting means; ``auto`` is a GPU where there is one."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def open_tokenizer(base: Artifact | BaseRef) -> "PreTrainedTokenizerBase":
    """Load the base's tokenizer."""
    from valuesoup.soup import load_tokenizer

    if isinstance(base, Artifact):
        return load_tokenizer(base_path(base))
    config = base.config
    return load_tokenizer(str(config.model), revision=config.revision, trust_remote_code=config.trust_remote_code)


def open_base(base: Artifact | BaseRef, device: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load the base and its tokenizer.

    A worker that has loaded it for an earlier stage hands out the same one, as it was loaded.
    """
    from valuesoup.soup import take_apart

    key = ("base", base.key if isinstance(base, Artifact) else fingerprint(base.key_parts()), device)
    return take_apart(KEPT.get(key, lambda: _loaded(base, device))), open_tokenizer(base)


def _loaded(base: Artifact | BaseRef, device: str) -> "PreTrainedModel":
    from valuesoup.soup import load_model

    if isinstance(base, Artifact):
        with quiet():
            return load_model(base_path(base), device=device_of(device))
    config = base.config
    with quiet() if base.content is not None else nullcontext():  # a download keeps its progress bar
        return load_model(
            str(config.model),
            revision=config.revision,
            dtype=config.dtype,
            device=device_of(device),
            trust_remote_code=config.trust_remote_code,
            quantize=config.quantize,
        )


def open_training_base(base: Artifact | BaseRef, device: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load the base and its tokenizer for a stage that a team does together: whole, or this process's part of it."""
    if not team().divided:
        return open_base(base, device)
    from valuesoup.training.dividing import load_divided

    config = None if isinstance(base, Artifact) else base.config
    if config is not None and config.quantize is not None:
        raise UserError(
            f"quantize: {config.quantize} keeps the base whole on each GPU, and FSDP and ZeRO-3 divide it: start the "
            "processes without them, or leave base.quantize out."
        )
    model = load_divided(
        base_path(base),
        lambda: open_base(base, "cpu")[0],
        device_of(device),
        team(),
        revision=config.revision if config else None,
        trust_remote_code=config.trust_remote_code if config else False,
    )
    return model, open_tokenizer(base)


def base_path(base: Artifact | BaseRef) -> str:
    """Return what transformers loads the base from."""
    return str(base.path / "model") if isinstance(base, Artifact) else str(base.config.model)


def open_reward(reward: Artifact | RewardRef, device: str) -> RewardSource:
    """Return the reward that a stage was given: a model trained here, or one that exists.

    A worker that has opened it for the last stage hands out the same one, with its model in memory.
    """
    key = ("reward", reward.key if isinstance(reward, Artifact) else fingerprint(reward.fingerprint), device)
    source = KEPT.get(key, lambda: _opened(reward, device))
    if isinstance(source, ClassifierReward):
        source.truncated = 0  # counts those of one stage
    return source


def _opened(reward: Artifact | RewardRef, device: str) -> RewardSource:
    if isinstance(reward, Artifact):
        settings: Mapping[str, Any] = reward.json("settings.json")
        return ClassifierReward(
            reward.path / "model", template=settings["template"], truncate_prompt=True, device=device_of(device)
        )
    return _source(reward.config, device_of(device))


def _source(config: RewardConfig, device: str | None = None) -> RewardSource:
    if config.function is not None:
        return CallableReward(config.function)
    assert config.model is not None
    return ClassifierReward(
        config.model,
        logit=config.logit,
        sign=config.sign,
        template=config.template,
        max_length=config.max_length,
        truncate_prompt=config.truncate_prompt,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        self_check=config.self_check,
        device=device,
    )
