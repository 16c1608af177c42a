"""What is exported: weights on a dial or candidates by id; whatever names nothing gets one clear sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from valuesoup.configfile import dump_config
from valuesoup.errors import UserError
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.run import Finished
from valuesoup.shipping.choice import choose, dials, open_for_export, plain_name

METHODS = "methods=[{preset: dpo-lw, steps: 2}, seqt, {preset: mva, points: 4}]"
HALF = {"helpful": 0.5, "harmless": 0.5}


def planned(*settings: str, rows: list[dict[str, Any]] | None = None) -> Finished:
    """A run of which only the plan and the results exist: nothing more is asked to choose."""
    config = demo_config(overrides=[*tiny_run.overrides("helpful", "harmless"), *settings])
    return Finished(Path("runs/x"), make_plan(config), {}, {"candidates": rows or []})


def test_weights_of_a_measured_candidate_are_that_candidate(finished: Finished) -> None:
    (choice,) = choose(finished, "vc-soup", HALF)
    assert (choice.label, choice.name) == ("vc-soup/helpful=0.5,harmless=0.5", "vc-soup-helpful-0.5-harmless-0.5")
    assert choice.measured is not None
    assert choice.measured["id"] == choice.label
    assert (choice.row, choice.nearest) == (HALF, None)


def test_other_weights_know_the_nearest_measured_candidate_and_left_out_values_weigh_nothing(
    finished: Finished,
) -> None:
    (choice,) = choose(finished, "vc-soup", {"helpful": 0.8})
    assert choice.row == choice.weights == {"helpful": 0.8, "harmless": 0.0}
    assert (choice.label, choice.measured) == ("vc-soup/helpful=0.8,harmless=0", None)
    assert choice.nearest is not None
    assert choice.nearest["id"] == "vc-soup/helpful=1,harmless=0"


def test_the_only_method_with_a_dial_is_taken_and_several_are_listed(finished: Finished) -> None:
    assert dials(finished) == ["soup", "vc-soup"]  # DPO's vectors stand alone
    with pytest.raises(UserError, match="2 methods of the run have a dial; name one with --method: soup, vc-soup"):
        choose(finished, None, HALF)
    (choice,) = choose(planned(METHODS), None, HALF)
    assert choice.method == "mva"


def test_a_method_without_a_dial_says_so_and_offers_its_points() -> None:
    run = planned(METHODS)
    with pytest.raises(UserError) as refused:
        choose(run, "dpo-lw", HALF)
    assert str(refused.value) == (
        "method 'dpo-lw' has no dial: each of its policies was trained for itself; export one of them by its id: "
        "dpo-lw/helpful=1,harmless=0, dpo-lw/helpful=0.5,harmless=0.5, dpo-lw/helpful=0,harmless=1."
    )
    bare = planned("methods=[{preset: modpo, steps: 2}, seqt]")
    with pytest.raises(
        UserError, match=r"has a dial, so weights mean nothing; .*--candidate.*: modpo/helpful=1,.*seqt/"
    ):
        choose(bare, None, HALF)


def test_a_policy_without_a_dial_is_its_own_vector_at_weight_1() -> None:
    (choice,) = choose(planned(METHODS), candidates=["seqt/helpful>harmless"])
    assert (choice.row, choice.weights, choice.name) == ({"policy-1": 1.0}, None, "seqt-helpful-harmless")
    (other,) = choose(planned(METHODS), candidates=["dpo-lw/helpful=0.5,harmless=0.5"])
    assert other.row == {"policy-1": 0.0, "policy-2": 1.0, "policy-3": 0.0}
    assert other.weights == HALF


def test_several_candidates_are_taken_once_each_under_names_that_differ() -> None:
    run = planned(METHODS)
    named = ["seqt/helpful>harmless", "dpo-lw/helpful=1,harmless=0", "seqt/helpful>harmless"]
    assert [choice.label for choice in choose(run, candidates=named)] == named[:2]
    run = planned("methods=[{name: α, preset: soup, steps: 2}, {name: β, preset: vc-soup, steps: 2, tau: 0}]")
    names = [choice.name for choice in choose(run, "α", HALF, ["β/helpful=0.5,harmless=0.5"])]
    assert names == ["helpful-0.5-harmless-0.5", "helpful-0.5-harmless-0.5-2"]


def test_names_are_safe_for_folders_servers_and_shells() -> None:
    assert plain_name("vc-soup/helpful=0.6,harmless=0.4") == "vc-soup-helpful-0.6-harmless-0.4"
    assert plain_name("../τ=x;rm -rf $HOME") == "x-rm--rf-HOME"
    assert plain_name("τ") == "policy"


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({}, "say what to export"),
        ({"method": "vc-soup"}, "is named without weights"),
        ({"weights": {}}, "the weights are empty"),
        ({"weights": {"helpfull": 1}}, "the run has no value 'helpfull'; did you mean 'helpful'?"),
        ({"weights": {"helpful": -0.2}}, "the weight of 'helpful' is -0.2; weights to export are 0 or more"),
        ({"weights": {"helpful": float("nan")}}, "must be a finite number"),
        ({"weights": {"helpful": 0.0}}, "every weight is zero: that is the base model itself"),
        ({"weights": HALF, "method": "vc-suop"}, "has no method 'vc-suop'; did you mean 'vc-soup'?"),
        ({"weights": HALF, "method": "base"}, "has no method 'base'"),
        ({"candidates": ["base"]}, "is the base model itself"),
        ({"candidates": ["../../etc"]}, "no candidate '../../etc'; an id is such as dpo/helpful=1,harmless=0, and"),
        ({"candidates": ["soup/helpful=0.5,harmles=0.5"]}, "did you mean 'soup/helpful=0.5,harmless=0.5'?"),
    ],
)
def test_what_names_nothing_gets_one_sentence(named: dict[str, Any], sentence: str, finished: Finished) -> None:
    with pytest.raises(UserError) as refused:
        choose(finished, **named)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_base_that_changed_or_went_away_is_named_as_the_cause(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    folder = tmp_path / "run"
    folder.mkdir()
    config = demo_config(overrides=[*tiny_run.overrides("helpful", "harmless")])
    config = config.model_copy(
        update={"base": config.base.model_copy(update={"model": str(base), "pretrain": None, "dialogues": None})}
    )
    (folder / "config.yaml").write_text(dump_config(config))
    with pytest.raises(UserError, match="has not finished"):
        open_for_export(folder)
    made = folder / "artifacts" / "train-0"
    made.mkdir(parents=True)
    (made / "manifest.json").write_text(json.dumps({"inputs": {"base": {"content": "0" * 64}}}))
    with pytest.raises(UserError, match="has changed since its vectors were trained; put the old files back"):
        open_for_export(folder)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is gone; put it back"):
        open_for_export(folder)


def test_no_run_and_a_damaged_one_are_named(tmp_path: Path, demo_run: tuple[Path, str]) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        open_for_export(tmp_path)
    copy = Path(shutil.copytree(demo_run[0], tmp_path / "run"))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "seed-3").symlink_to(copy)
    with pytest.raises(UserError, match=r"a study over seeds; export from one of its runs, such as .*seed-3\."):
        open_for_export(tmp_path / "study")
    next(copy.glob("artifacts/train-*/adapter/adapter_model.safetensors")).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"holds a damaged train-\w+ \(.*\); `valuesoup run .* makes it again"):
        open_for_export(copy)
