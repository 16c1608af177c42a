"""The command judge on a finished run: its cost, its report, its mistakes and its templates."""

import json
import re
import shutil
from pathlib import Path

import pytest

import tiny_run
from tiny_endpoint import serving
from tiny_judged import NOBODY_THERE, compared, told
from valuesoup.errors import UserError
from valuesoup.pipeline.judging import JudgeSettings, judged_run, open_docket, write_judge_templates
from valuesoup.pipeline.run import open_run
from valuesoup.report.assemble import report_data


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


def test_a_method_that_was_left_out_stands_on_the_page_under_its_title(copied: Path) -> None:
    finished = open_run(copied)
    with serving(longer) as served:
        told(served, finished, weights={"helpful": 0.5, "harmless": 0.5}, limit=1)
    judged = judged_run(finished)
    assert judged and "dpo" in judged["left_out"]
    shown = report_data(finished).judged["left_out"]
    assert "DPO" in shown and list(shown.values()) == list(judged["left_out"].values())


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
