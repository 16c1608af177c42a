"""Dropout whose mask is cheap to draw on a CPU, where torch's own costs more than the adapter that it is for."""

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""Probabilities are rounded to a multiple of 1 / LEVELS, the outcomes of the 16 random bits that an element takes."""


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``; on a CPU, four elements share one draw of 64 random bits."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements zeroed at random and the others scaled up, so that the mean stays; x in evaluation."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
        # Written as numbers at once: truth values would take another slow pass to become some.
        kept = torch.ge(bits[: x.numel()].view(x.shape), dropped - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
        return x * kept.mul_(LEVELS / (LEVELS - dropped))
