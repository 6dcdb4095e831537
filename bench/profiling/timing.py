"""How long calls take, in turns: what slows the machine for a while slows them all alike.

On a GPU, events around each call, with the L2 cache flushed before it as `triton.testing.do_bench`
does. Launches of short calls take longer than their work: where a call is short, all are replayed
as CUDA graphs, or none if one cannot be captured, so that all have one clock. On a CPU,
`time.perf_counter`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.profiling.memory import out_of_memory
from bench.record.profile import Quantiles

Call = Callable[[], object]

ROUNDS = 3  # at least
MOST = 1000  # rounds: beyond, quantiles no longer change
WARMUP = 2  # rounds at least, and a tenth of the time: compilers, autotuning, caches, clocks
SHORT = 1.0  # ms, launches included: tens of them, as plain torch needs, take a few tenths
FLUSHED = 256 * 2**20  # bytes written before each call: more than any L2 cache holds


@dataclass(frozen=True)
class Times:
    """What a call took in each round, in ms.

    `clock` is "wall", "events" or "graph" (replays of one), the same for all that took turns;
    `failed` says why there is no sample.
    """

    samples: tuple[float, ...]
    clock: str
    failed: str | None = None

    @property
    def median(self) -> float | None:
        """ms; None where the call failed, here and below."""
        return self.quantile(0.5)

    @property
    def p10(self) -> float | None:
        """The quantile below which a tenth of the rounds is."""
        return self.quantile(0.1)

    @property
    def p90(self) -> float | None:
        """The quantile above which a tenth of the rounds is."""
        return self.quantile(0.9)

    def quantile(self, share: float) -> float | None:
        """The value that `share` of the samples lie below, interpolated between two of them."""
        if not self.samples:
            return None
        ordered = sorted(self.samples)
        below, part = divmod(share * (len(ordered) - 1), 1)
        low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
        return low + part * (high - low)

    def record(self) -> Quantiles | None:
        """As a profile keeps them."""
        if self.median is None or self.p10 is None or self.p90 is None:
            return None
        rounds = len(self.samples)
        return Quantiles(
            median=self.median, p10=self.p10, p90=self.p90, rounds=rounds, clock=self.clock
        )


def alternate(
    calls: Mapping[str, Call], device: torch.device, *, seconds: float = 1.0
) -> dict[str, Times]:
    """Time `calls` in turns, A/B/A/B, after a warm-up that is not counted.

    Args:
        calls: what to time, by name. A call that runs out of memory is left out from then on.
        device: where they work.
        seconds: for all of them together; there are at least 3 rounds, and at most 1,000.

    Returns:
        Each call's times, in the order of `calls`.
    """
    timer: _Timer = _CudaTimer(device) if device.type == "cuda" else _Timer()
    failed: dict[str, str] = {}
    _rounds(calls, failed, timer, seconds / 10, WARMUP)
    if isinstance(timer, _CudaTimer):
        first = _rounds(calls, failed, timer, 0.0, ROUNDS)
        left = [name for name in calls if name not in failed]
        if any(statistics.median(first[name]) < SHORT for name in left):
            timer.capture([calls[name] for name in left])
    samples = _rounds(calls, failed, timer, seconds, ROUNDS)
    return {
        name: Times((), timer.clock, failed[name])
        if name in failed
        else Times(tuple(samples[name]), timer.clock)
        for name in calls
    }


def _rounds(
    calls: Mapping[str, Call],
    failed: dict[str, str],
    timer: _Timer,
    seconds: float,
    at_least: int,
) -> dict[str, list[float]]:
    """Samples of rounds until `seconds` are over; calls that fail are added to `failed`."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end, done = time.monotonic() + seconds, 0
    while done < at_least or (time.monotonic() < end and done < MOST):
        for name, call in calls.items():
            if name in failed:
                continue
            try:
                samples[name].append(timer.time(call))
            except (RuntimeError, MemoryError) as error:
                reason = out_of_memory(error)
                if reason is None:
                    raise
                failed[name] = reason
        done += 1
    return samples


class _Timer:
    """On a CPU."""

    clock = "wall"

    def time(self, call: Call) -> float:
        """One call, in ms, until its result is dropped."""
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6


class _CudaTimer(_Timer):
    """On a GPU: from one event to the next."""

    clock = "events"

    def __init__(self, device: torch.device) -> None:
        self._cache = torch.empty(FLUSHED, dtype=torch.int8, device=device)
        self._graphs: dict[Call, torch.cuda.CUDAGraph] = {}

    def time(self, call: Call) -> float:
        """One call, in ms, with a cold cache."""
        graph = self._graphs.get(call)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        self._cache.zero_()  # takes long enough for the call's first launches to be queued behind
        start.record()
        if graph is None:
            call()
        else:
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    def capture(self, calls: Iterable[Call]) -> None:
        """Replay `calls` from now on, unless one waits for a value, say, which no graph can."""
        pool = torch.cuda.graph_pool_handle()  # their memory: of one at a time, since none overlap
        try:
            self._graphs = {call: self._captured(call, pool) for call in calls}
        except Exception:  # of any library, told by the timed rounds where it is not the capture's
            return
        self.clock = "graph"

    def _captured(self, call: Call, pool: Any) -> torch.cuda.CUDAGraph:
        side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        mode = torch.cuda.get_sync_debug_mode()
        try:
            torch.cuda.set_sync_debug_mode("error")  # to wait is told before it breaks a capture
            with torch.cuda.stream(side):  # what is made on first use is not made while capturing
                call()
            torch.cuda.set_sync_debug_mode(mode)
            with torch.cuda.graph(graph, pool=pool, stream=side):
                call()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.synchronize()
        return graph
