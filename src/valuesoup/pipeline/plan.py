"""The plan of a run: every stage call that a configuration asks for, as a graph that is known before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from valuesoup.config import RunConfig
from valuesoup.endpoint import GenerationServer
from valuesoup.errors import UserError
from valuesoup.methods import Single
from valuesoup.methods.choices import Grid
from valuesoup.pipeline import candidates as evaluating
from valuesoup.pipeline import data, diagnostics, searching, serving, training
from valuesoup.pipeline.inputs import BaseRef, function_hash
from valuesoup.pipeline.recipes import Candidate, Recipe, make_recipe
from valuesoup.pipeline.shared import Shared
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
        offered: Each method's candidates, in the order of its places.
        always: Places that are scored on test even off the frontier: the base, and methods without a dial.
        limits: The most candidates to measure, of the methods that do not have their whole grid measured.
    """

    vectors: Mapping[str, Node]
    candidates: list[tuple[float, ...]] = field(default_factory=list)
    methods: dict[str, list[int]] = field(default_factory=dict)
    offered: dict[str, list[Candidate]] = field(default_factory=dict)
    always: list[int] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)

    def add(self, method: str, offered: Sequence[Candidate], *, always: bool, limit: int | None = None) -> None:
        """Take a method's candidates; rows that another method has already are shared with it."""
        known = {row: place for place, row in enumerate(self.candidates)}
        places = [known.setdefault(candidate.row, len(known)) for candidate in offered]
        self.candidates = list(known)
        self.methods[method] = places
        self.offered[method] = list(offered)
        if always:
            self.always += places
        if limit is not None and limit < len(places):
            self.limits[method] = limit

    def is_searched(self, racing: bool) -> bool:
        """Return whether there is anything to save: candidates that need not be measured on every prompt."""
        return bool(self.limits) or (racing and len(set(self.candidates)) > len(set(self.always)))


@dataclass(frozen=True)
class Measured:
    """The evaluation of a stack on one part of the held-out prompts.

    Attributes:
        prompts: What was asked.
        answers: Of the candidates.
        scores: Of the answers, by value; none where a search has scored them itself.
    """

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

    @property
    def searched(self) -> bool:
        """Whether a search asked the validation prompts."""
        return self.chosen is self.validation.answers


@dataclass(frozen=True)
class Plan:
    """The nodes of a run by what they mean.

    Attributes:
        config: The configuration.
        base: The base, made here or not.
        split: Of all pairs.
        rewards: Reward-model node of each value whose model is trained here.
        gaps: Node of each data set's gaps; per data set.
        recipes: What each method trains and offers.
        geometry: Node by method, for the methods with at least two value vectors.
        conflict: Node of the gradient conflict by method that filters its pairs, and under "" on all pairs.
        connectivity: Node of the loss between vectors by method, for the same methods as ``geometry``.
        stacks: What is evaluated, the base's own stack first.
        evaluated: The evaluation of each stack, in the same order.
    """

    config: RunConfig
    base: Node | BaseRef
    split: Node
    rewards: Mapping[str, Node]
    gaps: Mapping[str, Node]
    recipes: Mapping[str, Recipe]
    geometry: Mapping[str, Node]
    conflict: Mapping[str, Node]
    connectivity: Mapping[str, Node]
    stacks: list[Stack]
    evaluated: list[Evaluated]

    def targets(self) -> list[Node]:
        """Return the nodes that must exist for the results; what they need follows."""
        found = [*self.gaps.values(), *self.geometry.values(), *self.conflict.values(), *self.connectivity.values()]
        for recipe in self.recipes.values():
            found += recipe.trainings.values()
        for one in self.evaluated:
            found += [one.chosen, *one.test.scores.values(), *one.truth.values(), one.quality]
        return found


def make_plan(config: RunConfig) -> Plan:
    """Turn a configuration into its graph of stage calls.

    Raises:
        valuesoup.errors.UserError: A file or function that the configuration names does not exist, or a server shall
            write the answers of a search.
    """
    # Only the evaluation is a server's: what trains a vector is written here.
    generation = config.generation.model_copy(update={"endpoint": None})
    shared = Shared.of(config.model_copy(update={"generation": generation}))
    recipes = {entry.name: make_recipe(shared, entry) for entry in config.methods}
    stacks = [Stack({})]
    stacks[0].add(BASE, [Candidate((), dict.fromkeys(shared.values, 0.0), BASE)], always=True)
    for entry in config.methods:
        recipe = recipes[entry.name]
        stack = _stack_of(stacks, recipe.vectors)
        weights = entry.method.weights
        limit = weights.evaluations if isinstance(weights, Grid) else None
        stack.add(entry.name, recipe.candidates, always=isinstance(weights, Single), limit=limit)
    filters = {method: recipe.filters for method, recipe in recipes.items() if recipe.filters}
    vectors = {method: recipe.geometry for method, recipe in recipes.items() if recipe.geometry}
    diagnosed = config.evaluation.diagnostics
    server = config.generation.endpoint
    names = serving.candidate_names(stacks)
    trained = [node for stack in stacks for node in stack.vectors.values()]
    return Plan(
        config=config,
        base=shared.base,
        split=shared.split,
        rewards={value: node for value, node in shared.rewards.items() if isinstance(node, Node)},
        gaps={dataset: shared.gaps(dataset, "dataset") for dataset in shared.values},
        recipes=recipes,
        geometry={
            method: training.vector_geometry(f"geometry of {method}", vectors=of) for method, of in vectors.items()
        },
        conflict=diagnostics.plan_conflicts(shared, filters) if diagnosed else {},
        connectivity=diagnostics.plan_connectivity(shared, vectors) if diagnosed else {},
        stacks=stacks,
        evaluated=[
            _Evaluation(shared, stack, None if server is None else _Served(server, own, trained)).nodes()
            for stack, own in zip(stacks, names, strict=True)
        ],
    )


@dataclass(frozen=True)
class _Served:
    """The server that writes the answers of a stack, the candidates' names there, and every vector of the run."""

    server: GenerationServer
    names: list[str]
    trained: list[Node]


class _Evaluation:
    """The evaluation of one stack, its answers by a server where there is one."""

    def __init__(self, shared: Shared, stack: Stack, served: _Served | None) -> None:
        self.shared = shared
        self.config = shared.config
        self.stack = stack
        self.served = served
        self.name = " and ".join(stack.methods)

    def nodes(self) -> Evaluated:
        name = self.name
        if self.stack.is_searched(self.config.evaluation.racing is not None):
            if self.served is not None:
                raise UserError(
                    "evaluation.racing and weights with evaluations choose prompts and candidates as they go, which "
                    "generation.endpoint does not serve; leave out the one or the other."
                )
            chosen = self._search()
            validation = Measured(self._prompts("validation"), chosen, {})
        else:
            validation = self._measure("validation", None)
            chosen = self._frontier(validation)
        test = self._measure("test", chosen)
        truth = {
            value: self.shared.rated_by_function(f"true {value} of {name}", test.answers, test.prompts, value, of.truth)
            for value, of in self.config.values.items()
            if of.truth is not None
        }
        quality = evaluating.answer_quality(
            f"fluency and divergence of {name}",
            base=self.shared.base,
            vectors=self.stack.vectors,
            candidates=self.stack.candidates,
            answers=test.answers,
            prompts=test.prompts,
            fluency=self._fluency(test, f"test fluency of {name}"),
            batch_rows=self.config.generation.batch_rows,
            device=self.shared.device,
        )
        return Evaluated(validation, chosen, test, truth, quality)

    @property
    def _bound(self) -> float:
        return self.config.evaluation.fluency_bound if self.config.evaluation.fluency else 0.0

    def _frontier(self, validation: Measured) -> Node:
        return evaluating.choose_candidates(
            f"frontier of {self.name}",
            scores=validation.scores,
            fluency=self._fluency(validation, f"validation fluency of {self.name}"),
            bound=self._bound,
            prompts=validation.prompts,
            own=self.config.evaluation.prompts == "own",
            groups=self.stack.methods,
            always=self.stack.always,
        )

    def _search(self) -> Node:
        config, function = self.config, self.config.evaluation.fluency
        return searching.search_candidates(
            f"search the frontier of {self.name}",
            base=self.shared.base,
            vectors=self.stack.vectors,
            candidates=self.stack.candidates,
            prompts=self._prompts("validation"),
            rewards=self.shared.rewards,
            fluency=function,
            source=None if function is None else function_hash(function),
            bound=self._bound,
            own=config.evaluation.prompts == "own",
            groups=self.stack.methods,
            limits=self.stack.limits,
            always=self.stack.always,
            racing=config.evaluation.racing,
            # The batch size changes the speed alone, so it must not be in the key.
            generation=config.generation.model_copy(update={"batch_rows": 1}),
            seed=config.seed,
            batch_rows=config.generation.batch_rows,
            device=self.shared.device,
        )

    def _fluency(self, measured: Measured, label: str) -> Node | None:
        function = self.config.evaluation.fluency
        if function is None:
            return None
        return self.shared.rated_by_function(label, measured.answers, measured.prompts, "fluency", function)

    def _prompts(self, part: str) -> Node:
        return data.held_out_prompts(
            f"{part} prompts",
            base=self.shared.base,
            split=self.shared.split,
            values=self.shared.values,
            part=part,
            max_tokens=self.config.generation.max_prompt_tokens,
        )

    def _measure(self, part: str, chosen: Node | None) -> Measured:
        prompts = self._prompts(part)
        answers = self._answers(f"{self.name} answers the {part} prompts", chosen, prompts)
        return Measured(prompts, answers, self.shared.rated(f"the {part} answers of {self.name}", answers, prompts))

    def _answers(self, label: str, chosen: Node | None, prompts: Node) -> Node:
        """Answers of the candidates, all by the same back end: no run compares those of one with those of another."""
        if self.served is None:
            return self.shared.answers(label, self.stack.vectors, self.stack.candidates, chosen, prompts)
        server, generation = self.served.server, self.config.generation
        return serving.serve_answers(
            label,
            base=self.shared.base,
            vectors=self.stack.vectors,
            candidates=self.stack.candidates,
            names=self.served.names,
            trained=self.served.trained,
            chosen=chosen,
            prompts=prompts,
            generation=generation.model_copy(update={"batch_rows": 1}),
            server=server,
            extra=dict(server.extra),
            seed=self.config.seed,
            batch_rows=generation.batch_rows,
            device=self.shared.device,
        )


def _stack_of(stacks: list[Stack], vectors: Mapping[str, Node]) -> Stack:
    """Return the stack of these vectors; methods that train the same vectors share one, and its evaluation."""
    keys = {name: node.key for name, node in vectors.items()}
    for stack in stacks:
        if {name: node.key for name, node in stack.vectors.items()} == keys:
            return stack
    stacks.append(Stack(vectors))
    return stacks[-1]
