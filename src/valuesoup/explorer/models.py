"""What answers and scores in the explorer: one base with the vectors of every method, and the run's own rewards."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valuesoup.data import Message, render_prompt
from valuesoup.errors import UserError, did_you_mean
from valuesoup.methods import Single
from valuesoup.pipeline.answering import open_soup
from valuesoup.pipeline.data import load_prompts
from valuesoup.pipeline.inputs import open_reward
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.recipes import weights_label
from valuesoup.pipeline.results import candidate_id
from valuesoup.pipeline.run import Finished
from valuesoup.pipeline.shared import Shared
from valuesoup.rewards.sources import by_model, score_all
from valuesoup.soup.generation import Row
from valuesoup.soup.streaming import Stream, Streamer
from valuesoup.store import Node

CONVERSATION_TOKENS = 4096
"""A conversation with its answer may be so long, where the base takes that."""
MOST_WEIGHT = 10.0
"""A dial is not turned further than this, either way."""


@dataclass(frozen=True)
class Setting:
    """Where a visitor stands: a point on a method's dial, or a finished policy.

    Attributes:
        method: Of the run, or the base.
        weights: By value, None for a policy.
        candidate: The policy's id, None on a dial.
    """

    method: str
    weights: Mapping[str, float] | None
    candidate: str | None

    @property
    def label(self) -> str:
        """What to call it, as candidates are called."""
        return self.candidate or f"{self.method}/{weights_label(self.weights or {})}"

    def shown(self, title: str) -> str:
        """What a visitor reads of it, given its method's title."""
        if self.weights is not None:
            return " · ".join([title, *(f"{value} {weight:z.2f}" for value, weight in self.weights.items())])
        rest = str(self.candidate).partition("/")[2]
        return f"{title} · {rest}" if rest else title


def dials(finished: Finished) -> list[str]:
    """Return the methods whose candidates are mixtures of value vectors, in the run's order."""
    values = set(finished.plan.config.values)
    return [
        entry.name
        for entry in finished.plan.config.methods
        if set(finished.plan.recipes[entry.name].vectors) == values and not isinstance(entry.method.weights, Single)
    ]


class Models:
    """A loaded run that answers many visitors at once and scores their answers."""

    def __init__(self, finished: Finished) -> None:
        """Load the base once, with every vector of the run, and the rewards.

        Vectors are called method/value, or method/policy; one that several methods share is loaded once.

        Raises:
            UserError: A model is gone or damaged.
        """
        self.finished = finished
        plan = finished.plan
        self.values = list(plan.config.values)
        self.dials = dials(finished)
        vectors, self._places = _vectors(finished)
        base = finished.artifacts[plan.base.key] if isinstance(plan.base, Node) else plan.base
        device = plan.config.base.device
        soup = open_soup(base, {name: finished.artifacts[key] for name, key in vectors.items()}, device)
        generation = plan.config.generation
        longest = max(CONVERSATION_TOKENS, generation.max_prompt_tokens + generation.max_new_tokens)
        self.streamer = Streamer(soup, longest=longest)
        given = Shared.of(plan.config).rewards
        sources = {
            value: open_reward(finished.artifacts[of.key] if isinstance(of, Node) else of, device)
            for value, of in given.items()
        }
        self._scorers = [{value: sources[value] for value in group} for group in by_model(sources)]
        self._scoring = threading.Lock()
        self.prompts = load_prompts(finished.artifacts[plan.evaluated[0].test.prompts.key])

    def setting(self, given: Any) -> Setting:
        """Read a setting that a page sent.

        Args:
            given: A mapping of ``method`` and ``weights`` (by value), or of ``candidate`` (an id).

        Raises:
            UserError: It names something that the run does not have, or weights that are no numbers.
        """
        given = given if isinstance(given, Mapping) else {}
        if candidate := given.get("candidate"):
            return self._policy(str(candidate))
        method, weights = str(given.get("method")), given.get("weights")
        if method not in self.dials:
            raise UserError(f"this run has no dial '{method}'{did_you_mean(method, self.dials)}")
        if not isinstance(weights, Mapping) or set(weights) != set(self.values):
            raise UserError(f"weights must name exactly {', '.join(self.values)}.")
        for value, weight in weights.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
            if not number or abs(weight) > MOST_WEIGHT:
                raise UserError(f"the weight of '{value}' must be a number from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}.")
        return Setting(method, {value: float(weights[value]) for value in self.values}, None)

    def title(self, setting: Setting) -> str:
        """Return what a visitor reads of a setting."""
        return setting.shown(str(self.finished.results["methods"][setting.method]["title"]))

    def row(self, setting: Setting) -> tuple[float, ...]:
        """Return the weights over all vectors of the soup."""
        found = [0.0] * len(self.streamer.soup.names)
        if setting.method == BASE:
            return tuple(found)
        recipe = self.finished.plan.recipes[setting.method]
        if setting.weights is not None:
            own = [setting.weights[vector] for vector in recipe.vectors]
        else:
            own = list(next(one.row for one in recipe.candidates if self._id(setting.method, one) == setting.candidate))
        for vector, weight in zip(recipe.vectors, own, strict=True):
            found[self._places[setting.method][vector]] += weight
        return tuple(found)

    def ask(
        self, messages: Sequence[Message], setting: Setting, *, max_new_tokens: int, temperature: float, seed: int
    ) -> Stream:
        """Let a setting answer a conversation that ends in a user's turn.

        Raises:
            UserError: Settings that make no sense, or a conversation longer than the base takes.
        """
        tokenizer = self.streamer.soup.tokenizer
        assert tokenizer is not None
        ids = tokenizer(render_prompt(messages, tokenizer), add_special_tokens=False)["input_ids"]
        row = Row(tuple(ids), self.row(setting), seed)
        return self.streamer.ask(row, max_new_tokens=max_new_tokens, temperature=temperature)

    def score(self, messages: Sequence[Message], answers: Sequence[str]) -> list[dict[str, float]]:
        """Score answers to one conversation by the run's rewards, by value, in the rewards' own units.

        Raises:
            UserError: A reward refuses them.
        """
        found: list[dict[str, float]] = [{} for _ in answers]
        with self._scoring:
            for scorers in self._scorers:
                scores = score_all(list(scorers.values()), [messages] * len(answers), list(answers))
                for value, column in zip(scorers, scores, strict=True):
                    for place, one in enumerate(column.tolist()):
                        found[place][value] = one
        return [{value: row[value] for value in self.values} for row in found]

    def close(self) -> None:
        """Stop all answers and the worker."""
        self.streamer.close()

    def _policy(self, candidate: str) -> Setting:
        if candidate == BASE:
            return Setting(BASE, None, BASE)
        known = {
            self._id(method, one): method
            for method, recipe in self.finished.plan.recipes.items()
            for one in recipe.candidates
        }
        if candidate not in known:
            raise UserError(f"this run has no candidate '{candidate[:100]}'.")  # no page offers another
        return Setting(known[candidate], None, candidate)

    @staticmethod
    def _id(method: str, candidate: Any) -> str:
        return candidate_id(method, candidate)


def _vectors(finished: Finished) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Return the artifact's key of every vector by its name, and by method the place of each of its vectors."""
    names: dict[str, str] = {}
    by_key: dict[str, int] = {}
    places: dict[str, dict[str, int]] = {}
    for method, recipe in finished.plan.recipes.items():
        places[method] = {}
        for vector, node in recipe.vectors.items():
            if node.key not in by_key:
                by_key[node.key] = len(names)
                name = f"{method}/{vector}".replace(".", "·")  # a vector's name holds no dot
                names[name if name not in names else f"{name}#{len(names)}"] = node.key
            places[method][vector] = by_key[node.key]
    return names, places
