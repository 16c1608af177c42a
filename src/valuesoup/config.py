"""The run configuration: typed, frozen, unknown keys are errors; defaults are the papers' settings."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from valuesoup.endpoint import GenerationServer
from valuesoup.errors import UserError, did_you_mean, first_fault
from valuesoup.limits import Batch, Count, Location, Seed
from valuesoup.methods import COMPARED, Expanded, Method, preset
from valuesoup.methods.choices import ObjectiveChoice, PairsChoice, WeightsChoice
from valuesoup.methods.compositions import CompositionChoice
from valuesoup.rewards.training import RewardTraining
from valuesoup.search.settings import Racing
from valuesoup.training.settings import PretrainSettings, TrainingSettings

_Located = TypeVar("_Located", bound=BaseModel)


class Section(BaseModel):
    """Base of the configuration's sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where rows come from."""

    path: Location | None = None
    """A hub id, a file (json, jsonl, jsonl.gz, csv, parquet), a folder of such files, or a saved data set."""
    function: str | None = None
    """Instead of a path: a Python function ``module:function`` that yields rows."""
    arguments: dict[str, JsonValue] = {}
    """Keyword arguments of the function."""
    data_dir: str | None = None
    """Sub-folder of a hub data set or a folder."""
    split: str = "train"
    """Split of a hub data set or a folder."""
    label: str | None = None
    """Which label or attribute says what was chosen, where rows carry several."""
    pairs_per_prompt: Count = 1
    """Of several scored answers to a prompt, at most this many pairs."""
    limit: Count | None = None
    """Read at most this many rows."""
    max_words: Count | None = None
    """Drop pairs whose prompt and longer response have more words than this; they are counted."""

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        if (self.path is None) == (self.function is None):
            raise ValueError("give either path or function")
        return self


def _listed(value: object) -> object:
    """Let one source stand without a list, and a path without a mapping."""
    items = value if isinstance(value, list | tuple) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


Sources = Annotated[tuple[DataConfig, ...], BeforeValidator(_listed), Field(min_length=1)]


class RewardConfig(Section):
    """Where a value's scores come from: exactly one of train, model and function scores new answers."""

    train: RewardTraining | None = None
    """Train a reward model on the value's own pairs, starting from the base."""
    model: Location | None = None
    """A sequence classifier: hub id or folder."""
    function: str | None = None
    """A Python function ``module:function`` of prompts and answers."""
    column: str | None = None
    """Score the pairs by their columns chosen_score/NAME and rejected_score/NAME instead."""
    logit: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Which output of the classifier is the reward."""
    sign: Literal[1, -1] = 1
    """-1 for a cost model."""
    template: str | None = None
    """chat, human-assistant, or a text with {prompt} and {response}; by default what the tokenizer has."""
    max_length: Count | None = None
    """Most tokens of prompt and response."""
    truncate_prompt: bool = False
    """Cut too long prompts from the left (counted) instead of stopping."""
    revision: str | None = None
    """Hub revision of the classifier."""
    trust_remote_code: bool = False
    """Run code that comes with the classifier."""
    self_check: tuple[tuple[str, str, str], ...] = ()
    """(prompt, better response, worse response) triples whose order the classifier must know."""

    @model_validator(mode="after")
    def _one_source(self) -> "RewardConfig":
        given = [name for name in ("train", "model", "function") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            more = " (a column scores pairs, not new answers)" if self.column and not given else ""
            raise ValueError(f"a reward needs exactly one of train, model, function; {found}{more}")
        return self


class ValueConfig(Section):
    """One human value: its preference data and its reward."""

    data: Sources
    """Preference pairs D_i; several sources are joined."""
    reward: RewardConfig = RewardConfig(train=RewardTraining())
    """How answers are scored under this value."""
    truth: str | None = None
    """A Python function ``module:function`` that knows the true reward, to check the reward model against."""


class BaseConfig(Section):
    """The base model π_0, loaded or made here."""

    model: Location | None = None
    """Hub id or folder of a causal language model."""
    pretrain: PretrainSettings | None = None
    """Instead: make a small one from dialogues."""
    dialogues: Sources | None = None
    """Data to pretrain on: a function that yields conversations (lists of messages, or rows with ``messages``), or
    preference rows, of which prompt and chosen are taken. By default both answers of every training pair."""
    revision: str | None = None
    """Hub revision."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Of the frozen weights; auto takes the checkpoint's own."""
    quantize: Literal["nf4", "int8"] | None = Field(None, exclude_if=lambda kind: kind is None)
    """Keep the frozen weights of linear layers in 4 bits (nf4, QLoRA) or 8 (int8, LLM.int8()); dtype is of all else."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|(cuda|xpu|npu)(:\d{1,3})?)$")
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    @model_validator(mode="after")
    def _one_base(self) -> "BaseConfig":
        if (self.model is None) == (self.pretrain is None):
            raise ValueError("give either model or pretrain")
        if self.pretrain is not None and self.quantize is not None:
            raise ValueError("quantize is for a base that is loaded: give model, or leave quantize out")
        return self


class GenerationConfig(Section):
    """How candidates answer."""

    max_new_tokens: Count = 200
    """Longest answer."""
    max_prompt_tokens: Count = 512
    """Longer held-out prompts are left out and counted."""
    temperature: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """1 draws from the policy itself, whose expected reward Eq. 4 asks for; 0 takes the likeliest token."""
    batch_rows: Batch = 96
    """Answers written at once; changes the speed, and an answer only where rounding decides a token."""
    endpoint: GenerationServer | None = Field(None, exclude_if=lambda server: server is None)
    """An OpenAI-compatible server that writes the answers of the evaluation, of every method; by default they are
    written here."""


class EvaluationConfig(Section):
    """How candidates are judged."""

    test_prompts: Count = 200
    """Per value, never in training."""
    validation_prompts: Count = 50
    """Per value, never in training; the frontier is taken on them."""
    prompts: Literal["all", "own"] = "all"
    """Measure value i on the held-out prompts of every data set, or of its own only, as the authors' scripts do."""
    resamples: Annotated[int, Field(gt=0, le=10**5)] = 1000
    """Bootstrap resamples."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the intervals."""
    fluency: str | None = None
    """A Python function ``module:function`` that gives 1 for a sound answer and 0 for a broken one."""
    fluency_bound: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Candidates of lower fluency on validation are marked and leave the frontier."""
    samples: Annotated[int, Field(ge=0, le=10**6)] = 8
    """Test prompts whose answers the report shows side by side."""
    diagnostics: bool = True
    """Measure gradient conflict and merging gaps too: on samples of pairs, for a few percent of a run."""
    racing: Racing = None
    """Ask no more validation prompts than it takes to know the frontier: true, or settings of the race."""

    @model_validator(mode="after")
    def _prompts_to_race(self) -> "EvaluationConfig":
        if self.racing is not None and self.validation_prompts < 2 * self.racing.first:
            raise ValueError(
                f"racing starts with {self.racing.first} prompts and needs at least twice as many, but there are "
                f"{self.validation_prompts} validation_prompts; raise them, lower racing.first, or leave racing out"
            )
        return self


class MethodConfig(Section):
    """A method: a preset, a preset with changes, or the three choices spelled out."""

    name: str = Field(pattern=r"^[\w+τρ-][\w.+τρ-]{0,59}$")
    """Unique in the run."""
    preset: str | None = None
    """Name of a preset, of this package or of another one; `valuesoup methods` lists them."""
    settings: dict[str, Any] = {}
    """The preset's settings that differ from its defaults."""
    pairs: PairsChoice | None = None
    """Which pairs; beside a preset, in place of the preset's."""
    objective: ObjectiveChoice | None = None
    """Which objective; beside a preset, in place of the preset's."""
    weights: WeightsChoice | None = None
    """Which weights; beside a preset, in place of the preset's."""
    composition: CompositionChoice | None = None
    """How vectors are mixed, if not linearly."""
    training: dict[str, JsonValue] = {}
    """Settings of the training for this method alone, in place of the run's."""

    @cached_property
    def method(self) -> Method:
        """The three choices."""
        named = {} if self.preset is None else dict(preset(self.preset).build(self.settings))
        chosen = {
            name: getattr(self, name)
            for name in ("pairs", "objective", "weights", "composition")
            if getattr(self, name) is not None
        }
        training = {**named.get("training", {}), **self.training}
        return Method.model_validate({**named, **chosen, "training": training})

    @property
    def title(self) -> str:
        """What figures call it."""
        if self.preset is None:
            return self.name
        known = preset(self.preset)
        return known.title if self.name == known.name else self.name

    @field_validator("training")
    @classmethod
    def _known(cls, training: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name, item in training.items():
            if name == "max_length":
                raise ValueError("max_length is the same for every method of a run")
            if name not in TrainingSettings.model_fields:
                raise ValueError(f"there is no setting '{name}'{did_you_mean(name, TrainingSettings.model_fields)}")
            if isinstance(item, bool) and name not in ("bf16", "gradient_checkpointing"):
                raise ValueError(f"{name} is a number, not {str(item).lower()}")
        return training

    @model_validator(mode="after")
    def _builds(self) -> "MethodConfig":
        if self.preset is None and self.settings:
            raise ValueError("settings are those of a preset; name one, or spell out pairs, objective and weights")
        if self.preset is None and not (self.pairs or self.objective or self.weights):
            raise ValueError("name a preset, or spell out pairs, objective and weights")
        try:
            _ = self.method
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


def _method_entry(value: object) -> object:
    """Let a preset stand by its name, and its settings beside it."""
    if isinstance(value, str):
        return {"name": value, "preset": value}
    if isinstance(value, Mapping):
        known = set(MethodConfig.model_fields)
        if "preset" in value:
            extra = {key: item for key, item in value.items() if key not in known}
            kept = {key: item for key, item in value.items() if key in known}
            settings = kept.pop("settings", {})
            if isinstance(settings, Mapping):
                settings = {**settings, **extra}
            return {"name": value["preset"], **kept, "settings": settings}
    return value


class RunConfig(Section):
    """Everything that a run depends on."""

    values: dict[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,40}$")], ValueConfig] = Field(min_length=1)
    """The values, by name; their order is the order of weights and columns."""
    base: BaseConfig
    """The base model."""
    methods: tuple[Annotated[MethodConfig, BeforeValidator(_method_entry)], ...] = Field(
        default=COMPARED, min_length=1, validate_default=True
    )
    """What to compare."""
    training: TrainingSettings = TrainingSettings()
    """How vectors are trained, the same for every method."""
    generation: GenerationConfig = GenerationConfig()
    """How candidates answer."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How candidates are judged."""
    seed: Seed = 0
    """Of splits, initialisation, the order of rows, sampling and resampling."""
    seeds: tuple[Seed, ...] = ()
    """Run once per seed, each in a folder of its own, and combine the results."""
    title: str = "valuesoup"
    """Heading of the report."""

    @model_validator(mode="after")
    def _distinct(self) -> "RunConfig":
        if "policy" in self.values:
            raise ValueError("no value can be called 'policy': that is what a vector in training is called")
        names = [entry.name for entry in self.methods]
        for name in names:
            if name == "base":
                raise ValueError("no method can be called 'base': that is the base model itself")
            if names.count(name) > 1:
                raise ValueError(f"two methods are called '{name}'; give one of them another name")
        titles = [entry.title for entry in self.methods]
        for entry in self.methods:
            if titles.count(entry.title) > 1:  # a preset is shown by its title
                raise ValueError(f"two methods are shown as '{entry.title}'; give one of them another name")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {', '.join(map(str, self.seeds))}: name each once")
        return self

    @model_validator(mode="after")
    def _methods_fit(self) -> "RunConfig":
        for entry in self.methods:
            try:
                entry.method.check(list(self.values))
            except (ValueError, UserError) as error:
                raise ValueError(f"method '{entry.name}': {error}") from None
            if "max_length" in entry.method.training:  # a preset of another package may set it
                raise ValueError(f"method '{entry.name}': max_length is the same for every method of a run")
            if isinstance(entry.method.pairs, Expanded) and len(self.values) > 1 and self.generation.temperature == 0:
                raise ValueError(
                    f"method '{entry.name}' needs rollouts that differ: set generation.temperature above 0"
                )
            try:
                TrainingSettings.model_validate({**self.training.model_dump(), **entry.method.training})
            except ValidationError as error:
                key, wrong = first_fault(error)
                where = f"training.{key}" if key else "training"
                raise ValueError(f"method '{entry.name}': {where}: {wrong}") from None
        return self

    def with_absolute_paths(self) -> "RunConfig":
        """Return the configuration with every local file and folder by its absolute path, for the run folder."""

        def absolute(section: _Located, *names: str) -> _Located:
            found = {name: Path(getattr(section, name) or "") for name in names}
            here = {name: str(path.resolve()) for name, path in found.items() if path.name and path.exists()}
            return section.model_copy(update=here)

        values = {
            name: value.model_copy(
                update={
                    "data": tuple(absolute(source, "path") for source in value.data),
                    "reward": absolute(value.reward, "model"),
                }
            )
            for name, value in self.values.items()
        }
        base = absolute(self.base, "model")
        if base.dialogues is not None:
            base = base.model_copy(update={"dialogues": tuple(absolute(source, "path") for source in base.dialogues)})
        methods = tuple(
            entry.model_copy(
                update={
                    "settings": _absolute_templates(entry.settings),
                    "pairs": None
                    if entry.pairs is None
                    else type(entry.pairs).model_validate(_absolute_templates(entry.pairs.model_dump())),
                }
            )
            for entry in self.methods
        )
        return self.model_copy(update={"values": values, "base": base, "methods": methods})


def _absolute_templates(value: Any) -> Any:
    """Return a method's settings with the path of every prompt template made absolute."""
    if not isinstance(value, dict):
        return value
    return {
        name: str(Path(item).resolve())
        if name == "template" and isinstance(item, str) and Path(item).exists()
        else _absolute_templates(item)
        for name, item in value.items()
    }
