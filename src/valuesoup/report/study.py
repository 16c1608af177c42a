"""The report of a study: one configuration under several seeds, as one page with its figures and tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from valuesoup.evaluation.seeds import spread, weighed
from valuesoup.methods import All, Consistent, Expanded, Method
from valuesoup.report.model import ReportData, Weights, weights_text
from valuesoup.report.page import draw, write_page
from valuesoup.report.tables import NONE, PageTable, interval, number

UNFILTERED = -1.0
"""The threshold that every pair with a direction reaches; methods that filter nothing are shown there."""
NEAR = 0.1
"""Thresholds of several data sets that are as near as this count as one: chosen by the data, they differ a little."""
YES, NO = "✓", "×"


class Spread(TypedDict):
    """A figure over seeds: mean, ends of its Student interval (None for one seed), and the figure of each seed."""

    mean: float
    low: float | None
    high: float | None
    each: Sequence[float]


@dataclass(frozen=True)
class Series:
    """Methods that differ in one setting only.

    Attributes:
        name: The setting, in words.
        methods: Where each method stands, in rising order.
    """

    name: str
    methods: Mapping[str, float]


@dataclass(frozen=True)
class StudyData(ReportData):
    """All that the page of a study shows.

    Attributes:
        combined: The content of ``study.json``, methods under their titles.
        runs: What the report of each seed shows, in the order of the seeds.
        pages: The page of each seed, relative to the study's folder, in the same order.
        families: Methods that are alike in all but the threshold of their filter, unfiltered ones among them.
        expanding: Methods that are alike in all but the prompts that their expansion mines or the pairs it adds,
            those that add none among them.
    """

    combined: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[ReportData] = ()
    pages: Sequence[str] = ()
    families: Sequence[Sequence[str]] = ()
    expanding: Sequence[Sequence[str]] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds, in their order."""
        return list(self.combined["seeds"])

    @property
    def values(self) -> list[str]:
        """The values, in their order."""
        return list(self.combined["values"])

    def dials(self) -> set[str]:
        """The methods of which a candidate is more than one vector at weight 1."""
        return {row["method"] for row in self.combined["candidates"] if weighed(row)}

    def merging(self) -> set[str]:
        """The methods with a dial that train fewer policies than they have candidates: these mix their vectors."""
        found = set()
        for method in self.dials():
            trainings = self.combined["methods"][method]["trainings"]
            own = [row for row in self.combined["candidates"] if row["method"] == method]
            if trainings is None or trainings["mean"] < len(own):
                found.add(method)
        return found

    def tau(self, method: str) -> dict[str, float]:
        """The threshold of a method on each data set, over the seeds; `UNFILTERED` where it has none."""
        filters = self.combined["filters"].get(method) or {}
        taus = {dataset: of["tau"] for dataset, of in filters.items()}
        return {value: of["mean"] if (of := taus.get(value)) else UNFILTERED for value in self.values}

    def kept(self, method: str) -> Spread | None:
        """The share of the pairs that a method trains on, a mean over its data sets; None where it filters nothing."""
        filters = list((self.combined["filters"].get(method) or {}).values())
        return mean_of([of["share"] for of in filters], self.combined["level"]) if filters else None

    def thresholds(self) -> list[Series]:
        """The methods of each family by their threshold: on every data set alike, or on one with the others unfiltered.

        A family whose methods do not differ in the threshold, or differ in another way, gives none.
        """
        series = []
        for family in self.families:
            taus = {method: self.tau(method) for method in family}
            alike = {
                m: sum(of.values()) / len(of) for m, of in taus.items() if max(of.values()) - min(of.values()) < NEAR
            }
            series.append(Series("τ", alike))
            for value in self.values if len(self.values) > 1 else ():
                alone = {
                    method: of[value]
                    for method, of in taus.items()
                    if all(tau <= UNFILTERED for other, tau in of.items() if other != value)
                }
                series.append(Series(f"τ of {value}", alone))
        ordered = [Series(one.name, dict(sorted(one.methods.items(), key=lambda item: item[1]))) for one in series]
        return [one for one in ordered if len(set(one.methods.values())) > 1]

    def added(self, method: str) -> Spread | None:
        """The pairs that the expansions of a method added; None where it has no expansion."""
        expansions = list((self.combined["expansions"].get(method) or {}).values())
        return mean_of([of["pairs"] for of in expansions], self.combined["level"], total=True) if expansions else None


def mean_of(parts: Sequence[Spread], level: float, total: bool = False) -> Spread:
    """The mean of several figures within each seed, or their sum, over the seeds.

    Args:
        parts: At least one, all of the same seeds.
        level: Of the interval.
        total: Take the sum.
    """
    sums = [sum(figures) for figures in zip(*(part["each"] for part in parts), strict=True)]
    return over_seeds(sums if total else [one / len(parts) for one in sums], level)


def over_seeds(figures: Iterable[float], level: float, figure: str = "") -> Spread:
    """The mean over seeds with its Student interval, see :func:`valuesoup.evaluation.seeds.spread`."""
    found = spread(figures, level, figure)
    return {"mean": found.mean, "low": found.low, "high": found.high, "each": found.each}


def titled(combined: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``study.json`` with every method under its title, as figures and tables write it."""
    titles = {name: name if name == "base" else of["title"] for name, of in combined["methods"].items()}

    def rows(part: str, *keys: str) -> list[dict[str, Any]]:
        return [{**row, **{key: titles[row[key]] for key in keys}} for row in combined[part]]

    return {
        **combined,
        **{
            part: {titles[name]: of for name, of in combined[part].items()}
            for part in ("methods", "geometry", "filters", "expansions", "connectivity")
        },
        # Beside methods there are all pairs, which no method filters.
        "conflict": {titles.get(name, name): of for name, of in combined["conflict"].items()},
        "differences": rows("differences", "first", "second"),
        "points": rows("points", "method"),
        "candidates": rows("candidates", "method"),
    }


def write_study(study: StudyData, out: Path) -> Path:
    """Write ``out/report.html`` and ``out/figures/*.png, *.svg, *.csv`` of a study.

    Args:
        study: What to show; a figure whose data the study does not have is absent.
        out: An existing or new folder.

    Returns:
        The path of the HTML file, which opens offline and asks for nothing over the network.
    """
    from valuesoup.report.figures import study as f
    from valuesoup.report.study_summary import summarise_study

    sections = {name: draw(figures, study, out) for name, figures in f.study_figures(study).items()}
    return write_page(
        "study.html.j2",
        study,
        out / "report.html",
        summarise_study(study),
        sections,
        points=points_table(study),
        methods=methods_table(study),
        differences=differences_table(study),
    )


def families(methods: Mapping[str, Method], like: Consistent | Expanded, free: set[str]) -> list[list[str]]:
    """Return the methods that are alike in all but some settings of how their pairs are chosen.

    A method that takes every pair belongs to each family that it is like otherwise.

    Args:
        methods: Their choices by title.
        like: Of which kind the choice of pairs is.
        free: The settings of that choice that may differ.

    Returns:
        Families of at least two methods, each in the order given.
    """
    rest = {title: method.model_dump_json(exclude={"pairs"}) for title, method in methods.items()}
    found: dict[tuple[str, str], list[str]] = {}
    for title, method in methods.items():
        if method.pairs.kind == like.kind:
            found.setdefault((rest[title], method.pairs.model_dump_json(exclude=free)), []).append(title)
    for (alike, _), family in found.items():
        family += [title for title, method in methods.items() if isinstance(method.pairs, All) and rest[title] == alike]
    order = list(methods)
    return [sorted(family, key=order.index) for family in found.values() if len(family) > 1]


def policy_label(identity: str, weights: Weights | None) -> str:
    """What tells a point from others of its method: the one value that it was trained for, its weights, or its name."""
    only = [value for value, weight in (weights or {}).items() if weight]
    if weights and len(only) == 1 and weights[only[0]] == 1:
        return only[0]
    if weights and not only:
        return ""
    name = identity.partition("/")[2] or identity
    return weights_text(weights) or ("most balanced" if name == "balanced" else name)


def spread_text(spread: Spread | None, digits: int = 2) -> str:
    """``0.52 ± 0.04``: mean and the longer half of its interval; an en dash where there is none."""
    if spread is None:
        return NONE
    mean, low, high = spread["mean"], spread["low"], spread["high"]
    half = "" if low is None or high is None else f" ± {number(max(mean - low, high - mean), digits)}"
    return f"{number(mean, digits)}{half}"


def points_table(study: StudyData) -> PageTable:
    """Per policy: filtering and merging, its test scores and their average, and hypervolume and cost of its method.

    Reads like Tables 1 and 2 of VC-Soup (arXiv:2603.18113), with intervals over seeds.
    """
    combined, merging = study.combined, study.merging()
    weights = {row["id"]: row["weights"] for row in combined["candidates"]}
    fluent = any(point.get("fluency") for point in combined["points"])
    rows = []
    for point in combined["points"]:
        method = combined["methods"][point["method"]]
        kept = study.kept(point["method"])
        row = [point["method"], policy_label(point["id"], weights.get(point["id"]))]
        row += [YES if kept else NO, share_text(kept), tau_text(study, point["method"])]
        row += [YES if point["method"] in merging else NO]
        row += [spread_text(point["scores"][value]) for value in study.values]
        row += [spread_text(point["average"])] if len(study.values) > 1 else []
        row += [spread_text(point.get("fluency"))] if fluent else []
        row += [
            spread_text(method["hypervolume"]),
            _mean(method["trainings"], 0),
            _mean(seconds(study, point["method"])),
        ]
        rows.append(row)
    headings = ("method", "policy", "filtering", "kept", "τ", "merging", *study.values)
    headings += ("average",) if len(study.values) > 1 else ()
    headings += ("fluency",) if fluent else ()
    return PageTable((*headings, "hypervolume", "trainings", "seconds"), rows, 2)


def seconds(study: StudyData, method: str) -> Spread | None:
    """Seconds of training, expansion and evaluation that a method takes on its own, None where one is unknown."""
    of = study.combined["methods"][method]
    parts = [of[part] for part in ("train_seconds", "expand_seconds", "evaluate_seconds")]
    return None if None in parts else mean_of(parts, study.combined["level"], total=True)


def _mean(spread: Spread | None, digits: int = 1) -> str:
    return NONE if spread is None else f"{spread['mean']:,.{digits}f}"


def share_text(kept: Spread | None) -> str:
    """A share in percent, an en dash where there is none."""
    return NONE if kept is None else f"{kept['mean']:.0%}"


def tau_text(study: StudyData, method: str) -> str:
    """The threshold of a method: one number where all data sets share it, else each with its data set."""
    if study.kept(method) is None:
        return NONE
    taus = {value: number(tau, 2) for value, tau in study.tau(method).items()}
    if len(set(taus.values())) == 1:
        return next(iter(taus.values()))
    return ", ".join(f"{value} {tau}" for value, tau in taus.items())


def differences_table(study: StudyData) -> PageTable:
    """Every difference in hypervolume between two methods, paired by seed, the largest first."""
    rows = []
    for row in ordered_differences(study):
        ahead = sum(figure > 0 for figure in row["each"])
        cells = [f"{row['first']} − {row['second']}", interval(row["mean"], row["low"], row["high"])]
        rows.append([*cells, f"{ahead} of {len(row['each'])}", verdict(row)])
    return PageTable(("difference in hypervolume", "mean", "seeds above zero", "interval"), rows)


def ordered_differences(study: StudyData) -> list[dict[str, Any]]:
    """The differences, each turned so that its mean is not negative, the largest first."""
    turned = []
    for row in study.combined["differences"]:
        if row["mean"] < 0:
            ends = {end: None if row[end] is None else -row[end] for end in ("low", "high")}
            row = {
                **{"first": row["second"], "second": row["first"], "mean": -row["mean"]},
                **{"low": ends["high"], "high": ends["low"], "each": [-figure for figure in row["each"]]},
            }
        turned.append(row)
    return sorted(turned, key=lambda row: -row["mean"])


def verdict(difference: Mapping[str, Any]) -> str:
    """Whether the interval of a difference, turned as in `ordered_differences`, is clear of zero."""
    if difference["low"] is None:
        return "unknown: one seed"
    return "clear of zero" if difference["low"] > 0 else "includes zero"


def methods_table(study: StudyData) -> PageTable:
    """Per method: hypervolume, extent of its candidates, and the geometry of its vectors."""
    geometry = study.combined["geometry"]
    rows = []
    for name, of in study.combined["methods"].items():
        shape = geometry.get(name) or {}
        row = [name, spread_text(of["hypervolume"], 3), spread_text(of["extent"])]
        row += [spread_text(shape.get("cosine")), spread_text(shape.get("l2"), 3), spread_text(shape.get("hsic"), 3)]
        rows.append([*row, _mean(of["trained_pairs"], 0), _mean(of["train_seconds"])])
    headings = ("method", "hypervolume", "extent", "cosine", "distance (L2)", "HSIC")
    return PageTable((*headings, "pairs trained", "training, s"), rows)
