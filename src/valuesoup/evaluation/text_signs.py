"""Signs of degenerate text that need no model: repetition within an answer, and how varied a policy's answers are."""

from collections.abc import Hashable, Sequence

NGRAM = 3
"""Tokens of the n-grams whose return within an answer counts as repetition."""


def repetition(answers: Sequence[Sequence[Hashable]], n: int = NGRAM) -> float:
    """Return the share of repeated n-grams within an answer, averaged over answers: 1 − distinct / all n-grams.

    0 where nothing returns, near 1 for a loop (arXiv:1908.04319, "seq-rep-n"). An answer of fewer than n tokens has no
    n-gram and counts as 0.

    Args:
        answers: Tokens of each answer, end of sequence left out: ids or words.
        n: Tokens of an n-gram, at least 1.

    Raises:
        ValueError: No answers.
    """
    if not answers:
        raise ValueError("repetition needs at least one answer")
    shares = []
    for answer in answers:
        found = _ngrams(answer, n)
        shares.append(1.0 - len(set(found)) / len(found) if found else 0.0)
    return sum(shares) / len(shares)


def distinct(answers: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Return distinct-n: the different n-grams of all answers together, divided by all of them (arXiv:1510.03055).

    In (0, 1]; low where a policy says the same to everyone. It falls as texts grow, so only policies that answered the
    same prompts compare. None where no answer has n tokens.

    Args:
        answers: Tokens of each answer, end of sequence left out: ids or words.
        n: Tokens of an n-gram, at least 1.
    """
    found = [ngram for answer in answers for ngram in _ngrams(answer, n)]
    return len(set(found)) / len(found) if found else None


def _ngrams(answer: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(answer[start:] for start in range(n)), strict=False))
