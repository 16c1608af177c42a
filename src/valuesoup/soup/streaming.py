"""Answers that stream: one worker writes the rows of all who ask in one forward pass, each at its own weights.

A row joins while others are written and leaves when it is done or no longer wanted; neither changes what the others
write (see :mod:`valuesoup.soup.generation`).
"""

import logging
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from valuesoup.errors import RunError, UserError, ValuesoupError
from valuesoup.limits import scaled_beyond
from valuesoup.soup.base import position_limit
from valuesoup.soup.generation import Answer, Queue, Row, Writing

if TYPE_CHECKING:
    from valuesoup.soup.soup import Soup

logger = logging.getLogger(__name__)

ROWS = 16
"""Rows in a forward pass; those beyond wait."""


class Stream:
    """One answer on its way."""

    def __init__(self, streamer: "Streamer", place: int) -> None:
        """Made by :meth:`Streamer.ask`."""
        self._streamer, self._place = streamer, place
        self._news = threading.Condition()
        self._tokens: tuple[int, ...] = ()
        self._answer: Answer | None = None
        self._error: ValuesoupError | None = None
        self._ended = False

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids written so far."""
        return self._tokens

    @property
    def answer(self) -> Answer | None:
        """The whole answer, None until it is done or where it was stopped."""
        return self._answer

    @property
    def error(self) -> ValuesoupError | None:
        """Why it failed, if it did."""
        return self._error

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written: it is done, was stopped, or failed."""
        return self._ended

    @property
    def text(self) -> str:
        """What is written so far, without a character that is not whole yet; the end of the answer changes no more."""
        tokenizer = self._streamer.soup.tokenizer
        assert tokenizer is not None
        text = str(tokenizer.decode(self._tokens, skip_special_tokens=True))
        return text if self._ended else text.rstrip("\ufffd")

    def __iter__(self) -> Iterator[str]:
        """Yield the text so far whenever there is more of it, at least once; it grows until the answer ends.

        A reader that is slower than the writer sees fewer, longer steps.

        Raises:
            ValuesoupError: The answer failed.
        """
        seen = -1
        while True:
            with self._news:
                while len(self._tokens) == seen and not self._ended:
                    self._news.wait()
                seen, ended = len(self._tokens), self._ended
            if self._error is not None:
                raise self._error
            yield self.text
            if ended:
                return

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the answer ends, or for so many seconds; return whether it ended."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, seconds)

    def stop(self) -> None:
        """Write no more of it; its place in the forward pass is free. Changes nothing where it has ended."""
        self._streamer._leave(self._place)
        self._tell(ended=True)

    def _tell(
        self,
        tokens: tuple[int, ...] = (),
        answer: Answer | None = None,
        error: ValuesoupError | None = None,
        ended: bool = False,
    ) -> None:
        with self._news:
            if self._ended:
                return
            if len(tokens) > len(self._tokens):  # not those of a row that begins again for lack of memory
                self._tokens = tokens
            self._answer, self._error, self._ended = answer, error, ended
            self._news.notify_all()


class Streamer:
    """One soup that answers many at a time; a context manager that ends its worker."""

    def __init__(self, soup: "Soup", *, longest: int | None = None, rows: int = ROWS) -> None:
        """Start the worker.

        Args:
            soup: With a tokenizer, in evaluation mode. Nothing else may use it before :meth:`close`.
            longest: Tokens of the longest prompt with its answer; by default what the base takes. Bases whose layers
                see a window write rows together only where it reaches over so many.
            rows: Rows in a forward pass.

        Raises:
            UserError: The soup has no tokenizer.
        """
        if soup.tokenizer is None:
            raise UserError("this soup has no tokenizer; give one to generate from text.")
        scaled = scaled_beyond(soup.model.config)
        most = min(position_limit(soup.model.config), sys.maxsize if scaled is None else scaled)
        self.soup = soup
        self.longest = most if longest is None else min(longest, most)
        self.rows = rows
        self._change = threading.Condition()
        self._joining: list[Writing] = []
        self._leaving: set[int] = set()
        self._streams: dict[int, Stream] = {}
        self._writing: tuple[int, ...] = ()
        self._count = 0
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="soup", daemon=True)
        self._worker.start()

    def ask(self, row: Row, *, max_new_tokens: int, temperature: float) -> Stream:
        """Ask for an answer, which joins those that are being written.

        Args:
            row: Prompt, weights and seed; the answer depends on these and the two settings alone.
            max_new_tokens: The longest answer, end of sequence counted.
            temperature: 0 takes the likeliest token.

        Raises:
            UserError: Settings that make no sense, or more tokens than this base takes.
            ValueError: No prompt tokens, or another number of weights than the soup has vectors.
            RuntimeError: It is closed.
        """
        if not temperature >= 0:
            raise UserError(f"temperature must be 0 or more, not {temperature}.")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
        if not row.prompt:
            raise ValueError("a row needs at least one prompt token")
        if len(row.weights) != len(self.soup.names):
            raise ValueError(f"a row needs {len(self.soup.names)} weights, not {len(row.weights)}")
        whole = len(row.prompt) + max_new_tokens
        if whole > self.longest:
            raise UserError(
                f"the prompt has {len(row.prompt)} tokens, which with {max_new_tokens} of the answer is more than the "
                f"{self.longest} that fit here; shorten the prompt or the answer."
            )
        with self._change:
            if self._closed:
                raise RuntimeError("this streamer is closed")
            place = self._count
            self._count += 1
            stream = self._streams[place] = Stream(self, place)
            self._joining.append(Writing(place, row, max_new_tokens, temperature))
            self._change.notify_all()
        return stream

    @property
    def writing(self) -> int:
        """Rows in the last forward pass."""
        return len(self._writing)

    @property
    def waiting(self) -> int:
        """Answers that are asked for and not ended."""
        return len(self._streams)

    def close(self) -> None:
        """Stop all answers and the worker."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._worker.join()

    def __enter__(self) -> "Streamer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self, place: int) -> None:
        with self._change:
            if self._streams.pop(place, None) is not None:
                self._leaving.add(place)
                self._change.notify_all()

    def _work(self) -> None:
        queue: Queue | None = None
        while self._moved(queue):
            try:
                if queue is None:
                    queue = Queue(self.soup, self.longest, self.rows)
                    continue
                if queue.busy():
                    done = dict(queue.advance())
                    self._tell_of(queue, done)
            except Exception as error:
                queue = None
                self._fail(error)
        for stream in self._take_all():
            stream._tell(ended=True)

    def _moved(self, queue: Queue | None) -> bool:
        """Wait for something to do, let rows join and leave; False once closed."""
        with self._change:
            if queue is None or not queue.busy():
                self._writing = ()
                self._change.wait_for(lambda: self._joining or self._closed)
            if queue is not None:
                for place in self._leaving:
                    queue.leave(place)
                for writing in self._joining:
                    if writing.place not in self._leaving:
                        queue.join(writing)
                self._joining.clear()
                self._leaving.clear()
            return not self._closed

    def _tell_of(self, queue: Queue, done: dict[int, Answer]) -> None:
        under_way = {
            writing.place: tuple(writing.tokens) for slot in queue.live() if (writing := queue.slots[slot]) is not None
        }
        with self._change:
            self._writing = tuple(under_way)
            streams = dict(self._streams)
            for place in done:
                self._streams.pop(place, None)
        for place, tokens in under_way.items():
            if place in streams:
                streams[place]._tell(tokens)
        for place, answer in done.items():
            if place in streams:
                streams[place]._tell(answer.tokens, answer, ended=True)

    def _fail(self, error: Exception) -> None:
        told: ValuesoupError
        if isinstance(error, ValuesoupError):
            told = error
        else:
            logger.exception("an answer could not be written")
            told = RunError(f"writing the answer failed ({type(error).__name__}: {error}).")
        for stream in self._take_all():
            stream._tell(error=told, ended=True)

    def _take_all(self) -> list[Stream]:
        with self._change:
            streams = list(self._streams.values())
            self._streams.clear()
            self._joining.clear()
            self._leaving.clear()
            return streams
