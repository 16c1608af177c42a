"""The plan of a run: every stage call that a configuration asks for, as a graph that is known before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from valuesoup.config import MethodConfig, RunConfig
from valuesoup.methods.choices import All, Consistent, Independent, PairsChoice, Simplex, Single
from valuesoup.pipeline import candidates as evaluating
from valuesoup.pipeline import data, training, values
from valuesoup.pipeline.inputs import BaseRef, RewardRef, base_ref, data_ref, function_hash, reward_ref
from valuesoup.rewards import RewardTraining
from valuesoup.search import simplex_grid
from valuesoup.store import Node

BASE = "base"
"""The name under which the base itself is a method with one candidate, λ = 0."""


@dataclass
class Stack:
    """Vectors that are evaluated together, and the candidates on them: rows of weights, each once.

    Attributes:
        vectors: Training node by vector name.
        candidates: Rows of weights over the vectors.
        methods: Places of each method's candidates.
        always: Places that are scored on test even off the frontier: the base, and methods without a dial.
    """

    vectors: Mapping[str, Node]
    candidates: list[tuple[float, ...]] = field(default_factory=list)
    methods: dict[str, list[int]] = field(default_factory=dict)
    always: list[int] = field(default_factory=list)

    def add(self, method: str, rows: list[tuple[float, ...]], *, always: bool) -> None:
        """Take a method's candidates; rows that another method has already are shared with it."""
        places = []
        for row in rows:
            if row not in self.candidates:
                self.candidates.append(row)
            places.append(self.candidates.index(row))
        self.methods[method] = places
        if always:
            self.always += places


@dataclass(frozen=True)
class Measured:
    """The evaluation of a stack on one part of the held-out prompts."""

    prompts: Node
    answers: Node
    scores: Mapping[str, Node]


@dataclass(frozen=True)
class Evaluated:
    """All evaluation nodes of a stack."""

    validation: Measured
    chosen: Node
    test: Measured
    truth: Mapping[str, Node]
    quality: Node


@dataclass(frozen=True)
class Plan:
    """The nodes of a run by what they mean.

    Attributes:
        config: The configuration.
        base: The base, made here or not.
        split: Of all pairs.
        rewards: Reward-model node of each value whose model is trained here.
        gaps: Node of each data set's gaps; per data set.
        filters: Node by method and data set, for the methods that filter.
        vectors: Training node by method and vector.
        geometry: Node by method, for the methods with at least two vectors.
        stacks: What is evaluated, the base's own stack first.
        evaluated: The evaluation of each stack, in the same order.
    """

    config: RunConfig
    base: Node | BaseRef
    split: Node
    rewards: Mapping[str, Node]
    gaps: Mapping[str, Node]
    filters: Mapping[str, Mapping[str, Node]]
    vectors: Mapping[str, Mapping[str, Node]]
    geometry: Mapping[str, Node]
    stacks: list[Stack]
    evaluated: list[Evaluated]

    def targets(self) -> list[Node]:
        """Return the nodes that must exist for the results; what they need follows."""
        found = [*self.gaps.values(), *self.geometry.values()]
        for one in self.evaluated:
            found += [one.chosen, *one.test.scores.values(), *one.truth.values(), one.quality]
        return found


def make_plan(config: RunConfig) -> Plan:
    """Turn a configuration into its graph of stage calls.

    Raises:
        valuesoup.errors.UserError: A file or function that the configuration names does not exist.
    """
    return _Planner(config).plan()


class _Planner:
    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.values = list(config.values)
        self.seed = config.seed
        self.device = config.base.device

    def plan(self) -> Plan:
        config = self.config
        pairs = {
            value: data.read_pairs(
                f"read the pairs of {value}",
                sources=[data_ref(source) for source in of.data],
                value=value,
                seed=self.seed,
            )
            for value, of in config.values.items()
        }
        self.split = data.split(
            "split by prompt",
            pairs=pairs,
            test_prompts=config.evaluation.test_prompts,
            validation_prompts=config.evaluation.validation_prompts,
            seed=self.seed,
        )
        self.base = self._base()
        rewards: dict[str, Node | RewardRef] = {value: self._reward(value) for value in self.values}
        self.rewards = rewards
        self.pair_scores = {
            dataset: {value: self._pair_scores(dataset, value) for value in self.values} for dataset in self.values
        }
        filters: dict[str, dict[str, Node]] = {}
        vectors: dict[str, dict[str, Node]] = {}
        stacks = [Stack({})]
        stacks[0].add(BASE, [()], always=True)
        for entry in config.methods:
            kept = self._kept(entry)
            if kept is not None:
                filters[entry.name] = kept
            vectors[entry.name] = self._vectors(entry, kept or {})
            stack = _stack_of(stacks, vectors[entry.name])
            stack.add(
                entry.name,
                _rows(entry, len(stack.vectors)),
                always=isinstance(entry.method.weights, Single),
            )
        return Plan(
            config=config,
            base=self.base,
            split=self.split,
            rewards={value: node for value, node in rewards.items() if isinstance(node, Node)},
            gaps={dataset: self._gaps(dataset, "dataset") for dataset in self.values},
            filters=filters,
            vectors=vectors,
            geometry={
                method: training.vector_geometry(f"geometry of {method}", vectors=nodes)
                for method, nodes in vectors.items()
                if len(nodes) > 1
            },
            stacks=stacks,
            evaluated=[self._evaluate(stack) for stack in stacks],
        )

    def _base(self) -> Node | BaseRef:
        config = self.config.base
        if config.pretrain is None:
            return base_ref(config)
        return data.pretrain_base(
            "pretrain the base",
            settings=config.pretrain,
            split=self.split,
            values=self.values,
            dialogues=None if config.dialogues is None else [data_ref(source) for source in config.dialogues],
            seed=self.seed,
            device=self.device,
        )

    def _reward(self, value: str) -> Node | RewardRef:
        config = self.config.values[value].reward
        if config.train is None:
            return reward_ref(config)
        settings: RewardTraining = config.train
        if settings.seed is None:
            settings = settings.model_copy(update={"seed": self.seed})
        return values.train_reward(
            f"train the reward model of {value}",
            base=self.base,
            split=self.split,
            value=value,
            settings=settings,
            device=self.device,
        )

    def _pair_scores(self, dataset: str, value: str) -> Node:
        column = self.config.values[value].reward.column
        return values.score_pairs(
            f"score the {dataset} pairs by {value}",
            split=self.split,
            dataset=dataset,
            value=value,
            reward=column or self.rewards[value],
            device=self.device,
        )

    def _gaps(self, dataset: str, statistics: str) -> Node:
        needed = [dataset] if statistics == "dataset" else self.values
        return values.reward_gaps(
            f"reward gaps of {dataset}",
            dataset=dataset,
            scores={name: self.pair_scores[name] for name in needed},
            statistics=statistics,
        )

    def _kept(self, entry: MethodConfig) -> dict[str, Node] | None:
        """Which pairs: the filter of each data set, or None for all pairs."""
        match entry.method.pairs:
            case All():
                return None
            case Consistent() as rule:
                return {
                    value: values.filter_pairs(
                        f"filter the {value} pairs for {entry.name}",
                        gaps=self._gaps(value, rule.statistics),
                        dataset=value,
                        rule=rule,
                        values=self.values,
                        batch=self.config.training.batch_size,
                    )
                    for value in self.values
                }

    def _vectors(self, entry: MethodConfig, kept: Mapping[str, Node]) -> dict[str, Node]:
        """Which objective: the trainings that make the vectors."""
        match entry.method.objective:
            case Independent():
                return {
                    value: self._train(entry.name, entry.method.pairs, value, kept.get(value)) for value in self.values
                }

    def _train(self, method: str, pairs: PairsChoice, value: str, kept: Node | None) -> Node:
        settings = self.config.training
        return training.train(
            f"train the {value} vector of {method}",
            base=self.base,
            split=self.split,
            value=value,
            kept=kept,
            reference=training.reference(
                f"reference log-probabilities of the {value} pairs",
                base=self.base,
                split=self.split,
                value=value,
                max_length=settings.max_length,
                device=self.device,
            ),
            minimum=getattr(pairs, "minimum_pairs", 1),
            settings=settings.model_copy(update={"report_to": ()}),
            report_to=settings.report_to,
            seed=self.seed,
            device=self.device,
        )

    def _evaluate(self, stack: Stack) -> Evaluated:
        name = " and ".join(stack.methods)
        validation = self._measure(stack, "validation", None, name)
        chosen = evaluating.choose_candidates(
            f"frontier of {name}",
            scores=validation.scores,
            fluency=self._fluency(validation, f"validation fluency of {name}"),
            bound=self.config.evaluation.fluency_bound if self.config.evaluation.fluency else 0.0,
            prompts=validation.prompts,
            own=self.config.evaluation.prompts == "own",
            groups=stack.methods,
            always=stack.always,
        )
        test = self._measure(stack, "test", chosen, name)
        truth = {
            value: self._rate(test, value, of.truth, f"true {value} of {name}")
            for value, of in self.config.values.items()
            if of.truth is not None
        }
        quality = evaluating.answer_quality(
            f"fluency and divergence of {name}",
            base=self.base,
            vectors=stack.vectors,
            candidates=stack.candidates,
            answers=test.answers,
            prompts=test.prompts,
            fluency=self._fluency(test, f"test fluency of {name}"),
            batch_rows=self.config.generation.batch_rows,
            device=self.device,
        )
        return Evaluated(validation, chosen, test, truth, quality)

    def _fluency(self, measured: Measured, label: str) -> Node | None:
        function = self.config.evaluation.fluency
        return None if function is None else self._rate(measured, "fluency", function, label)

    def _measure(self, stack: Stack, part: str, chosen: Node | None, name: str) -> Measured:
        config = self.config
        prompts = data.held_out_prompts(
            f"{part} prompts",
            base=self.base,
            split=self.split,
            values=self.values,
            part=part,
            max_tokens=config.generation.max_prompt_tokens,
        )
        # The batch size changes the speed alone, so it must not be in the key.
        generation = config.generation.model_copy(update={"batch_rows": 1})
        answers = evaluating.answer_prompts(
            f"{name} answers the {part} prompts",
            base=self.base,
            vectors=stack.vectors,
            candidates=stack.candidates,
            chosen=chosen,
            prompts=prompts,
            generation=generation,
            seed=self.seed,
            batch_rows=config.generation.batch_rows,
            device=self.device,
        )
        scores = {
            value: evaluating.rate_answers(
                f"score the {part} answers of {name} by {value}",
                answers=answers,
                prompts=prompts,
                value=value,
                reward=self.rewards[value],
                source=None,
                device=self.device,
            )
            for value in self.values
        }
        return Measured(prompts, answers, scores)

    def _rate(self, measured: Measured, value: str, function: str, label: str) -> Node:
        return evaluating.rate_answers(
            label,
            answers=measured.answers,
            prompts=measured.prompts,
            value=value,
            reward=function,
            source=function_hash(function),
            device=self.device,
        )


def _stack_of(stacks: list[Stack], vectors: Mapping[str, Node]) -> Stack:
    """Return the stack of these vectors; methods that train the same vectors share one, and its evaluation."""
    keys = {name: node.key for name, node in vectors.items()}
    for stack in stacks:
        if {name: node.key for name, node in stack.vectors.items()} == keys:
            return stack
    stacks.append(Stack(vectors))
    return stacks[-1]


def _rows(entry: MethodConfig, n: int) -> list[tuple[float, ...]]:
    """Which weights: the candidates over n vectors."""
    match entry.method.weights:
        case Single():
            grid = simplex_grid(n, 1)
        case Simplex(steps=steps):
            grid = simplex_grid(n, steps)
    return [tuple(map(float, row)) for row in grid.tolist()]
