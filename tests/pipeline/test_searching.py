"""The stage of a search on a tiny soup: files, answers as without it, and interruptions that change nothing."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import tiny
from valuesoup.config import BaseConfig, GenerationConfig, RewardConfig
from valuesoup.errors import UserError
from valuesoup.pipeline import searching
from valuesoup.pipeline.answering import answer_prompts, load_answers
from valuesoup.pipeline.inputs import base_ref, function_hash, reward_ref
from valuesoup.pipeline.rating import by_own, measuring
from valuesoup.pipeline.searching import search_candidates, search_scores
from valuesoup.rewards import ClassifierReward
from valuesoup.rewards.classifier import _Loaded
from valuesoup.search import simplex_grid
from valuesoup.search.settings import RacingSettings
from valuesoup.soup import Soup
from valuesoup.store import Artifact, Progress, Work

torch.set_num_threads(1)
PROMPTS = 24


def words(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float(len(answer.split())) for answer in answers]


def early(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """How early in the vocabulary the words of an answer stand, on average."""
    return [-float(np.mean([int(word[1:]) for word in answer.split()] or [60])) for answer in answers]


def not_empty(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float(bool(answer)) for answer in answers]


class Bench:
    """A tiny base, vectors and prompts, and a search over them."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n
        self.base = base_ref(BaseConfig(model=str(tiny.save_base(folder / "base")), device="cpu"))
        model = tiny.llama()
        self.vectors = {}
        for place in range(n):
            path = folder / f"v{place}"
            tiny.random_vector(model, seed=place, std=0.1).save_pretrained(path / "adapter")
            self.vectors[f"v{place}"] = Artifact(path, f"v{place}", 0.0)
        asked = [
            {
                "id": f"p{number}",
                "datasets": [f"v{number % n}"],
                "messages": [
                    {"role": "user", "content": " ".join(f"w{(number * 7 + k) % 60}" for k in range(2 + number % 5))}
                ],
            }
            for number in range(PROMPTS)
        ]
        self.prompts = self.artifact("prompts", "prompts.json", {"prompts": asked})
        self.rewards = {
            f"v{place}": reward_ref(RewardConfig(function=f"{__name__}:{('words', 'early')[place % 2]}"))
            for place in range(n)
        }
        self.candidates = [tuple(row) for row in simplex_grid(n, 6 if n < 4 else 2).tolist()]
        self.runs = 0

    def artifact(self, name: str, file: str, content: Any) -> Artifact:
        (self.folder / name).mkdir()
        (self.folder / name / file).write_text(json.dumps(content))
        return Artifact(self.folder / name, name, 0.0)

    def work(self, out: Path | None = None) -> Work:
        self.runs += 1
        out = out or self.folder / f"out{self.runs}"
        out.mkdir(exist_ok=True)
        self.said = io.StringIO()
        return Work(out, Progress(Console(file=self.said, width=200), live=False), "search", lambda *_, **__: None)

    def search(self, out: Path | None = None, **changes: Any) -> Artifact:
        work = self.work(out)
        given: dict[str, Any] = {
            "base": self.base,
            "vectors": self.vectors,
            "candidates": self.candidates,
            "prompts": self.prompts,
            "rewards": self.rewards,
            "fluency": f"{__name__}:not_empty",
            "source": function_hash(f"{__name__}:not_empty"),
            "bound": 0.0,
            "own": False,
            "groups": {"mixtures": list(range(len(self.candidates)))},
            "limits": {"mixtures": 12} if len(self.candidates) > 12 else {},
            "always": [],
            "racing": RacingSettings(first=6, keep=1.2),
            "generation": GenerationConfig(max_new_tokens=8, batch_rows=1),
            "seed": 3,
            "batch_rows": 32,
            "device": "cpu",
        }
        search_candidates.function(work, **{**given, **changes})
        return Artifact(work.out, "search", 0.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), 3)


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Artifact:
    return bench.search()


def contents(artifact: Artifact) -> dict[str, bytes]:
    """Return what a search wrote, tables by their rows."""
    found = {}
    for path in sorted(artifact.path.iterdir()):
        found[path.name] = (
            repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()
        )
    return found


def test_answers_are_those_of_the_plain_way(bench: Bench, whole: Artifact) -> None:
    work = bench.work()
    answer_prompts.function(
        work,
        base=bench.base,
        vectors=bench.vectors,
        candidates=bench.candidates,
        chosen=None,
        prompts=bench.prompts,
        generation=GenerationConfig(max_new_tokens=8, batch_rows=1),
        seed=3,
        batch_rows=32,
        device="cpu",
    )

    def texts(artifact: Artifact) -> dict[tuple[int, int], str]:
        table = load_answers(artifact)
        keys = zip(table["candidate"].to_pylist(), table["prompt"].to_pylist(), strict=True)
        return dict(zip(keys, table["text"].to_pylist(), strict=True))

    plain, searched = texts(Artifact(work.out, "answers", 0.0)), texts(whole)
    assert searched.keys() < plain.keys()
    assert searched == {key: plain[key] for key in searched}


def test_scores_are_those_of_the_answers_and_missing_where_nothing_was_asked(bench: Bench, whole: Artifact) -> None:
    scores = search_scores(whole, bench.prompts, list(bench.rewards), own=False)
    summary = whole.json("search.json")
    assert {str(place): int(np.isfinite(of[:, 0]).sum()) for place, of in scores.items()} == summary["prompts"]
    for row in load_answers(whole).to_pylist():
        expected = [words([], [row["text"]])[0], early([], [row["text"]])[0], words([], [row["text"]])[0]]
        np.testing.assert_array_equal(scores[row["candidate"]][row["prompt"]], expected)
        assert row["sound"] == float(bool(row["text"]))


def test_the_summary_counts_what_was_asked(bench: Bench, whole: Artifact) -> None:
    of = whole.json("search.json")["methods"]["mixtures"]
    table = load_answers(whole)
    assert of["answers"] == table.num_rows
    assert of["measured"] == len(set(table["candidate"].to_pylist())) == 12
    assert of["candidates"] == len(bench.candidates) == 28
    assert of["all_answers"] == 28 * PROMPTS
    chosen = whole.json("chosen.json")
    assert set(chosen["frontier"]["mixtures"]) <= set(chosen["test"]) <= set(table["candidate"].to_pylist())
    corners = [place for place, row in enumerate(bench.candidates) if max(row) == 1]
    assert set(corners) <= set(table["candidate"].to_pylist())


@pytest.mark.parametrize("saved", [0, 1, 3])
def test_an_interrupted_search_ends_as_one_that_was_not(
    bench: Bench, whole: Artifact, tmp_path: Path, saved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = sorted(whole.path.glob("shard-*.parquet"))
    assert len(shards) > 3
    out = tmp_path / "out"
    out.mkdir()
    for shard in shards[:saved]:
        shutil.copy(shard, out)
    (out / ".shard.tmp").write_bytes(b"half a shard")
    written: list[int] = []
    scored = searching._Scoring.__call__
    monkeypatch.setattr(
        searching._Scoring, "__call__", lambda self, table: (written.append(table.num_rows), scored(self, table))[1]
    )
    again = bench.search(out)
    assert written == [pq.read_table(shard).num_rows for shard in shards[saved:]], "what was saved is not done again"
    assert contents(again) == contents(whole)


def test_saves_of_another_way_are_not_taken(bench: Bench, whole: Artifact, tmp_path: Path) -> None:
    out = shutil.copytree(whole.path, tmp_path / "out")
    first, second = sorted(out.glob("shard-*.parquet"))[:2]
    first.write_bytes(second.read_bytes())
    (out / "shard-00077.parquet").write_bytes(second.read_bytes())
    assert contents(bench.search(out)) == contents(whole)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_values_can_be_searched(tmp_path: Path, n: int) -> None:
    bench = Bench(tmp_path, n)
    found = bench.search(own=n == 2, limits={"mixtures": 5} if n == 2 else {}, racing=RacingSettings(first=4))
    summary = found.json("search.json")
    assert summary["methods"]["mixtures"]["measured"] == (5 if n == 2 else len(bench.candidates))
    assert found.json("chosen.json")["frontier"]["mixtures"]
    scores = search_scores(found, bench.prompts, list(bench.rewards), own=n == 2)
    for of in scores.values():
        assert of.shape == (PROMPTS // (2 if n == 2 else 1), n)  # data sets of equal size
        assert np.isfinite(of).any(axis=0).all()


def test_prompts_are_asked_of_every_data_set_in_turn(bench: Bench) -> None:
    asked = bench.prompts.json("prompts.json")["prompts"]
    order = searching._order(asked, seed=0)
    assert sorted(order) == list(range(PROMPTS))
    for start in range(0, PROMPTS, 3):
        assert {asked[number]["datasets"][0] for number in order[start : start + 3]} == {"v0", "v1", "v2"}
    assert order != searching._order(asked, seed=1)


def asked_of(bench: Bench, folder: Path, datasets: Sequence[list[str]]) -> Artifact:
    """Return the first prompts of a bench, as those of other data sets."""
    asked = bench.prompts.json("prompts.json")["prompts"]
    folder.mkdir()
    changed = [{**prompt, "datasets": of} for prompt, of in zip(asked, datasets, strict=False)]
    (folder / "prompts.json").write_text(json.dumps({"prompts": changed}))
    return Artifact(folder, folder.name, 0.0)


def test_scores_of_data_sets_of_different_size_are_all_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2)
    prompts = asked_of(bench, tmp_path / "uneven", [["v0"]] * 18 + [["v1"]] * 6)
    found = bench.search(prompts=prompts, own=True, racing=RacingSettings(first=4, keep=1.2))
    scores = search_scores(found, prompts, list(bench.rewards), own=True)
    rows = load_answers(found).to_pylist()
    assert scores.keys() == {row["candidate"] for row in rows}
    for place, of in scores.items():
        assert of.shape == (18, 2)
        assert np.isnan(of[6:, 1]).all()
        mine = [row for row in rows if row["candidate"] == place]
        for column, (value, measure) in enumerate({"v0": words, "v1": early}.items()):
            texts = [row["text"] for row in mine if (row["prompt"] < 18) == (value == "v0")]
            assert np.nanmean(of[:, column]) == pytest.approx(np.mean(measure([], texts)))
        assert np.isfinite(of).sum() == len(mine) == found.json("search.json")["prompts"][str(place)]


def test_columns_of_own_prompts_are_filled_up() -> None:
    asked: Any = [{"datasets": of} for of in (["a"], ["b", "a"], ["a"], ["b"], ["a"])]
    rows = measuring(asked, ["a", "b"], own=True)
    assert {value: of.tolist() for value, of in rows.items()} == {"a": [0, 1, 2, 4], "b": [1, 3]}
    table = by_own([np.arange(5.0), np.arange(5.0) * 10], list(rows.values()))
    np.testing.assert_array_equal(table, [[0, 10], [1, 30], [2, np.nan], [4, np.nan]])
    assert [len(of) for of in measuring(asked, ["a", "b"], own=False).values()] == [5, 5]


def test_the_first_part_measures_every_value_often_enough() -> None:
    # Every prompt is of the first value, so that it alone would fill all turns; two are of the second too.
    asked: Any = [{"datasets": ["a", "b"] if number in (20, 31) else ["a"]} for number in range(40)]
    order = searching._order(asked, 0)
    measures = np.array([[True, "b" in asked[number]["datasets"]] for number in order])
    (first, *_) = ends = searching._ends(measures, RacingSettings(first=4))
    assert measures[:first].sum(axis=0).tolist() == [4, 2], "all that the second one has"
    assert ends[-1] == 40
    # A value whose prompts come late: the part grows until it has its share.
    late = np.array([[True, number >= 10] for number in range(40)])
    assert searching._ends(late, RacingSettings(first=4)) == [14, 28, 40]
    assert searching._ends(np.ones((40, 3), dtype=bool), RacingSettings(first=16)) == [16, 32, 40]


def test_a_value_with_few_prompts_of_its_own_takes_part_from_the_beginning(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2)
    prompts = asked_of(
        bench, tmp_path / "few", [["v0", "v1"] if number in (11, 17) else ["v0"] for number in range(24)]
    )
    found = bench.search(prompts=prompts, own=True, racing=RacingSettings(first=4))
    for of in search_scores(found, prompts, list(bench.rewards), own=True).values():
        assert np.isfinite(of[:, 1]).sum() == 2


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench whose two values are logits of one classifier, which must cut the longer prompts."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    bench = Bench(tmp_path_factory.mktemp("judged"), 2)
    config = LlamaConfig(**{**tiny.llama().config.to_dict(), "num_labels": 2, "architectures": None})
    LlamaForSequenceClassification(config).save_pretrained(bench.folder / "classifier")
    tiny.tokenizer().save_pretrained(bench.folder / "classifier")
    settings: dict[str, Any] = {"model": str(bench.folder / "classifier"), "max_length": 12, "truncate_prompt": True}
    settings["template"] = "{prompt} {response}"
    bench.rewards = {
        "v0": reward_ref(RewardConfig(**settings, logit=0)),
        "v1": reward_ref(RewardConfig(**settings, logit=1, sign=-1)),
    }
    return bench


def test_logits_of_one_classifier_are_loaded_and_run_once(judged: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, runs, closed = [], [], []
    load, logits, close = _Loaded.load.__func__, ClassifierReward._logits, ClassifierReward.close
    monkeypatch.setattr(_Loaded, "load", classmethod(lambda cls, reward: (loads.append(1), load(cls, reward))[1]))
    monkeypatch.setattr(
        ClassifierReward, "_logits", lambda self, *args: (runs.append(len(args[2])), logits(self, *args))[1]
    )
    monkeypatch.setattr(ClassifierReward, "close", lambda self: (closed.append(self), close(self))[1])
    found = judged.search()
    shards = len(list(found.path.glob("shard-*.parquet")))
    assert (len(loads), len(runs)) == (1, shards)
    assert len(closed) == 2
    assert all(source._loaded is None for source in closed)
    table = load_answers(found)
    asked = judged.prompts.json("prompts.json")["prompts"]
    for value, sign in (("v0", 1), ("v1", -1)):
        source = ClassifierReward(
            judged.folder / "classifier",
            logit=int(value[1]),
            sign=sign,
            template="{prompt} {response}",
            max_length=12,
            truncate_prompt=True,
            device="cpu",
        )
        expected = source.score(
            [asked[number]["messages"] for number in table["prompt"].to_pylist()], table["text"].to_pylist()
        )
        np.testing.assert_allclose(table[f"score/{value}"].to_numpy(), expected, atol=1e-5)


def test_a_resumed_search_says_the_same_of_what_was_cut(judged: Bench, tmp_path: Path) -> None:
    whole = judged.search()
    (said,) = [line for line in judged.said.getvalue().splitlines() if "were cut from the left" in line]
    assert int(said.split()[0]) > 0
    for kept in (1, 99):
        out = tmp_path / f"{kept} saves"
        out.mkdir()
        for shard in sorted(whole.path.glob("shard-*.parquet"))[:kept]:
            shutil.copy(shard, out)
        judged.search(out)
        assert [line for line in judged.said.getvalue().splitlines() if "were cut" in line] == [said]


def test_short_memory_is_said_and_remembered(bench: Bench, whole: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Soup.forward

    def short(self: Soup, weights: torch.Tensor | None, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 8:
            torch.empty(1 << 50)  # fails as any allocation does for which there is no memory
        return forward(self, weights, **inputs)

    monkeypatch.setattr(Soup, "forward", short)
    found = bench.search(batch_rows=16)
    assert bench.said.getvalue().count("memory does not suffice for 16 answers at a time: 8 from here on") == 1
    assert contents(found) == contents(whole)


def test_a_value_without_prompts_of_its_own_is_refused(bench: Bench, tmp_path: Path) -> None:
    asked = bench.prompts.json("prompts.json")["prompts"]
    few = [{**prompt, "datasets": ["v0", "v1"]} for prompt in asked]
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "prompts.json").write_text(json.dumps({"prompts": few}))
    with pytest.raises(UserError, match=r"at least 2 validation prompts that measure 'v2', not 0"):
        bench.search(tmp_path / "out", prompts=Artifact(tmp_path / "few", "few", 0.0), own=True)
