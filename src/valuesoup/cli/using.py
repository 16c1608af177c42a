"""The commands that use a finished run: pick, export."""

from pathlib import Path
from typing import Annotated

import typer

from valuesoup.cli.app import console
from valuesoup.errors import UserError


def pick(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    minimum: Annotated[
        list[str] | None, typer.Option("--min", help="VALUE=SCORE: at least this score. Repeatable.")
    ] = None,
    maximum: Annotated[
        list[str] | None, typer.Option("--max", help="VALUE=SCORE: at most this score. Repeatable.")
    ] = None,
    maximise: Annotated[str | None, typer.Option(help="The value to maximise.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="VALUE=WEIGHT,…: instead, how much each value counts, in units of the run's box.")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Instead, the knee of the frontier; so it is where nothing else is said.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="Only candidates of this method.")] = None,
    on: Annotated[str, typer.Option(help="Whose figures choose: validation, or test.")] = "validation",
    unit: Annotated[str, typer.Option(help="Of --min and --max: reward, or box (0 worst to 1 best).")] = "reward",
    sure: Annotated[bool, typer.Option("--sure", help="The interval must keep to the bounds, not the mean.")] = False,
) -> None:
    """Pick a candidate of a run by constraints, preferences or the knee, and print the command that exports it."""
    from valuesoup.pipeline.compared import read_weights
    from valuesoup.pipeline.picking import pick as pick_candidate
    from valuesoup.report.using_text import print_picked

    if knee and (maximise is not None or weights is not None):
        raise UserError("--knee stands for itself; leave out --maximise and --weights.")
    print_picked(
        pick_candidate(
            run,
            minimum=_scores("--min", minimum),
            maximum=_scores("--max", maximum),
            maximise=maximise,
            weights=read_weights(weights) if weights is not None else None,
            method=method,
            on=on,  # type: ignore[arg-type]  # checked there, with a sentence
            unit=unit,  # type: ignore[arg-type]
            sure=sure,
        ),
        console(),
    )


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.")],
    weights: Annotated[str | None, typer.Option(help="VALUE=WEIGHT,…: where to set the dial of a method.")] = None,
    method: Annotated[str | None, typer.Option(help="Whose dial; needed where several methods have one.")] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="A candidate by its id; several with --format vllm. Repeatable.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every candidate, laid out for vLLM; also while a run waits for a server.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="adapter, merged or vllm.")] = "adapter",
    rank: Annotated[int | None, typer.Option(help="Cut adapters to this rank.", show_default="exact")] = None,
    push: Annotated[str | None, typer.Option(help="owner/name: upload it to the hub as well.")] = None,
) -> None:
    """Write a model to ship: an exact adapter, a merged model or adapters for vLLM, checked, with its card."""
    from valuesoup.pipeline.compared import read_weights
    from valuesoup.report.using_text import print_exported
    from valuesoup.shipping import check_push
    from valuesoup.shipping import export as export_policies
    from valuesoup.shipping import push as push_to_hub
    from valuesoup.store import Progress

    if push is not None:
        check_push(push)
    screen = console()
    exported = export_policies(
        run,
        to,
        method=method,
        weights=read_weights(weights) if weights is not None else None,
        candidates=candidate or (),
        everything=everything,
        form=form,  # type: ignore[arg-type]  # checked there, with a sentence
        rank=rank,
        progress=Progress(screen),
    )
    print_exported(exported, screen)
    if push is not None:
        print(f"uploaded: {push_to_hub(exported.folder, push)}")


def _scores(option: str, given: list[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given or ():
        name, _, number = text.partition("=")
        try:
            score = float(number)
        except ValueError:
            raise UserError(f"{option} {text}: write VALUE=SCORE, such as {name or 'VALUE'}=0.3.") from None
        if name in found:
            raise UserError(f"{option} {text}: '{name}' has a bound already; give one.")
        found[name] = score
    return found
