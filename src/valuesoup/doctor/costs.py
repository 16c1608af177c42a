"""What each stage of a plan costs: how many tokens it computes, times how long a token takes on this machine.

What only the run can tell is assumed: answers as long as those of the data, a frontier of at most ``FRONTIER``
candidates, rewards that agree with the labels but not with each other where pairs are filtered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from valuesoup.config import RunConfig
from valuesoup.doctor.pairs import Counts
from valuesoup.doctor.sizes import Size
from valuesoup.pipeline.diagnostics import MOST_PAIRS
from valuesoup.pipeline.expansion import EXPANDED
from valuesoup.store import Node

FRONTIER = 8
"""Candidates of a method that are taken to be scored on test, where it has as many."""
SINGLE_SHARE, FUSED_SHARE = 0.35, 0.9
"""Of mined prompts those that pass some values only; of their rewrites those that give a pair."""
AGREEMENT = 0.75
"""Share of the pairs whose reward gap under their own value has the sign of the label."""
RACING = 0.6
"""Share of the answers that a race asks for."""
QUICK = 0.05
"""Seconds of a stage that computes next to nothing."""
ENDPOINT_SECONDS = 5.0
"""Of one answer of an endpoint."""


@dataclass(frozen=True)
class Rates:
    """Seconds per token, for the base, in the shape that its work has in this run.

    Attributes:
        train: A token in a training step of vectors.
        forward: A token in a forward pass.
        write: A token of an answer, written among others.
        reward: A token in a training step of a reward model.
        pretrain: A token in a step of pretraining.
        start: Seconds of any stage that opens a model.
        measured: Whether the run's own steps were timed; else a formula tells.
    """

    train: float
    forward: float
    write: float
    reward: float
    pretrain: float
    start: float
    measured: bool


class Costs:
    """The cost of every stage of a plan."""

    def __init__(
        self,
        config: RunConfig,
        counts: Mapping[str, Counts],
        rates: Rates,
        base: Size,
        rewards: Mapping[str, Size | None],
        reading: Mapping[str, float],
    ) -> None:
        """Take what the estimates follow from."""
        self.config = config
        self.counts = counts
        self.rates = rates
        self.base = base
        self.rewards = rewards
        self.reading = reading
        self._known: dict[str, Callable[[Mapping[str, Any]], float]] = {
            "pairs": lambda inputs: self.reading.get(inputs["value"], QUICK),
            "pretrain": self._pretrain,
            "reward": self._reward,
            "reference": self._reference,
            "scores": self._scores,
            "train": self._train,
            "train-joint": self._train_joint,
            "answers": self._answers,
            "served": self._answers,
            "rated": self._rated,
            "quality": self._quality,
            "search": self._search,
            "fusion": self._fusion,
            "conflict": self._conflict,
            "connectivity": self._connectivity,
        }
        self.prompt = float(np.mean([of.prompt for of in counts.values()]))
        self.answer = min(float(np.mean([of.answer for of in counts.values()])), config.generation.max_new_tokens)

    def seconds(self, node: Node) -> float:
        """Return how long a stage takes, once it has a processor."""
        found = self._known.get(node.stage.name)
        return QUICK if found is None else float(found(node.inputs))

    def _pretrain(self, inputs: Mapping[str, Any]) -> float:
        settings = inputs["settings"]
        return self._opened(settings.steps * settings.batch_size * settings.context * self.rates.pretrain)

    def _reward(self, inputs: Mapping[str, Any]) -> float:
        of, settings = self.counts[inputs["value"]], inputs["settings"]
        sides = 2 * (of.prompt + of.answer)
        tokens = of.train * settings.epochs * sides
        # A LoRA's step makes no gradient of the weights: two thirds of the work.
        share = 1.0 if settings.rank is None else 2 / 3
        return self._opened(tokens * share * self.rates.reward + (of.validation + of.test) * sides * self.rates.forward)

    def _reference(self, inputs: Mapping[str, Any]) -> float:
        return self._opened(self._source_tokens(inputs["pairs"], inputs["dataset"]) * self.rates.forward)

    def _scores(self, inputs: Mapping[str, Any]) -> float:
        tokens = self._source_tokens(inputs["pairs"], inputs["dataset"])
        return self._scored(inputs["rewards"], tokens)

    def _train(self, inputs: Mapping[str, Any]) -> float:
        settings = inputs["settings"]
        return self._trained(inputs["sources"], settings)

    def _train_joint(self, inputs: Mapping[str, Any]) -> float:
        sources = [source for of in inputs["sources"].values() for source in of]
        return self._trained(sources, inputs["settings"])

    def _trained(self, sources: Sequence[Mapping[str, Any]], settings: Any) -> float:
        tokens = validation = 0.0
        for source in sources:
            pairs, of = self._selected(source), self._dataset(source["dataset"])
            tokens += pairs * of.pair
            validation += 0 if source["dataset"] == EXPANDED else of.validation * of.pair
        evaluations = max(1.0, settings.epochs * settings.evaluations)
        return self._opened(tokens * settings.epochs * self.rates.train + evaluations * validation * self.rates.forward)

    def _answers(self, inputs: Mapping[str, Any]) -> float:
        return self._opened(self._rows(inputs) * self.answer * self.rates.write)

    def _rated(self, inputs: Mapping[str, Any]) -> float:
        rows = self._rows(inputs["answers"].inputs)
        return self._scored(inputs["rewards"], rows * (self.prompt + self.answer))

    def _quality(self, inputs: Mapping[str, Any]) -> float:
        rows = self._rows(inputs["answers"].inputs)
        return self._opened(2 * rows * (self.prompt + self.answer) * self.rates.forward)

    def _search(self, inputs: Mapping[str, Any]) -> float:
        places = {place for of in inputs["groups"].values() for place in of}
        limits = inputs["limits"]
        most = sum(min(len(of), limits.get(name, len(of))) for name, of in inputs["groups"].items())
        share = RACING if inputs["racing"] is not None else 1.0
        rows = min(len(places), most) * self._asked(inputs["prompts"]) * share
        written = rows * self.answer * self.rates.write
        return self._opened(written) + self._scored(inputs["rewards"], rows * (self.prompt + self.answer))

    def _fusion(self, inputs: Mapping[str, Any]) -> float:
        mined = inputs["mined"].inputs
        targets = SINGLE_SHARE * self._asked(mined["prompts"]) / mined["rollouts"]
        rewriter = inputs["rewriter"].config
        if rewriter.function is not None:
            return QUICK
        if rewriter.endpoint is not None:
            return float(targets * ENDPOINT_SECONDS / rewriter.endpoint.concurrency)
        return self._opened(targets * self.prompt * self.rates.write)

    def _conflict(self, inputs: Mapping[str, Any]) -> float:
        tokens = sum(
            min(MOST_PAIRS, of.train) * of.pair for value, of in self.counts.items() if value in inputs["selections"]
        )
        return self._opened(tokens * self.rates.train)

    def _connectivity(self, inputs: Mapping[str, Any]) -> float:
        from valuesoup.training.connectivity import LADDER

        vectors = len(inputs["vectors"])
        between = vectors * (vectors - 1) // 2
        tokens = sum(min(MOST_PAIRS, of.validation) * of.pair for of in self.counts.values())
        passes = between * (len(LADDER) - 2) + vectors
        return self._opened(tokens * (passes * self.rates.forward + 2 * between * self.rates.train))

    def _opened(self, seconds: float) -> float:
        return self.rates.start + seconds

    def _scored(self, rewards: Mapping[str, Any], tokens: float) -> float:
        """Return what one reward model takes for so many tokens; a Python function counts as nothing."""
        value, reward = next(iter(rewards.items()))
        if isinstance(reward, str) or (not isinstance(reward, Node) and reward.config.function is not None):
            return 0.1
        size = self.rewards.get(value)
        times = 1.0 if size is None else size.flops / self.base.flops
        return self._opened(tokens * times * self.rates.forward)

    def _source_tokens(self, pairs: Node, dataset: str | None) -> float:
        """Return the tokens of the pairs that a stage reads: those as read, or of a split, or expanded ones."""
        if dataset == EXPANDED:
            return self._expanded(pairs) * self._dataset(dataset).pair
        if "value" in pairs.inputs:  # as read
            of = self.counts[pairs.inputs["value"]]
            return of.pairs * of.pair
        of = self._dataset(dataset or "")
        return (of.train + of.validation) * of.pair

    def _dataset(self, dataset: str) -> Counts:
        return self.counts.get(dataset) or next(iter(self.counts.values()))

    def _selected(self, source: Mapping[str, Any]) -> float:
        """Return how many pairs a training takes of a source."""
        if source["dataset"] == EXPANDED:
            return self._expanded(source["pairs"])
        of, selection = self._dataset(source["dataset"]), source["selection"]
        if selection is None:
            return of.train
        rule = selection.inputs
        if rule["keep"] is not None:
            return of.train * float(rule["keep"])
        tau = rule["tau"] if isinstance(rule["tau"], float) else 0.0
        return of.train * retained(tau, len(self.counts))

    def _expanded(self, node: Node) -> float:
        """Return how many pairs an expansion makes."""
        mined = node.inputs["mined"].inputs
        prompts = self._asked(mined["prompts"]) / mined["rollouts"]
        return float(min(prompts * SINGLE_SHARE * FUSED_SHARE, node.inputs["most"] or np.inf))

    def _rows(self, inputs: Mapping[str, Any]) -> float:
        """Return how many answers a stage of answers, or a search, writes."""
        if "groups" in inputs:
            return len(inputs["candidates"]) * self._asked(inputs["prompts"])
        candidates = len(inputs["candidates"])
        if inputs["chosen"] is not None:
            chosen = inputs["chosen"].inputs
            kept = {place for places in chosen["groups"].values() for place in places[:FRONTIER]} | set(
                chosen["always"]
            )
            candidates = len(kept)
        return candidates * self._asked(inputs["prompts"])

    def _asked(self, prompts: Node) -> float:
        """Return how many prompts, each rollout counted, a stage of prompts lists."""
        inputs = prompts.inputs
        if "part" in inputs:
            wanted = self.config.evaluation
            each = wanted.test_prompts if inputs["part"] == "test" else wanted.validation_prompts
            return each * len(inputs["values"])
        if "mined" in inputs:  # fused prompts, and the prompts that they are made of
            mined = inputs["mined"].inputs
            return 2 * SINGLE_SHARE * self._asked(mined["prompts"])
        all_prompts = sum(self._dataset(name).train for name in inputs["datasets"])
        return float(min(inputs["limit"] or all_prompts, all_prompts) * inputs["rollouts"])


@cache
def retained(tau: float, values: int) -> float:
    """Return the share of pairs of consistency ≥ τ where rewards are unrelated and one agrees with the labels.

    Args:
        tau: Threshold, from -1 to 1.
        values: How many, n.
    """
    gaps = np.random.default_rng(0).standard_normal((20_000, values))
    agrees = np.random.default_rng(1).random(len(gaps)) < AGREEMENT
    gaps[:, 0] = np.where(agrees, 1, -1) * np.abs(gaps[:, 0])
    consistency = gaps.sum(axis=1) / (np.linalg.norm(gaps, axis=1) * np.sqrt(values))
    return float((consistency >= tau - 1e-9).mean())
