"""What calls allocate: the peak beyond what was there before, and what is kept for the backward.

Torch's own allocators are asked, so the numbers are exact bytes of tensors. What a process holds
beyond them (libraries, threads' stacks, freed memory that was not given back) shows in its resident
size, which is measured apart.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
# Of torch's allocators, CUDA, Triton, cuBLAS, cuDNN and C++
USED_UP = (
    r"out of memory|not enough memory|can't allocate memory|STATUS_ALLOC_FAILED|std::bad_alloc"
)


@dataclass(frozen=True)
class Peak:
    """Bytes at the most during a call, beyond those before it.

    `reserved` is all that the caching allocator of a GPU held at the most, what was there before
    included; None on a CPU. `failed` says why there is no number.
    """

    allocated: int | None
    reserved: int | None = None
    failed: str | None = None


def peak(call: Callable[[], object], device: torch.device) -> Peak:
    """The most bytes that `call` has allocated at one time, its result included.

    On a CPU with one thread, since allocations of others are not seen.
    """
    try:
        return _cuda_peak(call, device) if device.type == "cuda" else _cpu_peak(call)
    except (RuntimeError, MemoryError) as error:
        if (reason := out_of_memory(error)) is None:
            raise
        return Peak(None, failed=reason)


def _cuda_peak(call: Callable[[], object], device: torch.device) -> Peak:
    torch.cuda.synchronize(device)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    most = torch.cuda.max_memory_allocated(device) - before
    return Peak(most, torch.cuda.max_memory_reserved(device))


def _cpu_peak(call: Callable[[], object]) -> Peak:
    # Its library logs an error where there is no GPU; it reads this when it is first used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            result = call()
        del result
    finally:
        torch.set_num_threads(threads)
    assert profile.kineto_results is not None
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        most = max(most, held)
    return Peak(most)


def saved(forward: Callable[[], object], leave_out: Iterable[Tensor] = ()) -> int:
    """Bytes that `forward` keeps for its backward, each storage once.

    Args:
        forward: makes the graph; what it returns is dropped.
        leave_out: weights, buffers and inputs, which are there anyway.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in leave_out}
    kept: dict[int, Tensor] = {}  # the tensors stay, so that no address is given out twice

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = forward()
    size = sum(v.untyped_storage().nbytes() for at, v in kept.items() if at not in own)
    del result
    return size


@dataclass
class Resident:
    """What the process held at the most within `resident`, in bytes; None where unknown."""

    bytes: int | None = None


@contextmanager
def resident() -> Iterator[Resident]:
    """The resident size of this process at the most: libraries and data included.

    Memory that earlier work freed is given back to the system first, as far as that can be done.
    Needs Linux.
    """
    found = Resident()
    release()
    try:
        CLEAR.write_text("5")  # the high-water mark begins anew
    except OSError:
        yield found
        return
    yield found
    mark = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    found.bytes = int(mark[1]) * 1024 if mark else None


def release() -> None:
    """Give memory that nothing uses any more back to the system, on a GPU too."""
    gc.collect()
    with suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def available() -> int | None:
    """Bytes that the system could still give to processes; None where it does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def out_of_memory(error: BaseException) -> str | None:
    """One line on an error that says that memory is used up; None for any other error."""
    text = str(error)
    if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not re.search(
        USED_UP, text
    ):
        return None
    tried = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
    return f"out of memory: could not allocate {tried[1]}" if tried else "out of memory"
