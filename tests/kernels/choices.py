"""The same inputs through an op's implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.kernels import dispatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def by(
    choice: dispatch.Choice, loss: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """The loss of `inputs` as `choice` says, and its gradients by them."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with dispatch.using(choice) as ran, poisoned():
        value = loss(*leaves)
        gradients = torch.autograd.grad(value, leaves)
    assert set(ran.values()) == {choice}
    return [value.detach(), *gradients]


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is asked for is NaN, or the greatest integer, until it is written to.

    On a CPU: torch has no such switch without refusing much of what runs on a GPU.
    """
    torch.use_deterministic_algorithms(DEVICE.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def error(loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> float:
    """The largest distance of the kernel's value and gradients from the reference in float64.

    As a share of their length: sqrt(sum of squared errors / sum of squares).
    """
    got = by("triton", loss, inputs)
    expected = by("reference", loss, [x.double() for x in inputs])
    pairs = zip(got, expected, strict=True)
    errors = [(a.double() - b).norm() / b.norm().clamp(min=1e-30) for a, b in pairs]
    return torch.stack(errors).max().item()  # NaN, which Python's max would pass over, is passed on


def window(x: Tensor) -> Tensor:
    """`x` within a larger buffer that is NaN, or -1 of integers, all around it."""
    shape = [size + 5 for size in x.shape]
    fill = float("nan") if x.is_floating_point() else -1
    buffer = torch.full(shape, fill, dtype=x.dtype, device=x.device)
    inside = buffer[tuple(slice(2, 2 + size) for size in x.shape)]
    return inside.copy_(x)
