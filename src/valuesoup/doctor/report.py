"""What the doctor found, as plain data."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """Something missing or worth knowing.

    Attributes:
        where: The configuration's key, or the part of the machine.
        text: One sentence.
        stops: Whether a run would stop at it.
    """

    where: str
    text: str
    stops: bool = True


@dataclass(frozen=True)
class Package:
    """An installed package, or how to install it.

    Attributes:
        name: Of the distribution.
        version: None where it is not installed.
        install: The command that installs it.
        purpose: What it is for, where it is optional; empty where every run needs it.
    """

    name: str
    version: str | None
    install: str = ""
    purpose: str = ""


@dataclass(frozen=True)
class Gpu:
    """A GPU; memory in bytes."""

    name: str
    memory: int
    free: int
    bf16: bool


@dataclass(frozen=True)
class Disk:
    """A folder that a run writes to, and the bytes free there."""

    what: str
    folder: str
    free: int


@dataclass(frozen=True)
class Machine:
    """What this machine has.

    Attributes:
        python: Version.
        packages: Installed or not.
        cpus: Usable by this process.
        load: Processes that want a CPU now (mean of a minute), None where the system does not say.
        memory: Bytes of RAM, within the limit of the container; None where the system does not say.
        memory_free: Bytes of it that are free now.
        gpus: That torch sees.
        disks: Of the caches and the run.
        hub_offline: Whether the environment forbids to ask the hub.
    """

    python: str
    packages: tuple[Package, ...]
    cpus: int
    load: float | None
    memory: int | None
    memory_free: int | None
    gpus: tuple[Gpu, ...]
    disks: tuple[Disk, ...]
    hub_offline: bool


@dataclass(frozen=True)
class Model:
    """A model of the run.

    Attributes:
        role: ``base``, or ``reward of VALUE``.
        name: Hub id, folder, or what makes it.
        state: ``made here``, ``local``, ``cached``, ``to download``, or ``not found``.
        parameters: How many; None where nothing says.
        exact: False where the number follows from the model's name alone.
        download: Bytes to download; 0 where it is here, None where the hub does not say.
        licence: As the hub tells it.
        gated: Whether its authors must agree to a download.
    """

    role: str
    name: str
    state: str
    parameters: int | None
    exact: bool = True
    download: int | None = 0
    licence: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class Data:
    """The pairs of one value.

    Attributes:
        value: Its name.
        pairs: Usable ones; None where they are not here to be counted.
        train: Of these, what is trained on.
        validation: Held out for the frontier.
        test: Held out for the figures.
        tokens: Mean tokens of a prompt and both its answers; None where no tokenizer is here.
        too_long: Share of the pairs that are longer than training.max_length.
    """

    value: str
    pairs: int | None
    train: int | None
    validation: int | None
    test: int | None
    tokens: float | None
    too_long: float | None


@dataclass(frozen=True)
class Need:
    """Bytes that a run needs at a place.

    Attributes:
        what: For what.
        place: ``cuda``, ``RAM`` or a folder.
        bytes: Estimate.
        free: What is free there; None where it is not known.
    """

    what: str
    place: str
    bytes: int
    free: int | None

    @property
    def fits(self) -> bool | None:
        """Whether there is room; None where that is not known."""
        return None if self.free is None else self.bytes <= self.free


@dataclass(frozen=True)
class Stages:
    """Stages of one kind.

    Attributes:
        kind: Of the stages.
        done: How many are done.
        left: How many are to do.
        seconds: What is left takes, one after the other.
    """

    kind: str
    done: int
    left: int
    seconds: float


@dataclass(frozen=True)
class Duration:
    """How long a run would take.

    Attributes:
        stages: By kind, in the order of the run.
        jobs: Stages side by side.
        seconds: From start to end.
        low: Seconds, at best.
        high: Seconds, at worst.
        measured: Whether the run's own steps were timed here; else a formula and a short product of matrices tell.
    """

    stages: tuple[Stages, ...]
    jobs: int
    seconds: float
    low: float
    high: float
    measured: bool


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Attributes:
        machine: What this machine has.
        problems: What is missing or worth knowing, those that stop a run first.
        config: The configuration's file, None where the machine alone was asked for.
        models: Of the run.
        data: Of each value.
        memory: Per kind of work.
        disk: Per folder.
        duration: None where a problem hides the plan, or the size of the base is not known.
        notes: What the estimates assume.
    """

    machine: Machine
    problems: tuple[Problem, ...] = ()
    config: str | None = None
    models: tuple[Model, ...] = ()
    data: tuple[Data, ...] = ()
    memory: tuple[Need, ...] = ()
    disk: tuple[Need, ...] = ()
    duration: Duration | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def stops(self) -> bool:
        """Whether something is missing that would stop the run."""
        return any(problem.stops for problem in self.problems)
