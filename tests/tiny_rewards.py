"""Reward functions for tests, right and wrong ones."""

import math
from collections.abc import Sequence
from typing import Any


def length(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def vowels(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [sum(letter in "aeiou" for letter in answer) / (1 + len(answer)) for answer in answers]


def constant(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [1.0] * len(answers)


def not_a_number(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [math.nan if place == 7 else float(len(answer)) for place, answer in enumerate(answers)]


def too_few(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [0.0] * (len(answers) - 1)


def opposite_length(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    return [-float(len(answer)) for answer in answers]
