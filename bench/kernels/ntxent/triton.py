"""NT-Xent in Triton: 6 M^2 D operations for M = 2N views, and memory O(M D).

The gradient of view i is s/M (sum over j != i of (p_ij + p_ji) z_j - 2 z_pair), p_ij the share of j
in i's softmax: one pass over the views with both shares made of the saved log-sum-exps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.kernels.contrast import (
    as_scale,
    inverse_of,
    pull,
    row_lse,
    through_unit_rows,
    unit_rows,
)
from bench.kernels.dispatch import products
from bench.kernels.ranks import Ranks


def ntxent(one: Tensor, two: Tensor, temperature: float | Tensor, ranks: Ranks) -> Tensor:
    """`bench.kernels.ntxent`; products are in the type of the embeddings."""
    scale, bounded = as_scale(inverse_of(temperature), one)
    loss: Tensor = _NTXent.apply(torch.cat([one, two]), scale, bounded, ranks, products())
    return loss


class _NTXent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, bounded: bool, ranks: Ranks, dot: str
    ) -> Tensor:
        z, inverse = unit_rows(x)
        every, first = ranks.gather(z), ranks.rank * len(z)
        lse = row_lse(z, every, scale, first, bounded, dot)
        ctx.save_for_backward(z, inverse, every, scale, lse, ranks.gather(lse))
        ctx.settings = first, bounded, dot
        one, two = z.to(lse.dtype).chunk(2)
        loss: Tensor = lse.mean() - 2 * scale[0] * (one * two).sum() / len(z)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, inverse, every, scale, lse, every_lse = ctx.saved_tensors
        first, bounded, dot = ctx.settings
        pulled = pull(z, every, scale, lse, every_lse, first, bounded, dot)
        # By scale * z; in the scale's gradient every pair of rows is counted from both sides.
        dz = (pulled - 2 * z.roll(len(z) // 2, 0)) * (grad / len(z))
        of_scale = (z * dz).sum().reshape(1) / 2
        return through_unit_rows(scale * dz, z, inverse, z.dtype), of_scale, None, None, None
