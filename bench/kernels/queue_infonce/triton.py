"""InfoNCE against a queue in Triton: 6 N K D operations, and memory O(N D) beside the queue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.kernels.contrast import as_scale, pull, row_lse, through_unit_rows, unit_rows
from bench.kernels.dispatch import products


def queue_infonce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    """`bench.kernels.queue_infonce`; products are in the type of the queries."""
    scale, bounded = as_scale(1 / temperature, query)
    keys = key.detach(), queue.detach().to(query.dtype).contiguous()
    loss: Tensor = _QueueInfoNCE.apply(query, *keys, scale, bounded, products())
    return loss


class _QueueInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, queue: Tensor, scale: Tensor, bounded: bool, dot: str
    ) -> Tensor:
        q, inverse = unit_rows(query)
        k, _ = unit_rows(key.to(query.dtype))
        others = row_lse(q, queue, scale, None, bounded, dot)
        own = scale * (q.to(others.dtype) * k).sum(1)
        lse = torch.logaddexp(others, own)
        ctx.save_for_backward(q, inverse, k, queue, scale, own, lse)
        ctx.settings = bounded, dot
        loss: Tensor = (lse - own).mean()
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, inverse, k, queue, scale, own, lse = ctx.saved_tensors
        pulled = pull(q, queue, scale, lse, None, None, *ctx.settings)
        pushed = -torch.expm1(own - lse)[:, None] * k  # 1 - p of the own key
        dq = (pulled - pushed) * (grad * scale / len(q))
        # The loss depends on the scale through scale * q k alone.
        of_scale = (q * dq).sum().reshape(1) / scale
        return through_unit_rows(dq, q, inverse), None, None, of_scale, None, None
