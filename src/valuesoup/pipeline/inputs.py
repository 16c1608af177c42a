"""What stages take as inputs: the base and the rewards with an identity that enters keys, and how they are opened."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from valuesoup.config import BaseConfig, DataConfig, RewardConfig
from valuesoup.rewards import CallableReward, ClassifierReward, RewardSource
from valuesoup.rewards.classifier import quiet
from valuesoup.store import Artifact, hash_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Identified(BaseModel):
    """A setting together with the identity of the files or code that it names."""

    model_config = ConfigDict(frozen=True)


class BaseRef(Identified):
    """A base that exists already."""

    config: BaseConfig
    content: str | None
    """Hash of the local folder, None for a hub id (its revision is in the configuration)."""


class DataRef(Identified):
    """A data source."""

    config: DataConfig
    content: str | None
    """Hash of the local files or of the function's source."""


class RewardRef(Identified):
    """A reward that exists already."""

    config: RewardConfig
    fingerprint: dict[str, Any]


def base_ref(config: BaseConfig) -> BaseRef:
    """Identify a base by its files or its hub id."""
    path = Path(config.model or "")
    anywhere = config.model_copy(update={"device": "auto"})  # where it runs does not change what it is
    return BaseRef(config=anywhere, content=hash_path(path) if path.exists() else None)


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
    """Hash the source of a function's module."""
    import inspect

    from valuesoup.data import load_function
    from valuesoup.store import fingerprint

    module = inspect.getmodule(load_function(name))
    try:
        return fingerprint(inspect.getsource(module) if module else name)
    except (OSError, TypeError):
        return fingerprint(name)


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
    """Load the base and its tokenizer."""
    from valuesoup.soup import load_model

    if isinstance(base, Artifact):
        with quiet():
            model = load_model(base_path(base), device=device_of(device))
    else:
        config = base.config
        with quiet() if base.content is not None else nullcontext():  # a download keeps its progress bar
            model = load_model(
                str(config.model),
                revision=config.revision,
                dtype=config.dtype,
                device=device_of(device),
                trust_remote_code=config.trust_remote_code,
            )
    return model, open_tokenizer(base)


def base_path(base: Artifact | BaseRef) -> str:
    """Return what transformers loads the base from."""
    return str(base.path / "model") if isinstance(base, Artifact) else str(base.config.model)


def open_reward(reward: Artifact | RewardRef) -> RewardSource:
    """Return the reward that a stage was given: a model trained here, or one that exists."""
    if isinstance(reward, Artifact):
        settings: Mapping[str, Any] = reward.json("settings.json")
        return ClassifierReward(reward.path / "model", template=settings["template"], truncate_prompt=True)
    return _source(reward.config)


def _source(config: RewardConfig) -> RewardSource:
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
    )
