"""The one loss that every method minimises: weighted, scaled, shifted DPO, with an optional likelihood term."""

from torch import Tensor
from torch.nn import functional


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    weight: Tensor | float = 1.0,
    scale: Tensor | float = 1.0,
    margin: Tensor | float = 0.0,
) -> Tensor:
    """Return w · −log σ((1/c)·(β·[log π/π_ref (y_w) − log π/π_ref (y_l)] − m)) for each row.

    With w = c = 1 and m = 0 this is DPO (Eq. 3); w is DPO-LW's weight; c = w_k and m = Σ_{j≠k} w_j Δr_j is MODPO
    (arXiv:2310.03708).

    Args:
        chosen: (rows,) log π(y_w | x) in nats, summed over response tokens.
        rejected: (rows,) log π(y_l | x).
        reference_chosen: (rows,) log π_ref(y_w | x).
        reference_rejected: (rows,) log π_ref(y_l | x).
        beta: DPO's β.
        weight: w per row, or one for all.
        scale: c > 0 per row, or one for all.
        margin: m per row, or one for all.

    Returns:
        (rows,) losses, not averaged.
    """
    return -weight * functional.logsigmoid(
        (implicit_margin(chosen, rejected, reference_chosen, reference_rejected, beta) - margin) / scale
    )


def implicit_margin(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """Return β·[log π/π_ref (y_w) − log π/π_ref (y_l)], the implicit reward gap of each row (Eq. 2)."""
    return beta * ((chosen - reference_chosen) - (rejected - reference_rejected))


def likelihood_loss(chosen_tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return the negative log-likelihood of each chosen response per token.

    Args:
        chosen_tokens: (rows, width) token log-probabilities, 0 on padding.
        lengths: (rows,) tokens of each response.

    Returns:
        (rows,) losses, not averaged.
    """
    return -chosen_tokens.sum(1) / lengths
