"""The stages of MORA in a row, with a small policy trained here: what comes out, what is counted, what is resumed."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tiny_endpoint import serving
from valuesoup.config import DataConfig, GenerationConfig
from valuesoup.data import Pairs
from valuesoup.endpoint import Endpoint
from valuesoup.errors import RunError, UserError
from valuesoup.expansion import Rewriter
from valuesoup.pipeline.answering import answer_prompts, load_answers
from valuesoup.pipeline.data import load_part, pretrain_base, read_pairs, split
from valuesoup.pipeline.expansion import EXPANDED, fuse_prompts, mine, mining_prompts, select_pairs
from valuesoup.pipeline.inputs import data_ref, function_hash
from valuesoup.pipeline.rating import rate_answers
from valuesoup.pipeline.rewriters import rewriter_ref
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, run_graph
from valuesoup.training.settings import PretrainSettings
from valuesoup.worlds.errands import fuse, single_value_prompts
from valuesoup.worlds.errands.tables import FUSED, NARROW

ROLLOUTS = 6
THRESHOLDS = {"eager": 0.0, "calm": 0.0}
ADMITS = dict(zip(NARROW.values(), ("eager", "calm", None), strict=True))


def rewards(value: str, word: str, prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """The share of a word, less that of "no"; a narrow request of the world caps at 0 what it does not admit."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        said = answer.split()
        clause = next((clause for clause in NARROW.values() if prompt[-1]["content"].endswith(clause)), None)
        worth = (said.count(word) - said.count("no")) / 4
        found.append(worth if clause is None or ADMITS[clause] == value else min(worth, 0.0))
    return found


def eager(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return rewards("eager", "yes", prompts, answers)


def calm(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return rewards("calm", "maybe", prompts, answers)


def made(store: Store, *targets: Node) -> list[Artifact]:
    found = run_graph(targets, store, Progress(), RunLog(store.root.parent / "log.jsonl"))
    return [found[target.key] for target in targets]


class Chain:
    """The stages as a plan calls them."""

    def __init__(self, folder: Path) -> None:
        rng = Random(0)
        prompts = list(single_value_prompts(120))
        sources = {}
        for place, value in enumerate(THRESHOLDS):
            rows = []
            for prompt in prompts[place * 40 : place * 40 + 80]:
                one, other = (" ".join(rng.choices(("yes", "no", "maybe"), k=rng.randint(1, 3))) for _ in range(2))
                sides = {"chosen": one, "rejected": f"{other} sure"}
                asked = {
                    "prompt": prompt if len(rows) % 2 else [{"role": "user", "content": fuse(prompt[0]["content"])}]
                }
                rows.append({**asked, **{k: [{"role": "assistant", "content": v}] for k, v in sides.items()}})
            file = folder / f"{value}.jsonl"
            file.write_text("\n".join(map(json.dumps, rows)))
            sources[value] = read_pairs(value, sources=[data_ref(DataConfig(path=str(file)))], value=value, seed=0)
        self.split = split("split", pairs=sources, test_prompts=4, validation_prompts=2, seed=0)
        settings = PretrainSettings(
            tokenizer="words", vocabulary=256, hidden=32, layers=1, heads=2, context=64, batch_size=16, steps=120
        )
        self.base = pretrain_base(
            "base", settings=settings, split=self.split, values=list(THRESHOLDS), dialogues=None, seed=0, device="cpu"
        )
        self.folder = folder

    def prompts(self, **changes: Any) -> Node:
        given = {"limit": 40, "rollouts": ROLLOUTS, "max_tokens": 40, "seed": 0, "datasets": list(THRESHOLDS)}
        return mining_prompts("draw", split=self.split, base=self.base, **{**given, **changes})

    def rolled(self, prompts: Node, values: Sequence[str] = tuple(THRESHOLDS)) -> tuple[Node, dict[str, Node]]:
        answers = answer_prompts(
            "answers",
            base=self.base,
            vectors={},
            candidates=[()],
            chosen=None,
            prompts=prompts,
            generation=GenerationConfig(max_new_tokens=16, temperature=1.0, batch_rows=1),
            seed=0,
            batch_rows=64,
            device="cpu",
        )
        return answers, {value: self.rated(answers, prompts, value) for value in values}

    def rated(self, answers: Node, prompts: Node, value: str, function: str | None = None) -> Node:
        name = f"{__name__}:{function or value}"
        source = function_hash(name)
        return rate_answers(
            "rate", answers=answers, prompts=prompts, rewards={value: name}, source=source, device="cpu"
        )

    def mined(
        self, thresholds: Mapping[str, float] | None = THRESHOLDS, values: Sequence[str] = ("eager", "calm")
    ) -> Node:
        prompts = self.prompts()
        scores = self.rolled(prompts, values)[1]
        return mine("mine", prompts=prompts, scores=scores, rollouts=ROLLOUTS, thresholds=thresholds)

    def fused(self, rewriter: Rewriter, **changes: Any) -> Node:
        given = {"rollouts": ROLLOUTS, "max_tokens": 40, "seed": 0, "device": "cpu", "vectors": {}}
        inputs = {**given, "mined": self.mined(), "rewriter": rewriter_ref(rewriter), **changes}
        return fuse_prompts("fuse", split=self.split, base=self.base, **inputs)

    def selected(self, prompts: Node, most: int | None = None) -> Node:
        answers, scores = self.rolled(prompts)
        return select_pairs("select", mined=self.mined(), prompts=prompts, answers=answers, scores=scores, most=most)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def store(chain: Chain) -> Store:
    return Store(chain.folder / "artifacts")


FUNCTION = Rewriter(function="valuesoup.worlds.errands:fuse")


def test_prompts_are_drawn_from_training_each_once_per_rollout(chain: Chain, store: Store) -> None:
    first, again, others, parts = made(
        store, chain.prompts(), chain.prompts(limit=10), chain.prompts(seed=1), chain.split
    )
    listed = first.json("prompts.json")["prompts"]
    ids = [prompt["id"].split("#")[0] for prompt in listed]
    assert len(set(ids)) == 40
    assert [prompt["id"] for prompt in listed] == [f"{one}#{k}" for one in dict.fromkeys(ids) for k in range(ROLLOUTS)]
    training = {value: set(load_part(parts, value, "train").prompt_ids) for value in THRESHOLDS}
    for prompt, one in zip(listed, ids, strict=True):
        assert prompt["datasets"] == [value for value in THRESHOLDS if one in training[value]]
    assert any(len(prompt["datasets"]) == 2 for prompt in listed), "a prompt of two data sets counts once"
    assert again.json("prompts.json")["prompts"] == listed[: 10 * ROLLOUTS], "a smaller draw begins the larger one"
    assert others.json("prompts.json")["prompts"] != listed


def test_prompts_that_are_too_long_are_counted_and_none_left_is_an_error(chain: Chain, store: Store) -> None:
    (cut,) = made(store, chain.prompts(max_tokens=16, limit=None))
    found = cut.json("prompts.json")
    assert found["too_long"] > 0
    (whole,) = made(store, chain.prompts(limit=None))
    assert (
        len(found["prompts"]) // ROLLOUTS + found["too_long"] == len(whole.json("prompts.json")["prompts"]) // ROLLOUTS
    )
    with pytest.raises(UserError, match="every training prompt is longer than"):
        made(store, chain.prompts(max_tokens=3))


def test_single_reward_prompts_are_the_narrow_ones_and_lack_what_they_do_not_admit(chain: Chain, store: Store) -> None:
    (mined,) = made(store, chain.mined())
    found = mined.json("mined.json")
    counts = found["counts"]
    assert counts["prompts"] == 40 == counts["joint"] + counts["none"] + counts["single_reward"]
    assert len(found["prompts"]) == counts["single_reward"] > 5
    assert counts["joint"] > 0 and counts["none"] > 0
    assert np.load(mined.path / "scores.npy").shape == (counts["single_reward"], ROLLOUTS, 2)
    narrow = 0
    for prompt in found["prompts"]:
        clause = next((c for c in ADMITS if prompt["messages"][-1]["content"].endswith(c)), None)
        if clause is not None:
            narrow += 1
            assert prompt["missing"] == [value for value in THRESHOLDS if value != ADMITS[clause]]
    assert narrow > 5
    rows = {(row["prompts"], row["value"], row["n"]): row for row in found["profile"]}
    assert {name for name, _, _ in rows} == {"eager", "calm", "single-reward"}
    assert all(rows["single-reward", "joint", n]["pass"] == 0 for n in range(1, ROLLOUTS + 1))
    assert all(row["low"] <= row["pass"] <= row["high"] for row in rows.values())
    assert rows["single-reward", "joint", 1]["size"] == counts["single_reward"]


def test_the_default_thresholds_are_the_medians(chain: Chain, store: Store) -> None:
    prompts = chain.prompts()
    scores = chain.rolled(prompts)[1]
    mined, *rated = made(store, chain.mined(None), *scores.values())
    medians = [float(np.median(pq_scores(one))) for one in rated]
    assert list(mined.json("mined.json")["thresholds"].values()) == medians


def pq_scores(rated: Artifact) -> Any:
    from valuesoup.rewards import RewardTable

    return RewardTable.load(rated.path / "scores.parquet").scores


@pytest.mark.parametrize(
    ("thresholds", "values", "message"),
    [
        (None, ["eager"], "this run has one value only"),
        ({"eager": 0.0, "clam": 0.0}, ["eager", "calm"], "'clam', which is no value of the run; did you mean 'calm'"),
        ({"eager": 0.0}, ["eager", "calm"], "the thresholds lack one of 'calm'"),
        ({"eager": 5.0, "calm": 0.0}, ["eager", "calm"], "no rollout passes 'eager': its threshold is 5 and its high"),
        ({"eager": -9.0, "calm": -9.0}, ["eager", "calm"], "of 40, 40 have a rollout that passes every value and 0"),
    ],
)
def test_thresholds_that_find_nothing_are_refused(
    chain: Chain, store: Store, thresholds: dict[str, float] | None, values: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(store, chain.mined(thresholds, values))


def test_the_worlds_fusion_lets_every_value_pass_and_the_counts_add_up(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    fused, expanded, answers, mined = made(
        store, prompts, chain.selected(prompts), chain.rolled(prompts)[0], chain.mined()
    )
    listed = fused.json("prompts.json")["prompts"]
    found = expanded.json("expansion.json")
    counts = found["counts"]
    listed, again = listed[: counts["fused"] * ROLLOUTS], listed[counts["fused"] * ROLLOUTS :]
    for one, other in zip(listed, again, strict=True):
        assert one["messages"][-1]["content"].endswith(FUSED)
        assert one["messages"][-1]["content"] == fuse(other["messages"][-1]["content"])
    mined_ids = {prompt["id"] for prompt in made(store, chain.prompts())[0].json("prompts.json")["prompts"]}
    assert not {prompt["id"] for prompt in again} & mined_ids, "new ids, new draws"
    dropped = ("failed", "empty", "unchanged", "too_long", "held_out", "duplicate")
    assert counts["single_reward"] == counts["fused"] + sum(counts[reason] for reason in dropped)
    assert counts["fused"] * ROLLOUTS == len(listed) == counts["responses"]
    assert counts["fused"] == counts["pairs"] + counts["without_pair"] + counts["left_out"]
    assert counts["unchanged"] > 0, "some prompts were fused from the start"
    joint = {row["prompts"]: row for row in found["profile"] if row["value"] == "joint" and row["n"] == ROLLOUTS}
    assert joint["fused"]["low"] > joint["single-reward again"]["pass"] >= joint["single-reward"]["pass"] == 0
    assert joint["fused"]["size"] == joint["single-reward again"]["size"] == counts["fused"]

    pairs = Pairs.load(expanded.path / EXPANDED / "train.parquet")
    assert len(pairs) == counts["pairs"] > 3
    assert [len(load_part(expanded, EXPANDED, part)) for part in ("validation", "test")] == [0, 0]
    sigma = np.std([pq_scores(one)[:, 0, 0] for one in made(store, *chain.rolled(prompts)[1].values())], axis=1)
    margins = []
    for place, pair in enumerate(pairs):
        sides = [pairs.scores(value)[place] for value in THRESHOLDS]
        told = [
            reward([pair.prompt] * 2, [pair.chosen[0]["content"], pair.rejected[0]["content"]])
            for reward in (eager, calm)
        ]
        np.testing.assert_array_equal(sides, told)
        assert all(chosen > rejected for chosen, rejected in sides), "better in every value"
        margins.append(sum((one - other) / of for (one, other), of in zip(sides, sigma, strict=True)))
    assert margins == sorted(margins, reverse=True)
    table = load_answers(answers).to_pylist()
    asked = {json.dumps(prompt["messages"]) for prompt in listed}
    cut = {row["text"] for row in table if not row["finished"]} - {row["text"] for row in table if row["finished"]}
    for pair in pairs:
        assert json.dumps(list(pair.prompt)) in asked
        assert not {pair.chosen[0]["content"], pair.rejected[0]["content"]} & (cut | {""})

    for value in THRESHOLDS:
        rows = [row for row in found["distribution"] if row["value"] == value]
        sides = [[row for row in rows if row["prompts"] == name] for name in ("single-reward", "fused")]
        edges = [[(row["low"], row["high"]) for row in side] for side in sides]
        assert edges[0] == edges[1]
        assert [sum(row["share"] for row in side) for side in sides] == pytest.approx([1, 1])
    before = np.load(mined.path / "scores.npy")
    low = min(row["low"] for row in found["distribution"] if row["value"] == "eager")
    assert low <= before[:, :, 0].min()


def test_the_pairs_of_the_largest_margin_are_kept(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    whole, some = made(store, chain.selected(prompts), chain.selected(prompts, most=3))
    assert load_part(some, EXPANDED, "train").ids == load_part(whole, EXPANDED, "train").ids[:3]
    counts = some.json("expansion.json")["counts"]
    assert (counts["pairs"], counts["left_out"]) == (3, whole.json("expansion.json")["counts"]["pairs"] - 3)


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


def constantly(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [1.0] * len(answers)


def test_no_pair_at_all_says_the_counts_of_each_step(chain: Chain, store: Store) -> None:
    prompts = chain.fused(FUNCTION)
    answers, scores = chain.rolled(prompts)
    scores["calm"] = chain.rated(answers, prompts, "calm", "constantly")
    none = select_pairs("select", mined=chain.mined(), prompts=prompts, answers=answers, scores=scores, most=None)
    with pytest.raises(UserError, match=r"of 40 prompts \d+ admit some values only, \d+ of them were fused, and of"):
        made(store, none)
