"""The command line: thin commands; everything heavy is imported where it is used."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from valuesoup.errors import UserError, ValuesoupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from valuesoup.pipeline.run import Finished
    from valuesoup.store import Progress

app = typer.Typer(
    name="valuesoup",
    help="One base model, several human values, a soup whose trade-off is a dial.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: key.path=value. Repeatable.")]
JOBS = "Stages to run side by side, each in its own process."


def _version(wanted: bool) -> None:
    if wanted:
        from valuesoup import __version__

        print(f"valuesoup {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="Configuration, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/ and the configuration's name.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS)] = 1,
    set_: Set = None,
) -> None:
    """Run a configuration, or continue it: what is done is not done again."""
    from valuesoup.configfile import load_config

    in_run = config.name == "config.yaml" and (config.parent / "log.jsonl").is_file()  # else it is a person's own file
    folder = out or (config.parent if in_run else Path("runs") / config.stem)
    _run(load_config(config, set_ or ()), folder, jobs)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method alone, with all of its settings.")] = None,
) -> None:
    """Show the known methods, those of other packages included: paper, formula and settings with their defaults."""
    from valuesoup.methods import known_methods
    from valuesoup.report.methods_text import print_methods

    print_methods([name] if name else list(known_methods()), _console())


@app.command()
def status(run: Annotated[Path, typer.Argument(help="Folder of a run, or of a study.")]) -> None:
    """Show what of a run is done, or how much of each run of a study."""
    from valuesoup.pipeline.run import CONFIG
    from valuesoup.pipeline.status import run_status
    from valuesoup.pipeline.study import seed_folders

    if not (run / CONFIG).is_file() and (seeds := seed_folders(run)):
        for folder in seeds:
            stages = run_status(folder)
            print(f"{folder.name}: {sum(stage.done for stage in stages)} of {len(stages)} done")
        return
    stages = run_status(run)
    for stage in stages:
        print(f"{'done   ' if stage.done else 'to do  '} {stage.label}  ({stage.folder})")
    print(f"{sum(stage.done for stage in stages)} of {len(stages)} done")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a run, or of a study.")]) -> None:
    """Write the HTML report and the figures of a finished run, or of a study and its runs, again."""
    from valuesoup.pipeline.run import CONFIG, open_run
    from valuesoup.pipeline.study import open_study, seed_folders
    from valuesoup.report.assemble import write_run_report, write_study_report

    if not (run / CONFIG).is_file() and seed_folders(run):
        study = open_study(run)
        for finished in study.runs:
            write_run_report(finished)
        print(write_study_report(study))
    else:
        print(write_run_report(open_run(run)))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or of finished studies.")],
    out: Annotated[Path | None, typer.Option(help="Write a page there as well, FILE.html.")] = None,
) -> None:
    """Put the methods of several runs, or studies, side by side in one box, with what sets them apart."""
    from valuesoup.pipeline.comparison import compare_runs
    from valuesoup.report.comparison import check_page, print_comparison, write_comparison
    from valuesoup.store.files import disk_errors

    if out is not None:
        check_page(out)
    compared = compare_runs(runs)
    print_comparison(compared, _console())
    if out is not None:
        with disk_errors(f"page {out}", out.parent):
            print(f"comparison: {write_comparison(compared, out)}")


@app.command()
def judge(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a study.")],
    url: Annotated[str, typer.Option(help="The judge's endpoint up to /v1, OpenAI-compatible.")] = "",
    model: Annotated[str, typer.Option(help="The judge, as the endpoint calls it.")] = "",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    methods: Annotated[
        list[str] | None, typer.Option(help="Method, or a candidate's id, to compare; by default all. Repeatable.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="What to compare with; by default the base and plain soups. Repeatable.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="VALUE=WEIGHT,…: candidates to take; by default the most balanced.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Test prompts per value; by default all.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 8,
    templates: Annotated[Path | None, typer.Option(help="Folder of your own questions, VALUE.txt.")] = None,
    write_templates: Annotated[Path | None, typer.Option(help="Write the default questions there, to edit.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask without confirmation.")] = False,
) -> None:
    """Let a language model judge, per value and in both orders, whose answers are better: win rates."""
    from valuesoup.pipeline import judging
    from valuesoup.pipeline.compared import read_weights
    from valuesoup.report.assemble import write_judged
    from valuesoup.report.judge_text import cost_text, print_judged
    from valuesoup.store import Progress

    if write_templates is not None:
        for file in judging.write_judge_templates(run, write_templates):
            print(file)
        return
    settings = judging.JudgeSettings(
        endpoint=judging.judge_endpoint(url, model, key_env, concurrency),
        methods=methods or (),
        baselines=baseline or (),
        weights=read_weights(weights) if weights else {},
        limit=limit,
        templates=templates,
    )
    docket = judging.open_docket(run, settings)
    cost = docket.cost()
    _agree(cost_text(cost, model), yes or not cost.questions)
    console = _console()
    progress = Progress(console)
    with progress.showing():
        judged = docket.decide(progress)
    print_judged(judged, console)
    print(f"report: {write_judged(docket)}")


@app.command()
def audit(
    pairs: Annotated[list[str], typer.Argument(help="Preference data: hub ids, files, folders. Each is a data set.")],
    rewards: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SOURCE per value: a classifier, module:function, or column:COLUMN. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for audit.html and its figures.")] = Path("audit"),
    data_dir: Annotated[str | None, typer.Option(help="Sub-folder of the data.")] = None,
    split: Annotated[str, typer.Option(help="Split of the data.")] = "train",
    label: Annotated[str | None, typer.Option(help="Which label or attribute says what was chosen.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows to read of each.")] = None,
    show: Annotated[int, typer.Option(help="Conflicting pairs to print.")] = 3,
) -> None:
    """Show value conflict in preference data: consistency, retention, conflict matrix, worst pairs. Trains nothing."""
    from valuesoup.data import load_pairs
    from valuesoup.pipeline.audit import audit as audit_pairs
    from valuesoup.report.assemble import write_audit_report
    from valuesoup.report.audit_text import print_audit
    from valuesoup.store import Progress

    console = _console()
    progress = Progress(console)
    given = _rewards(rewards) if rewards else None
    data = {
        name: load_pairs(path, data_dir=data_dir, split=split, value=label, limit=limit)
        for name, path in _names(pairs).items()
    }
    with progress.showing():
        found = audit_pairs(data, given, progress=progress)
    print_audit(found, console, show)
    print(f"audit: {write_audit_report(found, out)}")


def main() -> None:
    """Run the command line; a mistake of the user's ends with one sentence and code 2, an interruption with 130."""
    # Nothing here needs the hub at start-up, and forked tokenizers only warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _swallowed
    try:
        app()
    except ValuesoupError as error:
        _stop(f"error: {error}", error.exit_code)
    except Interruption:
        _stop("interrupted; the same command continues where it stopped.", 130)


class Interruption(BaseException):
    """The process was asked to stop; an exception that neither typer nor a library takes for its own."""


def _interrupt(*_: Any) -> NoReturn:
    raise Interruption


def _swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt again, a moment later, where the interruption met a finaliser: what that raises goes nowhere."""
    if unraisable.exc_type is Interruption:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    else:
        sys.__unraisablehook__(unraisable)


def _stop(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def _console() -> "Console":
    from rich.console import Console

    # A file or a pipe is as wide as a table of many values needs.
    return Console(width=None if sys.stdout.isatty() else 140)


def _run(config: Any, out: Path, jobs: int) -> None:
    from valuesoup.pipeline.run import run as run_config
    from valuesoup.report.assemble import write_run_report
    from valuesoup.report.tables import print_frontier
    from valuesoup.store import Progress
    from valuesoup.store.files import disk_errors

    console = _console()
    progress = Progress(console)
    if config.seeds:
        from valuesoup.pipeline.study import run_study
        from valuesoup.report.assemble import write_study_report
        from valuesoup.report.study_text import print_study

        study = run_study(config, out, progress, jobs)
        with disk_errors("the report", out):
            for finished in study.runs:
                _page(finished, progress, write_run_report)
            progress.say("writing the report of the study …")
            page = write_study_report(study)
        print_study(study.combined, console)
    else:
        finished = run_config(config, out, progress, jobs)
        with disk_errors("the report", out):
            page = _page(finished, progress, write_run_report)
        print_frontier(finished.results, console)  # type: ignore[arg-type]
    print(f"report: {page}")


def _page(finished: "Finished", progress: "Progress", write: "Callable[[Finished], Path]") -> Path:
    """Return the page of a run, written only where the run is newer."""
    page = finished.folder / "report.html"
    made = [finished.folder / name for name in ("config.yaml", "results.json")]
    # The two files are written only when they change.
    if not page.is_file() or _written(page) < max(map(_written, made)):
        progress.say("writing the report …")
        page = write(finished)
    return page


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _agree(costs: str, agreed: bool) -> None:
    """Say what is to be spent, and go on only where the person agrees."""
    print(f"to ask: {costs}")
    if agreed:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody is here to agree to that cost; add --yes to ask, or --limit to ask less.")
    if not typer.confirm("Ask?"):
        _stop("nothing was asked.", 0)


def _rewards(texts: list[str]) -> dict[str, Any]:
    from valuesoup.rewards import ColumnReward

    found: dict[str, Any] = {}
    for text in texts:
        name, _, source = text.partition("=")
        if not name or not source:
            raise UserError(f"--rewards {text}: write NAME=SOURCE, e.g. helpful=column:helpful.")
        if name in found:
            raise UserError(f"--rewards {text}: value '{name}' has a reward already; give each value one.")
        found[name] = ColumnReward(source.removeprefix("column:")) if source.startswith("column:") else source
    return found


def _names(paths: list[str]) -> dict[str, str]:
    """Name each data set after the last part of its path, with a number where two would be the same."""
    names: dict[str, str] = {}
    for path in paths:
        stem = Path(path.rstrip("/")).name.partition(".")[0] or path
        name, count = stem, 1
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names[name] = path
    return names
