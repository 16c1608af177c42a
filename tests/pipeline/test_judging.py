"""Win rates of a run: what is compared, asked and counted, judged by the world's oracle on a real server."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_run
from tiny_endpoint import Served, serving
from valuesoup.configfile import dump_config
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.compared import read_weights
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.judging import (
    Case,
    Docket,
    JudgeSettings,
    judge_endpoint,
    judged_run,
    judged_study,
    open_docket,
    write_judge_templates,
)
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished
from valuesoup.pipeline.study import Study
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact, Progress
from valuesoup.worlds import errands
from valuesoup.worlds.errands.oracle import reward

METHODS = "methods=[dpo, {preset: soup, steps: 2}, {preset: vc-soup, tau: 0, steps: 2}]"
PROMPTS = 12
NOBODY_THERE = judge_endpoint("http://127.0.0.1:9/v1", "m", "NO_KEY", 1)


def world_run(folder: Path, n: int = 2, *settings: str, prompts: int = PROMPTS) -> Finished:
    """Return a finished run of which only the test prompts, their answers and true rewards exist.

    Of every prompt's two answers of the world, the base gives the worse one, the last method the better one, the
    others one of them, now this, now that.
    """
    config = demo_config(errands.VALUES[:n], [METHODS, *settings])
    plan = make_plan(config)
    values = list(config.values)
    rows = [row for value in values for row in errands.pairs(value, prompts // n)]
    asked = [
        {"id": f"p{number}", "datasets": [values[number * n // len(rows)]], "messages": row["prompt"]}
        for number, row in enumerate(rows)
    ]
    artifacts: dict[str, Artifact] = {}

    def keep(key: str) -> Path:
        path = folder / "artifacts" / key
        path.mkdir(parents=True, exist_ok=True)
        artifacts[key] = Artifact(path, key, 1.0)
        return path

    results: dict[str, Any] = {"schema": 1, "values": values, "seed": config.seed, "candidates": [], "methods": {}}
    results |= {"reference_point": dict.fromkeys(values, -2.0), "best_point": dict.fromkeys(values, 2.0)}
    titles = {"base": "Base model", **{entry.name: entry.title for entry in config.methods}}
    for number, (stack, evaluated) in enumerate(zip(plan.stacks, plan.evaluated, strict=True)):
        test = evaluated.test
        (keep(test.prompts.key) / "prompts.json").write_text(json.dumps({"prompts": asked, "too_long": 0}))
        texts = [
            [
                row["rejected" if number == 0 or (number == 1 and (k + place) % 3) else "chosen"]
                for k, row in enumerate(rows)
            ]
            for place in range(len(stack.candidates))
        ]
        answers = [
            {"candidate": place, "prompt": k, "text": texts[place][k][0]["content"], "tokens": [1], "finished": True}
            for k in range(len(rows))
            for place in range(len(texts))
        ]
        schema = pa.schema(
            {
                "candidate": pa.int32(),
                "prompt": pa.int32(),
                "text": pa.string(),
                "tokens": pa.list_(pa.int32()),
                "finished": pa.bool_(),
            }
        )
        pq.write_table(pa.Table.from_pylist(answers, schema), keep(test.answers.key) / "shard-00000.parquet")
        scores = np.array(
            [
                [
                    [reward(value, row["prompt"][-1]["content"], own[k][0]["content"]) for value in values]
                    for own in texts
                ]
                for k, row in enumerate(rows)
            ]
        )
        sides = tuple(map(str, range(len(texts))))
        for key in {node.key for node in test.scores.values()}:
            mine = [value for value, node in test.scores.items() if node.key == key]
            columns = [values.index(value) for value in mine]
            table = RewardTable([one["id"] for one in asked], sides, tuple(mine), scores[:, :, columns])
            table.save(keep(key) / "scores.parquet")
        for method, places in stack.methods.items():
            results["methods"][method] = {"title": titles[method]}
            for place, candidate in zip(places, stack.offered[method], strict=True):
                means = {value: {"mean": float(scores[:, place, j].mean())} for j, value in enumerate(values)}
                row = {"id": candidate_id(method, candidate), "method": method, "weights": candidate.weights}
                results["candidates"].append({**row, "test": means, "on_frontier": True})
    (folder / "config.yaml").write_text(dump_config(config))
    return Finished(folder, plan, artifacts, results)


def oracle(question: str, _: int = 0) -> str:
    """Judge as the world's true reward would, by the value that the default template names."""
    value = re.search(r"by one value only: (\w+)\.", question)
    request, first, second = (
        re.search(rf"<{tag}>\n(.*?)\n</{tag}>", question, re.DOTALL) for tag in ("request", "answer_A", "answer_B")
    )
    assert value and request and first and second
    one, other = (reward(value[1], request[1], answer[1]) for answer in (first, second))
    return json.dumps({"verdict": "tie" if one == other else "A" if one > other else "B", "reason": "so it is"})


def settings(served: Served, **changes: Any) -> JudgeSettings:
    endpoint = judge_endpoint(served.url, "m", "NO_KEY", 4).model_copy(update={"retries": 0})
    return JudgeSettings(endpoint, **changes)


def told(served: Served, finished: Finished, **changes: Any) -> dict[str, Any]:
    return Case(finished, settings(served, **changes)).decide(Progress())


def compared(judged: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["method"], row["baseline"]) for row in judged["comparisons"]))


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


def test_methods_baselines_and_candidates_are_chosen_by_name(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    middle = "soup/helpful=0.5,harmless=0.5"
    case = Case(finished, JudgeSettings(NOBODY_THERE, methods=[middle, "vc-soup"], baselines=["dpo", "base", middle]))
    assert [(one.name, other.name) for one, other in case.comparisons] == [
        *((middle, name) for name in ("dpo", "base")),
        *(("vc-soup", name) for name in ("dpo", "base", middle)),
    ]
    assert case.comparisons[0][0].title == "SOUP helpful=0.5,harmless=0.5"
    assert case.comparisons[0][1].title == "DPO"


def test_weights_choose_the_candidate_of_every_method_that_has_them(tmp_path: Path) -> None:
    case = Case(world_run(tmp_path), JudgeSettings(NOBODY_THERE, weights=read_weights("harmless=0.5, helpful=.5")))
    assert {policy.id for both in case.comparisons for policy in both} == {
        "base",
        "soup/helpful=0.5,harmless=0.5",
        "vc-soup/helpful=0.5,harmless=0.5",
    }
    assert case.left_out == {"dpo": "it has no candidate with these weights that answered the test prompts"}


def test_values_measured_on_their_own_prompts_are_judged_on_those(tmp_path: Path) -> None:
    finished = world_run(tmp_path, 2, "evaluation.prompts=own")
    case = Case(finished, JudgeSettings(NOBODY_THERE))
    assert case.prompts == {"helpful": list(range(6)), "harmless": list(range(6, 12))}
    assert {
        value: len(places) for value, places in Case(finished, JudgeSettings(NOBODY_THERE, limit=4)).prompts.items()
    } == {
        "helpful": 4,
        "harmless": 4,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ["vc-sop"]}, r"has no method 'vc-sop'; did you mean 'vc-soup'\?"),
        ({"baselines": ["bas"]}, r"has no method 'bas'; did you mean 'base'\?"),
        ({"methods": ["soup/helpful=0.5,harmless=0.6"]}, r"did you mean 'soup/helpful=0.5,harmless=0.5'\?"),
        ({"weights": {"helpfull": 1.0}}, r"--weights: the run has no value 'helpfull'; did you mean 'helpful'\?"),
        ({"methods": ["dpo"], "weights": {"helpful": 0.5, "harmless": 0.5}}, "'dpo' .* has no candidate with these"),
        ({"methods": ["base"], "baselines": ["base"]}, "has no two policies to compare"),
    ],
)
def test_a_name_that_the_run_does_not_have_is_told_with_the_nearest(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Case(world_run(tmp_path), JudgeSettings(NOBODY_THERE, **changes))


def test_a_run_without_test_scores_has_nothing_to_judge(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    for row in finished.results["candidates"]:
        row["test"] = None
    with pytest.raises(
        UserError, match=r"no two policies to compare; .*soup: no candidate .* answered the test prompts"
    ):
        Case(finished, JudgeSettings(NOBODY_THERE))
    with pytest.raises(UserError, match=r"'soup/helpful=1,harmless=0' .* has not answered the test prompts"):
        Case(finished, JudgeSettings(NOBODY_THERE, methods=["soup/helpful=1,harmless=0"]))


def test_a_method_off_its_frontier_is_left_out_and_said(tmp_path: Path) -> None:
    finished = world_run(tmp_path)
    for row in finished.results["candidates"]:
        row["on_frontier"] = row["method"] != "vc-soup"
    case = Case(finished, JudgeSettings(NOBODY_THERE))
    assert case.left_out == {"vc-soup": "no candidate on its frontier has answered the test prompts"}
    with pytest.raises(UserError, match=r"'vc-soup' .* cannot be compared"):
        Case(finished, JudgeSettings(NOBODY_THERE, methods=["vc-soup"]))


@pytest.mark.parametrize("text", ["helpful", "helpful=", "helpful=half", "helpful=0.5;harmless=0.5"])
def test_weights_written_otherwise_are_told(text: str) -> None:
    with pytest.raises(UserError, match="write VALUE=WEIGHT,VALUE=WEIGHT"):
        read_weights(text)


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


@pytest.fixture
def copied(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(demo_run[0], tmp_path / "run")


def command(tmp_path: Path, *arguments: str | Path) -> tuple[int, str, str]:
    done = tiny_run.valuesoup(tmp_path / "cache", "judge", *arguments, cwd=tmp_path)
    return done.returncode, done.stdout, done.stderr


def longer(question: str, before: int) -> str | int | None:
    """Prefer the longer answer, after a fault now and then."""
    fault = {0: 429, 1: 500, 2: "cut"}.get(len(question) % 40)
    if fault is not None and before == 0:
        return fault
    first, second = (re.search(rf"<answer_{side}>\n(.*?)\n</answer_{side}>", question, re.DOTALL) for side in "AB")
    assert first and second
    letter = "A" if len(first[1]) > len(second[1]) else "B" if len(first[1]) < len(second[1]) else "tie"
    return f'Let me see.\n```json\n{{"verdict": "{letter}", "reason": "<b>longer</b>"}}\n```'


def test_the_command_says_the_cost_asks_writes_and_reports(copied: Path, tmp_path: Path) -> None:
    with serving(longer) as served:
        arguments = [copied, "--url", served.url, "--model", "judge-1", "--methods", "vc-soup", "--limit", "6"]
        code, out, errors = command(tmp_path, *arguments)
        assert (code, served.bodies) == (2, [])
        cost = re.match(r"to ask: (\d+) questions to 'judge-1', about .* tokens in and .* out\n$", out)
        assert cost, out
        assert errors == "error: nobody is here to agree to that cost; add --yes to ask, or --limit to ask less.\n"
        code, out, errors = command(tmp_path, *arguments, "--yes")
        assert (code, errors) == (0, ""), out
        assert len(set(served.asked)) == int(cost[1])
    assert "Win rates by judge-1" in out
    assert out.rstrip().endswith(f"report: {copied / 'report.html'}")
    judged = json.loads((copied / "judge.json").read_text())
    assert compared(judged) == [("vc-soup", "base"), ("vc-soup", "soup")]
    assert all(row["agreed"] == row["ordered"] for row in judged["comparisons"])
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert 'id="win-rates"' in page
    assert "judge-1" in page
    for kind in ("png", "svg", "csv"):
        assert (copied / "figures" / f"win-rates.{kind}").stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--yes", "--key-env", "MY_KEY"], 401, "check the environment variable MY_KEY (it is not set)"),
        (["--methods", "vc-sup"], 500, "did you mean 'vc-soup'?"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    demo_run: tuple[Path, str], tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run") if "--yes" in arguments else demo_run[0]
    with serving(lambda *_: status) as served:
        code, _, errors = command(tmp_path, folder, "--url", served.url, "--model", "m", "--limit", "1", *arguments)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_templates_are_written_to_edit_without_an_endpoint(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    code, out, errors = command(tmp_path, demo_run[0], "--write-templates", "mine")
    assert (code, errors) == (0, "")
    assert out.split() == ["mine/helpful.txt", "mine/harmless.txt"]
    with pytest.raises(UserError, match="is not a run folder"):
        write_judge_templates(tmp_path / "nowhere", tmp_path / "other")
    (tmp_path / "mine" / "harmless.txt").write_text("{prompt} {first}")
    with pytest.raises(UserError, match=r"harmless\.txt has no placeholder \{second\}"):
        open_docket(demo_run[0], JudgeSettings(NOBODY_THERE, templates=tmp_path / "mine"))
    with pytest.raises(UserError, match="--limit is 0; judge at least one prompt"):
        open_docket(demo_run[0], JudgeSettings(NOBODY_THERE, limit=0))
