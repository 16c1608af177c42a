"""The command of a check: how it is read and run on every policy, and what is told where it fails."""

import json
import math
import sys
from pathlib import Path

import pytest

from tiny_checked import SCRIPT, calls, command, dense, vectors_of
from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.run import Finished
from valuesoup.regression import check
from valuesoup.regression.command import read_command


@pytest.mark.parametrize("layout", ["flat", "lm-eval"])
def test_a_command_is_run_once_on_the_base_and_on_each_merged_policy(
    finished: Finished, script: Path, layout: str
) -> None:
    found = check(finished, command=command(script, layout), methods=["soup", "dpo"])
    assert found["texts"] == [], "a command alone asks for no text"
    (of,) = found["commands"]
    (metric,) = of["metrics"]
    assert metric["name"] == ("arc acc" if layout == "lm-eval" else "norm")
    assert metric["higher_is_better"] is (True if layout == "lm-eval" else None)
    assert calls(script) == len(metric["policies"]) == 3
    for row in metric["policies"]:
        model = dense(finished, vectors_of(finished, row["id"]))
        squares = sum(float(tensor.square().sum()) for tensor in model.state_dict().values())
        assert row["value"] == pytest.approx(squares, rel=1e-6)
        if row["id"] == "base":
            assert row["difference"] is None
        else:
            half = 1.959964 * math.sqrt(0.5)
            gap = row["value"] - metric["policies"][0]["value"]
            assert row["difference"] == pytest.approx({"mean": gap, "low": gap - half, "high": gap + half})
    assert len({row["value"] for row in metric["policies"]}) == 3
    assert check(finished, command=command(script, layout), methods=["soup", "dpo"]) == found
    assert calls(script) == 3
    check(finished, command=command(script, layout))
    assert calls(script) == 4, "one more method"
    assert not (finished.folder / ".check").exists()


def test_a_command_is_never_given_to_a_shell(finished: Finished, script: Path, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    bad = f" ; touch {owned} $(touch {owned}) `touch {owned}` > {owned}"
    check(finished, command=command(script) + bad, methods=["soup"])
    assert not owned.exists()
    arguments = json.loads((script.parent / "log").read_text().splitlines()[0])
    assert arguments[5:7] == [";", "touch"]


def test_a_placeholder_stands_anywhere_in_an_argument_and_a_quote_keeps_spaces() -> None:
    text = "lm_eval --model_args 'pretrained={model},dtype=float32' --output_path={out}"
    assert read_command(text)[1:] == ["--model_args", "pretrained={model},dtype=float32", "--output_path={out}"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evaluate --output {out}", r"there is no \{model\}; put it where the folder of the model goes"),
        ("evaluate {model}", r"there is no \{out\}; put it where the folder for its results goes"),
        ("evaluate {modle} {out}", r"there is no \{model\}"),
        ("evaluate '{model} {out}", "no closing quotation"),
        ("", r"there is no \{model\}"),
    ],
)
def test_a_command_that_cannot_work_is_told_before_anything_runs(finished: Finished, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(finished, command=text)
    assert not (finished.folder / "check.json").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import sys\nprint('one\\n\\ntwo\\nthree')\nsys.exit('no tokens left')",
            "ended with exit code 1; the end of its",
        ),
        ("import sys\nsys.exit(3)", "ended with exit code 3; it printed nothing"),
        ("import os\nos.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("pass", "wrote no JSON file"),
        ("import sys, pathlib\npathlib.Path(sys.argv[2], 'a.json').write_text('<html>')", "a.json, .* is not JSON"),
    ],
)
def test_a_command_that_fails_is_one_sentence_and_leaves_no_model_behind(
    finished: Finished, tmp_path: Path, code: str, says: str
) -> None:
    (tmp_path / "fails.py").write_text(code)
    with pytest.raises(RunError, match=says) as caught:
        check(finished, command=f"{sys.executable} {tmp_path / 'fails.py'} {{model}} {{out}}", methods=["soup"])
    assert "\n" not in str(caught.value)
    assert "for base" in str(caught.value)
    if "no tokens" in code:
        assert str(caught.value).endswith("the end of its output: two / three / no tokens left")
    assert not (finished.folder / ".check").exists()


def test_what_a_command_measured_before_it_failed_is_kept(finished: Finished, script: Path) -> None:
    script.write_text(f"import sys, os\nif os.path.exists({str(script.parent / 'log')!r}): sys.exit(9)\n" + SCRIPT)
    with pytest.raises(RunError, match=r"the command for SOUP ended with exit code 9"):
        check(finished, command=command(script), methods=["soup"])
    script.write_text(SCRIPT)
    check(finished, command=command(script), methods=["soup"])
    assert calls(script) == 2


def test_a_program_that_is_not_there_is_told(finished: Finished) -> None:
    with pytest.raises(UserError, match=r"--command: 'lm_evil' cannot be run: No such file or directory"):
        check(finished, command="lm_evil {model} {out}", methods=["soup"])
