"""Figures without a script: files fit for a paper, and the drawing that a page shows until its script redraws it."""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from valuesoup.report.look import PAGE_THEME, STATIC_THEME
from valuesoup.store import write_atomic

VEGALITE = "6.4"
COLUMN = 430
"""Width of a single panel in a file, in pixels: with its axes about 500, at which a column of a paper shows text of
6 to 7 points.
"""
PAGE, AXIS = 1050, 60
"""Most pixels beside each other in a file of several panels, for text of the same size over both columns of a paper;
and what an axis with its title takes of them.
"""
# Twice the size on screen is print quality; a grid of many panels needs no more pixels than that of one page.
PNG_SCALE = 2.0
PNG_WIDTH = 2000
MOST_INLINE = 300_000
"""Characters of a drawing that stands on the page as SVG; one of more marks stands there as PNG."""
MOST_WIDTH = 900
"""Width of that PNG, in pixels."""
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML may hold (Extensible Markup Language 1.0, production 2), lone surrogates among them."""


def write_files(
    name: str, spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str], folder: Path
) -> str:
    """Write ``folder/name.svg``, ``.png`` and ``.csv``: on white, in a font and a width fit for a paper.

    Args:
        name: File name without extension.
        spec: Vega-Lite specification with its data.
        rows: The data, for the table.
        headings: Field to heading, for fields that do not head themselves.
        folder: An existing folder.

    Returns:
        The SVG.
    """
    svg = _renamed(_svg(_paper(spec), STATIC_THEME))
    fields = list(dict.fromkeys(key for row in rows for key in row))
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(headings.get(key, key) for key in fields)
    writer.writerows([row.get(key) for key in fields] for row in rows)
    for kind, content in (("svg", svg), ("png", _png(svg)), ("csv", table.getvalue())):
        write_atomic(folder / f"{name}.{kind}", content)
    return svg


def standing(name: str, spec: Mapping[str, Any], printed: str) -> Markup:
    """The drawing of a figure for a page without scripts, for print, and until the script is ready.

    Args:
        name: Of the figure, by which the ids within the drawing are told apart from those of others.
        spec: Vega-Lite specification with its data.
        printed: The SVG of its file, from which a drawing of very many marks is made.
    """
    # What a screen reader hears is the figure's own label; that of each mark is most of the text.
    svg = re.sub(r' (?:aria-label|aria-roledescription|role)="[^"]*"', "", _svg(spec, PAGE_THEME))
    svg = re.sub(r"(\d\.\d\d)\d+(?=[^<>]*>)", r"\1", svg)
    if len(svg) > MOST_INLINE:
        picture = base64.b64encode(_png(printed, MOST_WIDTH)).decode()
        return Markup('<img alt="" src="data:image/png;base64,{}">').format(picture)
    return Markup(_renamed(svg, f"{name}-"))


def _renamed(svg: str, prefix: str = "part-") -> str:
    """The drawing with its ids counted from 0: Vega counts them over all that it ever drew."""
    for place, id in enumerate(re.findall(r'\bid="([^"]*)"', svg)):
        svg = re.sub(rf'(\bid="|url\(#){re.escape(id)}(?=["\)])', rf"\g<1>{prefix}{place}", svg)
    return svg


def _paper(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The specification as a paper prints it: a single panel at the width of a column, several over the whole page.

    A plane keeps its proportions, a matrix its rows.
    """
    meta = spec.get("usermeta", {})
    if "concat" in spec:
        columns = spec.get("columns", len(spec["concat"]))
        fit = max(1, PAGE // (max(panel.get("width", 0) for panel in spec["concat"]) + AXIS))
        if meta.get("matrix") or columns <= fit:
            return spec
        return {**spec, "columns": 2 if (columns, fit) == (4, 3) else fit}
    width, height = spec.get("width"), spec.get("height")
    if not isinstance(width, int | float) or width <= COLUMN:
        return spec
    if isinstance(height, int | float) and meta.get("plane"):
        height = round(height * COLUMN / width) + 40
    return {**spec, "width": COLUMN, "height": height}


def _svg(spec: Mapping[str, Any], theme: Mapping[str, Any]) -> str:
    import vl_convert

    narrow = "concat" not in spec and spec.get("width") == COLUMN
    config = {**theme, "legend": {**theme["legend"], "columns": 4}} if narrow else theme
    drawable = _drawable({**spec, "config": config})
    # No address is allowed: a specification is text of the run and must not load anything.
    return str(vl_convert.vegalite_to_svg(drawable, vl_version=VEGALITE, allowed_base_urls=[]))


def _drawable(thing: Any) -> Any:
    """The thing with U+FFFD for each character that would end the process: no SVG may hold it."""
    if isinstance(thing, str):
        return _NO_XML.sub("\ufffd", thing)
    if isinstance(thing, Mapping):
        return {_drawable(key): _drawable(part) for key, part in thing.items()}
    if isinstance(thing, list | tuple):
        return [_drawable(part) for part in thing]
    return thing


def _png(svg: str, most: int = PNG_WIDTH) -> bytes:
    """A picture at `PNG_SCALE`, less where it would be more than ``most`` pixels wide."""
    import vl_convert

    width = re.search(r'width="(\d+)', svg)
    return bytes(vl_convert.svg_to_png(svg, scale=min(PNG_SCALE, most / int(width[1])) if width else PNG_SCALE))
