"""Diagnostics over the seeds of a study: optimism, signs of over-optimisation, conflict, merging, correlation."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import altair as alt

from valuesoup.report.figures.base import Row, Table, bounded, extra, method_colour, method_shape, panels, source
from valuesoup.report.figures.study_base import StudyFigure, ends, listed, seeds_text
from valuesoup.report.look import BASE_COLOUR
from valuesoup.report.study import Spread, StudyData, policy_label
from valuesoup.report.tables import number, short

_ROW = 24  # pixels of one line
_CEILING = "ceiling"
BASE = "base"
"""Whose mark stands for what is no method's."""
SIGNS = {
    "kl": "KL from the base, nats per answer",
    "perplexity": "perplexity under the base",
    "repetition": "share of repeated 3-grams",
}


def _line(panel: str, label: str, method: str, spread: Spread) -> Row:
    return {"dataset": panel, "label": label, "method": method, **ends(spread, "mean")}


def _panel(study: StudyData, table: Table, name: str, zero: bool) -> alt.LayerChart:
    """One line per label: a mark at the mean and its interval; where there is one, a tick at the ceiling."""
    own = [row for row in table.rows if row["dataset"] == name]
    labels = list(dict.fromkeys(str(row["label"]) for row in own))
    axis = alt.Axis(labelLimit=230, labelPadding=8, ticks=False, domain=False)
    x = alt.X("mean:Q", title=None, scale=alt.Scale(zero=zero, padding=14), axis=alt.Axis(tickCount=4))
    chart = source(table, name).encode(
        y=alt.Y("label:N", title=None, sort=labels, axis=axis),
        color=method_colour(study.results, legend=None),
        tooltip=[
            alt.Tooltip("label:N", title="of"),
            *(alt.Tooltip(f"{field}:Q", format=".4g") for field in ("mean", "low", "high")),
        ],
    )
    layers: list[alt.Chart] = []
    if zero:
        layers.append(extra([{"zero": 0}]).mark_rule(strokeDash=[4, 4], opacity=0.6).encode(x="zero:Q"))
    layers += [
        bounded(chart).mark_rule(strokeWidth=2.2, opacity=0.6).encode(x="low:Q", x2="high:Q"),
        chart.mark_point(filled=True, size=80, opacity=1).encode(x=x, shape=method_shape(study.results, legend=None)),
    ]
    if any(_CEILING in row for row in own):
        tick = chart.transform_filter(f"isValid(datum.{_CEILING})")
        layers.append(tick.mark_tick(thickness=2.5, height=16).encode(x=f"{_CEILING}:Q", color=alt.value(BASE_COLOUR)))
    return alt.layer(*layers).properties(title=name, width=270, height=_ROW * max(2, len(labels)))


def _chart(zero: bool) -> Callable[[StudyData, Table], alt.TopLevelMixin]:
    def chart(study: StudyData, table: Table) -> alt.TopLevelMixin:
        names = dict.fromkeys(str(row["dataset"]) for row in table.rows)
        return panels([_panel(study, table, name, zero) for name in names], columns=2)

    return chart


def _optimism(study: StudyData) -> Table:
    """One row per value and method whose frontier every seed has."""
    methods = study.combined["methods"].items()
    return Table(
        [
            _line(value, name, name, of["optimism"]["drop"][value])
            for value in study.values
            for name, of in methods
            if of["optimism"]
        ]
    )


def _optimism_caption(study: StudyData, table: Table) -> str:
    text = (
        "What a frontier's mean score lost from the validation prompts, on which it was chosen, to the test prompts, "
        f"in units of the box, over {seeds_text(study)}. The base's drop is that of the prompts alone; what goes "
        "beyond it is selection."
    )
    volumes = [
        f"{name} {number(of['optimism']['validation']['mean'])} to {number(of['optimism']['test']['mean'])}"
        for name, of in study.combined["methods"].items()
        if of["optimism"] and name != BASE
    ]
    return f"{text} Hypervolumes on validation to test, means: {'; '.join(volumes)}." if volumes else text


def _signs(study: StudyData) -> Table:
    """One row per sign and point of the study that has it."""
    weights = {row["id"]: row["weights"] for row in study.combined["candidates"]}
    return Table(
        [
            _line(
                title,
                f"{point['method']} {policy_label(point['id'], weights.get(point['id']))}".strip(),
                point["method"],
                spread,
            )
            for sign, title in SIGNS.items()
            for point in study.combined["points"]
            if (spread := point["signs"].get(sign))
        ]
    )


def _signs_caption(study: StudyData, table: Table) -> str:
    return (
        f"The policies of the first table, on their test answers, over {seeds_text(study)}. Far from the base with "
        "high perplexity is text that it would not write; low perplexity with much repetition is a loop: rewards "
        "of such text are doubtful."
    )


def _grouped(entries: Mapping[str, list[dict[str, Any]]]) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """Yield what has the same figures once, with all of its names: methods may share their vectors."""
    seen: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for name, rows in entries.items():
        seen.setdefault(repr(rows), ([], rows))[0].append(name)
    yield from seen.values()


def _conflict(study: StudyData) -> Table:
    """One row per two values and set of pairs, with the ceiling that noise leaves of a cosine of 1."""
    rows: list[Row] = []
    for names, between in _grouped(study.combined["conflict"]):
        for row in between:
            if row["cosine"]:
                method = names[0] if names[0] in study.combined["methods"] else BASE
                line = _line(f"{row['first']} and {row['second']}", listed(names), method, row["cosine"])
                rows.append(line | {_CEILING: row["ceiling"] and row["ceiling"]["mean"]})
    return Table(rows, {"dataset": "values", "label": "pairs of", "mean": "cosine"})


def _conflict_caption(study: StudyData, table: Table) -> str:
    return (
        "Cosine of two values' DPO gradients at the base, before anything is trained (Eq. 16), on all training pairs "
        f"and on those that each filter keeps, over {seeds_text(study)}. Below zero the values pull apart; the tick is "
        "the ceiling that noise leaves of a cosine of 1."
    )


def _connectivity(study: StudyData) -> Table:
    """One row per figure, method and two values: curvature, and the merging gap furthest from zero."""
    rows: list[Row] = []
    for figure, title in (("curvature", "curvature dᵀHd at λ = ½"), ("largest_gap", "merging gap furthest from 0")):
        for names, paths in _grouped(study.combined["connectivity"]):
            for path in paths:
                between = f", {path['first']} and {path['second']}" if len(study.values) > 2 else ""
                if path[figure]:
                    rows.append(_line(title, listed(names) + between, names[0], path[figure]))
    return Table(rows, {"dataset": "figure", "label": "vectors of"})


def _connectivity_caption(study: StudyData, table: Table) -> str:
    told = []
    for names, paths in _grouped(study.combined["connectivity"]):
        gaps = [path["largest_gap"] for path in paths if path["largest_gap"]]
        if gaps:
            worst = max(gaps, key=lambda gap: float(gap["mean"]))
            told.append(f"{listed(names)} {_gap_text(worst)}")
    return (
        f"The loss on held-out pairs between every two vectors of a method, over {seeds_text(study)}: a gap above zero "
        "is what merging costs, below zero what it gains (Eq. 22); a positive curvature predicts a gain (Eq. 24). "
        f"Highest gap of each: {'; '.join(told)}."
    )


def _gap_text(gap: Spread) -> str:
    """A gap of any size with its interval: small ones are not rounded to nothing."""
    mean, low, high = (None if end is None else short(end) for end in (gap["mean"], gap["low"], gap["high"]))
    return f"{mean}" if low is None else f"{mean} [{low}, {high}]"


def _correlation(study: StudyData) -> Table:
    """One row per two values and what their rewards are taken over."""
    rows: list[Row] = []
    for row in study.combined["correlation"]:
        label = f"gaps of {row['dataset']}" if row["dataset"] else row["over"]
        if row["correlation"]:
            rows.append(_line(f"{row['first']} and {row['second']}", label, BASE, row["correlation"]))
    return Table(rows, {"dataset": "values", "label": "over", "mean": "correlation"})


def _correlation_caption(study: StudyData, table: Table) -> str:
    return (
        f"Correlation of two values' rewards, over {seeds_text(study)}: over the gaps of each data set's training "
        "pairs, over all test answers, and over answers to one prompt, where each prompt's mean is taken away. "
        "Negative there is a trade-off."
    )


optimism_figure = StudyFigure("optimism", "From validation to test", _optimism, _chart(zero=True), _optimism_caption)
signs_figure = StudyFigure("signs", "Signs of over-optimisation", _signs, _chart(zero=False), _signs_caption)
conflict_figure = StudyFigure(
    "gradient-conflict", "Gradient conflict at the base", _conflict, _chart(zero=True), _conflict_caption
)
connectivity_figure = StudyFigure(
    "connectivity", "Loss between vectors", _connectivity, _chart(zero=True), _connectivity_caption
)
correlation_figure = StudyFigure(
    "correlation", "Correlation of rewards", _correlation, _chart(zero=True), _correlation_caption
)
