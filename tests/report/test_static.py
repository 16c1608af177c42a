"""Files fit for a paper, and the drawings that stand on the page."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from synthetic_report import gap_table, landscape, report_data

from valuesoup.report import figures as f
from valuesoup.report import static
from valuesoup.report.figures.ternary import HEIGHT, place
from valuesoup.report.page import draw
from valuesoup.report.static import standing, write_files


def spec(panels: int = 1, columns: int = 1, width: int = 640, **meta: Any) -> dict[str, Any]:
    """A figure of one long text and some points."""
    rows = [{"x": k / 7, "y": k / 3, "text": f'"{k}" <b>&'} for k in range(5)]
    panel = {
        "data": {"values": rows},
        "mark": {"type": "text", "clip": True},
        "encoding": {
            **{axis: {"field": axis, "type": "quantitative"} for axis in ("x", "y")},
            "text": {"field": "text", "type": "nominal"},
        },
        "width": width,
        "height": 400,
    }
    if panels == 1:
        return {**panel, "usermeta": meta}
    return {"concat": [panel] * panels, "columns": columns, "usermeta": meta}


def size(folder: Path, name: str) -> tuple[int, int]:
    data = (folder / f"{name}.png").read_bytes()
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_a_single_panel_fits_a_column_and_a_plane_keeps_its_proportions(tmp_path: Path) -> None:
    write_files("long", spec(), [{"x": 1}], {}, tmp_path)
    write_files("plane", spec(plane=True), [{"x": 1}], {}, tmp_path)
    for name in ("long", "plane"):
        assert 2 * static.COLUMN <= size(tmp_path, name)[0] <= 2 * static.COLUMN + 150
    assert size(tmp_path, "plane")[1] < size(tmp_path, "long")[1]


def test_several_panels_are_no_wider_than_a_page_and_a_matrix_keeps_its_rows(tmp_path: Path) -> None:
    write_files("wide", spec(4, 4, 300), [{"x": 1}], {}, tmp_path)
    write_files("matrix", spec(9, 3, 300, matrix=True), [{"x": 1}], {}, tmp_path)
    assert size(tmp_path, "wide")[0] < 2 * static.PAGE
    assert size(tmp_path, "wide")[0] < size(tmp_path, "wide")[1] * 1.2  # two rows of two
    assert size(tmp_path, "matrix")[0] <= static.PNG_WIDTH


def test_files_are_drawn_on_white(tmp_path: Path) -> None:
    write_files("one", spec(), [{"x": 1}], {}, tmp_path)
    svg = (tmp_path / "one.svg").read_text("utf-8")
    assert re.search(r'<rect [^>]*fill="white"', svg) and "var(--" not in svg


def test_a_standing_drawing_takes_the_colours_of_the_page_and_keeps_text_as_text() -> None:
    svg = str(standing("one", spec(), ""))
    assert "var(--muted)" in svg and "aria-label" not in svg
    assert '"1" &lt;b&gt;&amp;' in svg.replace("&quot;", '"') and "<b>" not in svg


def test_ids_within_drawings_are_the_same_each_time_and_differ_between_figures() -> None:
    first, again, other = (str(standing(name, spec(), "")) for name in ("one", "one", "other"))
    assert first == again
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", first)) <= ids[0]


def test_a_drawing_of_very_many_marks_stands_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "MOST_INLINE", 100)
    printed = write_files("one", spec(), [{"x": 1}], {}, tmp_path)
    assert str(standing("one", spec(), printed)).startswith('<img alt="" src="data:image/png;base64,')


def test_the_corners_and_the_middle_of_the_triangle_are_where_they_belong() -> None:
    assert place((1, 0, 0)) == (0, 0) and place((0, 1, 0)) == (1, 0) and place((0, 0, 1)) == (0.5, HEIGHT)
    assert np.allclose(place((1 / 3, 1 / 3, 1 / 3)), (0.5, HEIGHT / 3))


@pytest.mark.usefixtures("undrawn")
def test_a_triangle_stands_for_each_method_that_mixes_and_each_value(tmp_path: Path) -> None:
    data = landscape(3)
    table = f.TERNARY.table(data)
    assert len(table.rows) == 5 * 66 * 3
    one = table.rows[0]
    assert (one["method"], one["weights"], one["value"]) == ("MORA", "helpful 1 · harmless 0 · honest 0", "helpful")
    relative = [float(row["relative"]) for row in table.rows if row["value"] == "honest"]  # type: ignore[arg-type]
    assert min(relative) == 0 and max(relative) == 1
    assert len(f.TERNARY.chart(data, table).to_dict()["concat"]) == 15
    (drawn,) = draw([f.TERNARY], data, tmp_path)
    assert drawn.spec is not None


@pytest.mark.parametrize("n", [1, 2, 5])
def test_only_three_values_make_triangles(n: int) -> None:
    assert f.TERNARY.table(report_data(n, gaps={"helpful": gap_table(n, 0, 5)})).rows == []


def test_weights_outside_the_simplex_and_methods_of_few_weightings_have_no_triangle() -> None:
    data = report_data(3)
    assert {row["method"] for row in f.TERNARY.table(data).rows} == {"soup", "vc-soup"}  # dpo has three policies
    candidates: Any = data.results["candidates"]
    for one in candidates:
        one["outside_simplex"] = one["method"] == "soup"
    assert {row["method"] for row in f.TERNARY.table(data).rows} == {"vc-soup"}


FORBIDDEN = "\0\x01\x08\x0b\x1b[31m\x1f\ufffe\uffff\ud800\udfff"


def test_control_characters_out_of_a_file_end_no_process_and_are_shown_as_unknown(tmp_path: Path) -> None:
    figure = spec()
    figure["data"]["values"] = [{"x": 1, "y": 2, "a\x1b": f"<{mark}>"} for mark in FORBIDDEN]
    figure["encoding"]["text"]["field"] = "a\x1b"
    figure["title"] = ["tab\tand", f"the rest: {FORBIDDEN}\x9b\U0001f600"]
    svg = write_files("one", figure, [{"x": 1}], {}, tmp_path)
    assert ElementTree.fromstring((tmp_path / "one.svg").read_text("utf-8")) is not None
    assert "\ufffd" in svg and "[31m" in svg and "\U0001f600" in svg
    assert not set(FORBIDDEN) - set("[31m") & set(svg)
    assert not set(FORBIDDEN) - set("[31m") & set(standing("one", figure, svg))
