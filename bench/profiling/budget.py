"""How much memory an op takes at ever larger batches, within what was stated.

A GPU says when its memory is used up, and that is the answer. A CPU swaps or kills instead; there a
size is refused if, as memory grew between the last two sizes, it would need more than was stated;
the first, if twice its inputs are more. What is reported to fit was measured to fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.profiling.memory import Peak
from bench.record.units import binary

FIRST = 2  # the batch from which a CPU's sizes are doubled
INPUTS = 2  # as many times are they there while they are drawn: normalised, say
STEEPEST = 3  # memory grows as N^3 at most (pytorch-metric-learning's NT-Xent does)
LONGEST = 6.0  # seconds that a call may be expected to take while the largest batch is looked for
MOST = 2**22


@dataclass(frozen=True)
class Weighed:
    """What one size takes: `total` is inputs, results and all between."""

    peak: Peak
    saved: int | None
    total: int | None
    seconds: float


Weigh = Callable[[int], Weighed]


@dataclass
class Ladder:
    """The sizes of one provider of an op, rising.

    Args:
        weigh: measures a batch; does not raise where memory is used up.
        memory: bytes, as stated.
        cautious: whether to refuse what may take more than that, since nothing else would.
        like: what to expect, where weighing many sizes would take too long (each is compiled): the
            bytes that another provider needs at a batch, None where that does not fit. No size is
            then weighed that was not asked for.
        inputs: the bytes of a batch's inputs, which nobody has to make to know.
    """

    weigh: Weigh
    memory: int
    cautious: bool
    like: Callable[[int], int | None] | None = None
    inputs: Callable[[int], int] = lambda batch: 0
    known: dict[int, Weighed] = field(default_factory=dict)

    def at(self, batch: int) -> Weighed | str:
        """What `batch` takes, or why it was not, or could not be, measured."""
        if self.cautious and self.like is None:
            for below in _doublings(
                max((n for n in self.known if n < batch), default=FIRST), batch
            ):
                if isinstance(reason := self._step(below), str):
                    return reason
        return self._step(batch)

    def largest(self) -> int | None:
        """The largest batch that was measured to take no more than the stated memory."""
        fitting = (n for n, f in self.known.items() if f.total and f.total <= self.memory)
        return max(fitting, default=None)

    def climb(self) -> str:
        """Double the largest batch until the next does not fit; what ended it, in words."""
        if self.largest() is None:
            self._step(FIRST)
        while (last := self.largest()) is not None:
            batch = 2 * last
            if batch > MOST:
                return f"size: the search ends at {MOST:,}"
            if self.like is not None and batch not in self.known:
                return f"{batch:,}: not tried: it would have to be compiled"
            expected = self._seconds(last)
            if self._refusal(batch) is None and batch not in self.known and expected > LONGEST:
                return f"time: {batch:,} may take {expected:.0f} s, the search allows {LONGEST:.0f}"
            found = self._step(batch)
            reason = found if isinstance(found, str) else self._excess(found)
            if reason is not None:
                return f"{batch:,}: {reason}"
        found = self._step(FIRST)
        return f"{FIRST:,}: {found if isinstance(found, str) else self._excess(found)}"

    def _seconds(self, last: int) -> float:
        """What twice as many may take, growing as between the last two sizes."""
        now, before = self.known[last].seconds, self.known.get(last // 2)
        grown = now / before.seconds if before and before.seconds else 4.0
        return now * min(8.0, max(2.0, grown))

    def _step(self, batch: int) -> Weighed | str:
        if batch not in self.known:
            if (reason := self._refusal(batch)) is not None:
                return reason
            self.known[batch] = self.weigh(batch)
        found = self.known[batch]
        if found.peak.failed:
            return found.peak.failed
        return (self._excess(found) if self.cautious else None) or found

    def _excess(self, found: Weighed) -> str | None:
        if found.total is None or found.total <= self.memory:
            return None
        return f"out of memory: takes {binary(found.total)} of the stated {binary(self.memory)}"

    def _refusal(self, batch: int) -> str | None:
        if not self.cautious or (need := self._expected(batch)) <= self.memory:
            return None
        if need == math.inf:
            return "not tried: what it is compiled from does not fit"
        return f"out of memory: {binary(need)} expected of the stated {binary(self.memory)}"

    def _expected(self, batch: int) -> float:
        """Bytes that `batch` may take, growing as they did between the two sizes below it."""
        if self.like is not None:
            return self.like(batch) or math.inf
        below = [(n, f.total) for n, f in sorted(self.known.items()) if n < batch and f.total]
        if not below:
            return INPUTS * self.inputs(batch)
        (n, total), steep = below[-1], float(STEEPEST)
        if len(below) > 1:
            before, less = below[-2]
            steep = min(STEEPEST, max(1.0, math.log(total / less) / math.log(n / before)))
        return float(total * (batch / n) ** steep)


def timed(call: Callable[[], Peak]) -> tuple[Peak, float]:
    """A measurement, and the seconds it took."""
    start = time.perf_counter()
    peak = call()
    return peak, time.perf_counter() - start


def _doublings(first: int, end: int) -> list[int]:
    """`first`, doubled while below `end`."""
    found = []
    while first < end:
        found.append(first)
        first *= 2
    return found
