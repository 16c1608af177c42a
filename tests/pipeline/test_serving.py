"""Answers by a server: only from one that is shown to serve the run's own policies, and each is asked for once."""

import json
import socket

import pytest

from tiny_server import Fake, serving
from tiny_sweep import CANDIDATES, MODELS, PROMPTS, Sweep, parity, table
from valuesoup.errors import RunError
from valuesoup.store import Artifact


@pytest.mark.parametrize("listed", [True, False])
def test_every_answer_of_a_faithful_server_is_the_local_one_token_by_token(sweep: Sweep, listed: bool) -> None:
    with serving(Fake(sweep.soup(), MODELS, listed=listed)) as fake:
        answers = sweep.ask(fake.url)
    assert table(answers) == table(sweep.local())
    assert [parity(answers)[name]["greedy"] for name in ("base", "one", "half", "odd", "two")] == [7, 1, 1, 7, 1]
    assert all(body["top_p"] == 1 for body in fake.bodies), "a server's own default must not cut the policy"


def test_only_chosen_candidates_are_asked_for(sweep: Sweep) -> None:
    (sweep.folder / "chosen").mkdir()
    (sweep.folder / "chosen" / "chosen.json").write_text(json.dumps({"test": [3, 1]}))
    with serving(Fake(sweep.soup(), MODELS)) as fake:
        answers = sweep.ask(fake.url, chosen=Artifact(sweep.folder / "chosen", "c", 0.0))
    assert {row["candidate"] for row in table(answers)} == {1, 3}
    assert {body["model"] for body in fake.bodies} == {"base", "half", "odd"}


def test_a_second_beginning_of_sequence_is_seen_in_the_count_of_tokens(sweep: Sweep) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, before=(2,))) as fake,
        pytest.raises(RunError, match=r"reads a prompt of (\d+) tokens as \d+: it puts special tokens \(such as a sec"),
    ):
        sweep.ask(fake.url)


@pytest.mark.parametrize("before", [(2,), (3, 5, 9, 4)], ids=["beginning", "template"])
def test_what_a_server_that_counts_nothing_puts_before_a_prompt_is_seen_in_its_answers(
    sweep: Sweep, before: tuple[int, ...]
) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, before=before, usage=False)) as fake,
        pytest.raises(RunError, match="is not the policy of this run"),
    ):
        sweep.ask(fake.url)


def test_two_candidates_that_a_server_confuses_are_seen_though_each_answers_one_prompt_only(sweep: Sweep) -> None:
    swapped = {**MODELS, "one": MODELS["two"], "two": MODELS["one"]}
    with (
        serving(Fake(sweep.soup(), swapped)) as fake,
        pytest.raises(RunError, match=r"as '(one|two)' is not the policy of this run"),
    ):
        sweep.ask(fake.url)


def test_log_probabilities_are_compared_where_the_server_gives_them(sweep: Sweep) -> None:
    soup = sweep.soup()
    with serving(Fake(soup, MODELS, shift=0.02)) as fake:
        found = parity(sweep.ask(fake.url))
    assert all(of["log_prob_gap"] == pytest.approx(0.02, abs=1e-4) for of in found.values())
    with (
        serving(Fake(soup, MODELS, shift=-0.3)) as fake,
        pytest.raises(RunError, match=r"regret 0 nats per token, log-probabilities 0\.3 nats per token apart"),
    ):
        sweep.ask(fake.url, "other")


@pytest.mark.parametrize(("warmth", "how"), [(0.0, "likelier"), (0.6, "likelier"), (1.6, "less likely")])
def test_a_server_that_draws_from_another_distribution_is_caught(sweep: Sweep, warmth: float, how: str) -> None:
    with (
        serving(Fake(sweep.soup(), MODELS, warmth=warmth)) as fake,
        pytest.raises(RunError, match=f"does not draw from the policies of this run at temperature 1: .* {how} than"),
    ):
        sweep.ask(fake.url, temperature=1.0)


def test_draws_of_a_faithful_server_pass_and_meet_the_same_seed_for_every_candidate(sweep: Sweep) -> None:
    with serving(Fake(sweep.soup(), MODELS)) as fake:
        answers = sweep.ask(fake.url, temperature=1.0)
    assert abs(answers.json("parity.json")["drawn"]["z"]) < 4
    seeds = [body["seed"] for body in fake.bodies[-len(CANDIDATES) * PROMPTS :]]
    assert len(set(seeds)) == PROMPTS
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_base_may_have_a_name_of_another_form_than_the_candidates(sweep: Sweep) -> None:
    models = {"llama" if name == "base" else f"llama:{name}": of for name, of in MODELS.items()}
    with serving(Fake(sweep.soup(), models)) as fake:
        answers = sweep.ask(fake.url, server={"models": "llama:{name}", "base": "llama"})
    assert set(parity(answers)) == set(models)
    assert table(answers) == table(sweep.local())


@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_model_is_named_with_what_to_do_before_anything_is_asked(sweep: Sweep, listed: bool) -> None:
    models = {name: of for name, of in MODELS.items() if name not in ("half", "two")}
    with (
        serving(Fake(sweep.soup(), models, listed=listed)) as fake,
        pytest.raises(RunError) as stopped,
    ):
        sweep.ask(fake.url)
    said = str(stopped.value)
    assert f"the server {fake.url} has no model 'half'" in said
    assert f"`valuesoup export {sweep.folder / 'run'} --all --to DIR`, start DIR/serve.sh" in said
    assert all(body["max_tokens"] == 1 for body in fake.bodies)


def test_nobody_there_is_one_sentence_with_what_to_do(sweep: Sweep) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=r"nobody answers at http://127.*; write them with `valuesoup export"):
        sweep.ask(f"http://127.0.0.1:{port}/v1")


def test_a_server_that_dies_midway_loses_no_answer_and_another_goes_on_after_the_same_check(sweep: Sweep) -> None:
    soup = sweep.soup()
    checked = 2 * PROMPTS + 3  # the base and a candidate whole, three others one prompt each
    with (
        serving(Fake(soup, MODELS, refuse=lambda _, before: 503 if before >= checked + 20 else 0)) as dying,
        pytest.raises(RunError, match="what it answered is kept, and the same command goes on from there"),
    ):
        sweep.ask(dying.url)
    with serving(Fake(soup, MODELS)) as fake:
        answers = sweep.ask(fake.url)
    assert len(fake.bodies) == checked + len(CANDIDATES) * PROMPTS - 20
    assert table(answers) == table(sweep.local())
    with serving(Fake(soup, {})) as nothing:
        again = sweep.ask(nothing.url)
    assert nothing.bodies == [], "everything is answered already"
    assert table(again) == table(answers)


def test_a_prompt_that_is_never_answered_is_named_and_the_others_are_kept(sweep: Sweep) -> None:
    soup = sweep.soup()
    checked = 2 * PROMPTS + 3
    with (
        serving(Fake(soup, MODELS, refuse=lambda _, before: 400 if before == checked + 3 else 0)) as fake,
        pytest.raises(
            RunError, match=r"gave no answer to 1 of 35 prompts, the first as 'one': status 400 \(not this\)"
        ),
    ):
        sweep.ask(fake.url)
    with serving(Fake(soup, MODELS)) as fake:
        sweep.ask(fake.url)
    assert len(fake.bodies) == checked + 1
