"""MORA's five steps: target mining, intent fusion, self-play and dual feedback, max-margin selection, DPO pairing.

Steps 1, 2 and 4 are here (arXiv:2605.11679, Fig. 3, as `mining`, `fusion` and `selection`); the rollouts of steps 1
and 3 are answers like any others, and step 5 is training like any other. Not to be confused with MoRA, a kind of
adapter.
"""

from valuesoup.expansion.fusion import Fusion, Rewriter, Target, fuse
from valuesoup.expansion.mining import default_thresholds, lacking, pass_at_n, single_reward
from valuesoup.expansion.selection import max_margin

__all__ = [
    "Fusion",
    "Rewriter",
    "Target",
    "default_thresholds",
    "fuse",
    "lacking",
    "max_margin",
    "pass_at_n",
    "single_reward",
]
