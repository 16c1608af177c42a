"""Names and texts out of files that nobody trusts, printed on a terminal: they give it no orders."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

import tiny_studies
from valuesoup.cli.app import console
from valuesoup.consistency import LADDER
from valuesoup.evaluation.seeds import combine
from valuesoup.pipeline.audit import Conflict, DatasetAudit
from valuesoup.pipeline.comparison import compare_runs
from valuesoup.pipeline.picking import pick
from valuesoup.report import print_frontier
from valuesoup.report.audit_text import print_audit
from valuesoup.report.comparison import print_comparison
from valuesoup.report.study_text import print_study
from valuesoup.report.tables import PageTable, print_tables
from valuesoup.report.using_text import print_picked
from valuesoup.store import Progress

ORDERS = "\x1b]52;c;cm0gLXJm\x07 \x1b]0;title\x07 \x1b[2J\x1b[31m \x9b31m \x90q\x9c \r\x08\x7f \u202eback"
"""To fill the clipboard, name the window, clear and colour the screen, in seven and eight bits, and to turn text."""
HOSTILE = f"a {ORDERS} :smile: [red]b[/red] [/] \ud800"


def screen() -> Console:
    return Console(file=io.StringIO(), width=2000, color_system=None, emoji=False)


def checked(out: str) -> str:
    """Return what was printed, which holds no control character but line breaks."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", out), out
    assert "😄" not in out
    return out


def test_an_audit_shows_pairs_and_values_as_they_stand() -> None:
    asked = [{"role": "user", "content": HOSTILE}]
    pair = Conflict(HOSTILE, asked, HOSTILE, HOSTILE, {HOSTILE: 1.0, "b": -1.0}, 0.1)
    kept = np.ones(len(LADDER), dtype=np.int64)
    found = DatasetAudit([HOSTILE, "b"], np.array([[1.0, -1.0]] * 3), np.full(3, 0.1), kept, [pair], {})
    shown = screen()
    print_audit({HOSTILE: found}, shown, 1)
    out = checked(shown.file.getvalue())  # type: ignore[attr-defined]
    assert out.count("\\x1b]52;c;") >= 8
    assert ":smile:" in out and "[red]b[/red]" in out


def test_a_line_and_a_label_of_progress_are_shown_as_they_stand() -> None:
    shown = screen()
    Progress(shown).say(HOSTILE)
    assert ":smile: [red]b[/red] [/] " in checked(shown.file.getvalue())  # type: ignore[attr-defined]
    live = Console(file=io.StringIO(), width=400, force_terminal=True)
    with Progress(live).showing() as progress, progress.task(HOSTILE, 3) as task:
        task.advance()
    out = live.file.getvalue()  # type: ignore[attr-defined]
    assert "]52;c;" in out and "😄" not in out
    assert not re.search(r"\x1b\]|\x07|\x1b\[2J|[\x7f-\x9f]", out)


def test_what_results_name_is_shown_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.removesuffix("\ud800")
    methods = {name: [[1.0, 0.5]], "other": [[0.7, 0.7]]}
    studies = [
        tiny_studies.write_study(tmp_path / which, ("kind", "brief"), {0: methods, 1: methods})
        for which in ("one", f"two{name.replace('/', '')}")
    ]
    results = tiny_studies.results((name, "brief"), 0, methods)
    shown = screen()
    print_comparison(compare_runs(studies), shown)
    print_frontier(results, shown)  # type: ignore[arg-type]
    print_study(combine([results, {**results, "seed": 1}]), shown)  # type: ignore[list-item]
    print_tables([(HOSTILE, PageTable([HOSTILE], [[HOSTILE]]))], [HOSTILE], shown)
    print_picked(pick(studies[0] / "seed-0", method=name), shown)
    checked(shown.file.getvalue())  # type: ignore[attr-defined]
    assert "export it: valuesoup export" in checked(capsys.readouterr().out)


def test_the_screen_of_the_commands_shows_every_text_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(f"a {ORDERS}", title="\x1b]0;x\x07 :smile:")
    table.add_row("\x9b31m")
    shown = console()
    shown.print(table)
    shown.print("two\nlines \x1b[2J", markup=False)
    out = checked(capsys.readouterr().out)
    assert "two\nlines \\x1b[2J" in out and ":smile:" in out
