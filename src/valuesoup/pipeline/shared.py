"""What all methods of a run share: the split, the base, the rewards, the scores of the pairs, and calls on them."""

from collections.abc import Mapping
from dataclasses import dataclass

from valuesoup.config import RunConfig
from valuesoup.pipeline import answering, data, rating, training, values
from valuesoup.pipeline.inputs import BaseRef, RewardRef, base_ref, data_ref, device_of, function_hash, reward_ref
from valuesoup.rewards import RewardTraining
from valuesoup.store import Node
from valuesoup.training.settings import TrainingSettings

Vectors = Mapping[str, Node]


@dataclass(frozen=True)
class Shared:
    """Nodes that a run has once, whatever its methods.

    Attributes:
        config: The configuration.
        split: Of all pairs.
        base: The base, made here or not.
        rewards: By value.
    """

    config: RunConfig
    split: Node
    base: Node | BaseRef
    rewards: Mapping[str, Node | RewardRef]

    @classmethod
    def of(cls, config: RunConfig) -> "Shared":
        """Plan what comes before any method."""
        sources = {value: [data_ref(source) for source in of.data] for value, of in config.values.items()}
        pairs = {
            value: data.read_pairs(
                f"read the pairs of {value}",
                sources=of,
                value=value,
                seed=data.seed_of_pairs(of, config.seed),
            )
            for value, of in sources.items()
        }
        split = data.split(
            "split by prompt",
            pairs=pairs,
            test_prompts=config.evaluation.test_prompts,
            validation_prompts=config.evaluation.validation_prompts,
            seed=config.seed,
        )
        base = _base(config, split)
        return cls(config, split, base, {value: _reward(config, split, base, value) for value in config.values})

    @property
    def values(self) -> list[str]:
        """The values, in order."""
        return list(self.config.values)

    @property
    def device(self) -> str:
        """Where to compute."""
        return self.config.base.device

    def pair_scores(self, dataset: str, value: str, pairs: Node | None = None) -> Node:
        """Scores of the training and validation pairs of one data set (of the split, or of ``pairs``) by one value."""
        column = self.config.values[value].reward.column if pairs is None else None
        scores = None
        if column is None:
            # Those of the pairs as read: they serve every split, and so every seed.
            rewards = self._rated_by_one_model(value)
            scores = values.score_pairs(
                f"score the {dataset} pairs by {' and '.join(rewards)}",
                pairs=pairs or self.split.inputs["pairs"][dataset],
                dataset=dataset,
                rewards=rewards,
                device=self.device,
            )
        return values.part_scores(
            f"scores of the {dataset} pairs by {value}",
            split=pairs or self.split,
            dataset=dataset,
            value=value,
            scores=scores,
            column=column,
        )

    def gaps(self, dataset: str, statistics: str) -> Node:
        """Reward gaps and consistency of one data set."""
        needed = [dataset] if statistics == "dataset" else self.values
        return values.reward_gaps(
            f"reward gaps of {dataset}",
            dataset=dataset,
            scores={name: {value: self.pair_scores(name, value) for value in self.values} for name in needed},
            statistics=statistics,
        )

    def autocasts(self, settings: TrainingSettings) -> bool:
        """Whether a training computes in bfloat16; decided before any key is made, so that keys tell."""
        device = device_of(self.device) if settings.bf16 == "auto" else "cpu"
        return settings.autocasts(device.partition(":")[0])

    def log_probs(
        self, pairs: Node, dataset: str, policy: Node | None, whose: str = "reference", *, bf16: bool | None = None
    ) -> Node:
        """Log-probabilities of both responses of each pair under the base, or under a trained policy.

        In bfloat16 or not as the training is that refers to them, without it as the run's own settings say.
        """
        # The base's are those of the pairs as read: they serve every split, and so every seed.
        as_read = policy is None and pairs.key == self.split.key
        return training.reference(
            f"{whose} log-probabilities of the {dataset} pairs",
            base=self.base,
            pairs=self.split.inputs["pairs"][dataset] if as_read else pairs,
            dataset=None if as_read else dataset,
            policy=policy,
            max_length=self.config.training.max_length,
            bf16=self.autocasts(self.config.training) if bf16 is None else bf16,
            device=self.device,
        )

    def answers(self, label: str, vectors: Vectors, candidates: object, chosen: Node | None, prompts: Node) -> Node:
        """What candidates answer to prompts."""
        config = self.config
        return answering.answer_prompts(
            label,
            base=self.base,
            vectors=vectors,
            candidates=candidates,
            chosen=chosen,
            prompts=prompts,
            # The batch size changes the speed alone, so it must not be in the key.
            generation=config.generation.model_copy(update={"batch_rows": 1}),
            seed=config.seed,
            batch_rows=config.generation.batch_rows,
            device=self.device,
        )

    def rated(self, label: str, answers: Node, prompts: Node) -> dict[str, Node]:
        """Scores of answers by every value; ``label`` says whose. Values that one model rates have one node."""
        groups = {value: self._rated_by_one_model(value) for value in self.values}
        return {
            value: rating.rate_answers(
                f"score {label} by {' and '.join(rewards)}",
                answers=answers,
                prompts=prompts,
                rewards=rewards,
                source=None,
                device=self.device,
            )
            for value, rewards in groups.items()
        }

    def rated_by_function(self, label: str, answers: Node, prompts: Node, value: str, function: str) -> Node:
        """Scores of answers by a Python function."""
        return rating.rate_answers(
            label,
            answers=answers,
            prompts=prompts,
            rewards={value: function},
            source=function_hash(function),
            device=self.device,
        )

    def _rated_by_one_model(self, value: str) -> dict[str, Node | RewardRef]:
        """Return the rewards of all values that are outputs of the same model as this value's, its own included."""
        own = self.rewards[value]
        return {
            other: reward
            for other, reward in self.rewards.items()
            if other == value or (isinstance(own, RewardRef) and isinstance(reward, RewardRef) and own.reads_as(reward))
        }


def _base(config: RunConfig, split: Node) -> Node | BaseRef:
    base = config.base
    if base.pretrain is None:
        return base_ref(base)
    return data.pretrain_base(
        "pretrain the base",
        settings=base.pretrain,
        split=split,
        values=list(config.values),
        dialogues=None if base.dialogues is None else [data_ref(source) for source in base.dialogues],
        seed=config.seed,
        device=base.device,
    )


def _reward(config: RunConfig, split: Node, base: Node | BaseRef, value: str) -> Node | RewardRef:
    reward = config.values[value].reward
    if reward.train is None:
        return reward_ref(reward)
    settings: RewardTraining = reward.train
    if settings.seed is None:
        settings = settings.model_copy(update={"seed": config.seed})
    return values.train_reward(
        f"train the reward model of {value}",
        base=base,
        split=split,
        value=value,
        settings=settings,
        device=config.base.device,
    )
