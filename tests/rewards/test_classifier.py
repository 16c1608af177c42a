"""Classifier rewards: padding and order change nothing, the template is the model's, a response is never cut."""

import logging
import shutil

import numpy as np
import pytest

from valuesoup.errors import UserError
from valuesoup.rewards import ClassifierReward, score
from valuesoup.rewards.rendering import Renderer


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)

    def say(most):
        return " ".join(f"w{i}" for i in rng.integers(0, 30, rng.integers(1, most)))

    return [[user(say(20))] for _ in range(40)], [say(25) for _ in range(40)]


def by_hand(folder, text, logit=0, special=False):
    """The logit of one text alone, unpadded, straight from transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float64").eval()
    ids = tokenizer(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids).logits[0, logit].item()


def test_scores_in_padded_batches_equal_each_text_alone(classifier, texts):
    got = ClassifierReward(classifier, logit=1).score(*texts)
    for row in (0, 7, 39):
        prompt, answer = texts[0][row][0]["content"], texts[1][row]
        assert got[row] == pytest.approx(by_hand(classifier, f"user: {prompt} bot: {answer} ", 1), abs=1e-5)


@pytest.mark.parametrize("tokens", [2, 60, 300, 10**6])
def test_the_size_of_batches_changes_no_score(classifier, texts, tokens):
    expected = ClassifierReward(classifier).score(*texts)
    got = ClassifierReward(classifier, tokens_per_batch=tokens).score(*texts)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_order_of_texts_changes_no_score(classifier, texts):
    reward = ClassifierReward(classifier, tokens_per_batch=100)
    order = np.random.default_rng(1).permutation(40)
    shuffled = reward.score([texts[0][i] for i in order], [texts[1][i] for i in order])
    np.testing.assert_allclose(shuffled, reward.score(*texts)[order], atol=1e-5)


def test_a_cost_enters_with_its_sign(classifier, texts):
    np.testing.assert_array_equal(
        ClassifierReward(classifier, sign=-1).score(*texts), -ClassifierReward(classifier).score(*texts)
    )


def test_a_model_whose_padding_is_its_end_token_scores_the_same_padded(tmp_path, texts, make):
    folder = make(tmp_path / "m", pad=None, pad_id=None)
    together = ClassifierReward(folder).score(*texts)
    alone = ClassifierReward(folder, tokens_per_batch=2).score(*texts)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "user: w1 bot: w2 "),
        ("chat", "user: w1 bot: w2 "),
        ("human-assistant", "\n\nHuman: w1\n\nAssistant: w2"),
        ("sys: {prompt} w9 {response} good", "sys: w1 w9 w2 good"),
    ],
)
def test_templates_write_prompt_and_response(classifier, template, expected):
    got = ClassifierReward(classifier, template=template).score([[user("w1")]], ["w2"])
    assert got[0] == pytest.approx(by_hand(classifier, expected, special=True), abs=1e-5)


def test_the_beginning_of_sequence_is_written_once(tmp_path, make):
    folder = make(tmp_path / "m", bos="<s>", chat="<s> {{ messages[0]['content'] }} {{ messages[1]['content'] }}")
    for template, text in (("chat", "<s> w1 w2"), ("{prompt} {response}", "<s> w1 w2")):
        got = ClassifierReward(folder, template=template).score([[user("w1")]], ["w2"])
        assert got[0] == pytest.approx(by_hand(folder, text), abs=1e-5)


def test_a_format_leaves_braces_in_texts_alone_and_writes_long_prompts_as_transcripts(make, tmp_path):
    tokenizer = make.tokenizer()
    renderer = Renderer(tokenizer, "A {prompt} B {response} {C}")
    assert renderer._text([user("{response} {x}")], "{prompt}") == "A {response} {x} B {prompt} {C}"
    long = [user("a"), bot("b"), user("c")]
    assert renderer._text(long, "d") == "A \n\nHuman: a\n\nAssistant: b\n\nHuman: c B d {C}"


def test_without_a_chat_template_the_transcript_is_the_default(tmp_path, make):
    folder = make(tmp_path / "m", chat=None)
    prompts, answers = [[user("w1"), bot("w2"), user("w3")]], ["w4"]
    named = ClassifierReward(folder, template="human-assistant").score(prompts, answers)
    np.testing.assert_array_equal(ClassifierReward(folder).score(prompts, answers), named)
    with pytest.raises(UserError, match="no chat template"):
        ClassifierReward(folder, template="chat").score(prompts, answers)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("chatt", "did you mean 'chat'"),
        ("{prompt} only", "exactly once"),
        ("{response} {prompt}", "exactly once"),
        ("{prompt} {response} {response}", "exactly once"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_once(template, words):
    with pytest.raises(UserError, match=words):
        ClassifierReward("org/never-loaded", template=template)


def test_a_text_that_is_too_long_is_refused_and_counted(classifier):
    prompts, answers = [[user("w1")], [user("w1 " * 70)]], ["w2", "w3"]
    with pytest.raises(UserError, match=r"1 of 2 texts are longer than the 64 tokens .*first is number 1.*73 tokens"):
        ClassifierReward(classifier).score(prompts, answers)
    with pytest.raises(UserError, match="2 of 2 texts are longer than the 3 tokens"):
        ClassifierReward(classifier, max_length=3).score(prompts, answers)


def test_prompts_are_cut_from_the_left_only_when_asked_and_counted(classifier, caplog):
    reward = ClassifierReward(classifier, template="{prompt} {response}", max_length=4, truncate_prompt=True)
    with caplog.at_level(logging.WARNING):
        got = reward.score([[user("w1 w2 w3 w4")], [user("w5")]], ["w6 w7", "w8"])
    assert got[0] == pytest.approx(by_hand(classifier, "w3 w4 w6 w7"), abs=1e-5)
    assert got[1] == pytest.approx(by_hand(classifier, "w5 w8"), abs=1e-5)
    assert reward.truncated == 1
    assert "1 of 2 prompts were cut" in caplog.text


def test_cutting_keeps_the_token_that_opens_a_sequence(tmp_path, make):
    folder = make(tmp_path / "m", bos="<s>")
    reward = ClassifierReward(folder, template="{prompt} {response}", max_length=4, truncate_prompt=True)
    got = reward.score([[user("w1 w2 w3 w4")]], ["w6 w7"])
    assert got[0] == pytest.approx(by_hand(folder, "<s> w4 w6 w7"), abs=1e-5)


def test_a_response_is_never_cut(classifier):
    reward = ClassifierReward(classifier, template="{prompt} {response}", max_length=4, truncate_prompt=True)
    with pytest.raises(UserError, match="a response is never cut"):
        reward.score([[user("w1")]], ["w2 w3 w4 w5"])


def test_the_self_check_refuses_a_wrong_sign(classifier):
    high, low = ClassifierReward(classifier).score([[user("w1")]] * 2, ["good w3", "bad w4 w5"])
    better, worse = ("good w3", "bad w4 w5") if high > low else ("bad w4 w5", "good w3")
    right = ClassifierReward(classifier, self_check=(("w1", better, worse),))
    assert right.score([[user("w1")]], [better]).shape == (1,)
    wrong = ClassifierReward(classifier, sign=-1, self_check=(("w1", better, worse),))
    for _ in range(2):
        with pytest.raises(UserError, match="fails its self-check"):
            wrong.score([[user("w1")]], [better])


def test_a_logit_that_the_model_lacks_is_refused(classifier, texts):
    with pytest.raises(UserError, match=r"has 3 logit.*no logit 3"):
        ClassifierReward(classifier, logit=3).score(*texts)


def test_a_plain_language_model_is_not_taken_for_a_reward_model(base, texts):
    with pytest.raises(UserError, match=r"not a trained sequence classifier.*score\.weight"):
        ClassifierReward(base).score(*texts)


def test_a_model_without_padding_or_end_token_is_refused(tmp_path, texts, make):
    folder = make(tmp_path / "m", pad=None, eos=None, pad_id=None)
    with pytest.raises(UserError, match="padding or end-of-sequence"):
        ClassifierReward(folder).score(*texts)


def test_a_missing_folder_or_tokenizer_is_named(tmp_path, classifier, texts):
    with pytest.raises(UserError, match="does not exist"):
        ClassifierReward(tmp_path / "nowhere").score(*texts)
    bare = tmp_path / "bare"
    shutil.copytree(classifier, bare, ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    with pytest.raises(UserError, match="tokenizer"):
        ClassifierReward(bare).score(*texts)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sign": 2}, "sign"),
        ({"logit": -1}, "logit"),
        ({"max_length": 0}, "max_length"),
        ({"tokens_per_batch": 0}, "at l"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_model_loads(settings, words):
    with pytest.raises(UserError, match=words):
        ClassifierReward("org/never-loaded", **settings)


def test_the_fingerprint_follows_the_content_of_the_folder(tmp_path, classifier):
    copy = tmp_path / "copy"
    shutil.copytree(classifier, copy)
    assert ClassifierReward(copy).fingerprint == ClassifierReward(classifier).fingerprint
    assert ClassifierReward(copy, sign=-1).fingerprint != ClassifierReward(copy).fingerprint
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert ClassifierReward(copy).fingerprint != ClassifierReward(classifier).fingerprint


def test_a_closed_model_loads_again(classifier, texts):
    reward = ClassifierReward(classifier)
    first = reward.score(*texts)
    reward.close()
    np.testing.assert_array_equal(reward.score(*texts), first)


def test_no_texts_give_no_scores(classifier):
    assert ClassifierReward(classifier).score([], []).shape == (0,)


def test_pairs_are_scored_by_path_and_progress_adds_up(classifier, easy):
    pairs = easy(10)
    table = score(pairs, {"a": str(classifier), "b": ClassifierReward(classifier, logit=2)})
    assert table.gaps().shape == (10, 2)
    done = []
    ClassifierReward(classifier, tokens_per_batch=50).score([p.prompt for p in pairs], ["w1"] * 10, done.append)
    assert sum(done) == 10


def test_rewards_of_one_model_are_loaded_and_run_once_and_each_takes_its_own_logit(classifier, easy, monkeypatch):
    from transformers import AutoModelForSequenceClassification

    loads = []
    original = AutoModelForSequenceClassification.from_pretrained

    def counted(*args, **kwargs):
        loads.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", counted)
    pairs, other = easy(12), {"logit": 2, "sign": -1}
    rewards = {"a": ClassifierReward(classifier), "b": ClassifierReward(classifier, **other)}
    rewards["c"] = ClassifierReward(classifier, template="{prompt} {response}")
    table = score(pairs, rewards)
    assert len(loads) == 2, "another template is another reading"
    for value, settings in (("a", {}), ("b", other), ("c", {"template": "{prompt} {response}"})):
        alone = score(pairs, {value: ClassifierReward(classifier, **settings)})
        np.testing.assert_array_equal(table.scores[:, :, table.value_index(value)], alone.scores[:, :, 0])


def test_every_reward_of_one_model_is_checked(classifier, easy):
    high, low = ClassifierReward(classifier, logit=1).score([[user("w1")]] * 2, ["good w3", "bad w4 w5"])
    better, worse = ("good w3", "bad w4 w5") if high > low else ("bad w4 w5", "good w3")
    first = ClassifierReward(classifier)
    with pytest.raises(UserError, match=r"fails its self-check.*logit \(1\)"):
        wrong = ClassifierReward(classifier, logit=1, sign=-1, self_check=(("w1", better, worse),))
        score(easy(2), {"a": first, "b": wrong})
    with pytest.raises(UserError, match="has 3 logit"):
        score(easy(2), {"a": first, "b": ClassifierReward(classifier, logit=3)})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_computed_in_the_precision_that_it_was_saved_in(tmp_path, classifier, texts, dtype):
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "saved"
    shutil.copytree(classifier, folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    reward, exact = ClassifierReward(folder), ClassifierReward(classifier).score(*texts)
    got = reward.score(*texts)
    assert reward._loaded.model.dtype == getattr(torch, dtype)
    np.testing.assert_allclose(got, exact, atol={"float32": 1e-6, "bfloat16": 0.2}[dtype] * exact.std())
