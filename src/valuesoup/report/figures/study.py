"""All figures of a study by section, in the order of the page; importing this imports Altair."""

from valuesoup.report.figures.base import Figure
from valuesoup.report.figures.study_diagnostics import (
    conflict_figure,
    connectivity_figure,
    correlation_figure,
    optimism_figure,
    signs_figure,
)
from valuesoup.report.figures.study_dials import tau_figure, weight_figure
from valuesoup.report.figures.study_expansion import added_figure, pass_figure
from valuesoup.report.figures.study_layers import dependence_figure, geometry_figure
from valuesoup.report.figures.study_scores import frontier_figure, seeds_figure
from valuesoup.report.figures.winrates import winrate_section
from valuesoup.report.study import StudyData


def study_figures(study: StudyData) -> dict[str, list[Figure]]:
    """Return the figures of each section of a study's page; one without data has no rows and is not drawn."""
    return {
        "results": [make(study) for make in (seeds_figure, frontier_figure)],
        "judge": winrate_section(study),
        "selection": [make(study) for make in (optimism_figure, signs_figure)],
        "dials": [make(study) for make in (weight_figure, tau_figure)],
        "diagnostics": [make(study) for make in (conflict_figure, connectivity_figure, correlation_figure)],
        "layers": [make(study) for make in (geometry_figure, dependence_figure)],
        "expansion": [make(study) for make in (pass_figure, added_figure)],
    }
