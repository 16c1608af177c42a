"""The commands that question data, methods and results: audit, methods, compare, judge."""

from pathlib import Path
from typing import Annotated, Any

import typer

from valuesoup.cli.app import agree, console
from valuesoup.errors import UserError


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method alone, with all of its settings.")] = None,
) -> None:
    """Show the known methods, those of other packages included: paper, formula and settings with their defaults."""
    from valuesoup.methods import known_methods
    from valuesoup.report.methods_text import print_methods

    print_methods([name] if name else list(known_methods()), console())


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
    print_comparison(compared, console())
    if out is not None:
        with disk_errors(f"page {out}", out.parent):
            print(f"comparison: {write_comparison(compared, out)}")


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
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a request is given up, to be tried again.")
    ] = 120.0,
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
        endpoint=judging.judge_endpoint(url, model, key_env, concurrency, timeout),
        methods=methods or (),
        baselines=baseline or (),
        weights=read_weights(weights) if weights else {},
        limit=limit,
        templates=templates,
    )
    docket = judging.open_docket(run, settings)
    cost = docket.cost()
    agree(cost_text(cost, model), yes or not cost.questions)
    screen = console()
    progress = Progress(screen)
    with progress.showing():
        judged = docket.decide(progress)
    print_judged(judged, screen)
    print(f"report: {write_judged(docket)}")


def check(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    texts: Annotated[
        list[str] | None,
        typer.Option(
            help="Held-out text: a .txt or data file, a folder, a hub id. Repeatable. By default what a base "
            "pretrained in the run has not seen."
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="Also run this, with {model} and {out} as folders, on the base and each candidate."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option(help="Method, or a candidate's id, to check; by default all. Repeatable.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="VALUE=WEIGHT,…: candidates to take; by default the most balanced.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of texts that are folders or on the hub.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each text; by default all.")] = None,
) -> None:
    """Measure what alignment cost the base model: perplexity on held-out text, or any evaluation command."""
    from valuesoup.pipeline.compared import read_weights
    from valuesoup.pipeline.run import open_run
    from valuesoup.regression import check as check_run
    from valuesoup.report.assemble import write_run_report
    from valuesoup.report.regression import print_checked
    from valuesoup.store import Progress

    screen = console()
    progress = Progress(screen)
    with progress.showing():
        found = check_run(
            run,
            texts or (),
            command,
            methods=methods or (),
            weights=read_weights(weights) if weights else None,
            split=split,
            limit=limit,
            progress=progress,
        )
    print_checked(found, screen)
    print(f"report: {write_run_report(open_run(run))}")


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

    screen = console()
    progress = Progress(screen)
    given = _rewards(rewards) if rewards else None
    data = {
        name: load_pairs(path, data_dir=data_dir, split=split, value=label, limit=limit)
        for name, path in _names(pairs).items()
    }
    with progress.showing():
        found = audit_pairs(data, given, progress=progress)
    print_audit(found, screen, show)
    print(f"audit: {write_audit_report(found, out)}")


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
