"""Figures of the diagnostics: what they draw and say for any number of values, and that old results lack them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_report import NAMES, report_data, results

from valuesoup.report import figures as f
from valuesoup.report.assemble import with_titles
from valuesoup.report.model import CurvePoint, ReportData
from valuesoup.report.page import draw

FIGURES = (f.CONFLICT, f.MERGING, f.OVER_OPTIMISATION, f.CORRELATION)


def between(n: int) -> list[dict[str, str]]:
    return [{"first": a, "second": b} for i, a in enumerate(NAMES[:n]) for b in NAMES[i + 1 : n]]


def path(pair: dict[str, str], curvature: float, *, bent: float = 0.0) -> dict[str, Any]:
    ladder = []
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        predicted = -0.5 * weight * (1 - weight) * curvature
        mean = predicted * (1 + bent)
        gap = {"mean": mean, "low": mean - 0.001, "high": mean + 0.001}
        ladder.append({"weight": weight, "loss": 0.6 + mean, "gap": gap, "predicted": predicted})
    bound = {"mean": curvature, "low": curvature - 0.01, "high": curvature + 0.01}
    return {**pair, "squared_distance": 0.25, "curvature": bound, "ladder": ladder}


def diagnosed(n: int) -> ReportData:
    """The synthetic results with diagnostics as a run writes them."""
    pairs = between(n)
    found = results(n)
    for k, row in enumerate(found["candidates"]):
        row["quality"] |= {
            "perplexity": 3.0 + k,
            "repetition": 0.01 * k,
            "distinct_1": 0.4,
            "distinct_2": 0.9 - 0.01 * k,
        }
        row["quality"] |= {"truncated": 0.1}
        row["quality"] |= {"kl": 0.0, "perplexity": 2.5} if row["method"] == "base" else {}
    sizes = dict.fromkeys(NAMES[:n], 256)
    for where, cosine in (("all pairs", -0.5), ("vc-soup", 0.25)):
        rows = [{**pair, "cosine": cosine, "low": cosine - 0.1, "high": cosine + 0.1, "ceiling": 0.8} for pair in pairs]
        found.setdefault("conflict", {})[where] = {"pairs": sizes, "between": rows}
    for method, curvature in (("dpo", 0.08), ("soup", 0.08), ("vc-soup", -0.04)):
        paths = [path(pair, curvature, bent=0.5) for pair in pairs]
        found.setdefault("connectivity", {})[method] = {"pairs": sizes, "paths": paths}
    found["correlation"] = [
        {**pair, "over": over, "dataset": dataset, "count": 99, "mean": r, "low": low, "high": high}
        for pair in pairs
        for over, dataset, r, low, high in (
            ("gaps", NAMES[0], 0.3, None, None),
            ("answers", None, 0.1, 0.0, 0.2),
            ("answers to one prompt", None, -0.4, -0.5, -0.3),
        )
    ]
    return ReportData(results=found)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_holds_any_number_of_values(figure: f.Figure, n: int) -> None:
    data = diagnosed(n)
    table = figure.table(data)
    if n == 1 and figure is not f.OVER_OPTIMISATION:
        assert not table.rows, "one value has no other to be compared with"
        return
    assert figure.caption(data, table)
    chart = figure.chart(data, table).to_dict()
    if figure is not f.OVER_OPTIMISATION:
        assert len(chart.get("concat", [chart])) == n * (n - 1) // 2, "a panel for every two values"


@pytest.mark.parametrize("figure", FIGURES)
def test_results_without_diagnostics_have_no_such_figure_and_no_sentence_in_its_place(figure: f.Figure) -> None:
    assert not figure.table(report_data(2)).rows
    assert not figure.missing


def test_the_figures_are_written_as_png_svg_and_csv(tmp_path: Path) -> None:
    drawn = draw([f.CONFLICT, f.MERGING], diagnosed(3), tmp_path)
    assert [figure.name for figure in drawn] == ["gradient-conflict", "merging-gap"]
    for name in ("gradient-conflict", "merging-gap"):
        assert all((tmp_path / "figures" / f"{name}.{kind}").stat().st_size for kind in ("png", "svg", "csv"))
    head = (tmp_path / "figures" / "merging-gap.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "values,method,first,second,kind,weight of the first,gap,low,high,predicted,loss,squared distance"


def test_the_conflict_names_the_worst_values_before_and_after_filtering() -> None:
    data = diagnosed(3)
    data.results["conflict"]["all pairs"]["between"][1]["cosine"] = -0.55
    caption = f.CONFLICT.caption(data, f.CONFLICT.table(data))
    assert "On all pairs: −0.55 [−0.60, −0.40] (helpful – honest, the lowest); after filtering: vc-soup 0.25" in caption


def test_a_gradient_of_zero_is_not_drawn() -> None:
    data = diagnosed(2)
    for of in data.results["conflict"].values():
        of["between"][0]["cosine"] = None
    assert not f.CONFLICT.table(data).rows


def test_methods_of_the_same_vectors_are_drawn_once_and_named() -> None:
    data = diagnosed(2)
    table = f.MERGING.table(data)
    assert list(dict.fromkeys(row["method"] for row in table.rows)) == ["dpo", "vc-soup"]
    caption = f.MERGING.caption(data, table)
    assert "soup: the same vectors as another method, drawn once." in caption
    # Δ(½) is half more than its prediction −½ · ¼ · dᵀHd.
    assert "dpo −0.015 [−0.016, −0.014], predicted −0.01, ‖d‖² 0.25" in caption
    assert "vc-soup 0.0075 [0.0065, 0.0085], predicted 0.005" in caption


def test_the_predicted_curve_meets_the_ladder() -> None:
    table = f.MERGING.table(diagnosed(2))
    curve = {row["weight"]: row["y"] for row in table.rows if row["kind"] == "predicted" and row["method"] == "dpo"}
    for row in table.rows:
        if row["kind"] == "measured" and row["method"] == "dpo":
            assert curve[row["weight"]] == pytest.approx(row["predicted"], abs=1e-12)


def test_the_signs_name_the_candidates_furthest_from_the_base() -> None:
    data = diagnosed(2)
    table = f.OVER_OPTIMISATION.table(data)
    assert len(table.rows) == len(data.results["candidates"])
    last = data.results["candidates"][-1]
    highest = 3.0 + len(data.results["candidates"]) - 1
    caption = f.OVER_OPTIMISATION.caption(data, table)
    assert f"the highest perplexity is {highest:.1f} ({last['method']}, " in caption
    assert "the base has 2.5)" in caption


def test_candidates_without_test_answers_have_no_signs() -> None:
    data = diagnosed(2)
    data.results["candidates"][3]["quality"] = None
    assert len(f.OVER_OPTIMISATION.table(data).rows) == len(data.results["candidates"]) - 1


def test_the_correlation_tells_gaps_from_answers() -> None:
    data = diagnosed(2)
    table = f.CORRELATION.table(data)
    labels = [row["label"] for row in table.rows]
    assert labels == ["gaps of the helpful pairs", "test answers", "test answers to one prompt"]
    assert f.CORRELATION.caption(data, table).endswith("Over answers to one prompt: −0.40 [−0.50, −0.30].")


def test_methods_stand_under_their_titles() -> None:
    found = diagnosed(2).results
    found["methods"]["vc-soup"]["title"] = "VC-soup"  # type: ignore[typeddict-unknown-key]
    renamed = with_titles({**found, "differences": []})
    assert list(renamed["conflict"]) == ["all pairs", "VC-soup"]
    assert list(renamed["connectivity"]) == ["dpo", "soup", "VC-soup"]


def training(chosen: tuple[float, float], rejected: tuple[float, float]) -> list[CurvePoint]:
    steps = np.linspace(0, 1, 10)
    return [
        CurvePoint(
            step=k,
            chosen=float(chosen[0] + (chosen[1] - chosen[0]) * share),
            rejected=float(rejected[0] + (rejected[1] - rejected[0]) * share),
        )
        for k, share in enumerate(steps)
    ]


def test_the_curves_say_what_became_of_both_responses() -> None:
    curves = {
        "x/a": training((-20, -22), (-20, -30)),
        "x/b": training((-20, -30), (-20, -22)),
        "x/c": training((-20, -15), (-20, -30)),
        "x/d": training((-20, -15), (-20, -19)),
        "x/e": training((-20, -25), (-20, -19)),
        "x/f": [CurvePoint(step=1, chosen=-20.0, rejected=-20.0)],
    }
    data = ReportData(results={"schema": 1, "values": ["a"]}, curves=curves)
    caption = f.CURVES.caption(data, f.CURVES.table(data))
    assert caption.endswith(
        "Of 5 trainings, from the first to the last fifth: in 2 both responses become less likely, the chosen one less "
        "in 1 of them; in 1 the chosen one becomes likelier and the rejected one less likely; in 1 both become "
        "likelier; in 1 the chosen one alone becomes less likely."
    )
