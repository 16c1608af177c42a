"""Which pairs a method trains on: those of a data set, those that a filter keeps, those that prompt expansion adds."""

from collections.abc import Sequence
from dataclasses import dataclass

from valuesoup.config import MethodConfig
from valuesoup.consistency import threshold
from valuesoup.methods import Consistent, Expanded
from valuesoup.pipeline import expansion, values
from valuesoup.pipeline.rewriters import rewriter_ref
from valuesoup.pipeline.shared import Shared
from valuesoup.store import Node


@dataclass(frozen=True)
class PairSet:
    """Pairs that a training takes.

    Attributes:
        pairs: Laid out like the split.
        dataset: Which of its data sets.
        selection: Weights of the pairs by a filter, or None for all of them.
        expansion: ``pairs`` where they come from prompt expansion, else None.
    """

    pairs: Node
    dataset: str
    selection: Node | None = None
    expansion: Node | None = None


class PairSets:
    """The pair sets of one method.

    Attributes:
        filters: Filter node by data set; empty for a method that takes all pairs.
        expansions: Expansion node by what it expands, filled as they are asked for.
        minimum: Least number of pairs of a training.
    """

    def __init__(self, shared: Shared, entry: MethodConfig, step_pairs: int) -> None:
        """Plan the filters.

        Args:
            shared: Of the run.
            entry: The method.
            step_pairs: Pairs of an optimiser step; a filter must leave as many.
        """
        choice = entry.method.pairs
        self.shared = shared
        self.method = entry.name
        # A single value lacks no other: there is nothing to expand.
        self.expand = choice if isinstance(choice, Expanded) and len(shared.values) > 1 else None
        rule = choice.filter if isinstance(choice, Expanded) else choice
        self.rule = rule if isinstance(rule, Consistent) else None
        self.step_pairs = step_pairs
        self.minimum = self.rule.minimum_pairs if self.rule is not None else 1
        self.filters = {value: self._filter(self.rule, value) for value in shared.values} if self.rule else {}
        self.expansions: dict[str, Node] = {}

    def of(self, value: str, policy: Node | None = None, after: Sequence[str] = ()) -> list[PairSet]:
        """Return what value i is trained on; prompts are expanded with the policy as it is, the base by default.

        Args:
            value: Value i.
            policy: The policy so far.
            after: The values that it was trained on, in order.
        """
        own = [value] if self.rule is None or not self.rule.pooled else self.shared.values
        found = [PairSet(self.shared.split, dataset, self.filters.get(dataset)) for dataset in own]
        if self.expand is not None:
            found.append(self._expanded(self.expand, [value], policy, after))
        return found

    def together(self) -> list[PairSet]:
        """Return the pairs of all values, with one expansion over all their prompts."""
        found = [PairSet(self.shared.split, value, self.filters.get(value)) for value in self.shared.values]
        if self.expand is not None:
            found.append(self._expanded(self.expand, self.shared.values, None, ()))
        return found

    def _filter(self, rule: Consistent, dataset: str) -> Node:
        tau = None if rule.tau is None else rule.tau_of(dataset)
        return values.filter_pairs(
            f"filter the {dataset} pairs for {self.method}",
            gaps=self.shared.gaps(dataset, rule.statistics),
            dataset=dataset,
            tau=tau if tau is None or tau == "auto" else threshold(tau, len(self.shared.values)),
            keep=rule.keep,
            soft=rule.soft,
            flip=rule.flip,
            # A step's pairs must be there.
            minimum=max(rule.minimum_pairs, self.step_pairs),
        )

    def _expanded(
        self, choice: Expanded, datasets: Sequence[str], policy: Node | None, after: Sequence[str]
    ) -> PairSet:
        """Plan MORA's five steps on the training prompts of these data sets."""
        shared, config = self.shared, self.shared.config
        vectors = {} if policy is None else {"policy": policy}
        row = [1.0] if policy is not None else []
        what = " and ".join(datasets)
        asked = expansion.mining_prompts(
            f"prompts of {what} to mine",
            base=shared.base,
            split=shared.split,
            datasets=list(datasets),
            limit=choice.prompts,
            rollouts=choice.rollouts,
            max_tokens=config.generation.max_prompt_tokens,
            seed=config.seed,
        )
        answers = shared.answers(f"{self.method}: rollouts on {what}", vectors, [row], None, asked)
        mined = expansion.mine(
            f"{self.method}: single-reward prompts of {what}",
            prompts=asked,
            scores=shared.rated(f"the rollouts on {what}", answers, asked),
            rollouts=choice.rollouts,
            thresholds=choice.thresholds,
        )
        fused = expansion.fuse_prompts(
            f"{self.method}: fuse the intents of {what}",
            split=shared.split,
            base=shared.base,
            vectors=vectors,
            mined=mined,
            rewriter=rewriter_ref(choice.rewriter),
            rollouts=choice.rollouts,
            max_tokens=config.generation.max_prompt_tokens,
            seed=config.seed,
            device=shared.device,
        )
        replies = shared.answers(f"{self.method}: answers to fused prompts of {what}", vectors, [row], None, fused)
        made = expansion.select_pairs(
            f"{self.method}: max-margin pairs of {what}",
            mined=mined,
            prompts=fused,
            answers=replies,
            scores=shared.rated(f"the answers to fused prompts of {what}", replies, fused),
            most=choice.most,
        )
        self.expansions[f"{what} after {' then '.join(after)}" if after else what] = made
        return PairSet(made, expansion.EXPANDED, None, made)
