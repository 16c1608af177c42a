"""The few pieces that the figures of a study are put together from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt

from valuesoup.report.figures.base import Figure, Row, Table
from valuesoup.report.study import Spread, StudyData


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study: as `Figure`, but made from a study.

    Attributes:
        name: File name without extension.
        title: Heading.
        table: The figure's data; no rows means that the study has none for it.
        chart: Draws it.
        caption: What is to be seen; computed, since it states numbers.
    """

    name: str
    title: str
    table: Callable[[StudyData], Table]
    chart: Callable[[StudyData, Table], alt.TopLevelMixin]
    caption: Callable[[StudyData, Table], str]

    def __call__(self, study: StudyData) -> Figure:
        """Return the figure of one study, which is absent where its data are missing."""
        return Figure(
            self.name,
            self.title,
            lambda data: self.table(study),
            lambda data, table: self.chart(study, table),
            lambda data, table: self.caption(study, table),
            "",
        )


def ends(spread: Spread, name: str, low: str = "low", high: str = "high") -> Row:
    """A figure over seeds as fields of a row."""
    return {name: spread["mean"], low: spread["low"], high: spread["high"]}


def seeds_text(study: StudyData) -> str:
    """``3 seeds, with 95% Student intervals``; without intervals for one seed."""
    count = len(study.seeds)
    if count == 1:
        return "one seed, which gives no interval"
    return f"{count} seeds, with {study.combined['level']:.0%} Student intervals"


def listed(names: Sequence[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
