"""What a device can do at most, measured: matrix products a second, and bytes copied a second.

A share of a data sheet's number says more about the data sheet (clocks, power limits, neighbours)
than about a kernel; so the roof is measured in the run whose numbers are held against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench import rng
from bench.record.profile import RoofRecord

# [n, n] products and the copy are large enough to be at the roof: larger ones are not faster.
SIDE, COPIED = {"cuda": 8192, "cpu": 1024}, {"cuda": 2**30, "cpu": 2**28}
BEST_OF = 5  # of as many calls each as fill SECONDS: a roof is what was reached once
SECONDS = 0.05


def measure(device: torch.device) -> RoofRecord:
    """The roofs of `device`; takes a few seconds.

    FLOP/s of "float32" (IEEE), "bfloat16" and, on a GPU, "tf32" and "float16" products of random
    matrices (zeros would draw less power and run faster); bytes/s of a copy, read and written.
    Products of float16 take seconds on many a CPU.
    """
    side = SIDE[device.type]
    kinds = ("float32", "bfloat16", *(("tf32", "float16") if device.type == "cuda" else ()))
    flops = {}
    for kind in kinds:
        dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
        draw = rng.generator("roof", kind, device=device)
        a, b = (torch.randn(side, side, generator=draw, device=device).to(dtype) for _ in range(2))
        with _tf32(kind == "tf32"):
            flops[kind] = 2 * side**3 / _seconds(_product(a, b), device)
    source = torch.zeros(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * len(source) / _seconds(lambda: target.copy_(source), device)
    return RoofRecord(flops=flops, bytes_per_second=copied)


def flops_of(roof: RoofRecord, dtype: str) -> float | None:
    """FLOP/s at most of products as exact as `dtype` is; None where not measured.

    Three tf32 products make one as exact as float32's, which some GPUs do sooner than that one.
    """
    if dtype == "float32":
        return max(roof.flops["float32"], roof.flops.get("tf32", 0.0) / 3)
    return roof.flops.get(dtype)


def _product(a: Tensor, b: Tensor) -> Callable[[], object]:
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, the best of a few runs of many calls, so that no launch is waited for."""
    _run(call, 1, device)  # libraries load and choose their kernels
    count = max(1, round(SECONDS / _run(call, 1, device)))
    return min(_run(call, count, device) for _ in range(BEST_OF)) / count


def _run(call: Callable[[], object], count: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
