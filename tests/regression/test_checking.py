"""The check of a tiny demo run, whole: what it measures, goes on with, and refuses."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from tiny_checked import TEXT, command, dense, vectors_of
from valuesoup.config import BaseConfig
from valuesoup.errors import UserError
from valuesoup.pipeline.inputs import base_ref
from valuesoup.pipeline.run import Finished
from valuesoup.regression import check, checked_run
from valuesoup.regression.texts import held_out_texts
from valuesoup.store import Node


def test_the_perplexity_of_every_policy_is_that_of_its_dense_float64_merge(finished: Finished) -> None:
    from transformers import AutoTokenizer

    (text,) = check(finished)["texts"]
    documents = held_out_texts(finished).documents
    assert isinstance(finished.plan.base, Node)
    tokenizer = AutoTokenizer.from_pretrained(finished.artifacts[finished.plan.base.key].path / "model")
    assert text["policies"][0]["id"] == "base"
    assert {row["method"] for row in text["policies"]} == {"base", *finished.plan.recipes}
    nats: dict[str, list[float]] = {}
    for row in text["policies"]:
        model = dense(finished, vectors_of(finished, row["id"]))
        nats[row["id"]] = []
        tokens = 0
        for document in documents:
            ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(document, add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                scores = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
            nats[row["id"]].append(-float(scores.gather(1, ids[0, 1:, None]).sum()))
            tokens += ids.shape[1] - 1
        assert tokens == text["tokens"]
        assert row["perplexity"] == pytest.approx(math.exp(sum(nats[row["id"]]) / tokens), rel=1e-6)
        size = sum(len(document.encode()) for document in documents)
        assert row["bits_per_byte"] == pytest.approx(sum(nats[row["id"]]) / math.log(2) / size, rel=1e-6)
        if row["id"] != "base":
            ratio = row["log_ratio"]
            assert ratio["mean"] == pytest.approx((sum(nats[row["id"]]) - sum(nats["base"])) / tokens, abs=1e-6)
            assert ratio["low"] < ratio["mean"] < ratio["high"]
    assert text["policies"][0]["log_ratio"] is None
    assert len({round(sum(own), 3) for own in nats.values()}) > 2


def test_nothing_is_measured_twice_and_a_higher_limit_or_another_method_only_adds(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valuesoup.regression import perplexity

    whole = check(finished)
    shutil.copy(finished.folder / "check.json", finished.folder / "whole.json")
    (finished.folder / "check.json").unlink()
    asked: list[tuple[int, int]] = []
    true = perplexity.document_nats

    def spy(soup: Any, rows: Any, documents: Any, **options: Any) -> Any:
        asked.append((len(rows), len(documents)))
        return true(soup, rows, documents, **options)

    monkeypatch.setattr(perplexity, "document_nats", spy)
    check(finished, methods=["soup"], limit=5)
    check(finished, methods=["vc-soup"], limit=5)
    check(finished, methods=["vc-soup"], limit=5)
    assert asked == [(2, 5), (1, 5)], "the base is known already"
    check(finished)
    count = len(held_out_texts(finished).documents)
    assert asked[2:] == [(1, 5), (4, count - 5)], "the one behind catches up, then all go on together"
    shown = checked_run(finished)
    assert shown is not None
    assert {row["id"]: row["perplexity"] for row in shown["texts"][0]["policies"]} == pytest.approx(
        {row["id"]: row["perplexity"] for row in whole["texts"][0]["policies"]}, rel=1e-6
    )


def test_an_interrupted_measurement_goes_on_from_its_last_shard(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valuesoup.regression import measuring, perplexity

    monkeypatch.setattr(measuring, "SHARD", 7)
    true = perplexity.document_nats
    done: list[int] = []

    def breaking(soup: Any, rows: Any, documents: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(documents))
        return true(soup, rows, documents, **options)

    monkeypatch.setattr(perplexity, "document_nats", breaking)
    with pytest.raises(KeyboardInterrupt):
        check(finished)
    shown = checked_run(finished)
    assert shown is not None and shown["texts"] == [], "half a text has no perplexity"
    monkeypatch.setattr(perplexity, "document_nats", true)
    again = check(finished)
    (finished.folder / "check.json").unlink()
    assert again == check(finished)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["vc-sop"]}, r"has no method 'vc-sop'; did you mean 'vc-soup'\?"),
        ({"methods": ["base"]}, "no two policies"),
        ({"weights": {"helpfull": 1.0}}, r"no value 'helpfull'; did you mean 'helpful'\?"),
        ({"limit": 0}, "--limit is 0; take at least one document"),
        ({"texts": ["nowhere.txt"]}, r"nowhere\.txt cannot be read"),
    ],
)
def test_what_a_run_does_not_have_is_told(finished: Finished, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(finished, **options)


def test_a_study_is_checked_run_by_run(finished: Finished, tmp_path: Path) -> None:
    shutil.move(finished.folder, tmp_path / "study" / "seed-3")
    with pytest.raises(UserError, match=r"is the folder of a study; check its runs one by one, such as .*seed-3"):
        check(tmp_path / "study")
    with pytest.raises(UserError, match="is not a run folder"):
        check(tmp_path)


def test_candidates_are_chosen_by_their_weights(finished: Finished) -> None:
    tested = [row for row in finished.results["candidates"] if row["test"] and row["method"] == "soup"]
    found = check(finished, methods=["soup"], weights=tested[0]["weights"])
    assert [row["id"] for row in found["texts"][0]["policies"]] == ["base", tested[0]["id"]]


def test_the_command_line_prints_the_tables_and_writes_the_report(
    finished: Finished, script: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text(TEXT)
    arguments: list[str | Path] = ["check", finished.folder, "--texts", "own.txt", "--methods", "vc-soup"]
    arguments += ["--command", command(script)]
    done = tiny_run.valuesoup(tmp_path / "cache", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Perplexity on own.txt" in done.stdout
    assert re.search(r"own\.txt: 2 documents, \d+ tokens, \d+ bytes", done.stdout)
    assert re.search(r"norm +VC-soup", done.stdout)
    assert done.stdout.rstrip().endswith(f"report: {finished.folder / 'report.html'}")
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "What alignment cost" in page
    for kind in ("png", "svg", "csv"):
        assert (finished.folder / "figures" / f"alignment-cost.{kind}").stat().st_size > 100
    wrong = tiny_run.valuesoup(tmp_path / "cache", "check", finished.folder, "--command", "x {out}", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --command x {out}: there is no {model}")
    assert len(wrong.stderr.splitlines()) == 1


def test_a_base_that_was_not_made_in_the_run_is_checked_on_a_given_text(finished: Finished, tmp_path: Path) -> None:
    base = finished.plan.base
    assert isinstance(base, Node)
    folder = shutil.copytree(finished.artifacts[base.key].path / "model", tmp_path / "base")
    ref = base_ref(BaseConfig(model=str(folder)))
    elsewhere = replace(finished, plan=replace(finished.plan, base=ref))
    (tmp_path / "own.txt").write_text("\n\n".join(held_out_texts(finished).documents))
    with pytest.raises(UserError, match="give held-out text with --texts FILE"):
        check(elsewhere)
    (same,) = check(finished)["texts"]
    (found,) = check(elsewhere, [tmp_path / "own.txt"])["texts"]
    assert [row["perplexity"] for row in found["policies"]] == pytest.approx(
        [row["perplexity"] for row in same["policies"]]
    )
