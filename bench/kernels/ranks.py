"""Whose rows a batch loss compares: this process's alone, or those of every process of a job."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks(Protocol):
    """The processes that train together, as a loss sees them; each holds as many rows."""

    def gather(self, x: Tensor) -> Tensor:
        """`x` `[N, ...]` of every process, in the order of ranks, `[world * N, ...]`.

        The gradient of a process's rows is the sum of those that all processes' losses give them.
        """

    @property
    def rank(self) -> int:
        """The place of this process, from 0: its rows begin at rank * N."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum of `x` over the processes, without gradient."""


class Alone:
    """One process: what it holds is all there is."""

    rank = 0

    def gather(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x

    def sum(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x


class Group:
    """The processes of a torch.distributed group.

    A loss is then the mean over this process's rows against all rows, and all processes have to
    weigh it alike. Its gradient is of the SUM of all processes' losses, so that the average over
    processes, which DistributedDataParallel takes, is the gradient of the loss of the whole batch.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group

    @property
    def rank(self) -> int:
        """The place of this process in the group."""
        return dist.get_rank(self.group)

    def gather(self, x: Tensor) -> Tensor:
        """Every process's `x`."""
        every: Tensor = _Gather.apply(x, self.group)  # type: ignore[no-untyped-call]
        return every

    def sum(self, x: Tensor) -> Tensor:
        """The sum of every process's `x`."""
        total = x.detach().clone()
        dist.all_reduce(total, group=self.group)
        return total


ALONE = Alone()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.rows = group, len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)  # others may hold `grad`
        dist.all_reduce(total, group=ctx.group)
        start = dist.get_rank(ctx.group) * ctx.rows
        return total[start : start + ctx.rows], None
