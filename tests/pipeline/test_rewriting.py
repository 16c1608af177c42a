"""MORA's rewriters in a run: what of their prompts is dropped and counted, what is asked again, what keys follow."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny_endpoint import serving
from tiny_expansion import FUNCTION, ROLLOUTS, THRESHOLDS, Chain, made
from valuesoup.endpoint import Endpoint
from valuesoup.errors import RunError, UserError
from valuesoup.expansion import Rewriter
from valuesoup.pipeline.data import load_part
from valuesoup.store import Store
from valuesoup.worlds.errands import fuse


def mostly_held_out(prompt: str) -> str:
    """Half of the rewrites are prompts of the evaluation."""
    held_out: list[str] = json.loads(Path(os.environ["HELD_OUT"]).read_text())
    return held_out[len(prompt) % len(held_out)] if len(prompt) % 2 else f"{prompt} now"


def refuses(prompt: str) -> str:
    return ""


def cramped(prompt: str) -> str:
    return "no"


def test_a_rewrite_that_is_a_held_out_prompt_is_dropped_and_counted(
    chain: Chain, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parts,) = made(store, chain.split)
    held_out = {
        pair.prompt[0]["content"]
        for value in THRESHOLDS
        for part in ("validation", "test")
        for pair in load_part(parts, value, part)
    }
    rewrites = chain.folder / "held_out.json"
    rewrites.write_text(json.dumps(sorted(held_out)))
    monkeypatch.setenv("HELD_OUT", str(rewrites))
    (fused,) = made(store, chain.fused(Rewriter(function=f"{__name__}:mostly_held_out")))
    found = fused.json("prompts.json")
    assert found["counts"]["held_out"] > 0
    assert found["counts"]["fused"] > 0
    fresh = [prompt["messages"][0]["content"] for prompt in found["prompts"][: found["counts"]["fused"] * ROLLOUTS]]
    assert not held_out & set(fresh)


def test_nothing_fused_says_what_became_of_the_rewrites(chain: Chain, store: Store) -> None:
    with pytest.raises(
        UserError, match=r"none of the \d+ rewritten prompts can be used: \d+ empty; check the rewriter"
    ):
        made(store, chain.fused(Rewriter(function=f"{__name__}:refuses")))
    with pytest.raises(UserError, match=r"can be used: \d+ unchanged, \d+ too long|can be used: \d+ too long"):
        made(store, chain.fused(FUNCTION, max_tokens=3))


def test_equal_rewrites_are_one_prompt(chain: Chain, store: Store) -> None:
    (fused,) = made(store, chain.fused(Rewriter(function=f"{__name__}:cramped")))
    found = fused.json("prompts.json")
    assert len(found["prompts"]) == 2 * ROLLOUTS, "fused, and again as it was"
    counts = found["counts"]
    assert counts["fused"] == 1
    assert counts["duplicate"] > 3


def test_the_policy_itself_rewrites(chain: Chain, store: Store, tmp_path: Path) -> None:
    template = tmp_path / "short.txt"
    template.write_text("{prompt}")
    policy = Rewriter(policy=True, template=str(template), attempts=2)
    (fused,) = made(store, chain.fused(policy, max_tokens=20))
    counts = fused.json("prompts.json")["counts"]
    assert counts["fused"] > 0
    assert sum(counts.values()) == len(made(store, chain.mined())[0].json("mined.json")["prompts"])
    template.write_text("{prompt} " + "yes " * 3000)
    with pytest.raises(UserError, match="the fusion template with the longest prompt and its rewrite are"):
        made(store, chain.fused(policy))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_fusion_asks_no_answered_request_again(chain: Chain, tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("{prompt}")
    store = Store(tmp_path / "artifacts")
    stopped = False

    def behave(text: str, before: int) -> str:
        nonlocal stopped
        if len(served.bodies) == 6 and not stopped:
            stopped = True
            os.kill(os.getpid(), signal.SIGINT)
            return "hang"
        return fuse(text)

    with serving(behave) as served:
        endpoint = Endpoint(url=served.url, model="m", concurrency=1, timeout=5)
        fused = chain.fused(Rewriter(endpoint=endpoint, template=str(template), attempts=1))
        with pytest.raises(KeyboardInterrupt):
            made(store, fused)
        assert len(served.bodies) == 6
        by_endpoint, by_function = made(store, fused, chain.fused(FUNCTION))
        wanted = len(made(store, chain.mined())[0].json("mined.json")["prompts"])
        assert sorted(served.asked.count(text) for text in set(served.asked)) == [1] * (wanted - 1) + [2]
    assert by_endpoint.json("prompts.json") == by_function.json("prompts.json")


def test_a_dead_endpoint_stops_the_run_and_keeps_what_was_answered(chain: Chain, tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    dead = False
    with serving(lambda text, before: 503 if dead or len(served.bodies) > 3 else "something else") as served:
        endpoint = Endpoint(url=served.url, model="m", concurrency=1, retries=0)
        fused = chain.fused(Rewriter(endpoint=endpoint))
        with pytest.raises(RunError, match="answers no request"):
            made(store, fused)
        (partial,) = store.root.glob(".partial-fusion-*")
        assert len((partial / "answered.jsonl").read_text().splitlines()) == 3


def test_keys_follow_the_templates_content_and_what_is_asked_not_how(chain: Chain, tmp_path: Path) -> None:
    template = tmp_path / "a.txt"
    template.write_text("{prompt} a")
    endpoint = Endpoint(url="http://127.0.0.1:1/v1", model="m")

    def key(**changes: Any) -> str:
        one = endpoint.model_copy(update=changes)
        return chain.fused(Rewriter(endpoint=one, template=str(template))).key

    first = key()
    assert key(timeout=1.0, concurrency=3, retries=1, key_env="OTHER") == first
    assert key(model="other") != first
    elsewhere = tmp_path / "b.txt"
    elsewhere.write_text("{prompt} a")
    assert chain.fused(Rewriter(endpoint=endpoint, template=str(elsewhere))).key == first
    template.write_text("{prompt} b")
    assert key() != first
    assert chain.fused(FUNCTION).key != chain.fused(Rewriter(function=f"{__name__}:refuses")).key
