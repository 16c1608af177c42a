"""The table of a study in a terminal: policies told apart in few letters, and methods without a row named."""

import io

import pytest
from rich.console import Console
from synthetic_study import study_data

from valuesoup.report.study_text import print_study


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_policy_is_named_by_its_value_and_a_method_without_a_row_is_told(n: int) -> None:
    combined = study_data(n).combined
    written = io.StringIO()
    gone = next(name for name in combined["methods"] if name != "base")
    points = [point for point in combined["points"] if point["method"] != gone]
    print_study({**combined, "points": points}, Console(file=written, width=160))
    text = written.getvalue()
    assert "=0" not in text
    assert f"No row for {gone}: in some seed no candidate is on the frontier." in text
