"""Streams: what arrives piece by piece is what the soup writes at once, whoever joins, leaves or asks beside it."""

import copy
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tiny
from valuesoup.errors import RunError, UserError
from valuesoup.soup import Soup
from valuesoup.soup.generation import Row, generate
from valuesoup.soup.streaming import Streamer

LONGEST = 24


def soup_of(model: Any) -> Soup:
    made = {"a": tiny.random_vector(model, 0), "b": tiny.random_vector(model, 1)}
    return Soup.from_adapters(copy.deepcopy(model), made, tiny.tokenizer())


def some_rows(count: int = 12, seed: int = 0) -> list[Row]:
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for place in range(count):
        length = int(torch.randint(1, 30, (), generator=draw))
        weights = torch.rand(2, generator=draw).round(decimals=1).tolist()
        rows.append(Row(tuple(torch.randint(5, 65, (length,), generator=draw).tolist()), tuple(weights), seed=place))
    return rows


SOUP = soup_of(tiny.llama())
ROWS = some_rows()


@pytest.fixture
def streamer() -> Iterator[Streamer]:
    with Streamer(SOUP, rows=4) as made:
        yield made


class Gate:
    """Forward passes of a soup, one at a time when the test says so."""

    def __init__(self, soup: Soup) -> None:
        self.rows: list[int] = []
        self._passes = threading.Semaphore(0)
        self._reached = threading.Semaphore(0)
        self._open = False
        soup.model.register_forward_pre_hook(self._wait, with_kwargs=True)

    def _wait(self, _: Any, __: Any, named: Any) -> None:
        self.rows.append(len(named["input_ids"]))
        self._reached.release()
        if not self._open:
            assert self._passes.acquire(timeout=20)

    def let(self, count: int) -> None:
        """Let so many passes go, and return once the worker stands before the next one."""
        for _ in range(count):
            self._passes.release()
            assert self._reached.acquire(timeout=20)

    def reach(self) -> None:
        assert self._reached.acquire(timeout=20)

    def open(self) -> None:
        self._open = True
        self._passes.release(1000)


@pytest.mark.parametrize(("temperature", "seed"), [(0.0, 0), (1.0, 0), (0.7, 5)])
def test_the_streamed_text_is_the_text_that_the_soup_writes_at_once(
    temperature: float, seed: int, streamer: Streamer
) -> None:
    prompts, weights = ["w1 w2 w3", "w4 w5"], [{"a": 0.3, "b": 0.7}, {"a": 1.0}]
    wanted = SOUP.generate(prompts, weights, max_new_tokens=LONGEST, temperature=temperature, seed=seed)
    tokenizer: Any = SOUP.tokenizer
    streams = []
    for place, (prompt, row) in enumerate(zip(prompts, SOUP.weight_rows(weights, 2).tolist(), strict=True)):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        asked = Row(tuple(ids), tuple(row), seed=seed * 1_000_003 + place)
        streams.append(streamer.ask(asked, max_new_tokens=LONGEST, temperature=temperature))
    for stream, text in zip(streams, wanted, strict=True):
        steps = list(stream)
        assert steps[-1] == text
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(steps))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_rows_that_join_later_leave_early_and_differ_in_settings_write_what_they_write_alone(kind: str) -> None:
    soup = soup_of(tiny.family(kind))
    settings = [(LONGEST, 1.0), (LONGEST // 2, 0.0), (LONGEST, 0.5)]
    alone = [
        generate(soup, [row], max_new_tokens=settings[place % 3][0], temperature=settings[place % 3][1])[0]
        for place, row in enumerate(ROWS)
    ]
    with Streamer(soup, longest=60, rows=5) as streamer:
        streams = []
        for place, row in enumerate(ROWS):
            limit, temperature = settings[place % 3]
            streams.append(streamer.ask(row, max_new_tokens=limit, temperature=temperature))
            if place % 4 == 3:
                streams[place - 3].wait(0.02)  # some steps are made before the next ones join
        extra = streamer.ask(ROWS[0], max_new_tokens=LONGEST, temperature=1.0)
        extra.stop()
        assert all(stream.wait(20) for stream in streams)
    assert [stream.answer for stream in streams] == alone


def test_a_newcomer_is_written_beside_the_others_and_not_after_them() -> None:
    soup = soup_of(tiny.llama())
    soup.model.generation_config.eos_token_id = []
    soup.tokenizer.eos_token_id = None  # type: ignore[union-attr]
    with Streamer(soup, rows=4) as streamer:
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=0).wait(20)  # the check of the base is done
        gate = Gate(soup)
        first = streamer.ask(ROWS[1], max_new_tokens=LONGEST, temperature=1.0)
        gate.reach()
        gate.let(5)
        second = streamer.ask(ROWS[2], max_new_tokens=LONGEST, temperature=1.0)
        gate.let(4)
        assert len(first.tokens) >= 5
        assert len(second.tokens) >= 2
        assert streamer.writing == 2
        assert not first.ended
        gate.open()
        assert first.wait(20) and second.wait(20)
    alone = generate(soup, ROWS[1:3], max_new_tokens=LONGEST)
    assert [first.answer, second.answer] == alone


def test_a_row_that_is_stopped_makes_place_for_one_that_waits() -> None:
    soup = soup_of(tiny.llama())
    soup.model.generation_config.eos_token_id = []
    soup.tokenizer.eos_token_id = None  # type: ignore[union-attr]
    with Streamer(soup, rows=2) as streamer:
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=0).wait(20)
        gate = Gate(soup)
        running = [streamer.ask(row, max_new_tokens=200, temperature=1.0) for row in ROWS[:2]]
        gate.reach()
        gate.let(6)
        waits = streamer.ask(ROWS[2], max_new_tokens=3, temperature=1.0)
        gate.let(3)
        assert not waits.tokens  # both places are taken
        running[0].stop()
        assert running[0].ended and running[0].answer is None and running[0].tokens
        gate.open()
        assert waits.wait(20)
        running[1].stop()
        assert streamer.waiting == 0
    assert max(gate.rows) == 2
    assert waits.answer == generate(soup, [ROWS[2]], max_new_tokens=3)[0]


def test_a_stopped_stream_ends_its_reader_with_what_there_is(streamer: Streamer) -> None:
    stream = streamer.ask(ROWS[3], max_new_tokens=200, temperature=1.0)
    seen = []
    for text in stream:
        seen.append(text)
        if len(stream.tokens) > 3:
            stream.stop()
    assert seen[-1].startswith(seen[0])
    stream.stop()  # again changes nothing
    assert streamer.ask(ROWS[3], max_new_tokens=2, temperature=0).wait(20)


def test_many_readers_at_once_get_their_own_answers(streamer: Streamer) -> None:
    found: dict[int, str] = {}

    def visit(place: int) -> None:
        *_, found[place] = streamer.ask(ROWS[place], max_new_tokens=LONGEST, temperature=1.0)

    readers = [threading.Thread(target=visit, args=(place,)) for place in range(len(ROWS))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
    alone = generate(SOUP, ROWS, max_new_tokens=LONGEST)
    tokenizer: Any = SOUP.tokenizer
    wanted = {place: tokenizer.decode(answer.tokens, skip_special_tokens=True) for place, answer in enumerate(alone)}
    assert found == wanted
    assert streamer.waiting == 0


def test_a_failure_ends_the_answers_under_way_and_not_the_next_ones() -> None:
    soup = soup_of(tiny.llama())
    with Streamer(soup) as streamer:
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=0).wait(20)
        hook = soup.model.register_forward_pre_hook(lambda *_: torch.ones(2, 3) @ torch.ones(2, 3))
        with pytest.raises(RunError, match=r"writing the answer failed .*cannot be multiplied"):
            list(streamer.ask(ROWS[0], max_new_tokens=5, temperature=0))
        hook.remove()
        again = streamer.ask(ROWS[0], max_new_tokens=5, temperature=0)
        assert again.wait(20)
    assert again.answer == generate(soup, [ROWS[0]], max_new_tokens=5, temperature=0)[0]


def test_memory_that_runs_short_makes_fewer_rows_and_other_answers_of_none() -> None:
    soup = soup_of(tiny.llama())

    def check(_: Any, __: Any, named: Any) -> None:
        if len(named["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with Streamer(soup, rows=8) as streamer:
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=0).wait(20)
        soup.model.register_forward_pre_hook(check, with_kwargs=True)
        with pytest.warns(UserWarning, match="memory does not suffice"):
            streams = [streamer.ask(row, max_new_tokens=LONGEST, temperature=1.0) for row in ROWS]
            assert all(stream.wait(30) for stream in streams)
    assert [stream.answer for stream in streams] == generate(SOUP, ROWS, max_new_tokens=LONGEST)


def test_closing_ends_every_stream_and_takes_no_more() -> None:
    streamer = Streamer(SOUP, rows=1)
    streams = [streamer.ask(row, max_new_tokens=200, temperature=1.0) for row in ROWS[:3]]
    streamer.close()
    assert all(stream.ended for stream in streams)
    with pytest.raises(RuntimeError, match="closed"):
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=0)


def test_what_cannot_be_written_is_refused_at_once(streamer: Streamer) -> None:
    with pytest.raises(UserError, match="temperature must be 0 or more"):
        streamer.ask(ROWS[0], max_new_tokens=1, temperature=-1)
    with pytest.raises(UserError, match="max_new_tokens must be at least 1"):
        streamer.ask(ROWS[0], max_new_tokens=0, temperature=0)
    with pytest.raises(UserError, match=r"the prompt has 2 tokens, which with 300 of the answer is more than the 256"):
        streamer.ask(Row((5, 6), (0.0, 0.0), 0), max_new_tokens=300, temperature=0)
    with pytest.raises(ValueError, match="a row needs 2 weights, not 1"):
        streamer.ask(Row((5,), (0.0,), 0), max_new_tokens=1, temperature=0)
    with pytest.raises(ValueError, match="at least one prompt token"):
        streamer.ask(Row((), (0.0, 0.0), 0), max_new_tokens=1, temperature=0)
    silent = Soup.from_adapters(copy.deepcopy(tiny.llama()), {"a": tiny.random_vector(tiny.llama(), 0)})
    with pytest.raises(UserError, match="no tokenizer"):
        Streamer(silent)
