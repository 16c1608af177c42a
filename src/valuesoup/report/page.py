"""Writes the report and the audit: one HTML file that needs nothing else, and every figure as PNG, SVG and CSV."""

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from valuesoup.report import tables
from valuesoup.report.expansions import expansions_table
from valuesoup.report.judge_text import judges_table, winrates_table
from valuesoup.report.look import PAGE_THEME, STATIC_THEME, glyph_of
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.summary import summarise, summarise_gaps

if TYPE_CHECKING:
    from valuesoup.report.figures import Figure, Table

# Twice the size on screen is print quality; a grid of many panels needs no more pixels than that of one page.
PNG_SCALE = 2.0
PNG_WIDTH = 2000
VEGALITE = "6.4"


@dataclass(frozen=True)
class Drawn:
    """A figure on the page: its specification, or, where data are missing, the sentence in its place."""

    name: str
    title: str
    caption: str
    spec: dict[str, object] | None


def write_report(data: ReportData, out: Path) -> Path:
    """Write ``out/report.html`` and ``out/figures/*.png, *.svg, *.csv``.

    Args:
        data: What to show; missing parts are left out with a sentence that says so.
        out: An existing or new folder.

    Returns:
        The path of the HTML file, which opens offline and asks for nothing over the network.
    """
    from valuesoup.report import figures as f

    results = [f.FRONTIER, f.PARALLEL, f.HYPERVOLUME, f.OPTIMISM, f.COST, f.TRUTH, f.OVER_OPTIMISATION]
    sections = {
        "results": draw(results, data, out),
        "judge": draw(f.winrate_section(data), data, out),
        "data": draw([f.SCATTER, f.CONSISTENCY, f.RETENTION, f.MATRIX, f.CORRELATION], data, out),
        "expansion": draw([f.PASS_AT_N, f.REWARDS, f.ADDED_PAIRS], data, out),
        "training": draw([f.ACCURACY, f.CONFLICT, f.GEOMETRY, f.MERGING, f.DEPENDENCE, f.CURVES], data, out),
    }
    summary = [*summarise(data), *f.optimism_sentence(data)]
    return write_page("report.html.j2", data, out / "report.html", summary, sections, optimism=f.optimism_table(data))


def write_audit(data: ReportData, out: Path) -> Path:
    """Write ``out/audit.html`` and its figures: value conflict in the data alone, nothing trained.

    Args:
        data: ``gaps``, ``conflicts``, ``sizes`` and ``dropped`` are shown.
        out: An existing or new folder.

    Returns:
        The path of the HTML file.
    """
    from valuesoup.report import figures as f

    sections = {"data": draw([f.SCATTER, f.CONSISTENCY, f.RETENTION, f.MATRIX], data, out)}
    return write_page("audit.html.j2", data, out / "audit.html", summarise_gaps(data), sections)


def draw(figures: "Sequence[Figure]", data: ReportData, out: Path) -> list[Drawn]:
    """Write each figure that has data to ``out/figures`` as PNG, SVG and CSV, and return what the page shows of it."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for figure in figures:
        table = figure.table(data)
        if table.rows:
            spec = _spec(figure, data, table)
            _write_files(figure.name, spec, table, folder)
            drawn.append(Drawn(figure.name, figure.title, figure.caption(data, table), spec))
        elif figure.missing:
            drawn.append(Drawn(figure.name, figure.title, figure.missing, None))
    return drawn


def _spec(figure: "Figure", data: ReportData, table: "Table") -> dict[str, Any]:
    from valuesoup.report.figures.base import DATA

    spec: dict[str, Any] = figure.chart(data, table).to_dict()
    del spec["config"]  # Altair's own theme; the page and the files bring theirs
    spec["datasets"] = {**spec.get("datasets", {}), DATA: table.rows}
    return spec


def _write_files(name: str, spec: dict[str, object], table: "Table", folder: Path) -> None:
    import vl_convert

    static = {**spec, "config": STATIC_THEME}
    # No address is allowed: a specification is text of the run and must not load anything.
    svg: str = vl_convert.vegalite_to_svg(static, vl_version=VEGALITE, allowed_base_urls=[])
    width = re.search(r'width="(\d+)', svg)
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    (folder / f"{name}.png").write_bytes(
        vl_convert.svg_to_png(svg, scale=min(PNG_SCALE, PNG_WIDTH / int(width[1])) if width else PNG_SCALE)
    )
    fields = list(dict.fromkeys(key for row in table.rows for key in row))
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.headings.get(key, key) for key in fields)
        writer.writerows([row.get(key) for key in fields] for row in table.rows)


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script, about 0.9 MB."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGALITE))


def embedded_json(thing: object) -> Markup:
    r"""JSON that cannot end the script element it stands in: ``<``, ``>`` and ``&`` become ``\u003c`` and so on.

    NaN and infinities become null, since JSON has none.
    """
    text = json.dumps(_finite(thing), allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(thing: object) -> object:
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else None
    if isinstance(thing, dict):
        return {key: _finite(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [_finite(value) for value in thing]
    return thing


def write_page(
    template: str,
    data: ReportData,
    path: Path,
    summary: list[str],
    sections: dict[str, list[Drawn]],
    **more: tables.PageTable,
) -> Path:
    """Write a page from its template, sentences, figures by section and further tables, and return its path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("valuesoup.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("valuesoup.report") / "templates"
    figures = {figure.name: figure for drawn in sections.values() for figure in drawn}
    html = environment.get_template(template).render(
        data=data,
        values=list(data.results["values"]),
        summary=summary,
        sections=sections,
        tables=tables,
        candidates={c["id"]: c for c in data.results.get("candidates") or ()},
        is_base=is_base,
        label_of=tables.label_of,
        expansions_table=expansions_table,
        judge_tables=(winrates_table, judges_table),
        number=tables.number,
        glyph=lambda method: glyph_of(method, data.results),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        vega=Markup(_vega()),
        specs=embedded_json({name: figure.spec for name, figure in figures.items() if figure.spec}),
        theme=embedded_json(PAGE_THEME),
        **more,
    )
    path.write_text(html, encoding="utf-8")
    return path
