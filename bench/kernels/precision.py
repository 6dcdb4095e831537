"""The precision that every op keeps: float32 at least, also inside autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")
HALVES = (torch.bfloat16, torch.float16)


def in_full(op: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`op` with half-precision tensors raised to float32, and outside any autocast.

    A log-sum-exp over thousands of bfloat16 logits at temperature 0.1 is off in the second digit.
    """

    @wraps(op)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(first.device.type, enabled=False):
            return op(*map(_raise, args), **{k: _raise(v) for k, v in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that sums over `dtype` are kept in."""
    return torch.float32 if dtype in HALVES else dtype


def _raise(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in HALVES:
        return value.float()
    return value
