"""Writes the report and the audit: one HTML file that needs nothing else, and every figure as PNG, SVG and CSV."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from valuesoup.pipeline.run import PAGE
from valuesoup.report import tables
from valuesoup.report.expansions import expansions_table
from valuesoup.report.judge_text import judges_table, winrates_table
from valuesoup.report.look import PAGE_THEME, glyph_of
from valuesoup.report.model import ReportData, is_base
from valuesoup.report.panel import panel
from valuesoup.report.regression import checked_tables, cost_sentence
from valuesoup.report.static import VEGALITE, standing, write_files
from valuesoup.report.summary import summarise, summarise_gaps
from valuesoup.store import write_atomic

if TYPE_CHECKING:
    from valuesoup.report.figures import Figure, Table

FIGURES = "figures"
"""Folder of the figures of a page that has a folder to itself."""


@dataclass(frozen=True)
class Drawn:
    """A figure on the page: its specification and drawing, or, where data are missing, the sentence in its place.

    ``folder`` is where its files lie, beside the page.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any] | None
    standing: str = ""
    folder: str = FIGURES


def write_report(data: ReportData, out: Path) -> Path:
    """Write ``out/report.html`` and ``out/figures/*.png, *.svg, *.csv``.

    Args:
        data: What to show; missing parts are left out with a sentence that says so.
        out: An existing or new folder.

    Returns:
        The path of the HTML file, which opens offline and asks for nothing over the network.
    """
    from valuesoup.report import figures as f

    parts: dict[str, Sequence[Figure]] = {
        "results": [f.FRONTIER, f.PARALLEL, f.TERNARY, f.HYPERVOLUME],
        "judge": f.winrate_section(data),
        "regression": f.regression_section(data),
        "trust": [f.OPTIMISM, f.OVER_OPTIMISATION, f.TRUTH, f.ACCURACY],
        "cost": [f.COST],
        "data": [f.CONSISTENCY, f.RETENTION, f.CORRELATION, f.MATRIX, f.SCATTER],
        "expansion": [f.PASS_AT_N, f.REWARDS, f.ADDED_PAIRS],
        "training": [f.CONFLICT, f.GEOMETRY, f.MERGING, f.DEPENDENCE, f.CURVES],
    }
    sections = {name: draw(part, data, out) for name, part in parts.items()}
    told = panel(data)
    page = out / PAGE
    summary = [*summarise(data), *cost_sentence(data.checked)]
    return write_page("report.html.j2", data, page, summary, sections, told, optimism=f.optimism_table(data))


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


def draw(figures: "Sequence[Figure]", data: ReportData, out: Path, within: str = FIGURES) -> list[Drawn]:
    """Write each figure that has data to ``out/figures`` as PNG, SVG and CSV, and return what the page shows of it.

    Args:
        figures: To draw.
        data: What they show.
        out: The folder of the page.
        within: Name of the figures' own folder in it.
    """
    folder = out / within
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for figure in figures:
        table = figure.table(data)
        if table.rows:
            spec = specified(figure, data, table)
            printed = write_files(figure.name, spec, table.rows, table.headings, folder)
            caption, drawing = figure.caption(data, table), standing(figure.name, spec, printed)
            drawn.append(Drawn(figure.name, figure.title, caption, spec, drawing, within))
        elif figure.missing:
            drawn.append(Drawn(figure.name, figure.title, figure.missing, None))
    return drawn


def specified(figure: "Figure", data: ReportData, table: "Table") -> dict[str, Any]:
    """Return the Vega-Lite specification of a figure, with its data and without a theme."""
    from valuesoup.report.figures.base import CHOSEN, DATA

    # What Altair would check again, the drawing finds too, and in a third of the time.
    spec: dict[str, Any] = figure.chart(data, table).to_dict(validate=False)
    del spec["config"]  # Altair's own theme; the page and the files bring theirs
    spec["datasets"] = {**spec.get("datasets", {}), DATA: table.rows}
    if any("id" in row for row in table.rows):
        spec["params"] = [*spec.get("params", ()), {"name": CHOSEN, "value": ""}]
    return spec


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
    told: Mapping[str, Any] | None = None,
    **more: tables.PageTable,
) -> Path:
    """Write a page from its template, and return its path.

    Args:
        template: Name of the template.
        data: What to show.
        path: Where to.
        summary: Sentences at the top.
        sections: Figures by section.
        told: What the panel tells of each candidate, see :func:`valuesoup.report.panel.panel`; None for no panel.
        more: Further tables, by the names that the template gives them.
    """
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
        checked_tables=checked_tables,
        number=tables.number,
        glyph=lambda method: glyph_of(method, data.results),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        linking=Markup((folder / "panel.js").read_text(encoding="utf-8")),
        told=embedded_json(told) if told else None,
        vega=Markup(_vega()),
        specs=embedded_json({name: figure.spec for name, figure in figures.items() if figure.spec}),
        theme=embedded_json(PAGE_THEME),
        **more,
    )
    write_atomic(path, html)
    return path
