"""All figures of a report and of an audit, in the order of the page; importing this imports Altair."""

from valuesoup.report.figures.base import Figure, Table
from valuesoup.report.figures.costs import COST
from valuesoup.report.figures.dependence import DEPENDENCE
from valuesoup.report.figures.diagnostics import CONFLICT, CORRELATION, MERGING, OVER_OPTIMISATION
from valuesoup.report.figures.expansion import ADDED_PAIRS, PASS_AT_N, REWARDS
from valuesoup.report.figures.gaps import CONSISTENCY, MATRIX, RETENTION, SCATTER
from valuesoup.report.figures.optimism import OPTIMISM, optimism_table
from valuesoup.report.figures.parallel import PARALLEL
from valuesoup.report.figures.regression import regression_section
from valuesoup.report.figures.rewards import ACCURACY, TRUTH
from valuesoup.report.figures.scores import FRONTIER, HYPERVOLUME
from valuesoup.report.figures.ternary import TERNARY
from valuesoup.report.figures.training import CURVES, GEOMETRY
from valuesoup.report.figures.winrates import winrate_section

__all__ = [
    "ACCURACY",
    "ADDED_PAIRS",
    "CONFLICT",
    "CONSISTENCY",
    "CORRELATION",
    "COST",
    "CURVES",
    "DEPENDENCE",
    "FRONTIER",
    "GEOMETRY",
    "HYPERVOLUME",
    "MATRIX",
    "MERGING",
    "OPTIMISM",
    "OVER_OPTIMISATION",
    "PARALLEL",
    "PASS_AT_N",
    "RETENTION",
    "REWARDS",
    "SCATTER",
    "TERNARY",
    "TRUTH",
    "Figure",
    "Table",
    "optimism_table",
    "regression_section",
    "winrate_section",
]
