"""What a method trains and offers: which trainings are shared, how many there are, and how candidates are called."""

import math
from collections import Counter
from itertools import permutations, product
from typing import Any

import pytest

from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.pipeline.recipes import Recipe
from valuesoup.pipeline.results import candidate_id
from valuesoup.store import Node, topological

EVERY = ("dpo", "seqt", "dpo-lw", "modpo", "soup", "vc-soup", "mva", "mora")
NAMES = ("a", "b", "c", "d", "e")
MORA = "{preset: mora, rewriter: {function: 'valuesoup.worlds.errands:fuse'}}"


def config(n: int, *methods: str) -> RunConfig:
    """A configuration of n values whose base and rewards exist already: only methods train anything."""
    data = "function: 'valuesoup.worlds.errands:pairs', arguments: {value: helpful, size: 9}"
    values = [
        f"  {name}: {{data: {{{data}, limit: {place + 1}}}, reward: {{function: 'tiny_rewards:length'}}}}"
        for place, name in enumerate(NAMES[:n])
    ]
    text = "\n".join(["base: {model: some/base}", "training: {rank: 4, batch_size: 8}", "values:", *values])
    return parse_config(text, "recipes", [f"methods=[{', '.join(methods)}]"])


def plan(n: int, *methods: str) -> Plan:
    return make_plan(config(n, *methods))


def recipe(n: int, method: str) -> Recipe:
    (found,) = plan(n, method).recipes.values()
    return found


def keys(nodes: Any) -> list[str]:
    return [node.key for node in nodes]


def trained(method: Recipe) -> set[str]:
    return set(keys(method.trainings.values()))


def count(recipe: Recipe, stage: str) -> int:
    """Return how many different calls of a stage the trainings of a method need."""
    return sum(node.stage.name == stage for node in topological(recipe.trainings.values()))


def policy(recipe: Recipe, label: str) -> Node:
    """Return the finished policy that a candidate is."""
    (candidate,) = [one for one in recipe.candidates if one.label == label]
    return list(recipe.vectors.values())[candidate.row.index(1.0)]


# Sharing: the same training is the same node, whatever method asks for it.


@pytest.mark.parametrize("n", [2, 3])
def test_dpo_lw_at_a_one_hot_weight_is_the_dpo_training_of_that_value(n: int) -> None:
    dpo, weighted = recipe(n, "dpo"), recipe(n, "{preset: dpo-lw, steps: 2}")
    assert trained(dpo) < trained(weighted)
    for value, node in dpo.vectors.items():
        label = ",".join(f"{name}={int(name == value)}" for name in NAMES[:n])
        assert policy(weighted, label).key == node.key


@pytest.mark.parametrize("primary", ["a", "b"])
@pytest.mark.parametrize("rewards", ["implicit", "models"])
def test_modpo_at_the_primary_weight_one_is_the_dpo_training_of_the_primary_value(primary: str, rewards: str) -> None:
    dpo = recipe(2, "dpo")
    modpo = recipe(2, f"{{preset: modpo, primary: {primary}, rewards: {rewards}, steps: 4}}")
    label = "a=1,b=0" if primary == "a" else "a=0,b=1"
    assert policy(modpo, label).key == dpo.vectors[primary].key


def test_the_first_stage_of_seqt_and_the_first_vector_of_mva_are_the_dpo_training_of_the_first_value() -> None:
    first, second = recipe(3, "dpo").vectors["a"].key, recipe(3, "dpo").vectors["b"].key
    assert recipe(3, "seqt").trainings["a"].key == first
    assert recipe(3, "mva").vectors["a"].key == first
    assert second not in trained(recipe(3, "seqt")) | trained(recipe(3, "mva"))
    # In joint mode the first vector feels the penalty as well.
    assert first not in trained(recipe(3, "{preset: mva, mode: joint}"))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_decorrelation_of_weight_zero_is_no_decorrelation(n: int) -> None:
    levels = "levels: [0.5, 1]"
    assert trained(recipe(n, f"{{preset: mva, alpha: 0, {levels}}}")) == trained(recipe(n, "{preset: soup, steps: 1}"))


def test_a_filter_that_keeps_another_share_leaves_references_and_scores_alone() -> None:
    one, other = (recipe(2, f"{{preset: vc-soup, tau: {tau}}}") for tau in (0.1, 0.2))
    assert not trained(one) & trained(other)
    before = {node.key for node in topological(one.trainings.values())}
    renewed = [node for node in topological(other.trainings.values()) if node.key not in before]
    assert Counter(node.stage.name for node in renewed) == {"filter": 2, "train": 2}
    assert {node.key for node in topological(recipe(2, "soup").trainings.values())} - before == trained(
        recipe(2, "soup")
    )


def test_a_threshold_of_one_value_leaves_the_filter_and_the_training_of_the_other_alone() -> None:
    one, other = (recipe(2, f"{{preset: vc-soup, tau: {{a: 0.1, b: {tau}}}}}") for tau in (0.1, 0.2))
    assert one.filters["a"].key == other.filters["a"].key == recipe(2, "{preset: vc-soup, tau: 0.1}").filters["a"].key
    assert one.filters["b"].key != other.filters["b"].key
    assert one.vectors["a"].key == other.vectors["a"].key
    assert one.vectors["b"].key != other.vectors["b"].key


@pytest.mark.parametrize(
    ("name", "number"), [("positive", 0), ("strict", math.sqrt(0.5)), ("lenient", -math.sqrt(0.5))]
)
def test_a_named_threshold_is_the_number_that_it_stands_for(name: str, number: float) -> None:
    named, numbered = (recipe(2, f"{{preset: vc-soup, tau: {tau}}}").filters["a"] for tau in (name, number))
    assert named.inputs["tau"] == pytest.approx(number, abs=1e-15)
    if number == 0:
        assert named.key == numbered.key


def test_pooled_pairs_train_one_vector_on_all_data_sets_that_serves_every_value() -> None:
    for n in (1, 2, 3):
        pooled = recipe(n, "{preset: vc-soup, pooled: true}")
        assert len(trained(pooled)) == 1
        assert set(pooled.vectors) == set(NAMES[:n])
        (node,) = topological(pooled.vectors.values())[-1:]
        assert [source["dataset"] for source in node.inputs["sources"]] == list(NAMES[:n])
    assert trained(recipe(1, "{preset: vc-soup, pooled: true}")) == trained(recipe(1, "vc-soup"))


def test_methods_in_one_run_share_what_they_have_in_common() -> None:
    found = plan(2, "dpo", "soup", "{preset: dpo-lw, steps: 2}", "{preset: modpo, steps: 2}", "seqt", "mva")
    trainings = [node for node in topological(found.targets()) if node.stage.name == "train"]
    # Two DPO vectors; one policy of DPO-LW and one of MODPO at (1/2, 1/2); the second stage of SeqT; MVA's second.
    assert len(trainings) == 2 + 1 + 1 + 1 + 1
    references = [node for node in topological(found.targets()) if node.stage.name == "reference"]
    # The base on both data sets; b's policy on a's pairs for MODPO; a's policy on b's pairs for SeqT.
    assert len(references) == 2 + 1 + 1


# How many trainings and candidates there are.


@pytest.mark.parametrize(
    ("method", "trainings", "candidates"),
    [
        ("dpo", lambda n: n, lambda n: n),
        ("seqt", lambda n: n, lambda n: 1),
        ("{preset: dpo-lw, steps: 4}", lambda n: math.comb(n + 3, 4), lambda n: math.comb(n + 3, 4)),
        ("{preset: soup, steps: 4}", lambda n: n, lambda n: math.comb(n + 3, 4)),
        ("{preset: vc-soup, steps: 4}", lambda n: n, lambda n: math.comb(n + 3, 4)),
        (
            "{preset: soup, weights: {kind: simplex, steps: 4, totals: [1, 1.5]}}",
            lambda n: n,
            lambda n: 2 * math.comb(n + 3, 4),
        ),
        ("{preset: mva, levels: [0.1, 0.5, 1]}", lambda n: n, lambda n: 3**n),
        ("{preset: mva, points: 8}", lambda n: n, lambda n: 8),
        ("{preset: mva, mode: joint, points: 8}", lambda n: 1, lambda n: 8),
        (MORA, lambda n: n, lambda n: 1),
        (MORA[:-1] + ", mode: simultaneous}", lambda n: 1, lambda n: 1),
        ("{preset: soup, steps: 2, composition: {kind: ties}}", lambda n: n, lambda n: math.comb(n + 1, 2)),
        # The compositions of 4 in which the primary value has a part, and the implicit rewards of the others.
        ("{preset: modpo, steps: 4}", lambda n: math.comb(n + 2, 3) + n - 1, lambda n: math.comb(n + 2, 3)),
        ("{preset: modpo, steps: 4, rewards: models}", lambda n: math.comb(n + 2, 3), lambda n: math.comb(n + 2, 3)),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_trainings_and_candidates_are_counted(method: str, trainings: Any, candidates: Any, n: int) -> None:
    found = recipe(n, method)
    assert len(trained(found)) == trainings(n)
    assert len(found.candidates) == candidates(n)
    stages = {node.key for node in topological(found.vectors.values()) if node.stage.name in ("train", "train-joint")}
    assert stages == trained(found), "every training that a policy needs is counted, and no other"


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_candidates_fit_their_stack_and_are_called_differently(n: int) -> None:
    small = ["dpo", "seqt", "{preset: dpo-lw, steps: 2}", "{preset: modpo, steps: 2}", "{preset: soup, steps: 2}"]
    small += ["{preset: vc-soup, steps: 2}", "{preset: mva, levels: [0.5, 1]}", MORA]
    found = plan(n, *small)
    assert list(found.recipes) == list(EVERY)
    ids = []
    for stack in found.stacks:
        assert len(set(stack.candidates)) == len(stack.candidates)
        assert all(len(row) == len(stack.vectors) for row in stack.candidates)
        for method, places in stack.methods.items():
            assert [stack.candidates[place] for place in places] == [one.row for one in stack.offered[method]]
            ids += [candidate_id(method, candidate) for candidate in stack.offered[method]]
    assert len(set(ids)) == len(ids)
    for method, one in found.recipes.items():
        weighted = [candidate.weights is not None for candidate in one.candidates]
        assert all(weighted) if method not in ("seqt", "mora") else not any(weighted)
        for candidate in one.candidates:
            assert candidate.weights is None or list(candidate.weights) == list(NAMES[:n])


def test_one_value_makes_every_method_its_dpo_training() -> None:
    (dpo,) = trained(recipe(1, "dpo"))
    for method in ("seqt", "dpo-lw", "modpo", "soup", "mva", "mora", "{preset: mora, mode: simultaneous}"):
        assert trained(recipe(1, method)) == {dpo}, method
    assert recipe(1, "mora").expansions == {}


def test_a_stack_takes_thousands_of_candidates() -> None:
    found = plan(4, "{preset: mva, points: 8}", "{name: cube, preset: mva}")
    (stack,) = found.stacks[1:]
    assert len(stack.candidates) == 10**4 + 8
    assert len(stack.methods["cube"]) == 10**4


# Orders of sequential training.


@pytest.mark.parametrize("n", [1, 2, 3])
def test_all_orders_give_a_policy_each_and_share_their_beginnings(n: int) -> None:
    found = recipe(n, "{preset: seqt, orders: all}")
    orders = list(permutations(NAMES[:n]))
    assert [candidate.label for candidate in found.candidates] == [">".join(order) for order in orders]
    prefixes = {order[: place + 1] for order in orders for place in range(n)}
    assert len(trained(found)) == len(found.trainings) == len(prefixes)
    assert {1: 1, 2: 4, 3: 15}[n] == len(prefixes)
    for prefix in prefixes:
        assert " then ".join(prefix) in found.trainings
    for order in orders:
        node: Node | None = policy(found, ">".join(order))
        for value in reversed(order):
            assert node is not None
            (source,) = node.inputs["sources"]
            assert source["dataset"] == value
            # The reference is the policy that the stage starts from.
            assert source["reference"].inputs["policy"] is node.inputs["start"]
            node = node.inputs["start"]
        assert node is None


def test_a_listed_order_is_the_only_one_trained() -> None:
    found = recipe(3, "{preset: seqt, orders: [[c, a, b]]}")
    assert list(found.trainings) == ["c", "c then a", "c then a then b"]
    assert [candidate.label for candidate in found.candidates] == ["c>a>b"]


# What each training is told.


def test_dpo_lw_weighs_the_pairs_of_each_value_and_leaves_out_those_of_weight_zero() -> None:
    found = recipe(3, "{preset: dpo-lw, steps: 2}")
    for candidate in found.candidates:
        assert candidate.weights is not None
        sources = policy(found, candidate.label).inputs["sources"]
        told = {source["dataset"]: source["weight"] for source in sources}
        assert told == {value: weight for value, weight in candidate.weights.items() if weight}
        assert all(source["scale"] == 1.0 and source["margins"] == [] for source in sources)


@pytest.mark.parametrize(("primary", "rewards"), product(["a", "b"], ["implicit", "models"]))
def test_modpo_scales_by_the_primary_weight_and_takes_the_others_as_margins(primary: str, rewards: str) -> None:
    found = recipe(3, f"{{preset: modpo, primary: {primary}, rewards: {rewards}, steps: 4}}")
    for candidate in found.candidates:
        weights = dict(candidate.weights or {})
        (source,) = policy(found, candidate.label).inputs["sources"]
        assert source["dataset"] == primary
        assert source["scale"] == weights.pop(primary) > 0
        assert source["weight"] == 1.0
        assert [margin["share"] for margin in source["margins"]] == [weight for weight in weights.values() if weight]
        others = [value for value, weight in weights.items() if weight]
        for value, margin in zip(others, source["margins"], strict=True):
            if rewards == "models":
                assert (margin["scores"].inputs["dataset"], margin["scores"].inputs["value"]) == (primary, value)
                assert margin["policy"] is None
            else:
                assert margin["policy"].inputs["dataset"] == primary
                assert margin["base"].inputs["pairs"].inputs["value"] == primary  # all of its pairs, as read
                assert margin["policy"].inputs["policy"].key == recipe(3, "dpo").vectors[value].key
                assert margin["base"].inputs["policy"] is None


def test_mva_keeps_each_vector_away_from_all_before_it_and_draws_it_anew() -> None:
    found = recipe(3, "{preset: mva, levels: [1]}").vectors
    told = {value: node.inputs for value, node in found.items()}
    assert {value: list(of["away_from"]) for value, of in told.items()} == {"a": [], "b": ["a"], "c": ["a", "b"]}
    assert {value: (of["alpha"], of["draw"]) for value, of in told.items()} == {"a": (0, 0), "b": (10, 1), "c": (10, 2)}
    assert told["c"]["away_from"]["b"].key == found["b"].key


def test_a_methods_own_training_settings_reach_every_training_of_it_and_of_no_other() -> None:
    found = plan(2, "dpo", "{preset: modpo, steps: 2, training: {likelihood: 0.2, beta: 1}}", "soup")
    for node in found.recipes["modpo"].trainings.values():
        settings = node.inputs["settings"]
        assert (settings.likelihood, settings.beta, settings.rank, settings.batch_size) == (0.2, 1.0, 4, 8)
    for name in ("dpo", "soup"):
        assert {node.inputs["settings"].likelihood for node in found.recipes[name].trainings.values()} == {0.0}
    assert trained(found.recipes["dpo"]) == trained(found.recipes["soup"])


# Combinations of the choices.


@pytest.mark.parametrize("preset", ["soup", "dpo-lw", "modpo", "seqt", "mva", "{preset: mva, mode: joint"])
def test_a_filter_reaches_every_pair_of_any_objective(preset: str) -> None:
    entry = preset if preset.startswith("{") else f"{{preset: {preset}"
    found = recipe(3, f"{entry}, pairs: {{kind: consistent, tau: auto, soft: true, flip: true}}}}")
    filters = {value: node.key for value, node in found.filters.items()}
    assert list(filters) == ["a", "b", "c"]
    for node in found.trainings.values():
        given = node.inputs["sources"]
        for source in given if isinstance(given, list) else [one for of in given.values() for one in of]:
            assert source["selection"].key == filters[source["dataset"]]
    first = found.filters["a"].inputs
    assert (first["tau"], first["soft"], first["flip"], first["keep"]) == ("auto", True, True, None)


def test_mora_adds_the_expanded_pairs_to_every_stage_drawn_from_the_policy_so_far() -> None:
    found = recipe(3, MORA)
    assert list(found.expansions) == ["a", "b after a", "c after a then b"]
    for value, (done, node) in zip("abc", found.trainings.items(), strict=True):
        own, expanded = node.inputs["sources"]
        assert own["dataset"] == value
        assert expanded["pairs"] in found.expansions.values()
        assert expanded["reference"].inputs["policy"] is node.inputs["start"]
        rollouts = [one for one in topological([expanded["pairs"]]) if one.stage.name == "answers"]
        last = {tuple(keys(one.inputs["vectors"].values())) for one in rollouts if value in one.label.split()}
        start = node.inputs["start"]
        assert ((start.key,) if start else ()) in last, done


def test_mora_in_several_orders_calls_each_expansion_by_what_came_before() -> None:
    found = recipe(3, MORA[:-1] + ", objective: {kind: sequential, orders: all}}")
    assert len(found.expansions) == len(found.trainings) == 15
    assert {"a", "b after a", "a after b", "c after a then b", "c after b then a"} < set(found.expansions)
    assert len(set(keys(found.expansions.values()))) == 15


def test_mora_simultaneous_expands_all_prompts_once_with_the_base() -> None:
    found = recipe(3, MORA[:-1] + ", mode: simultaneous}")
    assert list(found.expansions) == ["a and b and c"]
    (node,) = found.trainings.values()
    assert [source["dataset"] for source in node.inputs["sources"]][:3] == ["a", "b", "c"]
    assert len(node.inputs["sources"]) == 4
    assert count(found, "mined") == count(found, "fusion") == count(found, "expanded") == 1


@pytest.mark.parametrize(
    ("objective", "expansions"),
    [
        ("{kind: independent}, weights: {kind: simplex, steps: 2}", ["a", "b"]),
        ("{kind: decorrelated, mode: joint}, weights: {kind: single}", ["a", "b"]),
        ("{kind: weighted}, weights: {kind: simplex, steps: 2}", ["a", "b"]),
        ("{kind: margin, rewards: models}, weights: {kind: simplex, steps: 2}", ["a"]),
        ("{kind: margin}, weights: {kind: simplex, steps: 2}", ["a", "b"]),
    ],
)
def test_prompt_expansion_joins_any_objective(objective: str, expansions: list[str]) -> None:
    pairs = "{kind: expanded, rewriter: {function: 'valuesoup.worlds.errands:fuse'}, filter: {tau: positive}}"
    found = recipe(2, f"{{name: x, pairs: {pairs}, objective: {objective}}}")
    assert list(found.expansions) == expansions
    assert list(found.filters) == ["a", "b"]
    for node in found.trainings.values():
        given = node.inputs["sources"]
        for source in given if isinstance(given, list) else [one for of in given.values() for one in of]:
            # The filter chooses among the pairs of D_i; expanded ones are consistent by construction.
            assert (source["selection"] is None) == (source["pairs"].stage.name == "expanded")


def test_other_compositions_are_made_from_the_same_vectors() -> None:
    plain, ties = recipe(2, "soup"), recipe(2, "{preset: soup, composition: {kind: ties, density: 0.2}}")
    assert trained(plain) == trained(ties)
    assert [candidate.label for candidate in plain.candidates] == [candidate.label for candidate in ties.candidates]
    for candidate in ties.candidates:
        told = policy(ties, candidate.label).inputs
        assert told["weights"] == candidate.weights
        assert keys(told["vectors"].values()) == keys(plain.vectors.values())
        assert (told["kind"], told["settings"]) == ("ties", {"density": 0.2, "rank": None})
    assert keys(ties.geometry.values()) == keys(plain.geometry.values())
