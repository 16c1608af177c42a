"""Answers by a server in the plan: what is asked when, under which names, and what makes answers anew."""

import pytest

from valuesoup.errors import UserError
from valuesoup.pipeline.demo import demo_config
from valuesoup.pipeline.plan import Stack, make_plan
from valuesoup.pipeline.recipes import Candidate
from valuesoup.pipeline.serving import candidate_names
from valuesoup.store import Node, topological


def planned(*overrides: str) -> list[Node]:
    return topological(make_plan(demo_config(overrides=overrides)).targets())


def keys(found: list[Node]) -> set[str]:
    return {node.key for node in found}


ENDPOINT = 'generation.endpoint={url: "http://127.0.0.1:8000/v1"}'


def test_all_answers_of_an_evaluation_are_by_one_back_end_and_rollouts_stay_local() -> None:
    here, there = planned(), planned(ENDPOINT)
    evaluated = [node for node in there if "answers the" in node.label and "prompts" in node.label]
    assert {node.stage.name for node in evaluated} == {"served"}
    assert {node.stage.name for node in here} - {node.stage.name for node in there} == set()
    rollouts = {node.key for node in there if node.stage.name == "answers"}
    assert rollouts and rollouts <= keys(here), "what a vector is trained on does not change"
    assert not [node for node in here if node.stage.name == "served"]


def test_nothing_is_asked_of_a_server_before_every_vector_of_the_run_is_trained() -> None:
    found = planned(ENDPOINT)
    vectors = {node.key for stack in make_plan(demo_config()).stacks for node in stack.vectors.values()}
    for node in found:
        if node.stage.name == "served":
            assert vectors <= keys(topological([node]))


@pytest.mark.parametrize("change", ["url=http://other:1/v1", "key_env=K", "concurrency=2", "models=x/{name}"])
def test_where_a_server_is_and_how_it_is_asked_makes_nothing_anew(change: str) -> None:
    assert keys(planned(ENDPOINT, f"generation.endpoint.{change}")) == keys(planned(ENDPOINT))


@pytest.mark.parametrize("change", ["generation.endpoint.extra={top_k: 5}", "generation.temperature=0.5"])
def test_what_answers_depend_on_makes_them_anew(change: str) -> None:
    served = {node.key for node in planned(ENDPOINT, change) if node.stage.name == "served"}
    assert not served & keys(planned(ENDPOINT))


def test_a_search_by_a_server_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.racing .* generation\.endpoint does not serve"):
        planned(ENDPOINT, "evaluation.racing=true")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("generation.endpoint={url: localhost}", "url is like http"),
        ('generation.endpoint={url: "http://h/v1", models: all}', "models is a text that holds {name}"),
        ('generation.endpoint={url: "http://h/v1", models: "{id}-{name}"}', "models is a text that holds {name}"),
        ('generation.endpoint={url: "http://h/v1", parity: {prompts: 0}}', "parity.prompts"),
        ('generation.endpoint={url: "http://h/v1", model: x}', "did you mean 'models'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_key(setting: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        demo_config(overrides=[setting])
    assert said in str(refused.value)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_names_are_safe_and_each_is_given_once(n: int) -> None:
    values = [f"v{place}" for place in range(n)]
    stacks = [Stack({}), Stack({}), Stack({})]
    stacks[0].add("base", [Candidate((), dict.fromkeys(values, 0.0), "base")], always=True)
    weights = [tuple(float(place == at) for place in range(n)) for at in range(n)] + [(0.0,) * n]
    for stack, methods in ((stacks[1], ["m/τ=0.7", "again"]), (stacks[2], ["m/ρ=0.7"])):
        for method in methods:
            labels = [
                ",".join(f"{value}={share:g}" for value, share in zip(values, row, strict=True)) for row in weights
            ]
            offered = [Candidate(row, None, label) for row, label in zip(weights, labels, strict=True)]
            stack.add(method, offered, always=False)
    found = candidate_names(stacks)
    assert found[0] == ["base"]
    assert [of[-1] for of in found[1:]] == ["base", "base"], "without weights it is the base"
    flat = [name for of in found[1:] for name in of[:-1]]
    assert len(set(flat)) == len(flat) == 2 * n
    assert all(name.isascii() and not set(name) & set("/=, ") for name in flat)
    assert found[1][0].startswith("m-0.7-v0-1"), "of the first method that offers it"
