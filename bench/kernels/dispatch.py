"""Which implementation of an op runs: chosen in the open, and told to whoever records the run.

`reference` is plain torch and runs anywhere. `triton` is the fused kernel; it needs Triton and an
NVIDIA GPU of compute capability 8.0 or later, or Triton's interpreter (TRITON_INTERPRET=1), which
runs it on a CPU, slowly, for tests. `auto` takes the kernel where it can run on the tensors at hand
and they are large enough for it to be worth it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from bench.errors import BenchError

Choice = Literal["auto", "reference", "triton"]
# How kernels multiply float32: exactly, or as three TF32 products, about as exact and on the tensor
# cores. Plain TF32, Triton's default, keeps 10 bits and is not on offer.
Products = Literal["tf32x3", "ieee"]
CAPABILITY = (8, 0)  # the first with bfloat16 products
# Dimensions of embeddings up to which `auto` takes contrastive kernels, which make similarities
# anew for every 128 or 256 of them. Provisional: see `bench profile losses --dim`.
LONGEST = 512

_choice: Choice = "auto"
_products: Products = "tf32x3"
_ran: dict[str, str] = {}


@contextmanager
def using(choice: Choice, products: Products = "tf32x3") -> Iterator[dict[str, str]]:
    """Ops inside run as `choice` says; what is given fills with op -> what ran.

    An op that ran in two ways, such as below and above its break-even, has both:
    "reference+triton".
    """
    global _choice, _products, _ran
    before = (_choice, _products, _ran)
    _choice, _products, _ran = choice, products, {}
    try:
        yield _ran
    finally:
        inner = _ran
        _choice, _products, _ran = before
        _ran.update(merged(_ran, inner))


def merged(*runs: Mapping[str, str]) -> dict[str, str]:
    """What ran in several parts of a run, as one."""
    every: dict[str, set[str]] = {}
    for run in runs:
        for op, implementations in run.items():
            every.setdefault(op, set()).update(implementations.split("+"))
    return {op: "+".join(sorted(ran)) for op, ran in sorted(every.items())}


def ran() -> dict[str, str]:
    """What has run within the innermost `using`, op -> implementation."""
    return dict(_ran)


def note(op: str, implementation: str) -> None:
    """Tell whoever records the run that `implementation` of `op` is running."""
    _ran.update(merged({op: _ran.get(op, implementation)}, {op: implementation}))


def triton(op: str, tensor: Tensor, *, worth: bool) -> bool:
    """Whether the Triton kernel of `op` shall run on `tensor`; whichever runs is noted.

    Args:
        op: its name in records.
        tensor: one of the inputs: all are of one device.
        worth: whether the kernel is expected to be the faster at this size.

    Raises:
        BenchError: the kernel was asked for, and cannot run here.
    """
    # In float64 kernels are there for tests: GPUs have few units for it, and tiles are small. The
    # condition is a plain bool, of which torch.compile makes a guard where sizes are dynamic.
    wanted = True if worth and tensor.dtype != torch.float64 else False  # noqa: SIM210
    fused: bool = _decide(op, tensor.device, wanted, _choice)
    return fused


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _decide(op: str, device: torch.device, worth: bool, choice: Choice) -> bool:
    """Decided while tracing, under torch.compile, and told then: nothing of it is in the graph."""
    fused = choice == "triton"
    if fused and (reason := unusable(device)):
        raise BenchError(f"kernels=triton, op {op}: {reason}; use auto or reference")
    if choice == "auto":
        here = device.type == "cuda" and not interpreted()
        fused = worth and here and unusable(device) is None
    note(op, "triton" if fused else "reference")
    return fused


def products() -> Products:
    """How kernels shall multiply float32."""
    return _products


def unusable(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on `device`; None where they can."""
    if not _installed():
        return "Triton is not installed"
    if interpreted():
        return None
    if device.type != "cuda" or torch.version.hip:
        return f"no Triton kernel runs on a {device.type} device"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        have, need = (".".join(map(str, pair)) for pair in (capability, CAPABILITY))
        return f"{torch.cuda.get_device_name(device)} has compute capability {have}, below {need}"
    return None


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter; Triton reads this when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
