"""The models of a run: where they are, how large, and whether they are what the run takes them for."""

from dataclasses import dataclass, field
from typing import Any

from valuesoup.config import RewardConfig, RunConfig
from valuesoup.doctor.hub import Found, Hub, parameters_by_name
from valuesoup.doctor.report import Model, Problem
from valuesoup.doctor.sizes import Size, read_config, size_of_config, size_of_number, size_of_pretrain
from valuesoup.errors import UserError
from valuesoup.rewards.classifier import quiet
from valuesoup.training.settings import TrainingSettings


@dataclass
class Models:
    """The models of a run.

    Attributes:
        told: For the report.
        base: Size of the base; None where nothing tells.
        base_folder: Where the base is, if it is here.
        tokenizer: Of the base, if it is here.
        rewards: By value the size of a reward model that exists already; None where nothing tells.
        downloads: Bytes to download, as far as known.
    """

    told: list[Model] = field(default_factory=list)
    base: Size | None = None
    base_folder: str | None = None
    tokenizer: Any = None
    rewards: dict[str, Size | None] = field(default_factory=dict)
    downloads: int = 0


def find_models(config: RunConfig, hub: Hub, problems: list[Problem]) -> Models:
    """Look at the base and at every reward model; what is missing is a problem each."""
    found = Models()
    _base(config, hub, problems, found)
    seen: dict[tuple[str | None, str | None], Size | None] = {}
    for value, of in config.values.items():
        reward = of.reward
        key = f"values.{value}.reward"
        if reward.model is None:
            continue
        if (reward.model, reward.revision) not in seen:
            seen[reward.model, reward.revision] = _reward(reward, value, key, hub, problems, found)
        found.rewards[value] = seen[reward.model, reward.revision]
    return found


def trainings(config: RunConfig) -> list[TrainingSettings]:
    """Return the settings of every method's training."""
    own = config.training.model_dump()
    return [TrainingSettings.model_validate({**own, **entry.method.training}) for entry in config.methods]


def _base(config: RunConfig, hub: Hub, problems: list[Problem], made: Models) -> None:
    base = config.base
    if base.pretrain is not None:
        made.base = size_of_pretrain(base.pretrain)
        made.told.append(Model("base", "base.pretrain", "made here", made.base.parameters))
        return
    name = str(base.model)
    found = hub.model(name, base.revision)
    if found.state == "not found":
        problems.append(Problem("base.model", f"{name}: {found.why}."))
    if found.folder is not None:
        made.base_folder = str(found.folder)
        _base_here(config, found, problems, made)
    _tell("base", name, found, made.base, made)
    if made.base is None:
        number = made.told[-1].parameters
        made.base = None if number is None else size_of_number(number)
    _gated(found, "base.model", name, problems)


def _base_here(config: RunConfig, found: Found, problems: list[Problem], made: Models) -> None:
    """Check a base whose files are here."""
    from valuesoup.soup.base import load_tokenizer

    folder, base = found.folder, config.base
    assert folder is not None
    if not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")):
        problems.append(Problem("base.model", f"{folder} holds no weights (*.safetensors)."))
    try:
        transformers_config = read_config(folder, trust_remote_code=base.trust_remote_code)
        with quiet():
            made.base = size_of_config(transformers_config, trust_remote_code=base.trust_remote_code)
            of_methods = {of.target_modules for of in trainings(config)}
            for targets in (*of_methods, config.training.target_modules):
                made.base = size_of_config(transformers_config, targets, trust_remote_code=base.trust_remote_code)
    except UserError as error:
        problems.append(Problem("training.target_modules", str(error)))
    except Exception as error:  # transformers raises what it likes at a configuration
        problems.append(Problem("base.model", f"{folder} does not load: {_first_line(error)}"))
    try:
        made.tokenizer = load_tokenizer(folder, trust_remote_code=base.trust_remote_code)
    except UserError as error:
        problems.append(Problem("base.model", str(error)))
    if made.tokenizer is None:
        return
    if not made.tokenizer.chat_template:
        text = "the tokenizer has no chat template, so dialogues are written as Human: … Assistant: … transcripts."
        problems.append(Problem("base.model", text, stops=False))
    if made.base is not None:
        if len(made.tokenizer) > made.base.vocabulary:
            sizes = f"the tokenizer has {len(made.tokenizer)} tokens and the model {made.base.vocabulary}"
            problems.append(Problem("base.model", f"{sizes}: they do not belong together."))
        _positions(config, made.base, problems)


def _positions(config: RunConfig, base: Size, problems: list[Problem]) -> None:
    if config.training.max_length > base.positions:
        text = f"is {config.training.max_length} and the base takes {base.positions} tokens; longer pairs are left out."
        problems.append(Problem("training.max_length", text, stops=False))
    asked = config.generation.max_prompt_tokens + config.generation.max_new_tokens
    if asked > base.positions:
        text = (
            f"max_prompt_tokens and max_new_tokens together are {asked} and the base takes {base.positions} tokens; "
            "a long prompt would stop the run."
        )
        problems.append(Problem("generation", text, stops=False))


def _reward(reward: RewardConfig, value: str, key: str, hub: Hub, problems: list[Problem], made: Models) -> Size | None:
    """Check a classifier and return its size."""
    name = str(reward.model)
    found = hub.model(name, reward.revision)
    size = None
    if found.state == "not found":
        problems.append(Problem(f"{key}.model", f"{name}: {found.why}."))
    if found.folder is not None:
        try:
            with quiet():
                config = read_config(found.folder, trust_remote_code=reward.trust_remote_code)
                _classifier(reward, config, name, key, problems)
                size = size_of_config(config, classifier=True, trust_remote_code=reward.trust_remote_code)
        except Exception as error:  # transformers raises what it likes at a configuration
            problems.append(Problem(f"{key}.model", f"{name} does not load: {_first_line(error)}"))
        else:
            _template(reward, found, key, problems)
    _tell(f"reward of {value}", name, found, size, made)
    _gated(found, f"{key}.model", name, problems)
    number = made.told[-1].parameters
    return size or (None if number is None else size_of_number(number))


def _classifier(reward: RewardConfig, config: Any, name: str, key: str, problems: list[Problem]) -> None:
    if reward.logit >= config.num_labels:
        text = f"is {reward.logit}, and {name} has {config.num_labels} outputs, counted from 0."
        problems.append(Problem(f"{key}.logit", text))
    kinds = getattr(config, "architectures", None) or []
    if kinds and not reward.trust_remote_code and not any("SequenceClassification" in kind for kind in kinds):
        problems.append(Problem(f"{key}.model", f"{name} is a {kinds[0]}, not a sequence classifier."))


def _template(reward: RewardConfig, found: Found, key: str, problems: list[Problem]) -> None:
    from valuesoup.rewards.classifier import load_tokenizer
    from valuesoup.rewards.rendering import Renderer

    try:
        Renderer(load_tokenizer(str(found.folder), trust_remote_code=reward.trust_remote_code), reward.template)
    except UserError as error:
        problems.append(Problem(f"{key}.template", str(error)))


def _tell(role: str, name: str, found: Found, size: Size | None, made: Models) -> None:
    number = found.parameters if size is None else size.parameters
    exact = number is not None
    number = number if exact else parameters_by_name(name)
    made.told.append(
        Model(role, name, found.state, number, exact, found.download, found.licence, found.gated),
    )
    if found.state == "to download":
        made.downloads += found.download or 0


def _gated(found: Found, key: str, name: str, problems: list[Problem]) -> None:
    if found.gated and found.state == "to download":
        text = f"{name} is gated and you have access; its licence ({found.licence or 'not named'}) binds you."
        problems.append(Problem(key, text, stops=False))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
