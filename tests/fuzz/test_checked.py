"""Malformed ``check.json``: refused in words, or read as it is written and as its own figures say."""

import copy
import json
import math
from random import Random
from typing import Any

import pytest

import fuzz.oracle as oracle
from fuzz.cases import CASES
from valuesoup.regression.kept import shown
from valuesoup.regression.kept_schema import kept_fault, strange
from valuesoup.report.regression import checked_tables, cost_sentence, remarks

NATS = {"k0": [3.0, 5.0, 8.0], "k1": [2.5, 5.5, 9.0]}
KEYS = {"base": "k0", "soup/0": "k1"}
CANDIDATES = [
    {"id": "base", "method": "base", "weights": {"kind": 0.0, "brief": 0.0}},
    {"id": "soup/0", "method": "soup", "weights": {"kind": 0.5, "brief": 0.5}},
]


def whole() -> dict[str, Any]:
    """Return the check of a base and a soup, on a text and by a command."""
    tokens, size = 12, 60
    told = [
        {**row, "method_title": row["method"], "title": row["id"], "key": KEYS[str(row["id"])]} for row in CANDIDATES
    ]
    gap = sum(NATS["k1"]) - sum(NATS["k0"])
    measured = [
        {
            **row,
            "perplexity": math.exp(sum(NATS[key]) / tokens),
            "bits_per_byte": sum(NATS[key]) / math.log(2) / size,
            "log_ratio": change,
            "bits": None if change is None else {"mean": gap / math.log(2) / size, "low": None, "high": None},
        }
        for row, key, change in zip(told, NATS, (None, {"mean": gap / tokens, "low": -0.1, "high": 0.3}), strict=True)
    ]
    facts = {"documents": 3, "empty": 0, "repeated": 1, "tokens": tokens, "bytes": size, "unknown": 2, "cut": 0}
    text = {"name": "news", "key": "t", **facts, "window": 64, "stride": 32, "policies": measured, "nats": NATS}
    figure = {"value": 0.5, "stderr": 0.1, "higher_is_better": True}
    command = {"command": "measure {model} {out}", "policies": told, "metrics": {key: {"acc": figure} for key in NATS}}
    return copy.deepcopy({"schema": 1, "level": 0.95, "texts": [text], "commands": [command]})


def test_what_is_changed_here_is_right_before() -> None:
    assert kept_fault(whole()) is None
    assert strange(whole(), KEYS, CANDIDATES) is None
    assert len(checked_tables(shown(whole(), KEYS))) == 2


def test_a_check_with_anything_changed_is_refused_or_every_reader_takes_it() -> None:
    taken = 0
    for seed in range(CASES["checks"]):
        content = json.loads(json.dumps(oracle.mutated(whole(), Random(seed))))
        with oracle.deadline():
            fault = kept_fault(content)
            if fault is None and strange(content, KEYS, CANDIDATES) is None:
                taken += 1
                found = shown(content, KEYS)
                checked_tables(found), cost_sentence(found), remarks(found)
            elif fault is not None:
                assert fault.strip()
    assert taken < CASES["checks"] / 2, "most changes are harm"


@pytest.mark.parametrize("name", ["perplexity", "bits_per_byte", "log_ratio", "bits"])
def test_a_figure_that_its_own_nats_contradict_is_refused(name: str) -> None:
    content = whole()
    row = content["texts"][0]["policies"][1]
    row[name] = {**row[name], "mean": 0.01, "low": 0.0, "high": 0.02} if isinstance(row[name], dict) else 1.5
    assert f"the {name} of 'soup/0' is not what its nats make" in str(kept_fault(content))


def test_a_candidate_that_the_run_knows_otherwise_is_named() -> None:
    for part in ("texts", "commands"):
        content = whole()
        content[part][0]["policies"][1]["weights"] = {"kind": 0.9, "brief": 0.1}
        assert strange(content, KEYS, CANDIDATES) == "soup/0"
        content[part][0]["policies"][1]["key"] = "of an earlier configuration"
        assert strange(content, KEYS, CANDIDATES) is None
