"""Runs and studies side by side: the common box, pairing, what is refused, and the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from tiny_studies import NAMES, write_study
from valuesoup.configfile import load_config
from valuesoup.errors import UserError
from valuesoup.pipeline.comparison import compare_runs
from valuesoup.pipeline.run import run

LONG = {"mix": [[2.0, 1.0], [1.0, 2.0]]}
KINDS = ("csv", "png", "svg")
SHORT = {"mix": [[1.0, 1.0]]}


@pytest.fixture(scope="module")
def copied(demo_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_run[0], tmp_path_factory.mktemp("copy") / "copy"))


@pytest.fixture(scope="module")
def shorter(demo_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on fewer test prompts."""
    folder = Path(shutil.copytree(demo_run[0], tmp_path_factory.mktemp("short") / "short"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUESOUP_CACHE", str(demo_run[0].parent / "cache"))
        run(load_config(folder / "config.yaml", ["generation.max_prompt_tokens=12"]), folder)
    return folder


def compare(*folders: Path) -> dict[str, Any]:
    found = compare_runs(folders)
    json.dumps(found, allow_nan=False)
    return found


def of(rows: list[dict[str, Any]], **keys: str) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    return row


# Studies


def studies(root: Path, first: Any, second: Any, values: Any = NAMES[:2], **settings: Any) -> list[Path]:
    return [write_study(root / "one", values, first), write_study(root / "two", values, second, **settings)]


def test_hypervolumes_are_measured_in_the_box_of_all_candidates_together(tmp_path: Path) -> None:
    found = compare(*studies(tmp_path, {0: LONG}, {0: SHORT}))
    # Worst (0, 0), best (2, 2), so the box is from -0.2 to 2 on both: 2.2 wide.
    assert list(found["reference_point"].values()) == pytest.approx([-0.2, -0.2])
    assert list(found["best_point"].values()) == [2, 2]
    one, two = (of(found["methods"], run=run, method="mix")["hypervolume"] for run in ("one", "two"))
    assert one["mean"] == pytest.approx((2 * 2.2 * 1.2 - 1.2**2) / 2.2**2)
    assert two["mean"] == pytest.approx(1.2**2 / 2.2**2)
    assert of(found["methods"], run="one", method="base")["hypervolume"]["mean"] == pytest.approx(0.2**2 / 2.2**2)
    (difference,) = [row for row in found["differences"] if row["method"] == "mix"]
    assert difference["value"] == pytest.approx(one["mean"] - two["mean"])
    assert (difference["low"], difference["high"]) == (None, None), "one seed tells nothing of the spread"


def test_studies_of_the_same_seeds_are_paired_by_seed_in_whatever_order(tmp_path: Path) -> None:
    first = {seed: {"mix": [[x, x]]} for seed, x in ((0, 1.0), (1, 1.2), (2, 1.4))}
    second = {seed: {"mix": [[x, x]]} for seed, x in ((2, 1.3), (0, 0.9), (1, 1.1))}
    found = compare(*studies(tmp_path, first, second))
    row = of(found["differences"], method="mix")
    assert (row["paired"], row["common"]) == ("seed", 3)
    # In units of the box, which is 1.54 wide from -0.14, the volumes are squares.
    gaps = [((x + 0.14) ** 2 - (x + 0.04) ** 2) / 1.54**2 for x in (1.0, 1.2, 1.4)]
    assert row["value"] == pytest.approx(sum(gaps) / 3)
    assert row["low"] > 0, "the seeds differ by far more than the studies do within a seed"


def test_studies_of_other_seeds_are_compared_by_welch(tmp_path: Path) -> None:
    first = {seed: {"mix": [[1.0 + seed, 1.0]]} for seed in (0, 1)}
    second = {seed: {"mix": [[1.0 + seed, 1.0]]} for seed in (1, 2, 3)}
    row = of(compare(*studies(tmp_path, first, second))["differences"], method="mix")
    assert (row["paired"], row["common"]) == (None, 1)
    assert row["low"] < row["value"] < row["high"]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_study_and_its_copy_differ_by_nothing_whatever_the_number_of_values(tmp_path: Path, n: int) -> None:
    seeds = {seed: {"mix": [[1.0 + 0.1 * seed + (j == k) for j in range(n)] for k in range(n)]} for seed in (0, 1)}
    found = compare(*studies(tmp_path, seeds, seeds, NAMES[:n]))
    assert found["values"] == list(NAMES[:n])
    assert [(row["value"], row["low"], row["high"]) for row in found["differences"]] == [(0, 0, 0)] * 2
    assert list(of(found["methods"], run="two", method="mix")["balanced"]["scores"]) == list(NAMES[:n])
    assert found["settings"] == [] and found["rewards_differ"] == []


@pytest.mark.parametrize(("apart", "identical"), [(0.0, True), (1e-6, True), (0.01, False)])
def test_frontiers_are_identical_but_for_rounding_even_with_one_seed(
    tmp_path: Path, apart: float, identical: bool
) -> None:
    second = {"mix": [[2.0, 1.0 + apart], [1.0, 2.0]]}
    found = compare(*studies(tmp_path, {0: LONG}, {0: second}))
    assert of(found["differences"], method="mix")["identical"] is identical
    assert of(found["differences"], method="base")["identical"] is True
    fewer = compare(*studies(tmp_path / "fewer", {0: LONG, 1: LONG}, {0: LONG, 1: SHORT}))
    assert of(fewer["differences"], method="mix")["identical"] is False
    other = compare(*studies(tmp_path / "other", {0: LONG}, {1: LONG}))
    assert of(other["differences"], method="mix")["identical"] is False, "other seeds, other trainings"


def test_only_the_settings_that_differ_are_listed(tmp_path: Path) -> None:
    changed = {"methods": ["soup", {"preset": "vc-soup", "tau": 0.5}], "training": {"rank": 8}, "title": "Other"}
    found = compare(*studies(tmp_path, {0: LONG}, {0: LONG}, **changed))
    assert found["settings"] == [
        {"key": "training.rank", "texts": ["64", "8"]},
        {"key": "methods.vc-soup", "texts": [None, "set"]},
    ]


def test_a_changed_setting_of_a_method_is_found_by_its_name_not_its_place(tmp_path: Path) -> None:
    filtered = [{"preset": "vc-soup", "tau": tau} for tau in (0.5, 0.7)]
    one = write_study(tmp_path / "one", NAMES[:2], {0: LONG}, methods=["soup", filtered[0]])
    two = write_study(tmp_path / "two", NAMES[:2], {0: LONG}, methods=[filtered[1], "soup"])
    assert compare(one, two)["settings"] == [{"key": "methods.vc-soup.pairs.tau", "texts": ["0.5", "0.7"]}]


def test_other_rewards_are_told(tmp_path: Path) -> None:
    first = write_study(tmp_path / "one", NAMES[:2], {0: LONG})
    values = {name: {"data": "pairs.jsonl", "reward": {"function": f"module:{name}"}} for name in NAMES[:2]}
    assert compare(first, write_study(tmp_path / "two", NAMES[:2], {0: LONG}, values=values))["rewards_differ"] == list(
        NAMES[:2]
    )


def test_folders_of_one_name_are_told_apart_by_what_they_lie_in(tmp_path: Path) -> None:
    places = [write_study(tmp_path / name / "runs", NAMES[:2], {0: LONG}) for name in ("one", "two")]
    assert [run["name"] for run in compare(*places)["runs"]] == ["one/runs", "two/runs"]


def test_a_method_without_a_frontier_in_some_seed_has_a_volume_of_zero_there_and_no_balanced_policy(
    tmp_path: Path,
) -> None:
    first, second = studies(tmp_path, {0: LONG, 1: LONG}, {0: LONG, 1: LONG})
    path = second / "seed-1" / "results.json"
    results = json.loads(path.read_text())
    for row in results["candidates"]:
        row["on_frontier"] = row["method"] == "base"
    path.write_text(json.dumps(results))
    row = of(compare(first, second)["methods"], run="two", method="mix")
    assert row["hypervolume"]["each"][1] == 0 and row["balanced"] is None


# What is refused


def refused(*folders: Path) -> str:
    with pytest.raises(UserError) as error:
        compare_runs(folders)
    return str(error.value)


def test_one_run_is_no_comparison_and_none_is_named_twice(tmp_path: Path) -> None:
    (one, _) = studies(tmp_path, {0: LONG}, {0: LONG})
    assert "at least two" in refused(one)
    assert "named twice" in refused(one, tmp_path / "two" / ".." / "one")


def test_a_study_and_a_run_are_not_compared(tmp_path: Path, copied: Path) -> None:
    one, _ = studies(tmp_path, {0: LONG}, {0: LONG})
    text = refused(one, copied)
    assert str(copied) in text and "is a single run" in text and text.count(".") - str(copied).count(".") < 3


def test_other_values_are_refused_and_named(tmp_path: Path, copied: Path) -> None:
    other = write_study(tmp_path / "other", NAMES[:3], {0: {}})
    text = refused(studies(tmp_path, {0: LONG}, {0: LONG})[0], other)
    assert "clear, kind, honest" in text and "of the same values" in text
    # Values are read before anything of a run is opened.
    assert "clear, kind, honest" in refused(copied, other / "seed-0")


def test_an_unfinished_study_is_refused(tmp_path: Path) -> None:
    one, two = studies(tmp_path, {0: LONG}, {0: LONG})
    (two / "study.json").write_text("{")
    assert "is damaged" in refused(one, two)
    (two / "study.json").unlink()
    assert "holds no finished study" in refused(one, two)
    (one / "seed-0" / "results.json").unlink()
    assert "has not finished" in refused(one, write_study(tmp_path / "three", NAMES[:2], {0: LONG}))


def test_results_without_test_scores_are_refused(tmp_path: Path) -> None:
    one, two = studies(tmp_path, {0: LONG}, {0: LONG})
    path = two / "seed-0" / "results.json"
    results = json.loads(path.read_text())
    results["candidates"] = [row | {"test": None} for row in results["candidates"]]
    path.write_text(json.dumps(results))
    assert refused(one, two).startswith(f"the candidates of {two} have no test scores")


def test_a_missing_folder_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    one, two = studies(tmp_path, {0: LONG}, {0: LONG})
    assert refused(one, tmp_path / "tow") == f"{tmp_path / 'tow'} does not exist; did you mean 'two'?"
    assert refused(one, tmp_path / "no" / "such").endswith("does not exist; name the folder of a run.")
    (tmp_path / "empty").mkdir()
    assert "neither a run nor a study" in refused(two, tmp_path / "empty")


def test_an_unfinished_run_is_refused_with_the_command_that_continues_it(copied: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(copied, tmp_path / "broken"))
    for scores in broken.glob("artifacts/rated-*"):
        shutil.rmtree(scores)
    text = refused(copied, broken)
    assert "lacks rated-" in text and f"valuesoup run {broken / 'config.yaml'} --out {broken}" in text
    (broken / "results.json").unlink()
    assert "has not finished" in refused(copied, broken)


# Runs


def test_a_run_and_its_copy_are_paired_by_prompt_and_differ_by_nothing(
    demo_run: tuple[Path, str], copied: Path
) -> None:
    found = compare(demo_run[0], copied)
    results = json.loads((copied / "results.json").read_text())
    assert found["kind"] == "runs" and found["settings"] == [] and found["rewards_differ"] == []
    assert found["reference_point"] == pytest.approx(results["reference_point"])
    assert len(found["differences"]) == len(results["methods"])
    for row in found["differences"]:
        assert (row["value"], row["low"], row["high"], row["paired"], row["identical"]) == (0, 0, 0, "prompt", True)
    for row in found["methods"]:  # its own box is the common one, so only the draws are others
        volume = results["methods"][row["method"]]["hypervolume"]
        assert row["hypervolume"]["mean"] == pytest.approx(volume["value"])
        assert row["hypervolume"]["low"] <= row["hypervolume"]["mean"] + 1e-12
        assert row["trained_pairs"] == results["methods"][row["method"]]["trained_pairs"]


def test_runs_of_other_test_prompts_are_not_paired(copied: Path, shorter: Path) -> None:
    found = compare(copied, shorter)
    assert [row["key"] for row in found["settings"]] == ["generation.max_prompt_tokens"]
    for row in found["differences"]:
        assert row["paired"] is None
        assert 0 < row["common"] < 24
        assert row["low"] <= row["value"] <= row["high"] and row["low"] < row["high"]
    pooled = [row["scores"] for row in found["candidates"]]
    for value in found["values"]:
        assert found["best_point"][value] == pytest.approx(max(scores[value]["mean"] for scores in pooled))


def test_the_command_prints_the_tables_and_writes_a_page_with_its_figures(
    demo_run: tuple[Path, str], copied: Path, tmp_path: Path
) -> None:
    page = tmp_path / "new" / "side-by-side.html"
    done = tiny_run.valuesoup(tmp_path / "cache", "compare", demo_run[0], copied, "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in (
        "Methods in one box",
        "run − copy",
        "by prompt (24)",
        "run and copy are identical",
        f"comparison: {page}",
    ):
        assert text in done.stdout
    figures = {path.name for path in (page.parent / "side-by-side-figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in ("frontiers", "hypervolume") for kind in KINDS}
    assert "run and copy are identical" in page.read_text(encoding="utf-8")


def test_a_mistake_of_the_command_is_one_sentence(copied: Path, tmp_path: Path) -> None:
    done = tiny_run.valuesoup(tmp_path / "cache", "compare", copied, copied.parent / "cpy")
    assert done.returncode == 2
    assert done.stderr == f"error: {copied.parent / 'cpy'} does not exist; did you mean 'copy'?\n"


def test_results_say_what_the_choice_on_validation_promised(copied: Path) -> None:
    results = json.loads((copied / "results.json").read_text())
    for name, method in results["methods"].items():
        found = method["optimism"]
        assert found["test"] == pytest.approx(method["hypervolume"]["value"])
        chosen = [row for row in results["candidates"] if row["method"] == name and row["on_frontier"]]
        for value in results["values"]:
            span = results["best_point"][value] - results["reference_point"][value]
            fall = sum(row["validation"][value]["mean"] - row["test"][value]["mean"] for row in chosen) / len(chosen)
            assert found["drop"][value]["mean"] == pytest.approx(fall / span)
            assert found["drop"][value]["low"] < fall / span < found["drop"][value]["high"]
