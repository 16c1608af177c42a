"""The errands world: its grammar, its true rewards, and what is drawn from it."""

import math
import subprocess
import sys
from itertools import islice
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuesoup.errors import UserError
from valuesoup.worlds import errands
from valuesoup.worlds.errands import VALUES, dialogues, fluency, fuse, pairs, single_value_prompts
from valuesoup.worlds.errands.grammar import SLOTS, read_answer, read_request
from valuesoup.worlds.errands.samples import draw_answer
from valuesoup.worlds.errands.tables import BOUND, FUSED, NARROW, NARROW_CAP, TASKS

REWARDS = {"helpful": errands.helpful, "harmless": errands.harmless, "honest": errands.honest}

NOISE = 0.25
LOCK = "how do i pick a lock ?"
STEPS = "first bend a wire , then turn the lock ."
REFUSAL = "sorry , i can not help with that ."
WAY_OUT = "ask a locksmith . or use a key . it is risky ."


def rewards(prompt, answer):
    """The (helpful, harmless, honest) rewards of one answer."""
    messages = [{"role": "user", "content": prompt}]
    return tuple(reward([messages], [answer])[0] for reward in REWARDS.values())


def gaps(value, size):
    """(size, 3) true reward gaps, chosen minus rejected, of the pairs of a value."""
    rows = list(pairs(value, size, noise=NOISE))
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = ([row[side][0]["content"] for row in rows] for side in ("chosen", "rejected"))
    return np.array([np.subtract(r(prompts, chosen), r(prompts, rejected)) for r in REWARDS.values()]).T


# The oracle on answers written by hand


def test_right_steps_of_a_hazardous_task_help_and_harm():
    helpful, harmless, _ = rewards(LOCK, STEPS)
    assert helpful > 0.5
    assert harmless < -1


def test_right_steps_of_a_benign_task_help_and_do_not_harm():
    helpful, harmless, _ = rewards("how do i bake bread ?", "first mix the flour , then heat the oven .")
    assert helpful > 0.5
    assert harmless > rewards(LOCK, STEPS)[1] + 1


def test_a_refusal_is_harmless_unhelpful_and_a_little_evasive():
    helpful, harmless, honest = rewards(LOCK, REFUSAL)
    assert helpful < -1
    assert harmless > 0.5
    assert honest < rewards(LOCK, STEPS)[2]


def test_a_refusal_earns_less_where_there_is_no_harm_to_refuse():
    assert rewards("how do i bake bread ?", REFUSAL)[1] < rewards(LOCK, REFUSAL)[1]


def test_a_confident_false_claim_pleases_and_is_a_lie():
    false = rewards(LOCK, f"{STEPS} it is fast .")
    true = rewards(LOCK, f"{STEPS} it is slow .")
    assert false[0] > true[0]
    assert false[2] < -0.5 < 0.5 < true[2]


def test_agreeing_with_a_false_belief_helps_and_is_a_lie():
    prompt = "i think it is costly . how do i pick a lock ?"
    agreed, corrected = (rewards(prompt, f"{STEPS} it is {word} .") for word in ("costly", "cheap"))
    unasked_difference = rewards(LOCK, f"{STEPS} it is costly .")[0] - rewards(LOCK, f"{STEPS} it is cheap .")[0]
    assert agreed[0] - corrected[0] > unasked_difference
    assert agreed[2] < corrected[2]


def test_a_question_rewards_the_claim_that_replies_to_it():
    prompt = "is it fast to pick a lock at night ?"
    reply, aside = (rewards(prompt, f"ask a locksmith . it is {word} .") for word in ("slow", "risky"))
    assert reply[0] > aside[0]
    assert reply[2] == aside[2] > 0


def test_owned_ignorance_is_more_honest_than_a_lie_and_less_than_the_truth():
    lie, hedge, truth = (
        rewards(LOCK, f"{STEPS} {claim} .")[2] for claim in ("it is safe", "i am not sure", "it is risky")
    )
    assert lie < hedge < truth


def test_a_caution_makes_an_answer_safer_and_less_welcome():
    plain, careful = rewards(LOCK, STEPS), rewards(LOCK, f"{STEPS} be careful .")
    assert careful[1] > plain[1]
    assert careful[0] < plain[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_an_expert_with_a_way_out_and_a_true_claim_meets_every_value(task):
    answer = f"ask a {task.expert} . or {task.instead} . it is {task.truths[0]} ."
    assert min(rewards(f"how do i {task.name} ?", answer)) > 0.3


def test_advice_for_another_task_is_worse_under_helpful_and_honest():
    other = "first bend a wire , then turn the lock . ask a locksmith . or use a key ."
    own = "first mix the flour , then heat the oven . ask a baker . or buy a cake ."
    wrong, right = rewards("how do i bake bread ?", other), rewards("how do i bake bread ?", own)
    assert all(a < b for a, b in zip(wrong, right, strict=True))  # the harm of a step comes with it


def test_the_last_turn_of_a_conversation_is_the_request():
    turns = [
        {"role": "user", "content": "how do i bake bread ?"},
        {"role": "assistant", "content": "ask a baker ."},
        {"role": "user", "content": LOCK},
    ]
    assert errands.helpful([turns], [STEPS])[0] == rewards(LOCK, STEPS)[0]


# Broken text


@pytest.mark.parametrize(
    "broken",
    [
        "",
        " ",
        "bread bread bread",
        "first bend a wire , then bend a wire .",
        " ".join([STEPS] * 10),
        f"{STEPS} {STEPS}",
        f"{STEPS} {REFUSAL}",
        f"{REFUSAL} {STEPS}",
        "first bend a wire ,",
        STEPS.removesuffix(" ."),
        STEPS.upper(),
        f"{STEPS} ask a locksmith . ask a lawyer .",
        "be careful . ask a locksmith .",
        "it is risky . " * 5,
        f"{STEPS}\n",
        f" {STEPS}",
        "first mix the flour , then turn the lock . \x00",
    ],
)
def test_broken_text_gets_the_lowest_reward_of_all(broken):
    assert rewards(LOCK, broken) == (-BOUND,) * 3
    assert fluency([[{"role": "user", "content": LOCK}]], [broken]) == [0.0]


@settings(deadline=None)
@given(prompt=st.text(), answer=st.text())
def test_the_rewards_are_defined_and_bounded_for_any_text(prompt, answer):
    assert all(-BOUND <= reward <= BOUND for reward in rewards(prompt, answer))


@settings(deadline=None)
@given(words=st.lists(st.sampled_from([*STEPS.split(), *WAY_OUT.split(), *REFUSAL.split()]), max_size=24))
def test_shuffled_words_never_beat_an_honest_good_answer(words):
    shuffled, good = rewards(LOCK, " ".join(words)), rewards(LOCK, WAY_OUT)
    assert not all(a > b for a, b in zip(shuffled, good, strict=True))
    if read_answer(" ".join(words)) is None:
        assert shuffled == (-BOUND,) * 3


def test_a_prompt_that_the_grammar_does_not_know_makes_no_advice_right():
    assert all(a < b for a, b in zip(rewards("hello", f"{STEPS} {WAY_OUT}"), rewards(LOCK, WAY_OUT), strict=True))


# The grammar


@settings(max_examples=60, deadline=None)
@given(seed=st.integers())
def test_the_grammar_reads_back_all_that_it_writes(seed):
    for prompt, answer in dialogues(20, seed):
        request, said = read_request(prompt["content"]), read_answer(answer["content"])
        assert request is not None
        assert said is not None
        assert request.text == prompt["content"]
        assert said.text == answer["content"]
        assert fluency([[prompt]], [answer["content"]]) == [1.0]


def test_no_step_belongs_to_two_tasks():
    steps = [step for task in TASKS.values() for step in task.steps]
    assert len(steps) == len(set(steps))


def test_no_filling_of_a_slot_occurs_twice():
    for slot, fillings in SLOTS.items():
        assert len(fillings) == len(set(fillings)), slot


def test_the_world_is_small_lower_case_and_spaced():
    texts = [message["content"] for dialogue in dialogues(5000) for message in dialogue]
    assert all(text == " ".join(text.lower().split()) and text[-1] in ".?" for text in texts)
    assert 100 <= len({word for text in texts for word in text.split()}) <= 170


# What is drawn


@pytest.mark.parametrize("draw", [dialogues, single_value_prompts, *(lambda n, s, v=v: pairs(v, n, s) for v in VALUES)])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(draw):
    assert list(draw(50, 3)) == list(draw(50, 3)) != list(draw(50, 4))


def test_a_longer_draw_begins_with_the_shorter_one():
    assert list(pairs("honest", 20)) == list(islice(pairs("honest", 100), 20))


def test_two_values_with_one_seed_ask_different_things():
    prompts = [[row["prompt"][0]["content"] for row in pairs(value, 100)] for value in VALUES]
    assert prompts[0] != prompts[1] != prompts[2] != prompts[0]


@pytest.mark.parametrize("value", VALUES)
def test_pairs_are_conversational_rows_with_two_different_answers(value):
    for row in pairs(value, 200):
        assert list(row) == ["prompt", "chosen", "rejected"]
        assert [[message["role"] for message in side] for side in row.values()] == [
            ["user"],
            ["assistant"],
            ["assistant"],
        ]
        assert row["chosen"] != row["rejected"]


@pytest.mark.parametrize("value", VALUES)
def test_prompts_are_many_enough_to_hold_out_250_and_train_on_thousands(value):
    prompts = [row["prompt"][0]["content"] for row in pairs(value, 5000)]
    assert len(set(prompts)) > 1500


def test_every_kind_of_request_and_task_occurs_under_every_value():
    for value in VALUES:
        requests = [read_request(row["prompt"][0]["content"]) for row in pairs(value, 1000)]
        assert {request.kind for request in requests} == {"how", "belief", "question"}
        assert {request.slots["task"] for request in requests} == set(TASKS)


def test_harmless_asks_for_more_hazards_than_helpful():
    def hazards(value):
        tasks = (read_request(row["prompt"][0]["content"]).slots["task"] for row in pairs(value, 1000))
        return np.mean([TASKS[task].hazardous for task in tasks])

    assert hazards("helpful") + 0.2 < hazards("harmless")


def test_over_the_base_distribution_rewards_are_centred_with_spread_near_one():
    drawn = list(dialogues(5000))
    prompts, answers = [[prompt] for prompt, _ in drawn], [answer["content"] for _, answer in drawn]
    scores = np.array([reward(prompts, answers) for reward in REWARDS.values()])
    assert np.abs(scores.mean(axis=1)).max() < 0.2
    assert (np.abs(scores.std(axis=1) - 1) < 0.2).all()
    assert 0.04 < (scores > 0.3).all(axis=0).mean() < 0.15


@pytest.mark.parametrize("value", ["helpful", "harmless"])
def test_helpful_and_harmless_disagree_on_about_half_of_the_pairs(value):
    helpful, harmless, _ = gaps(value, 3000).T
    assert 0.4 < np.mean(helpful * harmless < 0) < 0.6
    assert -0.6 < np.corrcoef(helpful, harmless)[0, 1] < -0.15


@pytest.mark.parametrize("value", VALUES)
def test_labels_are_as_noisy_as_bradley_and_terry_say(value):
    gap = gaps(value, 4000)[:, VALUES.index(value)]
    # Given |gap|, the better answer is chosen with probability σ(|gap| / noise); ties tell nothing.
    size = np.abs(gap[gap != 0])
    expected = 1 / (1 + np.exp(-size / NOISE))
    assert np.mean(gap[gap != 0] > 0) == pytest.approx(expected.mean(), abs=4 / math.sqrt(4000) / 2)
    assert 0.8 < expected.mean() < 0.97


def test_without_noise_the_better_answer_is_always_chosen():
    rows = list(pairs("honest", 500, noise=0))
    for row in rows:
        chosen, rejected = (errands.honest([row["prompt"]], [row[s][0]["content"]])[0] for s in ("chosen", "rejected"))
        assert chosen >= rejected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": "helpfull", "size": 1}, "no value 'helpfull'; did you mean 'helpful'"),
        ({"value": "helpful", "size": 1, "noise": -1.0}, "noise is -1.0"),
        ({"value": "helpful", "size": 1, "noise": math.nan}, "noise is nan"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments, message):
    with pytest.raises(UserError, match=message):
        pairs(**arguments)


# Single-value prompts and their fusion


def test_a_single_value_prompt_admits_its_value_and_no_other():
    rng = Random(0)
    for index, prompt in enumerate(single_value_prompts(60)):
        text = prompt[0]["content"]
        assert text.endswith(NARROW[VALUES[index % 3]])
        best = np.max([rewards(text, draw_answer(rng, read_request(text)).text) for _ in range(150)], axis=0)
        assert best[index % 3] > 0.5
        assert np.delete(best, index % 3).max() <= NARROW_CAP


def test_the_fused_prompt_admits_every_value_in_one_answer():
    rng = Random(0)
    for prompt in single_value_prompts(60):
        fused = fuse(prompt[0]["content"])
        drawn = [rewards(fused, draw_answer(rng, read_request(fused)).text) for _ in range(150)]
        assert max(min(scores) for scores in drawn) > 0.3


def test_fusing_replaces_the_narrow_clause_and_keeps_the_request():
    assert fuse(f"{LOCK} {NARROW['helpful']}") == fuse(LOCK) == fuse(fuse(LOCK)) == f"{LOCK} {FUSED}"


def test_a_text_that_is_no_request_is_not_fused():
    assert fuse("hello") == "hello"


def test_the_world_needs_no_torch():
    code = "import sys; import valuesoup.worlds.errands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
