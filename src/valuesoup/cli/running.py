"""The commands that run a configuration and look at its state: demo, run, status, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valuesoup.cli.app import console
from valuesoup.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from valuesoup.pipeline.run import Finished
    from valuesoup.store import Cluster, Progress

Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: key.path=value. Repeatable.")]
JOBS = "Stages to run side by side, each in its own process."


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    values: Annotated[
        str | None, typer.Option(help="Values of the world, separated by commas; by default helpful,harmless.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help=JOBS, show_default="2, or 1 where there is one CPU")] = None,
    set_: Set = None,
) -> None:
    """Run the main job from nothing, offline, on a CPU: an embedded world, its models, every method, the report."""
    from valuesoup.pipeline.demo import demo_config
    from valuesoup.store import usable_cpus

    names = {} if values is None else {"values": [name.strip() for name in values.split(",") if name.strip()]}
    _run(demo_config(**names, overrides=set_ or ()), out, jobs or min(2, usable_cpus()))


def run(
    config: Annotated[Path, typer.Argument(help="Configuration, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/ and the configuration's name.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help=JOBS, show_default="1; with Ray, as many as fit the cluster")
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where stages run: on this machine, or on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="With Ray: a running cluster, HOST:PORT, or auto for the one that this machine is part of."),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, help="With Ray: CPUs of a stage.", show_default="the cluster's, shared out among the jobs"),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="With Ray: GiB of a stage.", show_default="memory is not counted")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With Ray: processes that share one training, each with the CPUs, memory and GPU of a stage.",
            show_default="1",
        ),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep finished stages there too, s3://…, for machines that share no folder."),
    ] = None,
    set_: Set = None,
) -> None:
    """Run a configuration, or continue it: what is done is not done again."""
    from valuesoup.configfile import load_config
    from valuesoup.pipeline.run import default_folder

    folder = out or default_folder(config)
    cluster = None
    if executor == "ray":
        from valuesoup.store import Cluster

        cluster = Cluster(address, cpus, memory, processes or 1)
    else:
        options = {"--address": address, "--cpus": cpus, "--memory": memory, "--processes": processes}
        for name, given in options.items():
            if given is not None:
                raise UserError(f"{name} belongs to a Ray cluster; add --executor ray, or leave it out.")
    _run(load_config(config, set_ or ()), folder, jobs, cluster, artifacts)


def status(run: Annotated[Path, typer.Argument(help="Folder of a run, or of a study.")]) -> None:
    """Show what of a run is done, or how much of each run of a study."""
    from valuesoup.pipeline.run import CONFIG, has_file
    from valuesoup.pipeline.status import run_status
    from valuesoup.pipeline.study import seed_folders

    if not has_file(run, CONFIG) and (seeds := seed_folders(run)):
        for folder in seeds:
            stages = run_status(folder)
            print(f"{folder.name}: {sum(stage.done for stage in stages)} of {len(stages)} done")
        return
    stages = run_status(run)
    for stage in stages:
        print(f"{'done   ' if stage.done else 'to do  '} {stage.label}  ({stage.folder})")
    print(f"{sum(stage.done for stage in stages)} of {len(stages)} done")


def report(run: Annotated[Path, typer.Argument(help="Folder of a run, or of a study.")]) -> None:
    """Write the HTML report and the figures of a finished run, or of a study and its runs, again."""
    from valuesoup.pipeline.run import CONFIG, has_file, open_run
    from valuesoup.pipeline.study import open_study, seed_folders
    from valuesoup.report.assemble import write_run_report, write_study_report

    if not has_file(run, CONFIG) and seed_folders(run):
        study = open_study(run)
        for finished in study.runs:
            write_run_report(finished)
        print(write_study_report(study))
    else:
        print(write_run_report(open_run(run)))


def _run(
    config: Any, out: Path, jobs: int | None, cluster: "Cluster | None" = None, artifacts: str | None = None
) -> None:
    from valuesoup.pipeline.run import run as run_config
    from valuesoup.report.assemble import write_run_report
    from valuesoup.report.tables import print_frontier
    from valuesoup.store import Progress
    from valuesoup.store.files import disk_errors
    from valuesoup.store.team import join

    leads = join().leads
    screen = console()
    progress = Progress(screen if leads else None)
    if config.seeds:
        from valuesoup.pipeline.study import run_study
        from valuesoup.report.assemble import write_study_report
        from valuesoup.report.study_text import print_study

        study = run_study(config, out, progress, jobs, cluster, artifacts)
        if not leads:
            return
        with disk_errors("the report", out):
            for finished in study.runs:
                _page(finished, progress, write_run_report)
            progress.say("writing the report of the study …")
            page = write_study_report(study)
        print_study(study.combined, screen)
    else:
        finished = run_config(config, out, progress, jobs, cluster, artifacts)
        if not leads:
            return
        with disk_errors("the report", out):
            page = _page(finished, progress, write_run_report)
        print_frontier(finished.results, screen)  # type: ignore[arg-type]
    print(f"report: {page}")


def _page(finished: "Finished", progress: "Progress", write: "Callable[[Finished], Path]") -> Path:
    """Return the page of a run, which goes when its results change, or write it."""
    from valuesoup.pipeline.run import PAGE

    page = finished.folder / PAGE
    if not page.is_file():
        progress.say("writing the report …")
        page = write(finished)
    return page
