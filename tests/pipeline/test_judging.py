"""Win rates of a run: what is asked and counted, judged by the world's oracle on a real server."""

import json
import re
from pathlib import Path

import pytest

from tiny_endpoint import serving
from tiny_judged import PROMPTS, compared, oracle, settings, told, world_run
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.judging import Case, Docket, JudgeSettings, judge_endpoint, judged_run, judged_study
from valuesoup.pipeline.study import Study
from valuesoup.store import Progress
from valuesoup.worlds import errands


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_oracle_as_judge_counts_what_the_true_rewards_say(tmp_path: Path, n: int) -> None:
    finished = world_run(tmp_path, n)
    with serving(oracle) as served:
        judged = told(served, finished)
    assert judged["values"] == list(errands.VALUES[:n])
    assert compared(judged) == [
        ("dpo", "base"),
        ("dpo", "soup"),
        ("soup", "base"),
        ("vc-soup", "base"),
        ("vc-soup", "soup"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "judge" / "verdicts.jsonl").read_text().splitlines()]
    assert len(lines) == n * 5 * PROMPTS
    for row in judged["comparisons"]:
        own = [one for one in lines if all(one[name] == row[name] for name in ("value", "method", "baseline"))]
        gaps = [one["reward_difference"] for one in own]
        assert [one["prompt"] for one in own] == [f"p{number}" for number in range(PROMPTS)]
        assert row["wins"] == sum(gap > 0 for gap in gaps)
        assert row["losses"] == sum(gap < 0 for gap in gaps)
        assert row["ties"] == sum(gap == 0 for gap in gaps)
        assert row["identical"] == sum(one["forward"] is None for one in own)
        assert row["agreed"] == row["ordered"] == PROMPTS - row["identical"]
        assert row["reward_agreed"] == row["rewarded"] == row["wins"] + row["losses"]
        assert row["win_rate"]["value"] == (row["wins"] + row["ties"] / 2) / PROMPTS
    assert sum(row["wins"] for row in judged["comparisons"]) > 0
    assert any(row["identical"] for row in judged["comparisons"])
    assert judged_run(finished) == judged == json.loads((tmp_path / "judge.json").read_text())


def test_nothing_is_asked_twice_and_a_higher_limit_only_adds(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    with serving(oracle) as served:
        few = told(served, finished, limit=5)
        assert few["prompts"] == {"helpful": 5, "harmless": 5}
        asked = list(served.asked)
        assert len(asked) == len(set(asked)), "identical answers of other policies make the same question"
        whole = Case(finished, settings(served))
        assert whole.cost().questions > 0
        first = whole.decide(Progress())
        assert set(served.asked[: len(asked)]) == set(asked)
        assert len(served.asked) == len(set(served.asked))
        content = (tmp_path / "judge.json").read_bytes()
        before = len(served.bodies)
        again = Case(finished, settings(served))
        assert again.cost().questions == 0
        assert again.decide(Progress()) == first
        assert len(served.bodies) == before
    assert (tmp_path / "judge.json").read_bytes() == content
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_endpoint_that_breaks_down_half_way_loses_no_answer(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    up = 20
    with serving(lambda text, _: oracle(text) if len(served.bodies) <= up else 503) as served:
        with pytest.raises(RunError, match="what it answered is kept, and the same command goes on from there"):
            told(served, finished)
        assert not (tmp_path / "judge.json").exists()
        kept = len((tmp_path / "judge" / "answers.jsonl").read_text().splitlines())
        assert kept > 10
        before, up = len(served.bodies), 10_000
        case = Case(finished, settings(served))
        left = case.cost().questions
        judged = case.decide(Progress())
        assert len(served.bodies) - before == left
    with serving(oracle) as served:
        assert told(served, world_run(tmp_path / "unbroken"))["comparisons"] == judged["comparisons"]


def test_pairs_without_a_verdict_or_an_answer_count_for_nobody_and_are_counted(tmp_path: Path) -> None:
    finished = world_run(tmp_path)

    def mind(text: str, before: int) -> str | int:
        kind = len(re.findall("e", text)) % 5
        return "I would rather not." if kind == 0 else 400 if kind == 1 and before >= 0 else oracle(text)

    with serving(mind) as served:
        judged = told(served, finished)
    rows = judged["comparisons"]
    assert sum(row["invalid"] for row in rows) > 0
    assert sum(row["unanswered"] for row in rows) > 0
    for row in rows:
        assert sum(row[name] for name in ("wins", "ties", "losses", "invalid", "unanswered")) == PROMPTS
    for value, of in judged["judges"].items():
        for name in ("invalid", "unanswered", "wins", "agreed"):
            assert of[name] == sum(row[name] for row in rows if row["value"] == value)


def test_a_judge_that_always_says_the_first_makes_every_pair_a_tie(tmp_path: Path) -> None:
    with serving(lambda *_: "A") as served:
        judged = told(served, world_run(tmp_path), methods=["vc-soup"], baselines=["base"])
    for row in judged["comparisons"]:
        assert (row["wins"], row["losses"], row["ties"]) == (0, 0, PROMPTS)
        assert row["orders_agreement"]["value"] == 0
        assert row["first_share"]["value"] == 1
        assert row["reward_agreement"] is None


@pytest.mark.parametrize(
    ("url", "model", "says"),
    [
        ("localhost:8000", "m", "the judge's url is wrong: an endpoint's url is like http://127.0.0.1:8000/v1"),
        ("http://a/v1", "", "the judge's model is wrong"),
    ],
)
def test_an_address_that_is_none_is_told(url: str, model: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        judge_endpoint(url, model, "KEY", 8)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number_of_seconds(timeout: float) -> None:
    assert judge_endpoint("http://a/v1", "m", "KEY", 8, 7.5).timeout == 7.5
    with pytest.raises(UserError, match="the judge's timeout is wrong: input should be"):
        judge_endpoint("http://a/v1", "m", "KEY", 8, timeout)


def test_a_request_that_hangs_is_given_up_after_the_timeout_and_tried_again(tmp_path: Path) -> None:
    with serving(lambda text, before: oracle(text) if before else "hang") as served:
        endpoint = judge_endpoint(served.url, "m", "NO_KEY", 8, 0.2).model_copy(update={"retries": 2})
        case = Case(world_run(tmp_path), JudgeSettings(endpoint, methods=["vc-soup"], baselines=["base"], limit=2))
        judged = case.decide(Progress())
    assert sum(row["unanswered"] for row in judged["comparisons"]) == 0
    assert len(served.asked) == 2 * len(set(served.asked))


def test_a_run_that_changed_since_is_not_shown_by_what_was_said_before(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    assert judged_run(finished) is None
    with serving(oracle) as served:
        told(served, finished, methods=["vc-soup"], baselines=["base"], limit=1)
    changed = world_run(tmp_path, 2, "seed=7")
    assert judged_run(changed) == {
        "missing": "The answers of vc-soup, base have changed since they were judged; judge them again."
    }
    whole = json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))
    lacking = [json.dumps({key: whole[key] for key in whole if key != left}) for left in whole]
    odd = [json.dumps({**whole, key: odd}) for key in whole for odd in (3.5, ["x"], {"x": None})]
    for text in ("{", "[]", '{"schema": 2}', "[" * 100_000, *lacking, *odd):
        (tmp_path / "judge.json").write_text(text)
        with pytest.raises(UserError, match=r"judge\.json is damaged"):
            judged_run(finished)


def test_the_runs_of_a_study_are_judged_each_and_combined(tmp_path: Path) -> None:
    runs = [world_run(tmp_path / f"seed-{seed}", 2, f"seed={seed}") for seed in (0, 1)]
    study = Study(tmp_path, runs, {"seeds": [0, 1]})
    assert judged_study(study) is None
    with serving(oracle) as served:
        cases = [Case(finished, settings(served, methods=["vc-soup"], limit=6)) for finished in runs]
        docket = Docket(cases, study)
        assert docket.cost().questions == sum(case.cost().questions for case in cases) > 0
        combined = docket.decide(Progress())
        assert docket.cost().questions == 0
    assert json.loads((tmp_path / "judge.json").read_text()) == combined == judged_study(study)
    each = [judged_run(finished) for finished in runs]
    for place, row in enumerate(combined["comparisons"]):
        own = [of["comparisons"][place] for of in each if of]
        assert row["wins"] == sum(one["wins"] for one in own)
        assert row["win_rate"]["each"] == [one["win_rate"]["value"] for one in own]
    (tmp_path / "seed-1" / "judge.json").unlink()
    assert "missing" in (judged_study(study) or {})
