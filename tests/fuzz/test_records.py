"""Malformed artifacts, and the other files that a run leaves and reads again."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import fuzz.oracle as oracle
from fuzz.cases import CASES, LEAST
from valuesoup.data import load_pairs
from valuesoup.data.pairs import Pairs
from valuesoup.endpoint.asking import Reply, read_answers
from valuesoup.pipeline.judged_schema import is_judged
from valuesoup.rewards.table import RewardTable
from valuesoup.store import Node, Store, Work
from valuesoup.store.graph import stage


@stage("number")
def number_stage(work: Work, *, number: int) -> None:
    """Write a number, as a stage does."""
    (work.out / "number.json").write_text(json.dumps(number))


def made(root: Path) -> tuple[Store, Node, Path]:
    """Return a store with one finished artifact."""
    root.mkdir(exist_ok=True)
    store, node = Store(root), number_stage("a number", number=3)
    with store.making(node) as out:
        (out / "number.json").write_text("3")
        (out / "deeper").mkdir()
        (out / "deeper" / "more.txt").write_text("more")
    return store, node, root / node.folder


def test_artifacts_that_are_cut_damaged_or_changed_are_found_out(tmp_path: Path) -> None:
    _, node, folder = made(tmp_path / "store")
    kept = shutil.copytree(folder, tmp_path / "kept")
    manifest = json.loads((kept / "manifest.json").read_text())
    for seed in range(CASES["artifacts"]):
        random = Random(seed)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        name = random.choice(("manifest.json", "manifest.json", "number.json", "deeper/more.txt"))
        how = random.randrange(5)
        if how == 0 and name == "manifest.json":
            (folder / name).write_text(json.dumps(oracle.mutated(manifest, random)))
        elif how == 1:
            (folder / name).unlink()
        elif how == 2:
            (folder / name).unlink()
            (folder / name).symlink_to(random.choice(("/etc/passwd", "nowhere", "..", name.rpartition("/")[2])))
        elif how == 3:
            (folder / f"extra-{seed}").write_text("x")
        else:
            (folder / name).write_bytes(oracle.damaged((kept / name).read_bytes(), random))
        complaints: list[str] = []
        found = oracle.answer(lambda: Store(tmp_path / "store").find(node, complaints.append))  # noqa: B023
        if found is None:
            assert len(complaints) == 1
            assert "damaged" in complaints[0]
            assert not folder.exists()
        else:
            assert found.json("number.json") == 3
            assert (found.path / "deeper" / "more.txt").read_text() == "more"


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "deeper/../../outside.json", "number.json/", "."])
def test_a_manifest_that_names_what_is_outside_makes_the_artifact_a_damaged_one(name: str, tmp_path: Path) -> None:
    _, node, folder = made(tmp_path / "store")
    outside = tmp_path / "store" / "outside.json"
    outside.write_text("3")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"].append({**manifest["files"][0], "name": name})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Store(tmp_path / "store").find(node) is None
    assert outside.read_text() == "3"


def test_a_link_out_of_an_artifact_is_not_followed_when_it_is_removed(tmp_path: Path) -> None:
    _, node, folder = made(tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "mine")
    (folder / "precious.txt").symlink_to(tmp_path / "mine" / "precious.txt")
    assert Store(tmp_path / "store").find(node) is None
    assert (tmp_path / "mine" / "precious.txt").read_text() == "mine"


@dataclass(frozen=True)
class Told(Reply):
    """A reply with everything that one may have."""


def records(folder: Path) -> dict[str, Any]:
    """Return files that are read again, each with its reader."""
    rows = [
        {"prompt": f"ask {i}", "chosen": "yes", "rejected": "no", "chosen_score/a": 1, "rejected_score/a": 0}
        for i in range(5)
    ]
    load_pairs(rows).save(folder / "pairs.parquet")
    scores = np.arange(20.0).reshape(5, 2, 2)
    RewardTable([f"i{i}" for i in range(5)], ("chosen", "rejected"), ("a", "b"), scores).save(folder / "table.parquet")
    answered = [{"key": f"{i:032x}", "text": f"answer {i}", "finished": True, "failure": ""} for i in range(5)]
    (folder / "answered.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answered))
    return {
        "pairs.parquet": lambda path: list(Pairs.load(path)),
        "table.parquet": lambda path: RewardTable.load(path).scores.tolist(),
        "answered.jsonl": lambda path: read_answers(path, Told),
    }


def test_records_that_are_cut_or_damaged_are_refused_in_words(tmp_path: Path) -> None:
    readers = records(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in readers}
    for seed in range(CASES["records"]):
        random = Random(seed)
        name = random.choice([one for one in readers if one != "answered.jsonl"])
        (tmp_path / name).write_bytes(oracle.damaged(whole[name], random))
        found = oracle.answer(lambda: readers[name](tmp_path / name))  # noqa: B023
        if name == "table.parquet" and found is not None:
            assert np.isfinite(found).all()


def test_answers_of_an_endpoint_that_are_damaged_are_refused_in_words(tmp_path: Path) -> None:
    read = records(tmp_path)["answered.jsonl"]
    path = tmp_path / "answered.jsonl"
    whole = path.read_bytes()
    for seed in range(200):
        path.write_bytes(oracle.damaged(whole, Random(seed)))
        for reply in (oracle.answer(lambda: read(path)) or {}).values():
            assert isinstance(reply.text, str | None)
            assert isinstance(reply.finished, bool)
            assert isinstance(reply.failure, str)


def judged() -> dict[str, Any]:
    """Return what a judge said of one policy and its baseline, with every part that it may have."""
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    numbers = ("wins", "ties", "losses", "identical", "invalid", "unanswered", "ordered", "agreed", "decisive", "first")
    counts = {
        **dict.fromkeys((*numbers, "rewarded", "reward_agreed"), 3),
        **{name: dict(share) for name in ("win_rate", "orders_agreement", "first_share", "reward_agreement")},
    }
    titles = {"policy_title": "Soup", "baseline_title": "base"}
    return {
        **{"schema": 1, "values": ["a"], "judge": {"url": "http://h", "model": "m"}, "level": 0.95, "limit": None},
        **{"templates": {"a": "t"}, "prompts": {"a": 9}, "left_out": {}, "judges": {"a": counts}},
        "policies": {"soup": {"id": "soup/a=1", "method": "soup", "weights": {"a": 1.0}, "answers": "key"}},
        "comparisons": [
            {"value": "a", "method": "soup", "baseline": "base", **titles, **json.loads(json.dumps(counts))}
        ],
    }


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("wins", 10**400),
        ("wins", -1),
        ("wins", 10**16),
        ("win_rate", {"value": 1.5, "low": 0.4, "high": 0.6}),
        ("win_rate", {"value": 0.5, "low": -0.1, "high": 0.6}),
        ("win_rate", {"value": 0.5, "low": 0.6, "high": 0.9}),
        ("win_rate", {"value": 10**400, "low": None, "high": None}),
    ],
)
def test_counts_and_shares_of_a_judge_that_cannot_be_are_no_judgement(key: str, bad: Any) -> None:
    assert is_judged(judged())
    content = judged()
    content["comparisons"][0][key] = bad
    assert not is_judged(content)
    ends = judged()
    ends["comparisons"][0]["win_rate"] = {"value": 1.0, "low": 0.5, "high": 1.0 - 1e-12}  # Wilson's, rounded
    assert is_judged(ends)


def test_there_are_ten_thousand_cases() -> None:
    assert sum(CASES.values()) >= LEAST == 10_000
