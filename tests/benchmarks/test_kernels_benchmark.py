"""How long every op of `bench.kernels` takes, forward and backward, by each implementation.

Run on an otherwise idle machine, with a GPU or without:

    pytest tests/benchmarks/test_kernels_benchmark.py --benchmark-only

The cases are those of `bench profile losses`, at two of their sizes; peers are compared there. On a
GPU the fused kernels are timed beside the references; an interpreted kernel takes no time that
means anything.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import rng
from bench.kernels import dispatch
from bench.profiling import cases
from bench.profiling.case import Draw, Grid, Size

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
SIZES = 2  # the first and the middle of a case's own


def sizes(op: str) -> list[Size]:
    grid: Grid = getattr(cases.ALL[op], DEVICE.type)
    picked = grid.batches[:: max(1, len(grid.batches) // SIZES)][:SIZES]
    return [Size(batch, grid.dims[0], grid.keys[0], DTYPE) for batch in picked]


RUNS = [
    pytest.param(op, size, choice, id=f"{op}-{size.batch}-{choice}")
    for op, case in cases.ALL.items()
    for size in sizes(op)
    for choice in ("reference", *(("triton",) if case.triton else ()))
]


@pytest.mark.parametrize(("op", "size", "choice"), RUNS)
def test_kernel(benchmark: BenchmarkFixture, op: str, size: Size, choice: dispatch.Choice) -> None:
    if choice == "triton" and (DEVICE.type == "cpu" or dispatch.unusable(DEVICE)):
        pytest.skip(f"no fused kernel is timed here: {dispatch.unusable(DEVICE) or 'interpreted'}")
    benchmark.group = f"{op} N={size.batch:,}"
    case = cases.ALL[op]
    inputs = case.inputs(size, Draw(DEVICE, DTYPE, rng.generator("benchmark", op, device=DEVICE)))
    leaves = [tensor for tensor in inputs.values() if tensor.requires_grad]

    def step() -> torch.Tensor:
        with dispatch.using(choice):
            out = case.call(inputs)
        if leaves:
            out = torch.autograd.grad(out, leaves)[0]
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return out

    made = benchmark.pedantic(step, rounds=5, warmup_rounds=2)
    assert made.isfinite().all()
