"""The Kozachenko-Leonenko regulariser: features of a batch keep away from each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full

EPSILON = 1e-8  # of DINOv2's koleo_loss.py


@in_full
def koleo(x: Tensor) -> Tensor:
    """-mean log distance of each L2-normalised row to its nearest other (arXiv:1806.03198).

    It falls as the rows spread evenly over the sphere. Which row is the nearest has no gradient;
    the distance has one to both ends.

    Args:
        x: `[N, D]`, N at least 2.
    """
    unit = F.normalize(x, dim=1, eps=EPSILON)
    with torch.no_grad():
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(1)
    distance = F.pairwise_distance(unit, unit[nearest], eps=EPSILON)
    return -(distance + EPSILON).log().mean()
