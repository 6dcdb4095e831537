"""SigLIP: each pair of picture and text is a yes or no of its own (arXiv:2303.15343)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def siglip(one: Tensor, two: Tensor, scale: float | Tensor, bias: float | Tensor) -> Tensor:
    """-1/N sum over i, j of log sigmoid(z_ij (s cos(i, j) + b)), z = 1 for partners, else -1.

    Args:
        one: `[N, D]` embeddings.
        two: `[N, D]` their partners, in the same order.
        scale: s, the inverse temperature; may carry a gradient.
        bias: b; may carry a gradient.
    """
    logits = F.normalize(one, dim=1) @ F.normalize(two, dim=1).T * scale + bias
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)
