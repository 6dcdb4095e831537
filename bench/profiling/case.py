"""What it takes to measure an op: its inputs at a size, how to call it, and its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
Call = Callable[[Inputs], Tensor]  # the loss, or whatever the op gives


@dataclass(frozen=True)
class Size:
    """How large the inputs of an op are; what it has not is None.

    `batch` counts pictures (ntxent: twice as many views), queries, patches or rows of weights, as
    the op's case says.
    """

    batch: int
    dim: int | None
    keys: int | None
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of one number."""
        return self.dtype.itemsize

    @property
    def name(self) -> str:
        """The numbers' type, as records have it."""
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Draw:
    """Makes random inputs where and as they are wanted."""

    device: torch.device
    dtype: torch.dtype
    rng: torch.Generator | None

    def __call__(self, *shape: int, grad: bool = False) -> Tensor:
        """Standard normal numbers."""
        made = torch.randn(shape, generator=self.rng, device=self.device, dtype=self.dtype)
        return made.requires_grad_(grad)

    def index(self, below: int, *shape: int) -> Tensor:
        """Uniform int64 numbers in [0, below)."""
        return torch.randint(below, shape, generator=self.rng, device=self.device)


@dataclass(frozen=True)
class Work:
    """What forward and backward together do without keeping logits, each product in full."""

    flops: float  # of matrix products: exponentials and sums count nothing
    bytes: float  # to and from the device's memory


@dataclass(frozen=True)
class Grid:
    """The sizes that are measured where none are asked for."""

    batches: tuple[int, ...]
    dims: tuple[int | None, ...] = (None,)
    keys: tuple[int | None, ...] = (None,)


@dataclass(frozen=True)
class Peer:
    """Another library's version of an op.

    `build` makes the call for inputs of a size; it may import the library. It has to say everything
    by which its result or its work differs from ours in `notes`.
    """

    name: str
    module: str  # that must be importable
    build: Callable[[Size, Inputs], Call]
    notes: tuple[str, ...] = ()
    cuda_only: str | None = None  # why it does not run on a CPU


@dataclass(frozen=True)
class Case:
    """One op of `bench.kernels`."""

    op: str
    inputs: Callable[[Size, Draw], Inputs]
    call: Call  # as `bench.kernels` dispatches it
    work: Callable[[Size], Work]
    floor: str  # the formula of `work`, in N, D, K and e bytes a number
    cpu: Grid
    cuda: Grid
    peers: tuple[Peer, ...] = ()
    eager: Call | None = None  # plain torch in the inputs' own precision
    least_keys: int = 1
    triton: bool = True  # whether there is a fused kernel
    products: bool = False  # whether it multiplies matrices, float32 ones in one of two ways
    backward: bool = True
    notes: tuple[str, ...] = ()
