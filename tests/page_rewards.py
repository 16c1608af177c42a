"""Rewards of the run that documentation pages find: never below the bounds that pages name, and at odds."""

from collections.abc import Sequence
from typing import Any


def helpful(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """From 0.5 up by the share of vowels."""
    return [0.5 + sum(letter in "aeiou" for letter in answer) / (1 + len(answer)) for answer in answers]


def harmless(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """From 0.5 up, more for fewer words."""
    return [0.5 + 1 / (1 + len(answer.split())) for answer in answers]
