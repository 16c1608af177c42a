"""Target mining: which values a policy's rollouts pass, how often jointly, and which prompts admit one value only.

P is the number of prompts, R of rollouts per prompt and n of values. A rollout passes value j when its reward is
above the threshold κ_j (arXiv:2605.11679, step 1 of Fig. 3 and the curves of Fig. 2).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valuesoup.errors import UserError


def default_thresholds(scores: ArrayLike) -> NDArray[np.float64]:
    """Return κ, (n,): the median of each value's reward over all rollouts of all prompts, in the reward's units.

    Args:
        scores: (P, R, n) rewards.

    Raises:
        UserError: The scores are not (P, R, n) finite numbers, at least one of each.
    """
    return np.asarray(np.median(_checked(scores), axis=(0, 1)), dtype=np.float64)


def pass_at_n(scores: ArrayLike, thresholds: ArrayLike, counts: Sequence[int]) -> NDArray[np.float64]:
    """Return pass@N of every prompt, (len(counts), P, n + 1): the n values, then all of them jointly.

    The chance that some rollout among N drawn without replacement from the R passes: 1 − C(R−c, N) / C(R, N) with c
    passing ones, the unbiased estimate of Chen et al. (arXiv:2107.03374, Eq. 1). At N = R it is 0 or 1.

    Args:
        scores: (P, R, n) rewards.
        thresholds: (n,) κ; a reward above passes.
        counts: The N asked for, each between 1 and R.

    Raises:
        UserError: A shape does not fit, a number is not finite, or an N is outside 1 … R.
    """
    passing = _passing(scores, thresholds)
    rollouts = passing.shape[1]
    outside = next((count for count in counts if not 1 <= count <= rollouts), None)
    if outside is not None:
        raise UserError(f"pass@{outside} was asked for, but there are {rollouts} rollouts; N lies in 1 … {rollouts}.")
    joint = passing.all(axis=2, keepdims=True)
    failing = rollouts - np.concatenate([passing, joint], axis=2).sum(axis=1)
    # The share of draws that all fail, for N = 1, 2, …: each further draw meets one failing rollout less.
    draws = np.arange(max(counts, default=1))[:, None, None]
    missed = np.cumprod(np.maximum(failing - draws, 0) / (rollouts - draws), axis=0)
    return np.asarray(1.0 - missed[np.asarray(counts, dtype=np.int64) - 1], dtype=np.float64)


def single_reward(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Say which prompts pass at least one value in some rollout, but never all in one rollout, (P,).

    With one value there is none.

    Args:
        scores: (P, R, n) rewards.
        thresholds: (n,) κ; a reward above passes.

    Raises:
        UserError: A shape does not fit or a number is not finite.
    """
    passing = _passing(scores, thresholds)
    return np.asarray(np.any(passing, axis=(1, 2)) & ~np.any(np.all(passing, axis=2), axis=1), dtype=np.bool_)


def lacking(scores: ArrayLike, thresholds: ArrayLike, sigma: ArrayLike) -> NDArray[np.bool_]:
    """Say which values each prompt lacks, (P, n): those that its best rollout does not pass.

    The best rollout passes the most values; among equals it has the largest Σ_j r_j/σ_j, then the lowest number. So
    what is asked of the rewriter is what the policy, at its best, still leaves out. A single-reward prompt lacks at
    least one value and has at least one.

    Args:
        scores: (P, R, n) rewards.
        thresholds: (n,) κ; a reward above passes.
        sigma: (n,) positive spreads.

    Raises:
        UserError: A shape does not fit or a number is not finite.
    """
    passing = _passing(scores, thresholds)
    passed = passing.sum(axis=2)
    total = (_checked(scores) / np.asarray(sigma, dtype=np.float64)).sum(axis=2)
    best = np.where(passed == passed.max(axis=1, keepdims=True), total, -np.inf).argmax(axis=1)
    return np.asarray(~passing[np.arange(len(passing)), best], dtype=np.bool_)


def _passing(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    table = _checked(scores)
    kappa = np.asarray(thresholds, dtype=np.float64)
    if kappa.shape != (table.shape[2],) or not np.isfinite(kappa).all():
        raise UserError(
            f"the thresholds are {kappa.tolist()}; {table.shape[2]} values need as many finite numbers, one each."
        )
    return np.asarray(table > kappa, dtype=np.bool_)


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 3 or 0 in table.shape:
        raise UserError(
            f"the scores have shape {table.shape}; they must be (prompts, rollouts, values), at least one of each."
        )
    if not np.isfinite(table).all():
        prompt, rollout, value = (int(place) for place in np.argwhere(~np.isfinite(table))[0])
        raise UserError(f"the score of prompt {prompt}, rollout {rollout}, value {value} is not finite.")
    return table
