"""Makes the synthetic report importable by the tests beside it, and pages cheap where nobody looks at the drawings."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from markupsafe import Markup

if TYPE_CHECKING:
    from valuesoup.report.study import StudyData

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the report of n values with every figure, of little data; written once for all tests."""
    from synthetic_report import NAMES, curve, expansion, gap_table, many_methods, report_data

    from valuesoup.report import write_report

    @cache
    def written(n: int) -> Path:
        small = report_data(n, gaps={v: gap_table(n, j, 100) for j, v in enumerate(NAMES[:n])})
        if n > 1:
            grown = {"soup": {"policy": expansion(n, 40)}, "vc-soup": {"policy": expansion(n, 50)}}
            known = many_methods(n).dependence
            held = {"soup": known["SOUP"], "vc-soup": known["MVA"]}
            small = replace(small, dependence=held, expansions=grown)
        return write_report(replace(small, curves={"soup/helpful": curve(0)}), tmp_path_factory.mktemp(f"values-{n}"))

    return written


@pytest.fixture(scope="session")
def study() -> "StudyData":
    """A study of two values over three seeds."""
    from synthetic_study import study_data

    return study_data(2)


@pytest.fixture(scope="session")
def written(study: "StudyData", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of that study."""
    from valuesoup.report.study import write_study

    return write_study(study, tmp_path_factory.mktemp("study"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of figures, which takes most of a page's time: for tests of its words and tables alone."""
    from valuesoup.report import page

    monkeypatch.setattr(page, "write_files", lambda *_: "")
    monkeypatch.setattr(page, "standing", lambda *_: Markup(""))
