"""From a method's choices to the trainings that make its vectors, and the candidates on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import assert_never

from valuesoup.config import MethodConfig
from valuesoup.errors import UserError
from valuesoup.methods import Decorrelated, Independent, Margin, Mixed, Sequential, Weighted
from valuesoup.methods.choices import Grid
from valuesoup.methods.compositions import Linear
from valuesoup.pipeline import training
from valuesoup.pipeline.pairsets import PairSet, PairSets
from valuesoup.pipeline.shared import Shared
from valuesoup.store import Node
from valuesoup.training.settings import TrainingSettings


@dataclass(frozen=True)
class Candidate:
    """One candidate of a method.

    Attributes:
        row: Weights over the vectors of its stack.
        weights: What the results write: weight per value, None where the policy has none.
        label: Its name within the method, e.g. ``helpful=0.6,harmless=0.4``.
    """

    row: tuple[float, ...]
    weights: Mapping[str, float] | None
    label: str


@dataclass
class Recipe:
    """What a method trains, and what it offers as candidates.

    Attributes:
        vectors: Node by name, for the stack: value vectors, or finished policies.
        candidates: On them.
        trainings: Every training that the method needs, its preparations included, by what it trains.
        geometry: The value vectors to compare, where the method has at least two.
        filters: Filter node by data set.
        expansions: Expansion node by what it expands.
    """

    vectors: dict[str, Node] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    trainings: dict[str, Node] = field(default_factory=dict)
    geometry: dict[str, Node] = field(default_factory=dict)
    filters: Mapping[str, Node] = field(default_factory=dict)
    expansions: Mapping[str, Node] = field(default_factory=dict)


def make_recipe(shared: Shared, entry: MethodConfig) -> Recipe:
    """Plan the trainings and the candidates of one method."""
    return _Cook(shared, entry).recipe()


def weights_label(weights: Mapping[str, float]) -> str:
    """Return weights as candidates are named, e.g. ``helpful=0.6,harmless=0.4``."""
    return ",".join(f"{name}={weight:.6g}" for name, weight in weights.items())


class _Cook:
    def __init__(self, shared: Shared, entry: MethodConfig) -> None:
        self.shared = shared
        self.name = entry.name
        self.method = entry.method
        settings = TrainingSettings.model_validate({**shared.config.training.model_dump(), **self.method.training})
        self.bf16 = shared.autocasts(settings)
        self.settings = settings.model_copy(update={"bf16": self.bf16})
        self.sets = PairSets(shared, entry, self.settings.batch_size)
        self.made = Recipe(filters=self.sets.filters, expansions=self.sets.expansions)

    def recipe(self) -> Recipe:
        match self.method.objective:
            case Independent():
                self._mix({value: self._dpo(value) for value in self.shared.values})
            case Decorrelated(alpha=alpha, mode="sequential"):
                self._mix(self._decorrelated(alpha))
            case Decorrelated(alpha=alpha):
                self._mix(self._joint(alpha))
            case Mixed():
                self._finished([(self._train("all values", self.sets.together(), "all values"), None, "all")])
            case Sequential(orders=orders):
                self._finished(self._sequences(orders))
            case Weighted():
                self._finished([self._weighted(row) for row in self.method.rows(self.shared.values)])
            case Margin() as rule:
                self._finished(self._margins(rule))
            case _ as never:
                assert_never(never)
        return self.made

    def _dpo(self, value: str) -> Node:
        """Train value i's vector by DPO on its own pairs."""
        return self._train(f"the {value} vector", self.sets.of(value), value)

    def _decorrelated(self, alpha: float) -> dict[str, Node]:
        """Train the first vector plainly, and each further one away from all before it."""
        vectors: dict[str, Node] = {}
        for value in self.shared.values:
            away_from = dict(vectors) if alpha else {}
            vectors[value] = self._train(
                f"the {value} vector", self.sets.of(value), value, away_from=away_from, alpha=alpha
            )
        return vectors

    def _joint(self, alpha: float) -> dict[str, Node]:
        """Train all vectors in one pass."""
        settings = self.settings
        joint = training.train_joint(
            f"train the vectors of {self.name}",
            base=self.shared.base,
            sources={value: self._sources(self.sets.of(value)) for value in self.shared.values},
            alpha=alpha,
            minimum=self.sets.minimum,
            settings=settings.model_copy(update={"report_to": ()}),
            report_to=settings.report_to,
            seed=self.shared.config.seed,
            device=self.shared.device,
        )
        self.made.trainings["all values jointly"] = joint
        return {
            value: training.take_vector(f"take the {value} vector of {self.name}", joint=joint, value=value)
            for value in self.shared.values
        }

    def _sequences(self, orders: str | Sequence[Sequence[str]]) -> list[tuple[Node, None, str]]:
        """Train value after value; each stage starts from, and refers to, the policy before it."""
        if orders == "given":
            orders = [self.shared.values]
        elif orders == "all":
            orders = list(permutations(self.shared.values))
        found = []
        for order in orders:
            policy: Node | None = None
            for place, value in enumerate(order):
                done = " then ".join(order[: place + 1])
                policy = self._train(
                    f"{value} after {' then '.join(order[:place])}" if place else f"the {value} vector",
                    self.sets.of(value, policy, order[:place]),
                    done,
                    policy=policy,
                )
            assert policy is not None
            found.append((policy, None, ">".join(order)))
        return found

    def _weighted(self, row: tuple[float, ...]) -> tuple[Node, dict[str, float], str]:
        """Train on the pairs of every value of weight above 0: a row of weight 0 would add nothing."""
        weights = dict(zip(self.shared.values, row, strict=True))
        label = weights_label(weights)
        used = [(value, weight) for value, weight in weights.items() if weight]
        sources = [source for value, weight in used for source in self._sources(self.sets.of(value), weight=weight)]
        return self._train_on(label, sources, label), weights, label

    def _margins(self, rule: Margin) -> list[tuple[Node, dict[str, float], str]]:
        """Train on the primary value's pairs, with Σ_{j≠k} w_j·Δr_j as the margin and 1/w_k as the scale."""
        primary = rule.primary or self.shared.values[0]
        sets = self.sets.of(primary)
        found = []
        for row in self.method.rows(self.shared.values):
            weights = dict(zip(self.shared.values, row, strict=True))
            if not weights[primary] > 0:
                continue  # the loss divides by w_k
            label = weights_label(weights)
            others = {value: weight for value, weight in weights.items() if weight and value != primary}
            sources = [
                {
                    **source,
                    "scale": weights[primary],
                    "margins": [self._margin(rule, of, value, weight) for value, weight in others.items()],
                }
                for of, source in zip(sets, self._sources(sets), strict=True)
            ]
            found.append((self._train_on(label, sources, label), weights, label))
        return found

    def _margin(self, rule: Margin, of: PairSet, value: str, share: float) -> dict[str, object]:
        """Where the gaps of another value on these pairs come from."""
        margin = {"share": share, "policy": None, "base": None, "scores": None, "normalise": rule.normalise}
        if rule.rewards == "models":
            return {**margin, "scores": self.shared.pair_scores(of.dataset, value, of.expansion)}
        return {
            **margin,
            "policy": self.shared.log_probs(
                of.pairs, of.dataset, self._dpo(value), f"{value} policy's", bf16=self.bf16
            ),
            "base": self.shared.log_probs(of.pairs, of.dataset, None, bf16=self.bf16),
        }

    def _sources(
        self, sets: Sequence[PairSet], *, weight: float = 1.0, policy: Node | None = None
    ) -> list[dict[str, object]]:
        return [
            {
                "pairs": of.pairs,
                "dataset": of.dataset,
                "selection": of.selection,
                "reference": self.shared.log_probs(
                    of.pairs,
                    of.dataset,
                    policy,
                    f"{self.name}'s reference" if policy else "reference",
                    bf16=self.bf16,
                ),
                "weight": weight,
                "scale": 1.0,
                "margins": [],
            }
            for of in sets
        ]

    def _train(
        self,
        what: str,
        sets: Sequence[PairSet],
        key: str,
        *,
        policy: Node | None = None,
        away_from: Mapping[str, Node] | None = None,
        alpha: float = 0.0,
    ) -> Node:
        return self._train_on(what, self._sources(sets, policy=policy), key, policy, away_from, alpha)

    def _train_on(
        self,
        what: str,
        sources: Sequence[Mapping[str, object]],
        key: str,
        policy: Node | None = None,
        away_from: Mapping[str, Node] | None = None,
        alpha: float = 0.0,
    ) -> Node:
        settings = self.settings
        node = training.train(
            f"train {what} of {self.name}",
            base=self.shared.base,
            sources=sources,
            start=policy,
            away_from=away_from or {},
            # A vector with nothing to keep away from is a plain one; each further one starts from its own draw.
            alpha=alpha if away_from else 0.0,
            draw=len(away_from or {}),
            minimum=self.sets.minimum,
            settings=settings.model_copy(update={"report_to": ()}),
            report_to=settings.report_to,
            seed=self.shared.config.seed,
            device=self.shared.device,
        )
        self.made.trainings[key] = node
        return node

    def _mix(self, vectors: dict[str, Node]) -> None:
        """Offer mixtures of value vectors: rows of weights over them, or adapters composed in another way."""
        if len(vectors) > 1:
            self.made.geometry = vectors
        rows = self.method.rows(self.shared.values)
        mixtures = [dict(zip(vectors, row, strict=True)) for row in rows]
        if isinstance(self.method.composition, Linear):
            self.made.vectors = vectors
            self.made.candidates = [
                Candidate(row, weights, weights_label(weights)) for row, weights in zip(rows, mixtures, strict=True)
            ]
            return
        settings = self.method.composition.model_dump(exclude={"kind"})
        self._finished(
            [
                (
                    training.compose_vectors(
                        f"compose {weights_label(weights)} of {self.name}",
                        vectors=vectors,
                        weights=weights,
                        kind=self.method.composition.kind,
                        settings=settings,
                    ),
                    weights,
                    weights_label(weights),
                )
                for weights in mixtures
            ]
        )

    def _finished(self, policies: Sequence[tuple[Node, Mapping[str, float] | None, str]]) -> None:
        """Offer finished policies, each at weight 1 of its own vector.

        Raises:
            UserError: Only a part of them is to be measured, although all are made.
        """
        if isinstance(self.method.weights, Grid) and self.method.weights.evaluations is not None:
            raise UserError(
                f"method '{self.name}' makes a policy for each of its weight vectors before any is measured, so "
                "weights.evaluations would save nothing of that; leave it out, or take fewer weight vectors."
            )
        # A vector's name holds no dot, so policies are counted, and the candidate's label says which is which.
        self.made.vectors = {f"policy-{place}": node for place, (node, _, _) in enumerate(policies, 1)}
        self.made.candidates = [
            Candidate(tuple(float(place == other) for other in range(len(policies))), weights, label)
            for place, (_, weights, label) in enumerate(policies)
        ]
