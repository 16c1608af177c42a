"""The stages of the training on a tiny base, as plans call them: references, margins, penalties, joint and resumed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

import tiny
from valuesoup.configfile import parse_config
from valuesoup.data import Pairs
from valuesoup.data.templates import render_answer
from valuesoup.errors import UserError
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.plan import make_plan
from valuesoup.pipeline.recipes import Recipe
from valuesoup.pipeline.sources import load_log_probs, training_rows
from valuesoup.pipeline.training import compose_vectors
from valuesoup.soup import ValueVector
from valuesoup.store import Artifact, Node, Progress, RunLog, Store, run_graph, topological
from valuesoup.store.graph import substitute
from valuesoup.store.progress import Task

torch.set_num_threads(1)


def early(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """How early in the vocabulary the words of an answer stand, on average."""
    return [-float(np.mean([int(word[1:]) for word in answer.split()])) for answer in answers]


def short(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [-float(len(answer.split())) + 0.01 * int(answer.split()[0][1:]) for answer in answers]


class Bench:
    """Values with random pairs on a tiny base, and a store in which the trainings of a method are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny.save_base(folder / "base")
        for place, name in enumerate("abc"):
            tiny.random_pairs(20, seed=place).save(folder / f"{name}.parquet")
        self.progress = Progress()

    def recipe(self, method: str, *settings: str, values: str = "ab") -> Recipe:
        text = [f"base: {{model: {self.base}, device: cpu}}", "values:"]
        for name, reward in zip(values, ("early", "short", "early"), strict=False):
            data = f"{{function: '{__name__}:rows', arguments: {{file: {self.folder / f'{name}.parquet'}}}}}"
            text.append(f"  {name}: {{data: {data}, reward: {{function: '{__name__}:{reward}'}}}}")
        text.append("training: {rank: 2, dropout: 0, learning_rate: 0.01, batch_size: 4, epochs: 1, max_length: 64}")
        text.append("evaluation: {test_prompts: 2, validation_prompts: 3}")
        config = parse_config("\n".join(text), "bench", [f"methods=[{method}]", *settings])
        (found,) = make_plan(config).recipes.values()
        return found

    def make(self, *nodes: Node, store: str = "store", progress: Progress | None = None) -> list[Artifact]:
        found = self.all_of(*nodes, store=store, progress=progress)
        return [found[node.key] for node in nodes]

    def all_of(self, *nodes: Node, store: str = "store", progress: Progress | None = None) -> Mapping[str, Artifact]:
        root = Store(self.folder / store)
        return run_graph(nodes, root, progress or self.progress, RunLog(self.folder / "log.jsonl"))

    def inputs(self, node: Node) -> Any:
        """Return the inputs of a node as its stage gets them."""
        found = self.all_of(*node.parents)
        return substitute(node.inputs, lambda parent: found[parent.key])


def rows(file: str) -> list[dict[str, Any]]:
    """The rows of a file of pairs."""
    return [
        {"prompt": list(pair.prompt), "chosen": list(pair.chosen), "rejected": list(pair.rejected)}
        for pair in Pairs.load(Path(file))
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def vector(artifact: Artifact) -> ValueVector:
    return ValueVector.load(artifact.path / "adapter")


def largest_difference(one: ValueVector, other: ValueVector) -> float:
    """Return the largest difference of any entry of ΔW."""
    found = 0.0
    for layer, factors in one.layers.items():
        others = other.layers[layer]
        delta = factors.scale * (factors.B.double() @ factors.A.double())
        found = max(found, float((delta - others.scale * (others.B.double() @ others.A.double())).abs().max()))
    return found


def dense_log_probs(base: Path, pairs: Pairs, terms: Sequence[tuple[ValueVector, float]]) -> np.ndarray:
    """Return log π of both responses in float64, each read alone by a model with the vectors merged into it."""
    from transformers import AutoModelForCausalLM

    model = tiny.merged(AutoModelForCausalLM.from_pretrained(base), terms)
    words = tiny.tokenizer()
    found = np.zeros((len(pairs), 2))
    for place, pair in enumerate(pairs):
        for side, response in enumerate((pair.chosen, pair.rejected)):
            prompt, answer = (
                words(text, add_special_tokens=False)["input_ids"]
                for text in render_answer(pair.prompt, response, words)
            )
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0]
            truth = log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
            found[place, side] = float(truth.sum())
    return found


def split_of(recipe: Recipe) -> Node:
    """Return the node of the split."""
    return next(node for node in topological(recipe.trainings.values()) if node.stage.name == "split")


def test_the_second_stage_of_seqt_refers_to_the_policy_of_the_first_and_starts_from_it(bench: Bench) -> None:
    recipe = bench.recipe("seqt", "training.epochs=3")
    first, second = recipe.trainings.values()
    base = next(n for n in topological([first]) if n.stage.name == "reference")
    (source,) = bench.inputs(second)["sources"]
    made, split, last, before = bench.make(first, split_of(recipe), second, base)
    pairs = load_part(split, "b", "train")
    reference = load_log_probs(source["reference"], pairs.ids)
    np.testing.assert_allclose(reference, dense_log_probs(bench.base, pairs, [(vector(made), 1.0)]), atol=1e-3)
    assert np.abs(reference - dense_log_probs(bench.base, pairs, [])).max() > 0.1
    # The stage starts where its reference is: the first loss is ln 2, and what it ends in is neither.
    curve = last.json("curves.json")[0]
    assert curve["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert largest_difference(vector(made), vector(last)) > 1e-3
    assert before.path != source["reference"].path


@pytest.mark.parametrize("primary", ["a", "b"])
def test_margins_of_modpo_are_the_implicit_rewards_of_the_other_values_policy(bench: Bench, primary: str) -> None:
    recipe = bench.recipe(f"{{preset: modpo, primary: {primary}, steps: 4}}", "training.epochs=3")
    other = {"a": "b", "b": "a"}[primary]
    label = {"a": "a=0.25,b=0.75", "b": "a=0.75,b=0.25"}[primary]
    given = bench.inputs(recipe.trainings[label])
    made, split = bench.make(recipe.trainings[other], split_of(recipe))
    found = training_rows(given["base"], {"policy": given["sources"]}, "train", given["settings"])
    assert found is not None
    pairs = load_part(split, primary, "train")
    ratio = dense_log_probs(bench.base, pairs, [(vector(made), 1.0)]) - dense_log_probs(bench.base, pairs, [])
    expected = 0.75 * 0.1 * (ratio[:, 0] - ratio[:, 1])
    np.testing.assert_allclose(found.margin, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.01
    assert (found.scale == 0.25).all()
    assert (found.weight == 1).all()


def test_margins_of_reward_models_are_their_scores_of_the_primary_values_pairs(bench: Bench) -> None:
    recipe = bench.recipe("{preset: modpo, rewards: models, steps: 2}")
    given = bench.inputs(recipe.trainings["a=0.5,b=0.5"])
    (split,) = bench.make(split_of(recipe))
    for part in ("train", "validation"):
        found = training_rows(given["base"], {"policy": given["sources"]}, part, given["settings"])
        assert found is not None
        pairs = load_part(split, "a", part)
        gaps = [
            short([], [pair.chosen[0]["content"]])[0] - short([], [pair.rejected[0]["content"]])[0] for pair in pairs
        ]
        np.testing.assert_allclose(found.margin, 0.5 * np.array(gaps), atol=1e-12)


def test_the_first_loss_of_dpo_lw_is_the_weighted_mean_over_all_pairs(bench: Bench) -> None:
    bench_settings = ("training.batch_size=64", "values.b.data.limit=11")
    recipe = bench.recipe("{preset: dpo-lw, weights: {kind: points, rows: [{a: 0.75, b: 0.5}]}}", *bench_settings)
    (made,) = bench.make(*recipe.trainings.values())
    (split,) = bench.make(split_of(recipe))
    sizes = {value: len(load_part(split, value, "train")) for value in "ab"}
    assert sizes["a"] != sizes["b"]
    expected = math.log(2) * (0.75 * sizes["a"] + 0.5 * sizes["b"]) / (sizes["a"] + sizes["b"])
    assert made.json("curves.json")[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert made.json("summary.json")["pairs"] == sum(sizes.values())


def test_dpo_lw_of_equal_weights_trains_on_both_data_sets_as_on_one(bench: Bench) -> None:
    """At (1, 1) nothing distinguishes it from DPO on all pairs together."""
    recipe = bench.recipe("{preset: dpo-lw, weights: {kind: points, rows: [{a: 1, b: 1}]}}")
    mixed = bench.recipe("{name: mixed, objective: {kind: mixed}}")
    assert [node.key for node in recipe.trainings.values()] == [node.key for node in mixed.trainings.values()]


def test_joint_training_without_penalty_gives_each_value_the_step_of_its_own_training(bench: Bench) -> None:
    settings = ("training.batch_size=64", "training.max_grad_norm=1e9")  # one step of all pairs
    joint = bench.recipe("{preset: mva, mode: joint, alpha: 0, points: 2}", *settings)
    alone = bench.recipe("soup", *settings)
    together, apart = bench.make(joint.vectors["a"], alone.vectors["a"])
    assert largest_difference(vector(together), vector(apart)) < 1e-5
    bench_b, own_b = bench.make(joint.vectors["b"], alone.vectors["b"])
    # The second vector starts from a draw of its own, or the penalty could not part the two.
    assert largest_difference(vector(bench_b), vector(own_b)) > 1e-4
    first = next(iter(vector(together).layers))
    assert not torch.equal(vector(together).layers[first].A, vector(bench_b).layers[first].A)


def test_joint_training_takes_as_many_steps_as_each_value_alone(bench: Bench) -> None:
    """Each step then holds a batch of every value, and an epoch is one of each."""
    joint, alone = bench.recipe("{preset: mva, mode: joint, points: 2}"), bench.recipe("soup")
    together, apart = bench.make(joint.trainings["all values jointly"], alone.trainings["a"])
    assert together.json("summary.json")["steps"] == apart.json("summary.json")["steps"] > 2
    assert together.json("summary.json")["pairs"] == 2 * apart.json("summary.json")["pairs"]


@pytest.mark.parametrize("mode", ["sequential", "joint"])
def test_the_penalty_lowers_the_dependence_of_the_factors(bench: Bench, mode: str) -> None:
    recipe = bench.recipe(
        f"{{preset: mva, mode: {mode}, alpha: 1000, points: 2}}",
        "training.epochs=8",
        "training.learning_rate=0.03",
        "training.rank=8",
    )
    made = bench.make(*recipe.trainings.values())[-1]
    layers = made.json("hsic.json")
    assert {(row["first"], row["second"]) for row in layers} <= {("a", "policy"), ("policy", "a"), ("a", "b")}
    assert sum(row["after"] for row in layers) < 0.8 * sum(row["before"] for row in layers)


@pytest.mark.parametrize("mode", ["sequential", "joint"])
def test_one_value_has_nothing_to_be_decorrelated_from(bench: Bench, mode: str) -> None:
    recipe = bench.recipe(f"{{preset: mva, mode: {mode}, points: 2}}", values="a")
    alone = bench.recipe("soup", values="a")
    one, other = bench.make(recipe.vectors["a"], alone.vectors["a"])
    assert largest_difference(vector(one), vector(other)) == 0
    assert recipe.geometry == {}


@pytest.mark.parametrize("n", [3])
@pytest.mark.parametrize("mode", ["sequential", "joint"])
def test_three_values_are_decorrelated_each_from_all(bench: Bench, mode: str, n: int) -> None:
    recipe = bench.recipe(f"{{preset: mva, mode: {mode}, points: 2}}", values="abc"[:n])
    made = bench.make(*recipe.trainings.values())
    pairs = {(row["first"], row["second"]) for row in made[-1].json("hsic.json")}
    assert len(pairs) == (2 if mode == "sequential" else 3)
    vectors = bench.make(*recipe.vectors.values())
    assert all(largest_difference(vector(one), vector(vectors[0])) > 1e-4 for one in vectors[1:])


class StopsAt(Progress):
    """Is interrupted at a step of a training, as by Ctrl-C."""

    def __init__(self, label: str, step: int) -> None:
        super().__init__()
        self.at = label, step

    def _show(self, task: Task) -> None:
        if task.unit == "steps" and (task.label, task.done) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mode", ["sequential", "joint"])
def test_a_decorrelated_training_that_was_stopped_ends_as_if_it_had_not_been(bench: Bench, mode: str) -> None:
    settings = ("training.evaluations=2", "training.dropout=0.2", "training.epochs=2")
    recipe = bench.recipe(f"{{preset: mva, mode: {mode}, points: 2}}", *settings)
    last = list(recipe.trainings.values())[-1]
    with pytest.raises(KeyboardInterrupt):
        bench.make(last, store=f"stopped-{mode}", progress=StopsAt(last.label, 5))
    assert list((bench.folder / f"stopped-{mode}").rglob("checkpoint-*")), "it goes on from a checkpoint"
    (stopped,), (whole,) = bench.make(last, store=f"stopped-{mode}"), bench.make(last)
    files = sorted(path.relative_to(whole.path) for path in whole.path.rglob("*.safetensors"))
    assert len(files) == (1 if mode == "sequential" else 2)
    for file in files:
        assert (stopped.path / file).read_bytes() == (whole.path / file).read_bytes()
    for name in ("curves.json", "hsic.json", "summary.json"):
        assert stopped.json(name) == whole.json(name)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("factorwise", {}),
        ("svd", {"rank": None}),
        ("slerp", {}),
        ("ties", {"density": 1.0, "rank": None}),
        ("dare", {"density": 1.0, "seed": 0, "rank": None}),
        ("magnitude", {"density": 1.0, "rank": 2}),
    ],
)
def test_any_composition_of_one_vector_alone_is_that_vector(bench: Bench, kind: str, settings: dict[str, Any]) -> None:
    vectors = bench.recipe("soup").vectors
    made = bench.make(*vectors.values())
    for place, name in enumerate("ab"):
        weights = {other: float(other == name) for other in "ab"}
        (alone,) = bench.make(
            compose_vectors("compose", vectors=vectors, weights=weights, kind=kind, settings=settings)
        )
        assert largest_difference(vector(alone), vector(made[place])) < 1e-6
        assert alone.json("summary.json")["relative_error"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("objective", ["independent", "margin", "weighted", "sequential", "decorrelated"])
def test_a_filter_with_everything_on_trains_under_any_objective(bench: Bench, objective: str) -> None:
    weights = "{kind: single}" if objective == "sequential" else "{kind: points, rows: [{a: 0.5, b: 0.5}]}"
    pooled = objective not in ("weighted", "sequential")  # those train on the pairs of every value as it is
    recipe = bench.recipe(
        f"{{name: x, pairs: {{kind: consistent, tau: 0.2, soft: true, flip: true, pooled: {pooled}, "
        "minimum_pairs: 2}, "
        f"objective: {{kind: {objective}}}, weights: {weights}}}"
    )
    found = bench.make(*recipe.trainings.values())
    filters = bench.make(*recipe.filters.values())
    kept = [one.json("summary.json")["kept"] for one in filters]
    assert sum(one.json("summary.json")["flipped"] for one in filters) > 0
    each = set(kept) if objective == "sequential" else {sum(kept)}
    assert {one.json("summary.json")["pairs"] for one in found} == each


def test_a_filter_that_cannot_be_says_of_which_data_set(bench: Bench) -> None:
    found = bench.recipe("{preset: vc-soup, keep: 1, flip: true}").filters["b"]
    with pytest.raises(UserError, match=r"^Data set 'b' cannot be filtered\. Flipping pairs needs a threshold above 0"):
        bench.make(found)
    few = bench.recipe("{preset: vc-soup, tau: 0.99, minimum_pairs: 15}").filters["b"]
    with pytest.raises(UserError, match="pairs of data set 'b' have a value consistency of at least"):
        bench.make(few)
