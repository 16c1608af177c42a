"""What of a run is done."""

from dataclasses import dataclass
from pathlib import Path

from valuesoup.configfile import load_config
from valuesoup.errors import UserError
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import ARTIFACTS, CONFIG, RESULTS, has_file, open_store
from valuesoup.store import topological


@dataclass(frozen=True)
class StageStatus:
    """One stage call of a run.

    Attributes:
        label: For people.
        folder: Of its artifact.
        done: Whether its artifact is there.
    """

    label: str
    folder: str
    done: bool


def run_status(folder: str | Path) -> list[StageStatus]:
    """Return every stage of a run in the order in which it runs, and last the results.

    Raises:
        UserError: The folder holds no run.
    """
    out = Path(folder)
    if not has_file(out, CONFIG):
        raise UserError(f"{out} is not a run folder: it has no {CONFIG}.")
    of_study = out.absolute().parent / ARTIFACTS  # where one that makes all seeds side by side has its stages
    stores = [open_store(out), *([open_store(of_study.parent)] if of_study.is_dir() else [])]
    nodes = topological(make_plan(load_config(out / CONFIG)).targets())
    found = [StageStatus(node.label, node.folder, any(store.is_done(node) for store in stores)) for node in nodes]
    return [*found, StageStatus("results", RESULTS, (out / RESULTS).is_file())]
