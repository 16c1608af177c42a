"""One base with every vector: each setting answers as its own soup does, and scores are those of the run."""

from typing import Any

import pytest

from valuesoup.errors import UserError
from valuesoup.explorer.models import Models
from valuesoup.pipeline.answering import load_answers
from valuesoup.pipeline.rating import answer_scores

DIALS = ["soup", "vc-soup"]


def on(method: str, **weights: float) -> dict[str, Any]:
    return {"method": method, "weights": weights}


def test_vectors_that_methods_share_are_loaded_once(models: Models) -> None:
    assert models.dials == DIALS
    assert models.streamer.soup.names == ["dpo/helpful", "dpo/harmless", "vc-soup/helpful", "vc-soup/harmless"]
    assert models.row(models.setting(on("soup", helpful=0.3, harmless=0.7))) == (0.3, 0.7, 0, 0)
    assert models.row(models.setting(on("vc-soup", helpful=0.3, harmless=0.7))) == (0, 0, 0.3, 0.7)
    assert models.row(models.setting({"candidate": "base"})) == (0, 0, 0, 0)
    policies = [row["id"] for row in models.finished.results["candidates"] if row["method"] == "dpo"]
    assert {models.row(models.setting({"candidate": name})) for name in policies} == {(1, 0, 0, 0), (0, 1, 0, 0)}


@pytest.mark.parametrize("method", DIALS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_setting_among_all_vectors_answers_as_the_methods_own_soup(
    models: Models, method: str, temperature: float
) -> None:
    weights = {"helpful": 0.4, "harmless": 0.6}
    prompts = [prompt["messages"] for prompt in models.prompts[:4]]
    own = models.finished.soup(method).generate(prompts, weights, max_new_tokens=12, temperature=temperature, seed=3)
    streams = [
        models.ask(
            messages,
            models.setting(on(method, **weights)),
            max_new_tokens=12,
            temperature=temperature,
            seed=3 * 1_000_003 + place,
        )
        for place, messages in enumerate(prompts)
    ]
    assert [list(stream)[-1] for stream in streams] == own


def test_answers_are_scored_as_the_run_scored_them(models: Models) -> None:
    found, plan = models.finished.artifacts, models.finished.plan
    measured = plan.evaluated[-1].test
    table = load_answers(found[measured.answers.key]).to_pylist()[:5]
    scores = answer_scores(
        {value: found[node.key] for value, node in measured.scores.items()}, found[measured.prompts.key], own=False
    )
    for row in table:
        (given,) = models.score(models.prompts[row["prompt"]]["messages"], [row["text"]])
        assert list(given.values()) == pytest.approx(scores[row["candidate"]][row["prompt"]], abs=1e-4)


def test_settings_are_called_as_people_read_them(models: Models) -> None:
    assert (
        models.title(models.setting(on("soup", helpful=1 / 3, harmless=-0.001)))
        == "SOUP · helpful 0.33 · harmless 0.00"
    )
    assert models.title(models.setting({"candidate": "base"})) == "Base model"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (on("sup", helpful=1, harmless=0), "this run has no dial 'sup'; did you mean 'soup'?"),
        (on("dpo", helpful=1, harmless=0), "this run has no dial 'dpo'"),
        (on("soup", helpful=1), "weights must name exactly helpful, harmless"),
        (on("soup", helpful=1, harmless=0, kind=1), "weights must name exactly helpful, harmless"),
        (on("soup", helpful=float("nan"), harmless=0), "the weight of 'helpful' must be a number"),
        (on("soup", helpful=1e30, harmless=0), "the weight of 'helpful' must be a number"),
        (on("soup", helpful=True, harmless=0), "the weight of 'helpful' must be a number"),
        (on("soup", helpful="1", harmless=0), "the weight of 'helpful' must be a number"),
        ({"candidate": "dpo/../../etc"}, "this run has no candidate"),
        ({}, "this run has no dial"),
        ([], "this run has no dial"),
        (None, "this run has no dial"),
    ],
)
def test_what_a_page_sends_is_read_with_care(models: Models, given: Any, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        models.setting(given)
    assert sentence in str(refused.value)
