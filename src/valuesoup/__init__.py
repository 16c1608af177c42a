"""valuesoup: one base model, several human values, a soup whose trade-off is a dial."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# PEFT imports bitsandbytes wherever it is installed, which would tell each process that it lacks a kernel.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_HOMES = {
    "Pairs": "valuesoup.data",
    "RewardTable": "valuesoup.rewards",
    "RunConfig": "valuesoup.config",
    "Soup": "valuesoup.soup",
    "ValueVector": "valuesoup.soup",
    "audit": "valuesoup.pipeline.audit",
    "export": "valuesoup.shipping",
    "hypervolume": "valuesoup.evaluation.frontier",
    "load_config": "valuesoup.configfile",
    "load_pairs": "valuesoup.data",
    "open_run": "valuesoup.pipeline.run",
    "pareto": "valuesoup.evaluation.frontier",
    "pick": "valuesoup.pipeline.picking",
    "run": "valuesoup.pipeline.run",
    "score": "valuesoup.rewards",
    "threshold": "valuesoup.consistency",
    "value_consistency": "valuesoup.consistency",
}
__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from valuesoup.config import RunConfig as RunConfig
    from valuesoup.configfile import load_config as load_config
    from valuesoup.consistency import threshold as threshold
    from valuesoup.consistency import value_consistency as value_consistency
    from valuesoup.data import Pairs as Pairs
    from valuesoup.data import load_pairs as load_pairs
    from valuesoup.evaluation.frontier import hypervolume as hypervolume
    from valuesoup.evaluation.frontier import pareto as pareto
    from valuesoup.pipeline.audit import audit as audit
    from valuesoup.pipeline.picking import pick as pick
    from valuesoup.pipeline.run import open_run as open_run
    from valuesoup.pipeline.run import run as run
    from valuesoup.rewards import RewardTable as RewardTable
    from valuesoup.rewards import score as score
    from valuesoup.shipping import export as export
    from valuesoup.soup import Soup as Soup
    from valuesoup.soup import ValueVector as ValueVector


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that what needs no torch never loads it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'valuesoup' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List the public names also before they are used."""
    return sorted({*globals(), *__all__})
