"""Peaks, saved bytes and failed allocations, against sizes that are known."""

from __future__ import annotations

import mmap

import pytest
import torch
from torch import Tensor

from bench.profiling import memory

CPU = torch.device("cpu")
KB = 4 * 256  # bytes of 256 float32


def test_the_peak_is_of_what_lives_at_one_time() -> None:
    x = torch.ones(256)

    def call() -> Tensor:
        two = torch.cat([x, x])
        del two
        four = torch.cat([x, x, x, x])
        return four[:256].clone()

    assert memory.peak(call, CPU).allocated == 5 * KB


def test_threads_of_rendering_are_seen() -> None:
    from bench.data.threads import job_threads

    def call() -> None:
        with job_threads() as do:
            do([_megabytes])

    assert memory.peak(call, CPU).allocated >= 4 * 2**20


def _megabytes() -> None:
    torch.empty(2**20).fill_(0)


def test_saved_bytes_leave_out_weights_and_inputs_and_count_a_storage_once() -> None:
    weight, x = torch.randn(256, requires_grad=True), torch.randn(256)

    def forward() -> Tensor:
        y = (weight * x).exp()  # keeps x, which is left out, and its own output
        return (y * y.view(16, 16).flatten()).sum()  # the same storage, twice

    assert memory.saved(forward, [weight, x]) == KB
    assert memory.saved(forward) == 2 * KB


def test_nothing_is_kept_without_a_gradient() -> None:
    assert memory.saved(lambda: torch.randn(8).exp()) == 0


def test_too_large_an_allocation_is_a_result() -> None:
    found = memory.peak(lambda: torch.empty(2**60, dtype=torch.int8), CPU)
    assert found.allocated is None
    assert found.failed is not None
    assert "out of memory" in found.failed
    assert "\n" not in found.failed


def test_another_error_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        memory.peak(lambda: torch.ones(2, 3) @ torch.ones(2, 3), CPU)


def test_the_process_is_as_large_as_the_pages_that_it_touches() -> None:
    def touch(size: int) -> int | None:
        with memory.resident() as found, mmap.mmap(-1, size) as pages:
            for at in range(0, size, mmap.PAGESIZE):
                pages[at] = 1
        return found.bytes

    small, large = touch(2**20), touch(65 * 2**20)
    if small is None or large is None:
        pytest.skip("the resident size cannot be read here")
    assert 56 * 2**20 <= large - small <= 72 * 2**20


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "out of memory: could not allocate 2.00 GiB",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"), "out of memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of memory"),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_errors_told_in_one_line(error: Exception, line: str | None) -> None:
    assert memory.out_of_memory(error) == line


def test_what_a_gpu_reserved_is_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"memory_allocated": 3, "max_memory_allocated": 8, "max_memory_reserved": 10}
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name, value in (numbers | {"memory_reserved": 6}).items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    assert memory.peak(lambda: None, torch.device("cuda")) == memory.Peak(5, 10)


@pytest.mark.gpu
def test_the_peak_on_a_gpu_is_beyond_what_was_there() -> None:
    device = torch.device("cuda")
    there = torch.ones(2**22, device=device)
    found = memory.peak(lambda: there * 2, device)
    assert found.allocated == 4 * 2**22
    assert found.reserved is not None
    assert found.reserved >= found.allocated
    failed = memory.peak(lambda: torch.empty(2**50, dtype=torch.int8, device=device), device)
    assert failed.allocated is None
    assert "out of memory: could not allocate" in str(failed.failed)
