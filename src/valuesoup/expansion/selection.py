"""Max-margin selection: the pair of responses to one prompt that differs most, and in favour of every value."""

import numpy as np
from numpy.typing import ArrayLike

from valuesoup.errors import UserError


def max_margin(scores: ArrayLike, sigma: ArrayLike) -> tuple[int, int, float] | None:
    """Return the (chosen, rejected, margin) of one prompt, or None where no response is better in every value.

    Among the ordered pairs of responses with all gaps Δr_j/σ_j > 0, the one with the largest Σ_j Δr_j/σ_j
    (arXiv:2605.11679, step 4 of Fig. 3); among equals the lowest chosen, then the lowest rejected. Responses of equal
    scores, such as identical texts, are never a pair.

    Args:
        scores: (R, n) rewards of the R responses, raw; R may be 0.
        sigma: (n,) positive spreads, the σ_j of the rewards over all responses of the data set.

    Raises:
        UserError: A shape does not fit, or a number is not finite or not positive.
    """
    table = np.asarray(scores, dtype=np.float64)
    spreads = np.asarray(sigma, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1] or spreads.shape != table.shape[1:]:
        raise UserError(
            f"the scores have shape {table.shape} and sigma {spreads.shape}; they must be (responses, values) and "
            "(values,)."
        )
    if not np.isfinite(table).all() or not (np.isfinite(spreads) & (spreads > 0)).all():
        raise UserError("every score must be finite, and every sigma finite and positive.")
    # Compared raw: dividing could round a small gap to nothing.
    better = np.all(table[:, None] > table[None], axis=2)
    if not better.any():
        return None
    total = (table / spreads).sum(axis=1)
    margins = np.where(better, total[:, None] - total[None], -np.inf)
    chosen, rejected = divmod(int(margins.argmax()), len(table))
    return chosen, rejected, float(margins[chosen, rejected])
