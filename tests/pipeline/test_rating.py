"""Scores in the pipeline: each model once per set of texts, pairs as read for every seed, each part its own rows."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.data import Pairs
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.inputs import reward_ref
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.rating import answer_scores, rate_answers
from valuesoup.pipeline.run import open_store
from valuesoup.pipeline.shared import Shared
from valuesoup.pipeline.values import joined, part_scores
from valuesoup.rewards import ClassifierReward, RewardTable, score
from valuesoup.store import Artifact, Node, Progress, RunLog, Work, run_graph, topological

VALUES = {"a": "logit: 0", "b": "logit: 1, sign: -1", "c": "logit: 1, template: '{prompt} {response}'"}
"""Rewards of one model with two logits; only the first two read their texts alike."""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = LlamaConfig(**{**tiny.llama().config.to_dict(), "num_labels": 2, "architectures": None})
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rng = Random(0)
    texts = [[" ".join(f"w{rng.randrange(50)}" for _ in range(rng.randint(2, 9))) for _ in range(3)] for _ in range(40)]
    keys = ("prompt", "chosen", "rejected")
    file.write_text("\n".join(json.dumps(dict(zip(keys, text, strict=True))) for text in texts))
    return file


def config(classifier: Path, rows: Path, *values: str, seed: int = 0, reward: str | None = None) -> RunConfig:
    given = {value: reward or f"{{model: {classifier}, {VALUES[value]}}}" for value in values}
    lines = [f"  {value}: {{data: {rows}, reward: {of}}}" for value, of in given.items()]
    text = "\n".join(["base: {model: some/base}", "values:", *lines])
    sizes = ["evaluation.test_prompts=5", "evaluation.validation_prompts=5"]
    return parse_config(text, "c", [f"seed={seed}", "methods=[dpo]", *sizes])


def made(folder: Path, *targets: Node) -> tuple[list[Artifact], list[str]]:
    """Run nodes in a run folder; return their artifacts, and the stages that had to run."""
    log = folder / "log.jsonl"
    folder.mkdir(exist_ok=True)
    store = open_store(folder)
    missing = [node.stage.name for node in topological(targets) if not store.is_done(node)]
    found = run_graph(targets, store, Progress(), RunLog(log))
    return [found[node.key] for node in targets], missing


def stages(of: RunConfig, name: str) -> list[Node]:
    return [node for node in topological(make_plan(of).targets()) if node.stage.name == name]


@pytest.mark.parametrize(("values", "models"), [("a", 1), ("ab", 1), ("ac", 2), ("abc", 2)])
def test_values_that_read_one_model_alike_have_one_scoring_of_each_set_of_texts(
    classifier: Path, rows: Path, values: str, models: int
) -> None:
    of = config(classifier, rows, *values)
    assert len(stages(of, "scores")) == models * len(values), "every value has pairs of its own"
    plan = make_plan(of)
    for evaluated in plan.evaluated:
        for measured in (evaluated.validation, evaluated.test):
            assert list(measured.scores) == list(values)
            assert len({node.key for node in measured.scores.values()}) == models
    assert len(stages(of, "part-scores")) == len(values) ** 2


def test_each_value_takes_its_logit_and_sign_for_the_pairs_of_each_part(
    classifier: Path, rows: Path, tmp_path: Path
) -> None:
    shared = Shared.of(config(classifier, rows, *VALUES))
    nodes = {value: shared.pair_scores("b", value) for value in VALUES}
    (split, *found), _ = made(tmp_path / "run", shared.split, *nodes.values())
    sources = {value: ClassifierReward(classifier, **parsed(of)) for value, of in VALUES.items()}
    scores = dict(zip(nodes, found, strict=True))
    for part, size in (("train", 30), ("validation", 5)):
        pairs = load_part(split, "b", part)
        expected = score(pairs, sources, "b")
        table = joined(scores, part)
        assert (table.items, table.values, table.dataset) == (pairs.ids, tuple(VALUES), "b")
        assert len(table) == size
        np.testing.assert_allclose(table.scores, expected.scores, atol=1e-5)


def parsed(settings: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(f"{{{settings}}}")
    return found


def test_another_seed_finds_the_scores_of_the_pairs_and_makes_its_own_parts(
    classifier: Path, rows: Path, tmp_path: Path
) -> None:
    first, second = (Shared.of(config(classifier, rows, "a", seed=seed)) for seed in (0, 1))
    assert first.split.key != second.split.key
    assert "scores" in made(tmp_path / "one", first.pair_scores("a", "a"))[1]
    (split, scores), ran = made(tmp_path / "two", second.split, second.pair_scores("a", "a"))
    assert set(ran) == {"pairs", "split", "part-scores"}
    assert RewardTable.load(scores.path / "train.parquet").items == load_part(split, "a", "train").ids


def test_a_reward_trained_in_the_run_is_of_its_seed(classifier: Path, rows: Path) -> None:
    scored = [
        {node.key for node in stages(config(classifier, rows, "a", seed=seed, reward="{train: {}}"), "scores")}
        for seed in (0, 1)
    ]
    assert not scored[0] & scored[1]


def pairs_keys(function: str, seed: int) -> set[str]:
    text = f"base: {{model: m}}\nvalues: {{v: {{data: {{{function}}}, reward: {{function: 'tiny_rewards:length'}}}}}}"
    return {node.key for node in stages(parse_config(text, "c", [f"seed={seed}"]), "pairs")}


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ("path: some/hub, limit: 5", True),
        ("path: some/hub, pairs_per_prompt: 2", True),
        ("function: 'valuesoup.worlds.errands:pairs', arguments: {value: helpful, size: 9}", False),
        ("function: 'valuesoup.worlds.errands:pairs', arguments: {value: helpful, size: 9, seed: 3}", True),
    ],
)
def test_pairs_are_read_by_the_seed_only_where_a_function_makes_them_by_it(data: str, same: bool) -> None:
    assert (pairs_keys(data, 0) == pairs_keys(data, 1)) == same


def test_pairs_with_columns_keep_the_scores_of_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = tiny.random_pairs(6)
    given = rng.normal(size=(2, 6))
    for side, column in zip(("chosen", "rejected"), given, strict=True):
        pairs = Pairs(pairs.table.append_column(f"{side}_score/x", pa.array(column)))
    split = tmp_path / "split" / "d"
    split.mkdir(parents=True)
    for part, chosen in (("train", [0, 2, 4, 5]), ("validation", []), ("test", [1, 3])):
        pairs.take(np.array(chosen, dtype=np.int64)).save(split / f"{part}.parquet")
    work = Work(tmp_path / "out", Progress(), "label", lambda **_: None)
    work.out.mkdir()
    part_scores.function(work, split=Artifact(split.parent, "k", 0.0), dataset="d", value="v", scores=None, column="x")
    np.testing.assert_array_equal(RewardTable.load(work.out / "train.parquet").scores[:, :, 0], given.T[[0, 2, 4, 5]])
    assert [path.name for path in work.out.iterdir()] == ["train.parquet"]


def rated(folder: Path, classifier: Path, **rewards: str) -> tuple[Artifact, Artifact]:
    """Rate two candidates' answers to two prompts; return the prompts' artifact too."""
    for name in ("prompts", "answers", "out"):
        (folder / name).mkdir()
    prompts = [
        {"id": f"p{place}", "datasets": ["a"], "messages": [{"role": "user", "content": f"w{place}"}]}
        for place in range(2)
    ]
    (folder / "prompts" / "prompts.json").write_text(json.dumps({"prompts": prompts}))
    table = pa.table(
        {"candidate": [7, 3, 7, 3], "prompt": [0, 0, 1, 1], "text": ["w1 w2", "w3", "w3", "w3"], "finished": [True] * 4}
    )
    pq.write_table(table, folder / "answers" / "shard-0.parquet")
    asked, answers = (Artifact(folder / name, "k", 0.0) for name in ("prompts", "answers"))
    work = Work(folder / "out", Progress(), "label", lambda **_: None)
    refs = {value: reward_ref(config(classifier, Path("d"), value).values[value].reward) for value in rewards}
    rate_answers.function(work, answers=answers, prompts=asked, rewards=refs, source=None, device="cpu")
    return Artifact(folder / "out", "k", 0.0), asked


def test_answers_are_rated_under_all_values_of_a_model_and_each_value_finds_its_own(
    classifier: Path, tmp_path: Path
) -> None:
    found, prompts = rated(tmp_path, classifier, a="", b="")
    scores = answer_scores({"b": found, "a": found}, prompts, own=False)
    assert list(scores) == [3, 7]
    turns: list[Any] = [[{"role": "user", "content": f"w{place}"}] for place in (0, 1)]
    for candidate, texts in ((3, ["w3", "w3"]), (7, ["w1 w2", "w3"])):
        expected = [ClassifierReward(classifier, logit=1, sign=-1).score(turns, texts)]
        expected.append(ClassifierReward(classifier).score(turns, texts))
        np.testing.assert_allclose(scores[candidate], np.stack(expected, axis=1), atol=1e-5)
    with pytest.raises(UserError, match="no value 'other'"):
        answer_scores({"other": found}, prompts, own=False)
