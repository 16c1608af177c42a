"""A configuration as a graph: what shares work, and what a changed setting makes anew."""

from pathlib import Path

import pytest

from tiny import save_base
from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.errors import UserError
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.plan import Plan, make_plan
from valuesoup.store import Node, topological

EVALUATION = {"answers", "rated", "frontier", "quality"}
VECTORS = {"train", "geometry", "connectivity"}
ALL = {"pairs", "split", "pretrain", "reward", "scores", "gaps", "reference", "filter", "prompts"}
ALL |= {"part-scores", "conflict"} | VECTORS | EVALUATION
EXPANSION = {"mining", "mined", "fusion", "expanded"}
THREE = "methods=[dpo, soup, vc-soup]"


def nodes(config: RunConfig) -> dict[str, Node]:
    return {node.key: node for node in topological(make_plan(config).targets())}


def renewed(before: RunConfig, after: RunConfig) -> list[Node]:
    """Return the nodes that a changed configuration makes anew."""
    known = nodes(before)
    return [node for key, node in nodes(after).items() if key not in known]


def stages(found: list[Node]) -> set[str]:
    return {node.stage.name for node in found}


def changed(*overrides: str, methods: str = THREE) -> list[Node]:
    """Return what the demo with these methods makes anew under further settings."""
    return renewed(demo_config(overrides=[methods]), demo_config(overrides=[methods, *overrides]))


def test_the_demo_has_every_stage_and_an_unchanged_configuration_changes_nothing() -> None:
    assert {node.stage.name for node in nodes(demo_config()).values()} == ALL | EXPANSION
    assert {node.stage.name for node in nodes(demo_config(overrides=[THREE])).values()} == ALL
    assert renewed(demo_config(), demo_config()) == []


@pytest.mark.parametrize(
    "override",
    [
        "generation.batch_rows=3",
        "base.device=cuda",
        "training.report_to=[wandb]",
        "evaluation.level=0.9",
        "evaluation.resamples=17",
        "evaluation.samples=1",
        "title=another",
    ],
)
def test_settings_of_speed_and_of_presentation_make_nothing_anew(override: str) -> None:
    assert changed(override) == []
    assert renewed(demo_config(), demo_config(overrides=[override])) == []


@pytest.mark.parametrize(
    ("override", "renews"),
    [
        ("generation.temperature=0.5", EVALUATION),
        ("generation.max_new_tokens=9", EVALUATION),
        ("training.learning_rate=1e-5", {*VECTORS, *EVALUATION}),
        ("training.beta=0.2", {*VECTORS, *EVALUATION}),
        ("training.max_length=99", {"reference", "conflict", *VECTORS, *EVALUATION}),
        ("methods.2={preset: vc-soup, tau: 0.1}", {"filter", "conflict", *VECTORS, *EVALUATION}),
        ("methods.2={preset: vc-soup, statistics: pooled}", {"gaps", "filter", "conflict", *VECTORS, *EVALUATION}),
        ("evaluation.prompts=own", {"frontier", "answers", "rated", "quality"}),
        ("evaluation.fluency_bound=0.1", {"frontier", "answers", "rated", "quality"}),
        ("evaluation.fluency=null", {"frontier", "answers", "rated", "quality"}),
        ("values.helpful.truth=null", set()),
        ("evaluation.diagnostics=false", set()),
        (
            "values.helpful.reward.train.epochs=1",
            {"reward", "scores", "part-scores", "gaps", "filter", "conflict", *VECTORS, *EVALUATION},
        ),
        ("evaluation.test_prompts=100", ALL - {"pairs"}),  # the base never sees a held-out prompt
        ("base.pretrain.steps=3", ALL - {"pairs", "split"}),
        ("seed=1", ALL),
    ],
)
def test_a_changed_setting_makes_anew_what_depends_on_it_and_nothing_else(override: str, renews: set[str]) -> None:
    assert stages(changed(override)) == renews


def test_another_threshold_leaves_every_node_of_the_other_methods_alone() -> None:
    found = changed("methods.2={preset: vc-soup, tau: 0.1}")
    assert all("vc-soup" in node.label for node in found)
    assert sum(node.stage.name == "train" for node in found) == 2


def test_another_learning_rate_leaves_the_base_model_alone() -> None:
    assert not [node.label for node in changed("training.learning_rate=1e-5") if " base " in f" {node.label} "]


MORA = "methods=[{preset: mora, rewriter: {function: 'valuesoup.worlds.errands:fuse'}, mode: simultaneous}]"
TRAINED = {"reference", "train", *EVALUATION}


@pytest.mark.parametrize(
    ("override", "renews"),
    [
        ("methods.0.most=9", {"expanded", *TRAINED}),
        ("methods.0.thresholds={helpful: 0, harmless: 0}", {"mined", "fusion", "expanded", *TRAINED}),
        ("methods.0.rewriter={policy: true}", {"fusion", "expanded", *TRAINED}),
        ("methods.0.prompts=9", {"mining", "mined", "fusion", "expanded", *TRAINED}),
        ("methods.0.training={likelihood: 0.2}", {"train", *EVALUATION}),
        ("training.beta=0.2", {"train", *EVALUATION}),
    ],
)
def test_a_changed_setting_of_prompt_expansion_makes_anew_its_later_steps(override: str, renews: set[str]) -> None:
    assert stages(changed(override, methods=MORA)) == renews


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("{preset: modpo, steps: 2}", "methods.0.steps=4"),
        ("{preset: dpo-lw, steps: 2}", "methods.0.steps=4"),
        ("{preset: mva, points: 4}", "methods.0.points=8"),
        ("seqt", "methods.0={preset: seqt, orders: all}"),
    ],
)
def test_a_finer_grid_or_more_orders_keep_every_training_that_is_there(method: str, override: str) -> None:
    before, after = (demo_config(overrides=[f"methods=[{method}]", *more]) for more in ([], [override]))
    trainings = {key for key, node in nodes(before).items() if node.stage.name == "train"}
    assert trainings <= nodes(after).keys()


def test_one_values_own_setting_leaves_the_other_values_reward_model_alone() -> None:
    found = changed("values.helpful.reward.train.epochs=1")
    assert [node.label for node in found if node.stage.name == "reward"] == ["train the reward model of helpful"]
    assert all(node.label.endswith("by helpful") for node in found if node.stage.name in ("scores", "part-scores"))


@pytest.mark.parametrize("override", ["evaluation.prompts=own", "evaluation.fluency_bound=0.1"])
def test_another_rule_of_the_frontier_takes_the_validation_answers_as_they_are(override: str) -> None:
    assert all("validation" not in node.label for node in changed(override))


def test_adding_a_method_keeps_all_that_is_there() -> None:
    less, more = demo_config(overrides=["methods=[dpo, soup]"]), demo_config(overrides=[THREE])
    assert nodes(less).keys() < nodes(more).keys()
    assert stages(renewed(less, more)) == {"filter", "conflict", *VECTORS, *EVALUATION}
    assert renewed(more, less) == []


def test_dpo_and_soup_share_their_trainings_and_their_evaluation() -> None:
    plan = make_plan(demo_config(overrides=[THREE]))
    keys = {method: [node.key for node in recipe.vectors.values()] for method, recipe in plan.recipes.items()}
    assert keys["dpo"] == keys["soup"] != keys["vc-soup"]
    assert [list(stack.methods) for stack in plan.stacks] == [["base"], ["dpo", "soup"], ["vc-soup"]]
    stack = plan.stacks[1]
    assert stack.candidates[stack.methods["dpo"][0]] == (1.0, 0.0)
    assert set(stack.methods["dpo"]) < set(stack.methods["soup"])
    assert len(stack.candidates) == len(set(stack.candidates)) == 11


def fakes(n: int) -> RunConfig:
    """A configuration of n values with function rewards: nothing is trained for the rewards."""
    lines = ["base: {model: some/base}", "values:"]
    data = "function: 'valuesoup.worlds.errands:pairs', arguments: {value: helpful, size: 9}"
    lines += [
        f"  v{place}: {{data: {{{data}, limit: {place + 1}}}, reward: {{function: 'tiny_rewards:length'}}}}"
        for place in range(n)
    ]
    return parse_config("\n".join(lines), "fakes")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_any_number_of_values_can_be_planned(n: int) -> None:
    plan: Plan = make_plan(fakes(n))
    counts: dict[str, int] = {}
    for node in topological(plan.targets()):
        counts[node.stage.name] = counts.get(node.stage.name, 0) + 1
    assert counts["pairs"] == counts["reference"] == counts["filter"] == counts["gaps"] == n
    assert counts["scores"] == n * n
    assert counts["train"] == 2 * n
    # DPO and SOUP train the same vectors, so they have one geometry, and none where there is one vector.
    assert counts.get("geometry", 0) == (2 if n > 1 else 0)
    for stack in plan.stacks:
        assert all(len(row) == len(stack.vectors) for row in stack.candidates)
        assert all(abs(sum(row) - 1) < 1e-12 for row in stack.candidates if row)
    assert set(plan.stacks[1].methods["dpo"]) <= set(plan.stacks[1].methods["soup"])


def test_moving_a_base_to_another_device_keeps_all_and_changed_weights_keep_only_the_data(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    text = (
        f"base: {{model: {base}}}\nvalues:\n  v:\n    data: {{function: 'valuesoup.worlds.errands:pairs', "
        "arguments: {value: helpful, size: 9}}\n    reward: {function: 'tiny_rewards:length'}\n"
    )
    one = nodes(parse_config(text, "c"))
    assert nodes(parse_config(text, "c", ["base.device=cuda:1"])).keys() == one.keys()
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    other = nodes(parse_config(text, "c"))
    kept = {one[key].stage.name for key in one.keys() & other.keys()}
    assert kept == {"pairs", "split", "scores", "part-scores", "gaps", "filter"}


def test_changed_rows_of_a_file_are_seen(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    text = f"base: {{model: m}}\nvalues: {{v: {{data: {data}, reward: {{function: 'tiny_rewards:length'}}}}}}"
    before = nodes(parse_config(text, "c")).keys()
    assert nodes(parse_config(text, "c")).keys() == before
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "d"}\n')
    assert not before & nodes(parse_config(text, "c")).keys()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("values.helpful.truth=tiny_rewards:lenght", "'lenght'|did you mean 'length'"),
        ("evaluation.fluency=nowhere:f", "nowhere"),
        ("values.helpful.data={function: 'valuesoup.worlds.errands:pears'}", "did you mean 'pairs'"),
        ("values.helpful.reward={function: 'tiny_rewards:lenght'}", "did you mean 'length'"),
        ("evaluation.fluency=nocolon", "nocolon"),
    ],
)
def test_a_function_that_does_not_exist_is_told_before_anything_runs(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_plan(demo_config(overrides=[override]))


def test_reward_models_take_the_runs_seed_unless_they_have_their_own() -> None:
    def seeds(*overrides: str) -> set[int | None]:
        found = nodes(demo_config(overrides=overrides)).values()
        return {node.inputs["settings"].seed for node in found if node.stage.name == "reward"}

    assert seeds("seed=3") == {3}
    assert seeds("seed=3", "values.helpful.reward.train.seed=7") == {3, 7}
