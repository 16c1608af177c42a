"""Rewards: where scores come from, the models trained to give them, and the table that keeps them."""

from valuesoup.rewards.classifier import ClassifierReward
from valuesoup.rewards.sources import CallableReward, ColumnReward, RewardSource, as_source, score
from valuesoup.rewards.table import RewardTable
from valuesoup.rewards.training import RewardReport, RewardTraining, train_reward_model

__all__ = [
    "CallableReward",
    "ClassifierReward",
    "ColumnReward",
    "RewardReport",
    "RewardSource",
    "RewardTable",
    "RewardTraining",
    "as_source",
    "score",
    "train_reward_model",
]
