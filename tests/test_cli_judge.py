"""The commands that question results, as a person meets them: a judge of a run and of a study, and their mistakes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_run
from tiny_endpoint import Served, serving

Mind = Callable[[str, int], str | int | None]


def first(*_: object) -> str:
    return '{"verdict": "A", "reason": "it came first"}'


def longer(question: str, _: int) -> str:
    """Prefer the longer answer."""
    one, two = (re.search(rf"<answer_{side}>\n(.*?)\n</answer_{side}>", question, re.DOTALL) for side in "AB")
    assert one and two
    return json.dumps({"verdict": "A" if len(one[1]) > len(two[1]) else "B", "reason": "longer"})


def command(tmp_path: Path, *arguments: str | Path) -> tuple[int, str, str]:
    done = tiny_run.valuesoup(tmp_path / "cache", *arguments, cwd=tmp_path)
    return done.returncode, done.stdout, done.stderr


def judge(tmp_path: Path, folder: Path, mind: Mind, *arguments: str | Path) -> tuple[int, str, str, Served]:
    with serving(mind) as served:
        asked = ["--url", served.url, "--model", "judge-1", "--yes", "--methods", "vc-soup", "--baseline", "base"]
        return *command(tmp_path, "judge", folder, *asked, *arguments), served


@pytest.fixture
def run(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(demo_run[0], tmp_path / "run")


@pytest.fixture
def study(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    """A study of two seeds, which for a test may be the same."""
    folder = tmp_path / "study"
    for seed in (0, 1):
        shutil.copytree(demo_run[0], folder / f"seed-{seed}")
    (folder / "study.json").write_text('{"seeds": [0, 1]}')
    return folder


def mistake(code: int, errors: str) -> str:
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_study_is_judged_run_by_run_and_its_page_shows_the_rates_over_seeds(study: Path, tmp_path: Path) -> None:
    code, out, errors, served = judge(tmp_path, study, longer, "--limit", "3", "--timeout", "30")
    assert (code, errors) == (0, ""), out
    assert out.rstrip().endswith(f"report: {study / 'report.html'}")
    assert "Win rates by judge-1" in out
    judged = json.loads((study / "judge.json").read_text())
    assert all(len(row["win_rate"]["each"]) == 2 for row in judged["comparisons"] if row["win_rate"])
    for part in (study, study / "seed-0", study / "seed-1"):
        assert (part / "judge.json").is_file()
        assert 'id="win-rates"' in (part / "report.html").read_text(encoding="utf-8")
        assert (part / "figures" / "win-rates.svg").is_file()
    assert len(served.asked) == 2 * len(set(served.asked)), "each run keeps its own answers"


def test_an_endpoint_that_is_not_there_or_refuses_ends_in_one_sentence_and_keeps_the_run(
    run: Path, tmp_path: Path
) -> None:
    before = (run / "results.json").read_bytes()
    code, _, errors, _ = judge(tmp_path, run, lambda *_: 403, "--limit", "1")
    assert "403" in mistake(code, errors)
    code, _, errors = command(tmp_path, "judge", run, "--model", "m", "--url", "localhost", "--yes")
    assert "the judge's url is wrong" in mistake(code, errors)
    assert (run / "results.json").read_bytes() == before
    assert not (run / "judge.json").exists()


def test_a_template_without_its_placeholders_and_a_timeout_of_nothing_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "helpful.txt").write_text("Which is better? {first} or {second}")
    code, _, errors, served = judge(tmp_path, run, first, "--templates", "mine")
    assert "helpful.txt has no placeholder {prompt}; put it where the request goes" in mistake(code, errors)
    code, _, errors, _ = judge(tmp_path, run, first, "--timeout", "0")
    assert "the judge's timeout is wrong: input should be greater than 0" in mistake(code, errors)
    assert served.asked == []


def test_a_run_without_test_scores_has_nothing_to_judge_or_check(run: Path, tmp_path: Path) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text())
    for row in results["candidates"]:
        row["test"] = None
    path.write_text(json.dumps(results))
    code, _, errors = command(tmp_path, "judge", run, "--model", "m", "--url", "http://127.0.0.1:9/v1", "--yes")
    assert "has no two policies to compare; dpo: no candidate on its frontier" in mistake(code, errors)
    code, _, errors = command(tmp_path, "check", run)
    assert "'base' of the run" in mistake(code, errors)
