"""What commands write: lm-eval's layout, flat files, and what is neither."""

import json
from pathlib import Path
from typing import Any

import pytest

from valuesoup.errors import RunError
from valuesoup.regression.outputs import Metric, read_outputs

LM_EVAL = {
    "results": {
        "arc_easy": {
            **{"alias": "arc_easy", "sample_len": 100, "acc,none": 0.5, "acc_stderr,none": 0.01},
            **{"acc_norm,none": 0.6, "acc_norm_stderr,none": "N/A"},
        },
        "gsm8k": {"exact_match,strict-match": 0.1, "exact_match_stderr,strict-match": 0.02, "exact_match,flexible": 1},
        "wikitext": {"word_perplexity,none": 20.5, "word_perplexity_stderr,none": "N/A"},
        "group": {" ": " ", "alias": "a group without figures of its own"},
    },
    "higher_is_better": {"arc_easy": {"acc": True, "acc_norm": True}, "wikitext": {"word_perplexity": False}},
    "config": {"model": "hf"},
}


def put(folder: Path, content: Any, name: str = "results.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_layout_of_lm_eval_gives_tasks_filters_errors_and_directions(tmp_path: Path) -> None:
    (tmp_path / "samples_arc_easy.jsonl").write_text("not a result")
    assert read_outputs(put(tmp_path, LM_EVAL, "a-model/results_2026.json"), "x") == {
        "arc_easy acc": Metric(0.5, 0.01, True),
        "arc_easy acc_norm": Metric(0.6, None, True),
        "gsm8k exact_match (strict-match)": Metric(0.1, 0.02, None),
        "gsm8k exact_match (flexible)": Metric(1.0, None, None),
        "wikitext word_perplexity": Metric(20.5, None, False),
    }


def test_a_flat_file_gives_its_numbers_with_errors_where_they_are_named(tmp_path: Path) -> None:
    found = read_outputs(put(tmp_path, {"accuracy": 1, "accuracy_stderr": 0.25, "loss": -2.5}), "x")
    assert found == {"accuracy": Metric(1.0, 0.25), "loss": Metric(-2.5)}


def test_several_files_are_read_together(tmp_path: Path) -> None:
    put(tmp_path, {"a": 1.0}, "one.json")
    put(tmp_path, {"a": 1.0, "b": 2.0}, "two/three.json")
    assert set(read_outputs(tmp_path, "x")) == {"a", "b"}
    put(tmp_path, {"a": 1.5}, "two/a.json")
    with pytest.raises(RunError, match=r"two/a\.json, which .* for x, gives 'a' another value"):
        read_outputs(tmp_path, "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{half", "is not JSON"),
        ("[1, 2]", "holds no metrics"),
        ("{}", "holds no metrics"),
        ({"accuracy": "high"}, "'high' for accuracy, which is no finite number"),
        ({"accuracy": True}, "'True' for accuracy, which is no finite number"),
        ('{"accuracy": NaN}', "'nan' for accuracy, which is no finite number"),
        ({"accuracy": 10**400}, "for accuracy, which is no finite number"),
        ({"accuracy": 0.5, "accuracy_stderr": [1]}, "'\\[1\\]' for accuracy_stderr"),
        ({"results": {"arc_easy": {"alias": "arc_easy"}}}, "holds no metrics"),
        ({"results": {"arc_easy": 0.5}}, "has no table of metrics for the task 'arc_easy'"),
        ({"results": {"arc_easy": {"acc,none": None}}}, "'None' for acc,none"),
    ],
)
def test_what_is_no_result_is_told_with_the_file_and_both_layouts(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(RunError, match=says) as caught:
        read_outputs(put(tmp_path, content), "VC-soup")
    assert "the command wrote for VC-soup" in str(caught.value)
    assert "{METRIC: NUMBER}" in str(caught.value)


def test_a_command_that_writes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the command wrote no JSON file below \{out\} for x"):
        read_outputs(tmp_path, "x")
