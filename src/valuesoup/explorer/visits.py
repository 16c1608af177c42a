"""What visitors do: ask two settings the same prompt, stop, export; each session has its own answers under way."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

from valuesoup.data import Message
from valuesoup.errors import RunError, UserError, ValuesoupError
from valuesoup.explorer.models import Models, Setting
from valuesoup.soup.streaming import Stream

logger = logging.getLogger(__name__)

SIDES = ("A", "B")
EXPORTS = "exports"
"""In the run folder: a folder for each exported policy."""
STEP_SECONDS = 0.05
"""Pause between two looks at the answers under way."""
MOST_CHARACTERS = 100_000
"""Of a prompt; a longer one is no prompt, and no tokenizer is asked to read it."""

Turn = dict[str, Any]
"""One prompt with its answer, as the page draws it: prompt, before, answer, state, label, scores."""


@dataclass
class Question:
    """What a visitor asks both sides.

    Attributes:
        settings: By side.
        prompt: The last turn, the person's.
        before: Turns before it, of a test prompt that is a conversation.
        follows: Whether each side's own conversation so far comes before it.
        max_new_tokens: The longest answer.
        temperature: 0 takes the likeliest token.
        seed: Of the draws, the same for both sides.
    """

    settings: Mapping[str, Setting]
    prompt: str
    before: Sequence[Message] = ()
    follows: bool = False
    max_new_tokens: int = 200
    temperature: float = 1.0
    seed: int = 0


@dataclass
class _Side:
    messages: list[Message]
    turn: Turn
    stream: Stream | None = None


class _Asked(dict[str, _Side]):
    """The sides of a question under way."""

    cleared = False


class Visits:
    """All sessions of a page on one run."""

    def __init__(self, models: Models) -> None:
        """Serve these models."""
        self.models = models
        self._under_way: dict[str, list[_Asked]] = {}
        self._lock = threading.Lock()

    def answer(self, session: str, question: Question, history: Mapping[str, list[Turn]]) -> Iterator[dict[str, Turn]]:
        """Yield both sides' turns as they grow; the last ones hold the scores of what was answered.

        Whoever stops reading lets the answers go. Where the session is cleared meanwhile, the last ones are none.
        """
        seen: tuple[Any, ...] = ()
        sides = _Asked()
        with self._lock:
            self._under_way.setdefault(session, []).append(sides)
        try:
            for name in SIDES:
                sides[name] = self._begin(name, question, history.get(name, []))
            while True:
                under_way = [side for side in sides.values() if side.stream is not None and not side.stream.ended]
                for side in sides.values():
                    self._update(side)
                if sides.cleared:
                    break
                now = tuple((side.turn["answer"], side.turn["state"]) for side in sides.values())
                if now != seen:
                    seen = now
                    yield self._turns(sides)
                if not under_way:
                    break
                under_way[0].stream.wait(STEP_SECONDS)  # type: ignore[union-attr]
            if not sides.cleared:
                self._score(list(sides.values()))
            yield {} if sides.cleared else self._turns(sides)
        finally:
            self._forget(session, sides)

    def stop(self, session: str) -> None:
        """Stop the session's answers; what they hold so far stays."""
        with self._lock:
            streams = [side.stream for sides in self._under_way.get(session, ()) for side in list(sides.values())]
        for stream in streams:
            if stream is not None:
                stream.stop()

    def clear(self, session: str) -> None:
        """Stop the session's answers and let go what they hold: an answer under way does not come back."""
        with self._lock:
            for sides in self._under_way.get(session, ()):
                sides.cleared = True
        self.stop(session)

    def export(self, setting: Setting) -> tuple[Path, str]:
        """Write the setting's adapter into the run folder; return its folder and the command that does the same.

        Raises:
            UserError: It cannot be exported.
            RunError: It could not be written.
        """
        from valuesoup.shipping import export
        from valuesoup.shipping.choice import plain_name

        run = self.models.finished.folder
        name, count = plain_name(setting.label), 1
        while (folder := run / EXPORTS / (name if count == 1 else f"{name}-{count}")).exists():
            count += 1
        if setting.weights is None:
            assert setting.candidate is not None
            export(self.models.finished, folder, candidates=[setting.candidate])
            what = ["--candidate", setting.candidate]
        else:
            export(self.models.finished, folder, method=setting.method, weights=setting.weights)
            weights = ",".join(f"{value}={weight:.6g}" for value, weight in setting.weights.items())
            what = ["--method", setting.method, "--weights", weights]
        return folder, join(["valuesoup", "export", str(run), *what, "--to", str(folder)])

    def _begin(self, name: str, question: Question, history: Sequence[Turn]) -> _Side:
        setting = question.settings[name]
        messages: list[Message] = [*question.before]
        if question.follows:
            for turn in history:
                if turn["state"] in ("done", "cut", "stopped") and turn["answer"]:
                    messages += turn["before"]
                    messages.append({"role": "user", "content": turn["prompt"]})
                    messages.append({"role": "assistant", "content": turn["answer"]})
        messages.append({"role": "user", "content": question.prompt})
        turn = {
            "prompt": question.prompt,
            "before": list(question.before),
            "answer": "",
            "state": "writing",
            "label": self.models.title(setting),
            "scores": [],
        }
        side = _Side(messages, turn)
        try:
            side.stream = self.models.ask(
                messages,
                setting,
                max_new_tokens=question.max_new_tokens,
                temperature=question.temperature,
                seed=question.seed,
            )
        except Exception as error:  # of a template too, which is code that comes with a model
            turn.update(state="error", answer=told(error))
        return side

    @staticmethod
    def _update(side: _Side) -> None:
        stream = side.stream
        if stream is None:
            return
        ended = stream.ended  # before the text, which then is whole
        if stream.error is not None:
            side.turn.update(state="error", answer=str(stream.error))
            return
        side.turn["answer"] = stream.text
        if ended:
            side.turn["state"] = "stopped" if stream.answer is None else "scoring"

    def _score(self, sides: Sequence[_Side]) -> None:
        """Score whole answers; mark the better of two to the same prompt."""
        for side in sides:
            if side.turn["state"] != "scoring":
                continue
            assert side.stream is not None and side.stream.answer is not None
            side.turn["state"] = "done" if side.stream.answer.finished else "cut"
            try:
                (scores,) = self.models.score(side.messages, [side.turn["answer"]])
            except Exception as error:  # a reward may be anyone's function
                side.turn["label"] += f" (no score: {told(error)})"
            else:
                side.turn["scores"] = [[value, score, False] for value, score in scores.items()]
        scored = [side.turn["scores"] for side in sides if side.turn["scores"]]
        if len(scored) == 2:
            for first, second in zip(*scored, strict=True):
                first[2], second[2] = first[1] > second[1], second[1] > first[1]

    @staticmethod
    def _turns(sides: Mapping[str, _Side]) -> dict[str, Turn]:
        return {
            name: {**side.turn, "scores": [list(score) for score in side.turn["scores"]]}
            for name, side in sides.items()
        }

    def _forget(self, session: str, sides: _Asked) -> None:
        for side in sides.values():
            if side.stream is not None:
                side.stream.stop()
        with self._lock:
            left = [other for other in self._under_way.get(session, ()) if other is not sides]
            if left:
                self._under_way[session] = left
            else:
                self._under_way.pop(session, None)


def read_number(given: Any, name: str, low: float, high: float) -> float:
    """Return a number that a page sent.

    Raises:
        UserError: It is none, or out of range.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
        raise UserError(f"{name} must be a number from {low:,g} to {high:,.0f}.")
    return float(given)


def told(error: Exception) -> str:
    """Return what a visitor is told of an error: its sentence; of one that nobody foresaw, that it is in the log."""
    if isinstance(error, ValuesoupError):
        return str(error)
    logger.exception("a visitor's request failed", exc_info=error)
    return str(RunError(f"that failed ({type(error).__name__}); the terminal says more."))
