"""What a check keeps of texts and policies, and what of it is shown after these have changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_checked import TEXT
from valuesoup.errors import UserError
from valuesoup.pipeline.run import Finished
from valuesoup.regression import check, checked_run
from valuesoup.regression.kept import take_subjects
from valuesoup.regression.subjects import current_keys, subjects_of


def test_texts_are_kept_by_content_and_replaced_by_name(finished: Finished, tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text(TEXT)
    two.write_text("other words\n\nof two documents\n\nand one")
    found = check(finished, [one, two], methods=["soup"])
    assert [text["name"] for text in found["texts"]] == [str(one), str(two)]
    assert [text["documents"] for text in found["texts"]] == [2, 3]
    one.write_text("something else")
    check(finished, [one], methods=["soup"])
    shown = checked_run(finished)
    assert shown is not None
    assert sorted((text["name"], text["documents"]) for text in shown["texts"]) == [(str(one), 1), (str(two), 3)]


def test_policies_that_have_changed_since_are_not_shown_and_counted(finished: Finished) -> None:
    assert checked_run(finished) is None
    check(finished, limit=3)
    path = finished.folder / "check.json"
    content = json.loads(path.read_text())
    assert {row["key"] for row in content["texts"][0]["policies"]} <= set(current_keys(finished.plan).values())
    text = content["texts"][0]
    text["nats"]["0" * 16] = text["nats"][text["policies"][1]["key"]]
    text["policies"][1]["key"] = "0" * 16
    path.write_text(json.dumps(content))
    shown = checked_run(finished)
    assert shown is not None
    assert shown["outdated"] == 1
    assert len(shown["texts"][0]["policies"]) == len(content["texts"][0]["policies"]) - 1


def test_a_policy_that_is_another_model_now_has_no_figures_until_it_is_measured(finished: Finished) -> None:
    subjects, _ = subjects_of(finished, [], {})
    entry: dict[str, Any] = {"policies": []}
    take_subjects(entry, subjects)
    for row in entry["policies"]:
        row["perplexity"] = 2.0
    changed = replace(subjects[1], key="0" * 16)
    take_subjects(entry, [subjects[0], changed])
    assert entry["policies"][0]["perplexity"] == 2.0
    assert "perplexity" not in entry["policies"][1]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "texts": [3]}'])
def test_a_damaged_file_is_told(finished: Finished, text: str) -> None:
    (finished.folder / "check.json").write_text(text)
    for act in (checked_run, check):
        with pytest.raises(UserError, match=r"check\.json is damaged \(.*\); remove it and check the run again"):
            act(finished)


def test_vectors_that_two_policies_share_make_one_model(finished: Finished) -> None:
    keys = current_keys(finished.plan)
    assert keys["base"] != keys["soup/helpful=1,harmless=0"]
    assert keys["dpo/helpful=1,harmless=0"] == keys["soup/helpful=1,harmless=0"], "both train on every pair"
