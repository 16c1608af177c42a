"""The queue of rows: newcomers change nobody's answer, in any family; short memory makes it smaller, not different."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from valuesoup.errors import RunError
from valuesoup.soup import Soup
from valuesoup.soup import generation as generation_module
from valuesoup.soup.cache import BatchCache, SlotCache, keeps_slots
from valuesoup.soup.generation import Answer, Row, generate, write

LONGEST = 24


def soup_of(model: Any) -> Soup:
    return Soup.from_adapters(
        copy.deepcopy(model), {"a": tiny.random_vector(model, 0), "b": tiny.random_vector(model, 1)}, tiny.tokenizer()
    )


def family(kind: str) -> Any:
    """A tiny model; windows, where the family has them, reach over all rows of these tests if the kind says so."""
    if kind.startswith("falcon"):
        return falcon(alibi=kind.endswith(" alibi"))
    model = tiny.family(kind.removesuffix(" wide"))
    if kind.endswith(" wide"):
        model.config.sliding_window = 200
        for module in model.modules():
            if getattr(module, "sliding_window", None) is not None:
                module.sliding_window = 200
    return model


def falcon(*, alibi: bool) -> Any:
    from transformers import FalconConfig, FalconForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 65, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return FalconForCausalLM(
        FalconConfig(**sizes, alibi=alibi, initializer_range=0.2, bos_token_id=1, eos_token_id=1)
    ).eval()


def many_rows(count: int = 40, seed: int = 0, longest: int = 30) -> list[Row]:
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for place in range(count):
        length = int(torch.randint(1, longest, (), generator=draw))
        weights = torch.rand(2, generator=draw).round(decimals=1).tolist()
        rows.append(Row(tuple(torch.randint(5, 65, (length,), generator=draw).tolist()), tuple(weights), seed=place))
    return rows


SOUP = soup_of(tiny.llama())
ROWS = many_rows()
ALONE = [generate(SOUP, [row], max_new_tokens=LONGEST)[0] for row in ROWS]

KINDS = {
    "llama": SlotCache,
    "qwen2": SlotCache,
    "gpt2": SlotCache,
    "gpt_neox": SlotCache,
    "mistral wide": SlotCache,
    "gemma2 wide": SlotCache,
    "mistral": BatchCache,
    "gemma2": BatchCache,
    "falcon": SlotCache,
    "falcon alibi": BatchCache,
    "bloom": BatchCache,
}
ALIBI = "ignore:(bloom|falcon). an answer that is done makes no place"


@pytest.mark.filterwarnings(ALIBI)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_among_newcomers_is_written_as_if_alone(kind: str, temperature: float) -> None:
    soup = soup_of(family(kind))
    expected = SlotCache if keeps_slots(soup, 30 + LONGEST) else BatchCache
    assert expected is KINDS[kind]
    soup.model.generation_config.eos_token_id = list(range(10))  # rows end soon, and not all at once
    rows = many_rows(count=12, seed=1)
    together = generate(soup, rows, max_new_tokens=16, temperature=temperature, batch_rows=4)
    alone = [generate(soup, [row], max_new_tokens=16, temperature=temperature)[0] for row in rows]
    assert together == alone
    assert len({len(answer.tokens) for answer in alone}) > 1


@pytest.mark.filterwarnings(ALIBI)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_on_the_way_are_those_of_the_plain_forward_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    soup = soup_of(family(kind))
    seen: dict[int, list[torch.Tensor]] = {}
    take = generation_module.Queue._take

    def record(self: Any, slots: Any, logits: torch.Tensor) -> None:
        for slot, row in zip(slots, logits, strict=True):
            if self.slots[slot] is not None:
                seen.setdefault(self.slots[slot].place, []).append(row.clone())
        take(self, slots, logits)

    monkeypatch.setattr(generation_module.Queue, "_take", record)
    rows = sorted(many_rows(count=9, seed=3), key=lambda row: -len(row.prompt))
    answers = generate(soup, rows, max_new_tokens=LONGEST, batch_rows=5)
    for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        ids = torch.tensor([[*row.prompt, *answer.tokens]])
        with torch.no_grad():
            plain = soup(torch.tensor([row.weights]), input_ids=ids).logits[0, len(row.prompt) - 1 :]
        found = torch.stack(seen[place])
        torch.testing.assert_close(found, plain[: len(found)], rtol=0, atol=2e-4)


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(len(ROWS))), size=st.integers(1, 50), count=st.integers(1, len(ROWS)))
def test_answers_depend_on_neither_order_nor_batch_size_nor_on_what_is_left_to_do(
    order: list[int], size: int, count: int
) -> None:
    found = generate(SOUP, [ROWS[place] for place in order[:count]], max_new_tokens=LONGEST, batch_rows=size)
    assert found == [ALONE[place] for place in order[:count]]


@pytest.mark.parametrize("prefill", [16, 4096])
@pytest.mark.parametrize("rising", [False, True])
def test_rows_are_handed_out_as_they_are_done_whatever_their_order(
    rising: bool, prefill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_module, "PREFILL_TOKENS", prefill)
    rows = sorted(range(len(ROWS)), key=lambda place: len(ROWS[place].prompt) * (1 if rising else -1))
    options: Any = {
        "max_new_tokens": LONGEST,
        "temperature": 1.0,
        "batch_rows": 8,
        "compose": False,
        "on_shrink": print,
    }
    found = list(write(SOUP, [ROWS[place] for place in rows], **options))
    assert {rows[place]: answer for place, answer in found} == dict(enumerate(ALONE))
    assert [place for place, _ in found] != sorted(place for place, _ in found)  # short ones do not wait for long ones


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(len(ROWS))), size=st.integers(2, 12), prefill=st.sampled_from([16, 30, 60, 4096]))
def test_rows_may_begin_in_any_order(order: list[int], size: int, prefill: int) -> None:
    rows = order[:20]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation_module, "PREFILL_TOKENS", prefill)
        found = write(
            SOUP,
            [ROWS[place] for place in rows],
            max_new_tokens=LONGEST,
            temperature=1.0,
            batch_rows=size,
            compose=False,
            on_shrink=print,
        )
        assert {rows[place]: answer for place, answer in found} == {place: ALONE[place] for place in rows}


def test_a_row_that_waits_takes_the_place_of_one_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    admitted: list[int] = []
    open_, admit = SlotCache.open, SlotCache.admit
    monkeypatch.setattr(SlotCache, "open", lambda self, rows: (opened.append(rows), open_(self, rows))[1])
    monkeypatch.setattr(
        SlotCache, "admit", lambda self, slots, *given: (admitted.append(len(slots)), admit(self, slots, *given))[1]
    )
    assert generate(SOUP, ROWS, max_new_tokens=LONGEST, batch_rows=8) == ALONE
    assert [rows for rows in opened if rows] == [8]
    assert sum(admitted) == len(ROWS)
    assert max(admitted) == 8


def test_the_cache_moves_on_without_a_change_to_any_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuesoup.soup.cache.SPARE_COLUMNS", 3)
    monkeypatch.setattr(generation_module, "PREFILL_TOKENS", 16)
    assert generate(SOUP, ROWS, max_new_tokens=LONGEST, batch_rows=7) == ALONE


def cpu() -> None:
    torch.empty(1 << 50)  # fails as any allocation does for which there is no memory


def gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def short_memory(soup: Soup, most: int, fail: Callable[[], None], tokens: int = 10**9) -> list[int]:
    """Let forward passes over more rows or tokens fail as memory does; return the rows of those that did not."""
    passed = []
    keeps_slots(soup, 30 + LONGEST)  # the check of the base is done

    def check(_: Any, __: Any, named: Any) -> None:
        rows, length = named["input_ids"].shape
        if rows > most or rows * length > tokens:
            fail()
        passed.append(rows)

    soup.model.register_forward_pre_hook(check, with_kwargs=True)
    return passed


@pytest.mark.parametrize("where", [cpu, gpu])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_short_memory_halves_the_rows_says_so_once_and_changes_no_answer(where: Callable[[], None], kind: str) -> None:
    soup = soup_of(family(kind))
    rows = many_rows(count=20)
    wanted = generate(soup, rows, max_new_tokens=LONGEST)
    passed = short_memory(soup, 5, where)
    said: list[str] = []
    counted: list[int] = []
    found = generate(soup, rows, max_new_tokens=LONGEST, batch_rows=32, on_shrink=said.append, on_done=counted.append)
    assert found == wanted
    assert sum(counted) == len(rows)
    assert max(passed) == 5
    assert said == ["memory does not suffice for 32 answers at a time: 5 from here on"]


def test_memory_that_runs_short_on_the_way_loses_and_repeats_no_answer() -> None:
    soup = soup_of(tiny.llama())
    keeps_slots(soup, 30 + LONGEST)  # the check of the base is done
    calls = 0

    def check(_: Any, __: Any, named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (9, 17, 18):
            gpu()

    soup.model.register_forward_pre_hook(check, with_kwargs=True)
    said: list[str] = []
    found: dict[int, Answer] = {}
    options: Any = {
        "max_new_tokens": LONGEST,
        "temperature": 1.0,
        "batch_rows": 16,
        "compose": False,
        "on_shrink": said.append,
    }
    for place, answer in write(soup, ROWS, **options):
        assert place not in found
        found[place] = answer
    assert found == dict(enumerate(ALONE))
    assert [text.split(": ")[1].split()[0] for text in said] == ["8", "2"]


def test_shrinking_is_a_warning_where_nobody_listens() -> None:
    soup = soup_of(tiny.llama())
    short_memory(soup, 4, gpu)
    with pytest.warns(UserWarning, match="memory does not suffice for 8 answers at a time: 4 from here on"):
        assert generate(soup, ROWS, max_new_tokens=LONGEST, batch_rows=8) == ALONE


def test_memory_too_short_for_one_row_and_other_failures_end_it() -> None:
    soup = soup_of(tiny.llama())
    short_memory(soup, 64, cpu, tokens=3)
    with pytest.raises(RunError, match="memory does not suffice to write one answer"):
        generate(soup, ROWS, max_new_tokens=LONGEST, on_shrink=lambda _: None)
    at_once = soup_of(tiny.llama())
    at_once.model.register_forward_pre_hook(lambda *_: gpu())
    with pytest.raises(RunError, match="memory does not suffice to write one answer"):
        generate(at_once, ROWS, max_new_tokens=LONGEST)
    broken = soup_of(tiny.llama())
    short_memory(broken, 0, lambda: torch.ones(2, 3) @ torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        generate(broken, ROWS, max_new_tokens=LONGEST)


def test_a_base_that_takes_no_mask_of_numbers_is_found_out_once_and_its_memory_is_not_its_nature() -> None:
    soup = soup_of(falcon(alibi=True))
    with pytest.warns(UserWarning, match="falcon: an answer that is done makes no place for the next.*mask of its own"):
        assert not keeps_slots(soup, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not keeps_slots(soup, 30)
    short = soup_of(tiny.llama())
    hook = short.model.register_forward_pre_hook(lambda *_: gpu())
    with pytest.raises(torch.OutOfMemoryError):
        keeps_slots(short, 30)
    hook.remove()
    assert keeps_slots(short, 30)


SCALED: dict[str, Any] = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "factor": 8.0,
        "short_factor": [1.0] * 4,
        "long_factor": [3.0, 5.0, 8.0, 8.0],
        "original_max_position_embeddings": 32,
    },
}


def scaled(kind: str) -> Soup:
    """A soup on a base whose positions are scaled by the length of texts of more than 32 tokens."""
    config = copy.deepcopy(tiny.llama().config)
    config.max_position_embeddings = 32 if kind == "dynamic" else 256
    config.rope_parameters = SCALED[kind]
    torch.manual_seed(0)
    return soup_of(type(tiny.llama())(config).eval())


@pytest.mark.parametrize("kind", SCALED)
def test_positions_that_are_scaled_by_the_length_of_a_text_are_scaled_by_that_of_the_row_alone(kind: str) -> None:
    rows = many_rows(count=10, seed=4) * 2
    rows = [Row(row.prompt, row.weights, seed=place) for place, row in enumerate(rows)]
    lengths = [len(row.prompt) for row in rows]
    assert min(lengths) + LONGEST <= 32 < max(lengths) + LONGEST
    alone = []
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone += generate(scaled(kind), [row], max_new_tokens=LONGEST)
    soup = scaled(kind)
    assert keeps_slots(soup, 32)
    assert not keeps_slots(soup, 33)
    with pytest.warns(UserWarning, match="llama: only answers to prompts of equal length are written together"):
        assert generate(soup, rows, max_new_tokens=LONGEST, batch_rows=8) == alone
    with warnings.catch_warnings():  # and as ever where no row can become so long
        warnings.simplefilter("error")
        short = [row for row in rows if len(row.prompt) <= 16]
        limit = 32 - max(len(row.prompt) for row in short)
        assert len(generate(soup, short, max_new_tokens=limit)) == len(short)


@pytest.mark.parametrize("kind", SCALED)
def test_a_row_of_scaled_positions_is_written_as_transformers_writes_it_within_one_scale(kind: str) -> None:
    soup = scaled(kind)
    prompt = torch.arange(5, 45)[None]  # longer than the scale from the first token on
    with pytest.warns(UserWarning, match="equal length"):
        generate(soup, [Row(tuple(range(5, 55)), (0.0, 0.0), 0)], max_new_tokens=3)  # leaves a larger scale behind
        (answer,) = generate(soup, [Row(tuple(prompt[0].tolist()), (0.0, 0.0), 0)], max_new_tokens=4, temperature=0)
    fresh = scaled(kind)
    fresh.row_weights.set(None)
    wanted = fresh.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=4, pad_token_id=0
    )[0, 40:].tolist()
    assert list(answer.tokens) == (wanted[: wanted.index(1)] if 1 in wanted else wanted)
