"""What is sent to a server and read from it: the tokens that the policy sees, whatever the server adds."""

import tiny
from tiny_sweep import tokenizer
from valuesoup.pipeline.parity import Wording


def test_a_prompt_is_sent_so_that_the_special_tokens_of_the_server_make_it_what_the_policy_sees() -> None:
    text = "<s> <user> w3 <asst> "
    wording = Wording(tokenizer())
    sent = wording.prompt(text, (2, 3, 8, 4))
    assert sent == " <user> w3 <asst> "
    assert tuple(wording.tokenizer(sent)["input_ids"]) == (2, 3, 8, 4)
    assert Wording(tiny.tokenizer()).prompt("<user> w3 <asst> ", (2, 8, 3)) == "<user> w3 <asst> "


def test_a_prompt_that_no_text_makes_is_sent_as_tokens() -> None:
    assert Wording(tokenizer(ended=True)).prompt("<s> <user> w3 <asst> ", (2, 3, 8, 4)) == (2, 3, 8, 4)


def test_the_space_that_some_tokenizers_set_before_a_text_is_not_part_of_an_answer() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0, "▁a": 1, "▁b": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    wording = Wording(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?"))
    assert wording.answer("a b") == wording.answer(" a b") == ("a b", (1, 2))


def test_an_answer_whose_special_tokens_are_lost_is_not_taken_for_its_words() -> None:
    wording = Wording(tokenizer())
    assert wording.is_whole("w1 w2", (6, 7), 2)
    assert wording.is_whole("w1 w2", (6, 7), 3), "its end may be counted"
    assert wording.is_whole("w1 w2", (6, 7), None)
    assert not wording.is_whole("w1 w2", (6, 7), 5)
